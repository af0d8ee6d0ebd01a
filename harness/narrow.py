"""What a side has in float32 only: computed in float32 in its float64 run, or from numbers that float32 had rounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.case import PRECISIONS, Precision
from harness.comparing import EPS32, Measures
from harness.elsewhere import Moment, a_hair_away
from harness.evidence import rounded
from harness.following import Follower, Plan, Taken, parameters_of, retake, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.recipe import Forced, Record, State
from harness.views import Link, see_value
from harness.widening import moved

ROUNDINGS = 4
"""How many roundings to float32, each of half a unit in the last place, may lie between a number and what is held of
it; a batch norm folded into a kernel takes four. A constant that is off by a millionth is 17 to 34 of them off."""

DRAWS = 3
"""Ways to round that are tried; of two constants one may by chance make up for the other."""

PLAIN = 8.0
"""How many times farther than the float32 runs, and than float32's own grain, the float64 runs must be apart."""


def only_float32(
    moment: Moment, alone: Taken, own: Measures, near: Sequence[Measures], suspects: Sequence[int], coarse: int | None
) -> list[int]:
    """Those of the suspects (quantities whose difference float32 explains) that one side computes in float32 in its
    float64 run, with what comes behind one; and those made of numbers that were themselves rounded to float32.

    alone: the candidate's forced step. near: measures at points nearby. coarse: the first quantity known before.
    """
    away = a_hair_away(moment)
    inside = (
        i
        for i in suspects
        if _on_grid(moment, i, alone) or _stays(moment, i, alone, away, own) or _only_there(i, (own, *near))
    )
    first = min(next(inside, len(own.layout.quantities)), len(own.layout.quantities) if coarse is None else coarse)
    left, rounded_before = [i for i in suspects if i < first], list[int]()
    told = np.zeros(len(own.layout.quantities))
    for again in _rounded_otherwise(moment) if left else ():
        told[left] = np.fmax(told[left], [_changes(moment, i, alone, again, own) for i in left])
        rounded_before = _made_of_rounded(left, own.d64[0], told)
        if rounded_before == left:
            break
    return [*rounded_before, *(i for i in suspects if i >= first)]


def _made_of_rounded(suspects: Sequence[int], apart: np.ndarray, told: np.ndarray) -> list[int]:
    """Those which the way of rounding changes by as much as the sides are apart. Behind the first, which proves that
    there are such numbers, chance may have changed a single one by less."""
    found: list[int] = []
    for i in suspects:
        if apart[i] <= (K if found else ROUNDINGS) * told[i]:
            found.append(i)
    return found


def float64_throughout(sides: Sequence[Follower]) -> bool:
    """Whether all that both sides' users store is float64: then none of it was rounded to float32."""
    stored = {p.dtype for side in sides for p in side.watched["float64"].parameters if "float" in p.dtype}
    return stored == {"float64"}


def _on_grid(moment: Moment, i: int, alone: Taken) -> bool:
    """One side's float64 lies on the float32 grid, the other's does not."""
    pair = shown(moment.plan.compared[i], moment.reference, alone)
    grids = [bool((values == values.astype(np.float32)).all()) for values in pair]
    return grids[0] != grids[1] and all(values.any() for values in pair)


def _stays(moment: Moment, i: int, alone: Taken, away: tuple[Taken, Taken], own: Measures) -> bool:
    """One side does not follow its inputs by the hair that the other does."""
    quantity = moment.plan.compared[i]
    here, there = shown(quantity, moment.reference, alone), shown(quantity, *away)
    follows = [now - was for now, was in zip(there, here, strict=True)]
    sizes = [float(np.abs(follow).max()) for follow in follows]
    resolvable = max(sizes) > K * own.budget[0, i]
    smooth = max(sizes) <= K * EPS32 * own.size[0, i]  # float32's steps, no flipped mask
    return resolvable and smooth and bool(np.abs(follows[1] - follows[0]).max() > max(sizes) / 2)


