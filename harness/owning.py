"""Own errors and inherited ones: the candidate's step is taken again with every block fed what the reference's was.

Each block then computes from the reference's inputs and cotangents, the optimizer from the reference's gradients and
state. What still differs is the block's own; what does not was inherited, or was rounding that a later block amplified.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from harness.case import PRECISIONS
from harness.comparing import SHRINK, Measures
from harness.elsewhere import SAMPLES, Moment, fed_alike, nearby
from harness.following import measures_of, shown
from harness.judging import K, float32_explains
from harness.narrow import only_float32

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
    # what comes before the first difference of the step as it was has agreed on equal inputs
    alarms[: int(np.argmax(~(measures.ratio <= K)[0] & loud))] = False
    because = np.full(len(loud), "", dtype=object)
    overflows = (np.isfinite(own.noise_reference) != np.isfinite(own.noise_candidate))[0] & loud
    if overflows.any():  # nothing to confirm
        return Own(measures=own, different=alarms | overflows, because=because)
    if all(plan.compared[i].name in known for i in np.flatnonzero(alarms).tolist()):
        return Own(measures=own, different=alarms, because=because)
    del alone  # of large models it does not fit beside the steps nearby
    near = [measures_of(plan, *nearby(moment, seed)) for seed in range(SAMPLES)]
    with np.errstate(invalid="ignore"):
        own.spread[0] = np.max([m.noise[0] * SHRINK for m in near], axis=0)
        alarms &= ~(own.ratio <= K)[0]
        vanished = alarms & np.all([(m.ratio <= K)[0] for m in near], axis=0)
    explicable = alarms & (own.d64[0] <= float32_explains(own)[0])
    if not (vanished | explicable).any():
        return Own(measures=own, different=alarms, because=because)
    alone = fed_alike(moment)
    for i in np.flatnonzero(vanished).tolist():
        # A tie is the same in both precisions; a kink is where rounding decides, and it decides anew in each.
        gaps = [np.subtract(*shown(plan.compared[i], reference, alone, precision)) for precision in PRECISIONS]
        if np.abs(gaps[0] - gaps[1]).max() > 0.1 * np.abs(gaps[1]).max():
            because[i] = "kink"
    suspects = np.flatnonzero(explicable & (because == "")).tolist()
    if suspects:
        because[only_float32(moment, alone, own, near, suspects, coarse)] = "one precision"
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
