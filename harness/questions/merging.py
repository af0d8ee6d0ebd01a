"""Two trees as one, whose places hold what either side has there: the fewest differences between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.editing import Parts, differing
from harness.ops import GRU, LSTM, Attention, BatchNorm, Combine, Dropout, MultiHeadAttention, Reduce, SimpleRNN
from harness.questions.chains import applied
from harness.questions.trees import Arrays, Leaf, Node, Tree, size
from reference.kinds import apply

OPTIONAL = (SimpleRNN, LSTM, GRU, Attention, MultiHeadAttention, BatchNorm, Reduce, Dropout)
"""Ops that may have further inputs behind their own."""

WHOLE = 4
"""Fields that a whole op counts for."""

ELSEWHERE = 3
"""What reading another shared value counts for."""

NEVER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """A shared value that is read."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """A shared value that is read where the other side reads another, and the other way round."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What a side lets count, of its own: which side's."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The parameters of another op of the same kind, whose ones that op has: which side's."""

    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """An op, by its slot among the parts; where it is absent, the input `through` goes on as it is. held: the
    parameters that it may have, the likeliest first; weights: the slot that says whose they are, -1: either."""

    slot: int
    inputs: tuple[Merged, ...]
    through: int
    held: tuple[Arrays, ...]
    weights: int = -1


Merged = Place | Node | Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two trees as one, and the parts of either side; values: what is shared, by name."""

    tree: Merged
    parts: tuple[Parts, Parts]
    values: Mapping[str, np.ndarray]


def merged(one: Tree, other: Tree, values: Mapping[str, np.ndarray]) -> Pair | None:
    """None where the two begin at values that have nothing to do with each other."""
    merging = _Merging({}, {}, [], {})
    if merging.cost(one, other) >= NEVER:
        return None
    tree = merging.built(one, other)
    merging.only_crossed_weights()
    crossed = [(i, pair) for i, pair in enumerate(merging.parts) if isinstance(pair[0], Reads)]
    sources = [Counter(pair[side].source for _, pair in crossed) for side in (0, 1)]
    if sources[0] == sources[1]:
        for i, pair in crossed:
            merging.parts[i] = (Exchanged(source=pair[0].source), Exchanged(source=pair[1].source))
    return Pair(
        tree=tree,
        parts=(tuple(pair[0] for pair in merging.parts), tuple(pair[1] for pair in merging.parts)),
        values=values,
    )


@dataclass(slots=True)
class _Merging:
    costs: dict[tuple[int, int], tuple[int, tuple[Any, ...]]]
    places: dict[tuple[int, int], Merged]
    parts: list[tuple[Any, Any]]
    weights: dict[int, tuple[Arrays, Arrays]]

    def only_crossed_weights(self) -> None:
        """Weights are edits where each op has those of another one; else they belong to their ops."""
        held = list(self.weights.values())
        if not all(any(_alike(one, theirs) for _, theirs in held) for one, _ in held):
            self.parts = [(None, None) if i in self.weights else pair for i, pair in enumerate(self.parts)]

    def cost(self, one: Tree, other: Tree) -> int:
        key = id(one), id(other)
        if key not in self.costs:
            self.costs[key] = min(self._choices(one, other), key=lambda choice: choice[0], default=(NEVER, ()))
        return self.costs[key][0]

    def _choices(self, one: Tree, other: Tree) -> list[tuple[int, tuple[Any, ...]]]:
        if isinstance(one, Leaf) and isinstance(other, Leaf):
            if np.array_equal(one.value, other.value):
                return [(0, ("leaf",))]
            if one.value.dtype == bool == other.value.dtype:
                return [(1, ("mask",))]
            alike = one.name and other.name and one.value.shape == other.value.shape
            return [(ELSEWHERE, ("reads",))] if alike else []
        found = []
        if isinstance(one, Node) and isinstance(other, Node) and _comparable(one, other):
            own = _unlike(one.op, other.op)
            for order in _orders(one.op, min(len(one.inputs), len(other.inputs))):
                pairs = [(one.inputs[i], other.inputs[j]) for i, j in enumerate(order)]
                found.append((own + sum(self.cost(a, b) for a, b in pairs), ("both", order)))
        if isinstance(one, Node):
            extra = WHOLE + sum(map(size, one.inputs))
            found += [(extra - size(read) + self.cost(read, other), ("one", k)) for k, read in enumerate(one.inputs)]
        if isinstance(other, Node):
            extra = WHOLE + sum(map(size, other.inputs))
            found += [(extra - size(read) + self.cost(one, read), ("other", k)) for k, read in enumerate(other.inputs)]
        return found

    def built(self, one: Tree, other: Tree) -> Merged:
        key = id(one), id(other)
        if key not in self.places:
            self.places[key] = self._built(one, other, self.costs[key][1])
        return self.places[key]

    def _built(self, one: Any, other: Any, choice: tuple[Any, ...]) -> Merged:
        match choice:
            case ("leaf",):
                return one
            case ("reads",):
                return self._place((Reads(source=one.name), Reads(source=other.name)), (), 0, ())
            case ("mask",):
                return self._place((Mask(source="reference"), Mask(source="candidate")), (one, other), 0, ())
            case ("both", order):
                shared = tuple(self.built(one.inputs[i], other.inputs[j]) for i, j in enumerate(order))
                inputs = (*shared, *one.inputs[len(order) :], *other.inputs[len(order) :])
                place = self._place((one.op, other.op), inputs, 0, (one.parameters, other.parameters))
                return self._weighed(place, type(one.op) is type(other.op))
            case ("one", k):
                inputs = tuple(self.built(read, other) if i == k else read for i, read in enumerate(one.inputs))
                return self._place((one.op, None), inputs, k, (one.parameters,))
            case (_, k):
                inputs = tuple(self.built(one, read) if i == k else read for i, read in enumerate(other.inputs))
                return self._place((None, other.op), inputs, k, (other.parameters,))
        raise AssertionError

    def _place(self, ops: tuple[Any, Any], inputs: tuple[Merged, ...], through: int, held: tuple[Arrays, ...]) -> Place:
        self.parts.append(ops)
        return Place(len(self.parts) - 1, inputs, through, held)

    def _weighed(self, place: Place, of_a_kind: bool) -> Place:
        one, other = place.held
        if not (of_a_kind and one) or [a.shape for a in one] != [a.shape for a in other] or _alike(one, other):
            return place
        self.parts.append((Weights(source="reference"), Weights(source="candidate")))
        self.weights[len(self.parts) - 1] = one, other
        return replace(place, weights=len(self.parts) - 1)


def _alike(one: Arrays, other: Arrays) -> bool:
    """The same parameters, to within float32's rounding of what was added up."""
    return len(one) == len(other) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-6 * float(np.abs(a).max(initial=0.0)))
        for a, b in zip(one, other, strict=True)
    )


