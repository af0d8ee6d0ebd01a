"""Which activation of one model is which of the other: by value in float64, blind to layout and to module structure.

What no value settles (everything behind a difference) is settled by the parameters: a layer's output is the output of
the layer that has the other side's parameters; between two such anchors, by size and order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.recipe import Record, Shape
from harness.views import View, put, see, seen_shape

SIMILAR = 1e-2
"""Largest difference, relative to the tensor's size, at which two activations still are taken for the same quantity;
whether they are equal is for the verdict to say."""

MOMENTS = 0.05
"""How far the moments of two such activations can be apart."""

EQUAL = 1e-6
"""Of that difference there is no doubt."""

CLOSER = 0.5
"""A layout of two activations that differ is believed if it halves the difference in the usual one."""

ROUNDS = 60
RANK = 5
CALLS = 9

Activations = Mapping[str, np.ndarray]
Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aligned:
    """One activation of the reference and what it is in the candidate; view makes the candidate's the reference's.

    by: "value" or "structure".
    """

    reference: str
    candidate: str
    view: View
    by: str


def align_activations(
    reference: Record,
    candidate: Record,
    forward: Callable[[Activations], Record],
    anchors: Sequence[tuple[str, str]],
    opaque: Collection[str] = (),
    inputs: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> tuple[Aligned, ...]:
    """Pairs of activations, in the reference's order of computation.

    reference, candidate: their float64 records of the same examples. forward: the candidate's when activations are
    forced to the given values. anchors: pairs of layers that have the same parameters. opaque: layers, of either side,
    whose inside is the framework's own and need not correspond. inputs: what both models read, whose layout says how
    images lie where no value does.
    """
    wanted, own = reference.activations, candidate.activations
    usual = [
        _moves(found[1], pair[1].ndim)
        for pair in inputs
        if (found := matching_view(*pair)) is not None and found[0] <= EQUAL
    ]
    last, inner = _last_ones(anchors, list(wanted), list(own), opaque)
    layers = _partners(last, wanted, own)
    outputs = _partners(list(zip(reference.outputs, candidate.outputs, strict=False)), wanted, own)
    partner = {**layers, **{one: other for one, other in outputs.items() if one not in layers}}
    shapes = tuple(dict.fromkeys(values.shape[1:] for values in own.values() if 3 <= values.ndim <= RANK))
    known: tuple[set[str], dict[str, Axes]] = (set(), {})
    pairs = _by_value(wanted, own, shapes, layers, outputs, known)
    for _ in range(ROUNDS):
        paired, taken = {pair.reference for pair in pairs}, {pair.candidate for pair in pairs}
        left = {name: values for name, values in wanted.items() if name not in paired}
        forced = forward(forced_values(pairs, wanted, own)).activations
        free = {name: values for name, values in forced.items() if name not in taken}
        found = _by_value(left, free, shapes, layers, outputs, known)
        if not found:
            left, free = (
                {n: v for n, v in of.items() if not _inside(n, opaque) and _layer(n) not in within}
                for of, within in zip((left, free), inner, strict=True)
            )
            seen = [known[1][name] for name in own if name in known[1]]
            layouts_seen = Seen(axes=usual + seen, shapes=shapes, examples=len(inputs[0][0]) if inputs else None)
            found = _next_by_structure(left, free, partner, pairs, list(wanted), list(own), layouts_seen)
        if not found:
            break
        pairs += found
    order = list(wanted)
    return tuple(sorted(pairs, key=lambda pair: order.index(pair.reference)))


def forced_values(pairs: Sequence[Aligned], reference: Activations, candidate: Activations) -> dict[str, np.ndarray]:
    """The reference's values in the candidate's names and layouts; candidate: arrays of the shapes wanted."""
    values: dict[str, np.ndarray] = {}
    for pair in pairs:
        if pair.reference in reference and pair.candidate in candidate:
            values[pair.candidate] = np.empty(candidate[pair.candidate].shape, reference[pair.reference].dtype)
            put(pair.view, values[pair.candidate], reference[pair.reference])
    return values


# --- by value ---------------------------------------------------------------------------------------------------


def _by_value(
    reference: Activations,
    candidate: Activations,
    shapes: Sequence[Shape],
    layers: Mapping[str, str],
    outputs: Mapping[str, str],
    known: tuple[set[str], dict[str, Axes]],
) -> list[Aligned]:
    """Pairs that agree: as many as possible in the same order of computation, the closest first, then the others.

    Two layers with parameters are no pair if each has another partner, even if the values are crossed; what has a
    partner, a layer or an output of the model, pairs with something else only if that is equal. What was equal to
    anything once (known, which grows: names of the reference, and of the candidate with the axes in which it was) pairs
    with nothing merely similar.
    """
    rows, columns = list(reference), list(candidate)
    moments = [{name: _moments(values) for name, values in side.items()} for side in (reference, candidate)]
    found: dict[tuple[int, int], tuple[float, View]] = {}
    for (i, one), (j, other) in itertools.product(enumerate(rows), enumerate(columns)):
        if _close(moments[0][one], moments[1][other]) and _strangers(one, other, layers) < 2:
            match = matching_view(reference[one], candidate[other], shapes)
            doubtful = _strangers(one, other, layers) or _strangers(one, other, outputs)
            if match is not None and match[0] <= (EQUAL if doubtful else SIMILAR):
                found[i, j] = match
    sure = [ij for ij, (gap, _) in found.items() if gap <= EQUAL]
    known[0].update(rows[i] for i, _ in sure)
    known[1].update((columns[j], _moves(found[i, j][1], candidate[columns[j]].ndim)) for i, j in sure)
    for i, j in set(found) - set(sure):
        if rows[i] in known[0] or columns[j] in known[1]:
            del found[i, j]
    gain = {ij: 1 - math.log10(gap + 1e-17) for ij, (gap, _) in found.items()}
    chosen = _in_order(len(rows), len(columns), gain)
    for i, j in sorted(found, key=lambda ij: found[ij][0]):
        if all(i != row and j != column for row, column in chosen):
            chosen.append((i, j))
    return [
        Aligned(reference=rows[i], candidate=columns[j], view=found[i, j][1], by="value") for i, j in sorted(chosen)
    ]


def _strangers(one: str, other: str, partner: Mapping[str, str]) -> int:
    """How many of two activations have another partner; the calls of a shared layer may come in any order."""
    rows = [b for a, b in partner.items() if a == one]
    columns = [a for a, b in partner.items() if b == other]
    return sum(
        bool(owners) and all(_layer(name) != _layer(owner) for owner in owners)
        for name, owners in ((other, rows), (one, columns))
    )


def _inside(name: str, layers: Collection[str]) -> bool:
    return any(name[:i] in layers for i, letter in enumerate(name) if letter == "/") and not name.endswith("/linear")


def _layer(name: str) -> str:
    return name.partition("#")[0]


def _moments(values: np.ndarray) -> tuple[int, float, float, float] | None:
    """Size, mean magnitude, root mean square, largest: the same in every layout. None for what tells nothing."""
    magnitudes = np.abs(values)
    if not values.size or not np.isfinite(values).all() or np.ptp(values) == 0:
        return None
    return values.size, float(magnitudes.mean()), float(np.sqrt((magnitudes**2).mean())), float(magnitudes.max())


def _close(one: tuple | None, other: tuple | None) -> bool:
    if one is None or other is None or one[0] != other[0]:
        return False
    return all(abs(a - b) <= MOMENTS * max(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def _in_order(rows: int, columns: int, gain: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """The pairs (i, j), both increasing, of the largest total gain."""
    best = np.zeros((rows + 1, columns + 1))
    for i, j in itertools.product(range(rows), range(columns)):
        taken = best[i, j] + gain[i, j] if (i, j) in gain else 0.0
        best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], taken)
    chosen, i, j = [], rows, columns
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            chosen.append((i, j))
    return chosen[::-1]


def matching_view(
    reference: np.ndarray, candidate: np.ndarray, shapes: Sequence[Shape] = ()
) -> tuple[float, View] | None:
    """The layout in which the candidate comes closest, with the largest difference left, relative to the size.

    shapes: of an example elsewhere in the candidate, which may have been flattened to this one.
    """
    reference, candidate = (values.astype(float, copy=False) for values in (reference, candidate))  # inputs: any type
    scale = float(np.abs(reference).max()) or 1.0
    best: tuple[float, View] | None = None
    for view in (*layouts(reference.shape, candidate.shape), *_flattened(reference.shape, candidate.shape, shapes)):
        gap = float(np.abs(reference - see(view, candidate)).max()) / scale
        if best is None or gap < best[0]:
            best = gap, view
        if gap <= 1e-9:
            break
    if best is None or best[0] > SIMILAR:
        best = _permuted(reference, candidate, scale) or best
    return best


def layouts(reference: Shape, candidate: Shape) -> list[View]:
    """Ways to see a candidate's shape as the reference's: axes permuted, then reshaped; the plain ones first."""
    if math.prod(reference) != math.prod(candidate):
        return []
    rank = len(candidate)
    # the last batch may be smaller; torch's recurrences put another axis before it
    batch = reference.index(candidate[0]) if candidate and candidate[0] in reference else 0
    any_batch = (*reference[:batch], -1, *reference[batch + 1 :])
    moves = itertools.permutations(range(rank)) if rank <= RANK else iter([tuple(range(rank))])
    views: list[View] = []
    for axes in moves:
        moved = tuple(candidate[axis] for axis in axes)
        plain = axes == tuple(range(rank))
        if moved == reference or plain or rank != len(reference):
            views.append(View(axes=None if plain else axes, result=None if moved == reference else any_batch))
    return views


def _flattened(reference: Shape, candidate: Shape, shapes: Sequence[Shape]) -> Iterator[View]:
    """Features of an example that were an image, in another order of its axes."""
    if len(reference) != 2 or len(candidate) != 2:
        return
    for shape in shapes:
        if math.prod(shape) == candidate[1] == reference[1]:
            for axes in itertools.permutations(range(len(shape))):
                order = np.arange(candidate[1]).reshape(shape).transpose(axes).ravel()
                yield View(order=(1, order))


def _permuted(reference: np.ndarray, candidate: np.ndarray, scale: float) -> tuple[float, View] | None:
    """A general permutation of each example's features, found by sorting a random projection of the examples: features
    that rounding cannot tell apart there are equal in all of them."""
    if reference.ndim < 2 or candidate.ndim < 2 or reference.shape[0] != candidate.shape[0]:
        return None
    one, other = (values.reshape(len(values), -1) for values in (reference, candidate))
    order = np.empty(one.shape[1], np.intp)
    weights = np.random.default_rng(0).standard_normal(len(one))
    order[np.argsort(weights @ one)] = np.argsort(weights @ other)
    gap = float(np.abs(one - other[:, order]).max()) / scale
    if gap > SIMILAR:
        return None
    return gap, View(shape=(-1, order.size), order=(1, order), result=(-1, *reference.shape[1:]))


# --- by structure -----------------------------------------------------------------------------------------------


def _next_by_structure(
    left: Activations,
    free: Activations,
    partner: Mapping[str, str],
    pairs: Sequence[Aligned],
    rows: Sequence[str],
    columns: Sequence[str],
    seen: Seen,
) -> list[Aligned]:
    """The first pair, in the reference's order, that parameters, or size and order between two pairs, suggest."""
    place = {pair.reference: columns.index(pair.candidate) for pair in pairs}
    partners = [(name, other) for name, other in partner.items() if other in free and name in left]
    ahead = {a: columns.index(b) for a, b in partners if _usual(left[a].shape, free[b].shape, seen)}
    by_value = {pair.reference for pair in pairs if pair.by == "value"}
    claimed = {partner[name] for name in ahead}
    for i, name in enumerate(rows):
        if name not in left:
            continue
        if name in ahead:
            return [_structural(name, partner[name], left[name], free[partner[name]], seen)]
        following = next((row for row in rows[i + 1 :] if row in place), None)
        if following in by_value:
            continue  # what the two show between two places where they agree need not correspond
        before = max((place[row] for row in rows[:i] if row in place), default=-1)
        later = [known[row] for known in (place, ahead) for row in rows[i + 1 :] if row in known]
        after = min((column for column in later if column > before), default=len(columns))
        between = [c for c in columns[before + 1 : after] if c in free and c not in claimed]
        fitting = [c for c in between if _usual(left[name].shape, free[c].shape, seen)]
        if fitting:
            return [_structural(name, fitting[0], left[name], free[fitting[0]], seen)]
    return []


