"""The step taken elsewhere: nearby, where chance falls otherwise, and a hair away, where float32 does not follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from harness.case import PRECISIONS, Precision
from harness.following import Follower, Plan, Taken, parameters_of, retake
from harness.mapping import forced_by, mapped
from harness.recipe import Batch, State

NEARBY = 2.0**-9
"""Relative move to another point: far above float32's grain, small against what would change the step."""

FURTHER = 0.1
"""Relative move of parameters to where an explanation must hold too."""

SAMPLES = 3
"""Points nearby at which an alarm is looked at again."""

HAIR = 2.0**-40
"""Relative move that float64 follows and float32 does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A step of both sides. keep: the slots that stay the candidate's own when it begins from the reference's state.

    later: the reference's next step, where it was recorded and cannot be taken from anywhere else.
    """

    plan: Plan
    sides: tuple[Follower, Follower]
    step: int
    reference: Taken
    candidate: Taken
    keep: frozenset[str] = frozenset()
    later: Taken | None = None


def fed_alike(moment: Moment) -> Taken:
    """The candidate's step again from the reference's state, each block fed what the reference's was."""
    states = mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before, moment.keep)
    fed = forced_by(moment.plan, moment.reference, moment.candidate)
    return retake(moment.sides[1], states, moment.sides[1].batches(moment.step), fed)


def nearby(moment: Moment, seed: int, *, forced: bool = True) -> tuple[Taken, Taken]:
    """The step of both sides where every float input and parameter has moved a little, on both alike.

    forced: each block of the candidate is fed what the reference's was.
    """

    def moved(values: np.ndarray, factor: np.ndarray) -> np.ndarray:
        return (values * (1 + NEARBY * factor)).astype(np.float32).astype(values.dtype)

    return _elsewhere(moment, seed, moved, forced)


def further(moment: Moment, seed: int) -> tuple[Moment, Taken]:
    """The moment one step on: from the reference's state behind the step, parameters moved by a tenth, on the same
    batch; and the candidate's step from there, each block fed what the reference's was. Where the sides keep other
    slots it is from the state before the step. A recorded reference's is the next one as it was."""
    sides, taken = moment.sides, moment.reference
    if moment.later:
        states = mapped(moment.plan.pairing, moment.later.before, moment.candidate.before)
        fed = forced_by(moment.plan, moment.later, moment.candidate)
        moment = replace(moment, step=moment.step + 1, reference=moment.later, later=None)
        return moment, retake(sides[1], states, sides[1].batches(moment.step), fed)
    start, other = taken.records["float64"].after, moment.candidate.records["float64"].after
    if start is None or other is None or set(start.slots) != set(other.slots):
        start, other = taken.before["float64"], moment.candidate.before["float64"]
    state = _moved_state(
        moment, start, seed, lambda values, factor: (values * (1 + FURTHER * factor)).astype(values.dtype)
    )
    before: dict[Precision, State] = {precision: _as(state, precision) for precision in PRECISIONS}
    theirs: dict[Precision, State] = {precision: _as(other, precision) for precision in PRECISIONS}
    there = retake(sides[0], before, sides[0].batches(moment.step))
    states = mapped(moment.plan.pairing, before, theirs)
    fed = forced_by(moment.plan, there, moment.candidate)
    moment = replace(moment, reference=there, candidate=replace(moment.candidate, before=theirs))
    return moment, retake(sides[1], states, sides[1].batches(moment.step), fed)


def a_hair_away(moment: Moment) -> tuple[Taken, Taken]:
    """The step of both sides, each block fed alike, where every input and parameter of both has moved by a hair."""
    return _elsewhere(moment, 0, lambda values, factor: (values * (1 + HAIR * factor)).astype(values.dtype), True)


def _elsewhere(
    moment: Moment, seed: int, move: Callable[[np.ndarray, np.ndarray], np.ndarray], forced: bool
) -> tuple[Taken, Taken]:
    sides = moment.sides
    start = _moved_state(moment, moment.reference.before["float64"], seed, move)
    before: dict[Precision, State] = {precision: _as(start, precision) for precision in PRECISIONS}
    batches = [_moved_batches(side, moment.step, seed, move) for side in sides]
    there = retake(sides[0], before, batches[0])
    states = mapped(moment.plan.pairing, before, moment.candidate.before, moment.keep)
    fed = forced_by(moment.plan, there, moment.candidate) if forced else None
    return there, retake(sides[1], states, batches[1], fed)


def _moved_state(
    moment: Moment, state: State, seed: int, move: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> State:
    """What the candidate has too moves, for what it has not stays as it is there (a table that it computes). Slots
    stay: a moved second moment could become negative, and an optimizer's rule is smooth."""
    rng = np.random.default_rng(seed)
    shared = {name for link in moment.plan.pairing.links if link.expected for name in parameters_of(link.reference)}
    values = {
        name: move(array, rng.uniform(-1, 1, array.shape)) if array.dtype.kind == "f" and name in shared else array
        for name, array in state.values.items()
    }
    return replace(state, values=values)


def _moved_batches(
    side: Follower, step: int, seed: int, move: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> dict[Precision, Batch]:
    """The same move for every layout: one factor for each example and input."""
    moved: dict[Precision, Batch] = {}
    for precision, batch in side.batches(step).items():
        rng = np.random.default_rng((seed, 1))
        inputs = tuple(
            move(values, rng.uniform(-1, 1, len(values)).reshape(-1, *[1] * (values.ndim - 1)))
            if values.dtype.kind == "f"
            else values
            for values in batch.inputs
        )
        moved[precision] = replace(batch, inputs=inputs)
    return moved


def _as(state: State, precision: Precision) -> State:
    def cast(values: np.ndarray) -> np.ndarray:
        return values.astype(precision, copy=False) if values.dtype.kind == "f" else values

    return State(
        values={name: cast(values) for name, values in state.values.items()},
        slots={slot: {name: cast(values) for name, values in of.items()} for slot, of in state.slots.items()},
        count=state.count,
    )