def _only_there(i: int, points: Sequence[Measures]) -> bool:
    """The float64 runs are apart, here and nearby, by what float32 would show, and the float32 runs are not: they are
    the same function as the user runs it."""
    return all(m.d64[0, i] > PLAIN * max(m.d32[0, i], EPS32 * m.size[0, i]) for m in points)


def _rounded_otherwise(moment: Moment) -> Iterator[tuple[Taken, Taken]]:
    """Both sides' steps, each block fed what the reference's was, where the numbers that a side alone holds in float32
    were rounded another way."""
    plan, sides = moment.plan, moment.sides
    states = (
        moment.reference.before,
        mapped(plan.pairing, moment.reference.before, moment.candidate.before, moment.keep),
    )
    fed = _own_values(plan, moment.reference), forced_by(plan, moment.reference, moment.candidate)
    for seed in range(DRAWS):
        again = []
        for role in (0, 1):
            follower = sides[role]
            if follower.anew:
                other = follower.anew(moved(seed))
                follower = replace(follower, watched={**follower.watched, "float64": other})
            before = dict(states[role])
            if not float64_throughout(sides):
                before["float64"] = _moved(moment, role, before["float64"], seed)
            again.append(retake(follower, before, follower.batches(moment.step), fed[role]))
        yield again[0], again[1]


def _changes(moment: Moment, i: int, alone: Taken, again: tuple[Taken, Taken], own: Measures) -> float:
    """By how much the way of rounding changes a quantity, on both sides together."""
    quantity = moment.plan.compared[i]
    pairs = zip(shown(quantity, moment.reference, alone), shown(quantity, *again), strict=True)
    change = sum(float(np.abs(one - other).max(initial=0)) for one, other in pairs)
    return change if change <= K * EPS32 * own.size[0, i] else 0.0  # else it is no rounding: a mask has flipped


def _own_values(plan: Plan, taken: Taken) -> dict[Precision, Forced]:
    """What the reference's blocks were fed, by its own names."""
    return {precision: _own_value(plan, taken.records[precision]) for precision in PRECISIONS}


def _own_value(plan: Plan, record: Record) -> Forced:
    shared = {quantity.reference for quantity in plan.compared if quantity.aligned}
    return Forced(
        activations={name: of for name, of in record.activations.items() if name in shared},
        cotangents={name: of for name, of in record.cotangents.items() if name in shared},
        gradients={name: of for name, of in record.gradients.items() if of is not None},
    )


def _moved(moment: Moment, role: int, state: State, seed: int) -> State:
    """A side's state where the numbers that are not the other side's too were rounded to float32 another way."""
    pairs = [((link.reference, link.candidate)[role], link) for link in moment.plan.pairing.links]
    kept = {name for of, link in pairs if link.expected or another(moment, link) for name in parameters_of(of)}
    buffers = {p.name for p in moment.sides[role].watched["float64"].parameters if p.buffer}
    each, largest = moved(seed), moved(seed, of_largest=True)
    values = {
        name: (each if name in buffers else largest)(rounded(array))
        for name, array in state.values.items()
        if name not in kept and array.dtype.kind == "f"
    }
    return replace(state, values={**state.values, **values})


def another(moment: Moment, link: Link) -> bool:
    """Whether the two sides hold different numbers, not one that was rounded otherwise: where most are the same bits,
    and some are apart by more than few roundings (of the largest number) explain."""
    dtype = np.float64 if float64_throughout(moment.sides) else np.float32
    own, theirs = (
        see_value(side, taken.before["float64"].values).astype(dtype)
        for side, taken in ((link.reference, moment.reference), (link.candidate, moment.candidate))
    )
    apart = np.abs(own - theirs)
    return bool((apart > 0).mean() < 0.5 and apart.max() > ROUNDINGS * np.spacing(np.abs(own).max()))
