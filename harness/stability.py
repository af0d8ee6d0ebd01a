"""A side against itself: it does not reproduce its own step, or its float32 is far worse than the other side's."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from harness.comparing import Measures
from harness.elsewhere import SAMPLES, Moment, fed_alike, nearby
from harness.following import Compared, Taken, measures_of, retake
from harness.judging import K, disproportionate, is_null, proportion

LOW = (ml_dtypes.bfloat16, np.float16)
FEW = 8
"""Distinct fractions that counts, halves and masks have at most: those lie on every grid."""

RANDOM = 1e-6
"""Relative change of an activation, when its step is taken again in float64, that no order of summation makes."""

ALIKE = 30.0
"""Two sides that compute in the same precision have noises within this factor in most of what they compute."""

COMPUTED = ("activation", "activation_gradient", "gradient")
"""Kinds that a lower precision shows in; under mixed precision parameters stay float32."""


def unstable(moment: Moment, measures: Measures) -> np.ndarray:
    """Quantities (in the plan's order) whose float32 noise on one side is out of proportion to the other's, from equal
    inputs, here and nearby. None where a side computes in a lower precision throughout."""
    suspects = disproportionate(measures)[0]
    felt = np.array([_is_felt(quantity, moment) for quantity in moment.plan.compared])
    if not (suspects & felt).any():  # a bias before a batch norm, which Adam moves by rounding alone
        return np.zeros_like(suspects)
    own = measures_of(moment.plan, moment.reference, fed_alike(moment))
    times = proportion(own.noise_reference, own.noise_candidate, own.grain)[0]
    computed = np.array([quantity.kind in COMPUTED for quantity in moment.plan.compared]) & ~is_null(own)[0]
    # fed what a low precision computed, the other side's values are as coarse
    if np.median(times[computed]) > ALIKE or _is_low(moment.reference) != _is_low(moment.candidate):
        return np.zeros_like(suspects)
    suspects = disproportionate(own)[0]
    for seed in range(SAMPLES if suspects.any() else 0):
        suspects &= disproportionate(measures_of(moment.plan, *nearby(moment, seed)))[0]
    return suspects


def _is_felt(quantity: Compared, moment: Moment) -> bool:
    """What a user sees of a step: outputs, loss, gradients of parameters."""
    outputs = moment.reference.records["float64"].outputs
    return quantity.kind in ("loss", "gradient") or (quantity.kind == "activation" and quantity.reference in outputs)


def _is_low(taken: Taken) -> bool:
    """Something that a side computes in its float32 run is made of numbers of a lower precision."""
    return any(
        any((values == values.astype(low)).all() for low in LOW)
        for values in taken.records["float32"].activations.values()
        if len(np.unique(values % 1)) > FEW  # else masks, counts and the like
    )


def restless(moment: Moment, measures: Measures) -> list[tuple[str, bool]]:
    """What to say of each side that does not reproduce its step from the same state, and whether that is a random layer
    (which against none is a difference) or how it computes."""
    plan, reference, candidate = moment.plan, moment.reference, moment.candidate
    notes = []
    for side, taken in zip(moment.sides, (reference, candidate), strict=True):
        again = retake(side, taken.before, side.batches(moment.step))
        if name := _random_layer(taken, again):
            hint = "switch random layers off (dropout rate 0, or training=False)"
            notes.append((f"{side.name}: {name} gives other values when step {moment.step} is repeated; {hint}", True))
            continue
        pair = (again, candidate) if side is moment.sides[0] else (reference, again)
        with np.errstate(invalid="ignore"):
            apart = np.abs(measures_of(plan, *pair).d64 - measures.d64)[0] / measures.budget[0]
        if (apart > K).any():
            name = plan.compared[int(np.nanargmax(apart))].name
            notes.append((f"{side.name} does not reproduce {name} of step {moment.step} from the same state", False))
    return notes


def _random_layer(taken: Taken, again: Taken) -> str:
    """The first activation that is another one when the same step is taken again; "" without one."""
    for name, values in taken.records["float64"].activations.items():
        repeated = again.records["float64"].activations.get(name)
        if repeated is None or repeated.shape != values.shape:
            return name
        if np.abs(repeated - values).max(initial=0.0) > RANDOM * np.abs(values).max(initial=0.0):
            return name
    return ""
