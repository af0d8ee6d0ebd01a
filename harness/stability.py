"""One side far worse in float32 than the other, though both are the same function in float64."""

from __future__ import annotations

import numpy as np

from harness.comparing import Measures
from harness.elsewhere import Moment, nearby
from harness.following import forced_by, mapped, measures_of, retake
from harness.judging import disproportionate, is_null, proportion

SAMPLES = 3

ALIKE = 30.0
"""Two sides that compute in the same precision have noises within this factor in most of what they compute."""


def unstable(moment: Moment, measures: Measures) -> np.ndarray:
    """Quantities (in the plan's order) whose float32 noise on one side is out of proportion to the other's, from equal
    inputs, here and nearby. None where a side computes in a lower precision throughout."""
    suspects = disproportionate(measures)[0]
    if not suspects.any():
        return suspects
    states = mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before, moment.keep)
    fed = forced_by(moment.plan, moment.reference, moment.candidate)
    alone = retake(moment.sides[1], states, moment.sides[1].batches(moment.step), fed)
    own = measures_of(moment.plan, moment.reference, alone)
    times = proportion(own.noise_reference, own.noise_candidate, own.grain)[0]
    if np.median(times[~is_null(own)[0]]) > ALIKE:
        return np.zeros_like(suspects)
    suspects = disproportionate(own)[0]
    for seed in range(SAMPLES if suspects.any() else 0):
        suspects &= disproportionate(measures_of(moment.plan, *nearby(moment, seed)))[0]
    return suspects