def _comparable(one: Node, other: Node) -> bool:
    """As many inputs; a mask or an initial state that one of them has besides leaves the other as it is."""
    return len(one.inputs) == len(other.inputs) or type(one.op) is type(other.op) in OPTIONAL


def _unlike(one: Any, other: Any) -> int:
    return sum(1 if edit.field else WHOLE for edit in differing((one,), (other,)))


def _orders(op: Any, count: int) -> Sequence[tuple[int, ...]]:
    """In which order another op's inputs may be taken for an op's."""
    plain = tuple(range(count))
    commutes = isinstance(op, Combine) and op.kind in ("add", "multiply", "average", "maximum", "minimum")
    return (plain, plain[::-1]) if commutes and count == 2 else (plain,)


def evaluated(pair: Pair, parts: Parts) -> np.ndarray:
    """What the reference makes of parts in the places of two trees."""
    known: dict[int, np.ndarray] = {}

    def value(tree: Merged) -> np.ndarray:
        if id(tree) not in known:
            known[id(tree)] = made(tree)
        return known[id(tree)]

    def made(tree: Merged) -> np.ndarray:
        if isinstance(tree, Leaf):
            return tree.value
        if isinstance(tree, Node):
            return apply(tree.op, tuple(map(value, tree.inputs)), tree.parameters)
        op = parts[tree.slot]
        if isinstance(op, Reads | Exchanged):
            return pair.values[op.source]
        if isinstance(op, Mask):
            return value(tree.inputs[op.source == "candidate"])
        if op is None:
            return value(tree.inputs[tree.through])
        weights = parts[tree.weights] if tree.weights >= 0 else None
        held = tree.held[::-1] if weights == Weights(source="candidate") else tree.held
        return applied(op, tuple(map(value, tree.inputs)), held)

    return value(pair.tree)
