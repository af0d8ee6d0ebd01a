"""Own errors and inherited ones: the candidate's step is taken again with every block fed what the reference's was.

Each block then computes from the reference's inputs and cotangents, the optimizer from the reference's gradients and
state. What still differs is the block's own; what does not was inherited, or was rounding that a later block amplified.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.activations import Aligned
from harness.case import PRECISIONS, Precision
from harness.comparing import EPS32, SHRINK, Measures
from harness.following import Follower, Plan, Taken, forced_by, mapped, measures_of, retake, shown
from harness.judging import K
from harness.recipe import Batch, Forced, State
from harness.views import View, put

SAMPLES = 3
NEARBY = 2.0**-9
"""Relative move to another point: far above float32's grain, small against what would change the step."""

SILENT = ("slot", "parameter")
"""Kinds that never are an own error: slots are bookkeeping, a parameter is the sum of its updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The own errors of one step: measures of the forced step, and which quantities differ by themselves.

    because (quantities,): "" for a plain difference, else why it is none (kink, one precision) where alarmed.
    """

    measures: Measures
    different: np.ndarray
    because: np.ndarray


def own_errors(
    plan: Plan,
    sides: tuple[Follower, Follower],
    step: int,
    reference: Taken,
    candidate: Taken,
    measures: Measures,
    keep: Collection[str],
    known: Collection[str],
) -> Own:
    """Take the candidate's step again on the reference's values; confirm what differs at points nearby. keep: the slots
    that stay the candidate's own. known: quantities that need no more confirmation."""
    batches = sides[0].batches(step), sides[1].batches(step)
    forced = forced_by(plan, reference, candidate)
    alone = retake(sides[1], mapped(plan.pairing, reference.before, candidate.before, keep), batches[1], forced)
    own = measures_of(plan, reference, alone)
    own.noise_candidate = np.fmax(own.noise_candidate, measures.noise_candidate)
    loud = np.array([quantity.kind not in SILENT for quantity in plan.compared])
    alarms = (~(own.ratio <= K)[0]) & loud
    because = np.full(len(loud), "", dtype=object)
    if all(plan.compared[i].name in known for i in np.flatnonzero(alarms).tolist()):
        return Own(measures=own, different=alarms, because=because)
    near = [_nearby(plan, sides, step, reference, candidate, keep, seed) for seed in range(SAMPLES)]
    with np.errstate(invalid="ignore"):
        own.spread[0] = np.max([m.noise[0] * SHRINK for m in near], axis=0)
        alarms &= ~(own.ratio <= K)[0]
        vanished = alarms & np.all([(m.ratio <= K)[0] for m in near], axis=0)
    for i in np.flatnonzero(vanished).tolist():
        # A tie is the same in both precisions; a kink is where rounding decides, and it decides anew in each.
        gaps = [np.subtract(*_pair(plan, i, reference, alone, precision)) for precision in PRECISIONS]
        if np.abs(gaps[0] - gaps[1]).max() > 0.1 * np.abs(gaps[1]).max():
            because[i] = "kink"
    for i in np.flatnonzero(alarms & (because == "")).tolist():
        if _float32_inside(plan, i, reference, alone, own):
            because[i] = "one precision"
    return Own(measures=own, different=alarms & (because == ""), because=because)


def _nearby(
    plan: Plan,
    sides: tuple[Follower, Follower],
    step: int,
    reference: Taken,
    candidate: Taken,
    keep: Collection[str],
    seed: int,
) -> Measures:
    """The same comparison where every float input and parameter has moved a little, on both sides alike."""
    start = _moved_state(reference.before["float64"], seed)
    before: dict[Precision, State] = {precision: _as(start, precision) for precision in PRECISIONS}
    batches = [_moved_batches(side, step, seed) for side in sides]
    there = retake(sides[0], before, batches[0])
    states = mapped(plan.pairing, before, candidate.before, keep)
    return measures_of(plan, there, retake(sides[1], states, batches[1], forced_by(plan, there, candidate)))


def _moved_state(state: State, seed: int) -> State:
    """Slots stay: a moved second moment could become negative, and an optimizer's rule is smooth."""
    rng = np.random.default_rng(seed)
    return replace(state, values={name: _moved(values, rng) for name, values in state.values.items()})


def _moved_batches(side: Follower, step: int, seed: int) -> dict[Precision, Batch]:
    """The same move for every layout: one factor for each example and input."""
    moved: dict[Precision, Batch] = {}
    for precision, batch in side.batches(step).items():
        rng = np.random.default_rng((seed, 1))
        inputs = tuple(
            (values * _factor(rng, values)).astype(np.float32).astype(precision) if values.dtype.kind == "f" else values
            for values in batch.inputs
        )
        moved[precision] = replace(batch, inputs=inputs)
    return moved


