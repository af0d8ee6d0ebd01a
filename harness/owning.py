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
from harness.comparing import SHRINK, Measures
from harness.elsewhere import Moment, fed_alike, nearby, only_float32
from harness.following import Taken, forced_by, mapped, measures_of, retake, shown
from harness.judging import K, float32_explains
from harness.recipe import Forced
from harness.views import View, put

SAMPLES = 3

GULF = 1e3
"""A ratio d64/budget far above what rounding explains: clean pairs stay below 6, different ones begin at a million."""

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


def own_errors(moment: Moment, measures: Measures, known: Collection[str], coarse: int | None) -> Own:
    """Take the candidate's step again on the reference's values; confirm what differs at points nearby. known:
    quantities that need no more confirmation. coarse: the first quantity known to be float32 inside."""
    plan, reference = moment.plan, moment.reference
    alone = fed_alike(moment)
    own = measures_of(plan, reference, alone)
    own.noise_candidate = np.fmax(own.noise_candidate, measures.noise_candidate)
    loud = np.array([quantity.kind not in SILENT for quantity in plan.compared])
    alarms = (~(own.ratio <= K)[0]) & loud
    because = np.full(len(loud), "", dtype=object)
    overflows = (np.isfinite(own.noise_reference) != np.isfinite(own.noise_candidate))[0] & loud
    if overflows.any():  # nothing to confirm
        return Own(measures=own, different=alarms | overflows, because=because)
    if all(plan.compared[i].name in known for i in np.flatnonzero(alarms).tolist()):
        return Own(measures=own, different=alarms, because=because)
    near = [measures_of(plan, *nearby(moment, seed)) for seed in range(SAMPLES)]
    with np.errstate(invalid="ignore"):
        own.spread[0] = np.max([m.noise[0] * SHRINK for m in near], axis=0)
        alarms &= ~(own.ratio <= K)[0]
        vanished = alarms & np.all([(m.ratio <= K)[0] for m in near], axis=0)
    for i in np.flatnonzero(vanished).tolist():
        # A tie is the same in both precisions; a kink is where rounding decides, and it decides anew in each.
        gaps = [np.subtract(*shown(plan.compared[i], reference, alone, precision)) for precision in PRECISIONS]
        if np.abs(gaps[0] - gaps[1]).max() > 0.1 * np.abs(gaps[1]).max():
            because[i] = "kink"
    suspects = np.flatnonzero(alarms & (because == "") & (own.d64[0] <= float32_explains(own)[0])).tolist()
    if suspects:
        because[only_float32(moment, alone, own, suspects, coarse)] = "one precision"
    return Own(measures=own, different=alarms & (because == ""), because=because)


def persisting(moment: Moment, alarms: np.ndarray, measures: Measures) -> np.ndarray:
    """Alarms far above rounding that are as loud at points nearby, where both sides begin the step from equal states:
    what hides when the candidate is fed the reference's values (rows of a gradient that were not yet added up)."""
    loud = np.array([quantity.kind not in SILENT for quantity in moment.plan.compared])
    for seed in range(SAMPLES):
        alarms = alarms & loud & (measures.ratio > GULF)[0]
        if not alarms.any():
            break
        measures = measures_of(moment.plan, *nearby(moment, seed, forced=False))
    return alarms & (measures.ratio > GULF)[0]


def missing_block(moment: Moment, own: Own, i: int) -> tuple[str, str] | None:
    """A block that one side has and the other lacks right before an activation that differs by itself, as the names of
    the two sides; None where that does not explain the difference."""
    plan, reference, candidate = moment.plan, moment.reference, moment.candidate
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
                if _explains(moment, own, i, forced, fed.candidate, values):
                    return name, fed.candidate
    if behind[1] is not None:
        fed = partners[0][behind[1]]
        for name in extra[0]:
            shapes = [candidate.records["float64"].activations[n].shape for n in (name, fed.candidate)]
            if shapes[0] == shapes[1]:
                same: dict[Precision, np.ndarray] = {p: forced[p].activations[fed.candidate] for p in PRECISIONS}
                if _explains(moment, own, i, forced, name, same):
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
    moment: Moment,
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
    states = mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before)
    again = retake(moment.sides[1], states, moment.sides[1].batches(moment.step), instead)
    one, other = shown(moment.plan.compared[i], moment.reference, again)
    return bool(np.abs(one - other).max() <= K * own.measures.budget[0, i])