def _last_ones(
    anchors: Sequence[tuple[str, str]], rows: Sequence[str], columns: Sequence[str], opaque: Collection[str]
) -> tuple[list[tuple[str, str]], tuple[set[str], set[str]]]:
    """The anchors of layers that end together: a layer that has the parameters of several (two recurrences in one, a
    whole attention) shows what the last of them computes. Then, of either side, the layers within such ones."""
    shown = [(_showing(one, rows, opaque), _showing(other, columns, opaque)) for one, other in anchors]
    pairs = [(one, other) for one, other in shown if one and other]
    kept = [
        (one, other)
        for one, other in pairs
        if other == max((b for a, b in pairs if a == one), key=lambda name: _place(name, columns))
        and one == max((a for a, b in pairs if b == other), key=lambda name: _place(name, rows))
    ]
    ends = [{pair[side] for pair in kept} for side in (0, 1)]
    within = [{pair[side] for pair in pairs} - ends[side] for side in (0, 1)]
    return list(dict.fromkeys(kept)), (within[0], within[1])


def _showing(layer: str, names: Sequence[str], opaque: Collection[str]) -> str:
    """The layer, or the framework's own one around it that shows nothing of its inside; "" where there is none."""
    if _place(layer, names) >= 0:
        return layer
    around = [layer[:i] for i, letter in enumerate(layer) if letter in "./" and layer[:i] in opaque]
    return next((name for name in reversed(around) if _place(name, names) >= 0), "")