def _factor(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    return (1 + NEARBY * rng.uniform(-1, 1, len(values))).reshape(-1, *[1] * (values.ndim - 1))


def _moved(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if values.dtype.kind != "f":
        return values
    return (values * (1 + NEARBY * rng.uniform(-1, 1, values.shape))).astype(np.float32).astype(values.dtype)


def _as(state: State, precision: Precision) -> State:
    def cast(values: np.ndarray) -> np.ndarray:
        return values.astype(precision) if values.dtype.kind == "f" else values

    return State(
        values={name: cast(values) for name, values in state.values.items()},
        slots={slot: {name: cast(values) for name, values in of.items()} for slot, of in state.slots.items()},
        count=state.count,
    )


def _pair(plan: Plan, i: int, reference: Taken, alone: Taken, precision: Precision) -> tuple[np.ndarray, np.ndarray]:
    return shown(plan.compared[i], reference, alone, precision)


def _float32_inside(plan: Plan, i: int, reference: Taken, alone: Taken, own: Measures) -> bool:
    """True where one side's float64 lies on the float32 grid, the other's does not, and float32 explains the gap."""
    grids = [bool((v == v.astype(np.float32)).all()) for v in _pair(plan, i, reference, alone, "float64")]
    within = own.d64[0, i] <= K * (own.noise[0, i] + EPS32 * own.size[0, i])
    return grids[0] != grids[1] and bool(own.size_candidate[0, i] > 0) and bool(within)


def missing_block(
    plan: Plan, sides: tuple[Follower, Follower], step: int, reference: Taken, candidate: Taken, own: Own, i: int
) -> tuple[str, str] | None:
    """A block that one side has and the other lacks right before an activation that differs by itself, as the names of
    the two sides; None where that does not explain the difference."""
    quantity = plan.compared[i]
    refs, cands = (list(taken.records["float64"].activations) for taken in (reference, candidate))
    partners = {pair.reference: pair for pair in plan.alignment}, {pair.candidate: pair for pair in plan.alignment}
    behind, extra = (
        _walk_back(refs, quantity.reference, partners[0]),
        _walk_back(cands, quantity.candidate, partners[1]),
    )
    forced = forced_by(plan, reference, candidate)
    if extra[1] is not None:
        fed = partners[1][extra[1]]
        for name in behind[0]:
            if _size(reference, name) == _size(reference, fed.reference):
                values: dict[Precision, np.ndarray] = {
                    p: _put(fed.view, candidate, fed.candidate, reference, name, p) for p in PRECISIONS
                }
                if _explains(plan, sides, step, reference, candidate, own, i, forced, fed.candidate, values):
                    return name, fed.candidate
    if behind[1] is not None:
        fed = partners[0][behind[1]]
        for name in extra[0]:
            shapes = [candidate.records["float64"].activations[n].shape for n in (name, fed.candidate)]
            if shapes[0] == shapes[1]:
                same: dict[Precision, np.ndarray] = {p: forced[p].activations[fed.candidate] for p in PRECISIONS}
                if _explains(plan, sides, step, reference, candidate, own, i, forced, name, same):
                    return name, name
    return None


def _walk_back(names: list[str], start: str, partners: Mapping[str, Aligned]) -> tuple[list[str], str | None]:
    """The names right before one, the nearest first, up to the first that has a partner, and that one."""
    free = []
    for name in reversed(names[: names.index(start)]):
        if name in partners:
            return free, name
        free.append(name)
    return free, None


def _size(taken: Taken, name: str) -> int:
    return taken.records["float64"].activations[name].size


def _put(view: View, candidate: Taken, target: str, reference: Taken, name: str, precision: Precision) -> np.ndarray:
    values = np.empty(candidate.records[precision].activations[target].shape, precision)
    put(view, values, reference.records[precision].activations[name])
    return values


def _explains(
    plan: Plan,
    sides: tuple[Follower, Follower],
    step: int,
    reference: Taken,
    candidate: Taken,
    own: Own,
    i: int,
    forced: Mapping[Precision, Forced],
    name: str,
    values: Mapping[Precision, np.ndarray],
) -> bool:
    """Whether the difference of quantity i vanishes once the candidate's activation `name` has these values."""
    instead: dict[Precision, Forced] = {
        p: replace(forced[p], activations={**forced[p].activations, name: values[p]}) for p in PRECISIONS
    }
    states = mapped(plan.pairing, reference.before, candidate.before)
    again = retake(sides[1], states, sides[1].batches(step), instead)
    one, other = shown(plan.compared[i], reference, again)
    return bool(np.abs(one - other).max() <= K * own.measures.budget[0, i])