def _place(layer: str, names: Sequence[str]) -> int:
    """Where a layer's own output is in the order of computation; -1 where it is not shown."""
    return next((names.index(name) for name in (layer, f"{layer}/linear") if name in names), -1)


def _partners(anchors: Sequence[tuple[str, str]], reference: Activations, candidate: Activations) -> dict[str, str]:
    """Which activation, by name, the anchors make which: for every call of a layer; a layer with an activation of its
    own shows what comes before it too, and that is what a bare layer computes."""
    found = {}
    for one, other in anchors:
        for call in ("", *(f"#{k}" for k in range(2, CALLS + 1))):
            bare = [f"{name}{call}/linear" in side for name, side in ((one, reference), (other, candidate))]
            names = [(f"{one}{call}", f"{other}{call}"), (f"{one}{call}/linear", f"{other}{call}/linear")]
            if bare[0] != bare[1]:
                names = [(f"{one}{call}{bare[0] * '/linear'}", f"{other}{call}{bare[1] * '/linear'}")]
            # a layer that hands on only its last step is not the one that hands on all
            names = [(a, b) for a, b in names if a in reference and b in candidate]
            found.update({a: b for a, b in names if reference[a].size == candidate[b].size})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What tells the layout of a pair that no value does: axes of what does agree, in the order of computation, shapes
    of an example that may have been flattened, and how many examples there are."""

    axes: Sequence[Axes]
    shapes: Sequence[Shape]
    examples: int | None


def _structural(name: str, other: str, reference: np.ndarray, candidate: np.ndarray, seen: Seen) -> Aligned:
    """A pair in the layout most usual among those seen; in another one only where that is much closer."""
    scale = float(np.abs(reference).max()) or 1.0
    view = _usual(reference.shape, candidate.shape, seen)
    assert view is not None
    closest = matching_view(reference, candidate, seen.shapes) if np.isfinite(candidate).all() else None
    if closest is not None and closest[0] < CLOSER * np.abs(reference - see(view, candidate)).max() / scale:
        view = closest[1]
    return Aligned(reference=name, candidate=other, view=view, by="structure")


def _usual(reference: Shape, candidate: Shape, seen: Seen) -> View | None:
    """The layout that is most usual among those seen, of those that give the reference's shape, best by moving axes;
    else the plainest. None where every layout would mix the examples."""
    views = [
        view
        for view in layouts(reference, candidate)
        if (view.result is not None or seen_shape(view, candidate)[1:] == reference[1:])
        and not _mixes(view, reference, candidate, seen.examples)
    ]
    fitting = [view for view in views if view.result is None or view.axes is None] or views
    rank = len(candidate)
    plain = [*reversed(channel_moves(rank)), tuple(range(rank))]

    def likely(view: View) -> tuple[bool, int, int, int]:
        axes = _moves(view, rank)
        last = max((i for i, of in enumerate(seen.axes) if of == axes), default=-1)
        return view.result is None, seen.axes.count(axes), last, plain.index(axes) if axes in plain else -1

    return max(fitting, key=likely, default=None)


def _mixes(view: View, reference: Shape, candidate: Shape, examples: int | None) -> bool:
    """Both sides have an axis of examples, and the view does not make one the other."""
    if candidate.count(examples) != 1 or examples not in reference:
        return False
    own = np.expand_dims(np.arange(examples), [i for i, n in enumerate(candidate) if n != examples])
    shown = see(view, np.broadcast_to(own, candidate))
    axes = [i for i, length in enumerate(reference) if length == examples]
    return not any((np.moveaxis(shown, axis, -1) == np.arange(examples)).all() for axis in axes)


def _moves(view: View, rank: int) -> Axes:
    """The axes of a candidate in the order in which they are seen."""
    return tuple(range(rank)) if view.axes is None else view.axes


def channel_moves(rank: int) -> tuple[Axes, Axes]:
    """From channels last to channels first, and back."""
    inner = tuple(range(1, rank))
    return (0, *inner[-1:], *inner[:-1]), (0, *inner[1:], *inner[:1])
