"""From measures to verdicts, by the two-precision rule alone: rounding shrinks with the precision, meaning does not.

Everything here is vectorised over a chunk and knows nothing of cases or frameworks; what needs another run (is the
alarm confirmed? which explanation?) is in `explaining`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.comparing import EPS32, SHRINK, UNDERFLOW, Measures
from harness.layout import Layout

K = 30.0
"""Largest ratio d64/budget that rounding is held to explain; reports/calibration says what was seen."""

K32 = 1000.0
"""Largest ratio of the two sides' own-step float32 noises that different summation orders are held to explain."""

CHAOS = 0.1
"""Noise of the loss or the outputs over their size from which on a run can no longer be judged."""

VERDICTS = ("identical", "rounding", "undecided", "different")
"""From best to worst."""

BECAUSE = (
    *("", "kink", "null", "leak", "unstable", "nonfinite", "missing", "nondeterministic", "chaotic"),
    *("one precision", "promotion failed", "unconfirmed", "follows or not"),
)

IDENTICAL, ROUNDING, UNDECIDED, DIFFERENT = range(len(VERDICTS))


@dataclass(slots=True, kw_only=True)
class Judgement:
    """Verdict and because of a chunk as codes into VERDICTS and BECAUSE, (steps, quantities), with the measures.

    shown: the measures to report; they differ from those judged once a leak is proven (then the reference judged
    against has it, the one shown has not).
    """

    measures: Measures
    shown: Measures
    verdict: np.ndarray
    because: np.ndarray

    def mark(self, where: np.ndarray | tuple, verdict: int, because: str) -> None:
        self.verdict[where] = verdict
        self.because[where] = BECAUSE.index(because)

    def part(self, steps: slice) -> Judgement:
        """Views of some of the steps: what is marked there is marked here."""
        return Judgement(
            measures=self.measures.part(steps),
            shown=self.shown.part(steps),
            verdict=self.verdict[steps],
            because=self.because[steps],
        )


def judge(measures: Measures, missing: np.ndarray, blown_up: bool = False) -> Judgement:
    """Judge a chunk by its ratios; missing (quantities,) marks what one side cannot show.

    blown_up: both sides had numbers that are not finite before. What becomes of these (inf - inf) depends on the order
    of summation, so that a NaN on one side only says nothing any more.
    """
    judgement = Judgement(
        measures=measures,
        shown=measures,
        verdict=np.where(measures.same, IDENTICAL, ROUNDING).astype(np.int8),
        because=np.zeros(measures.d64.shape, np.int8),
    )
    judgement.mark(is_null(measures) & ~measures.same, ROUNDING, "null")
    judgement.mark(measures.ratio > K, DIFFERENT, "")
    one_sided = np.isfinite(measures.noise_reference) != np.isfinite(measures.noise_candidate)
    neither = ~np.isfinite(measures.noise_reference) & ~np.isfinite(measures.noise_candidate)
    overflown = np.logical_or.accumulate(neither.ravel()).reshape(neither.shape)  # whatever comes of it
    judgement.mark(one_sided & ~overflown, DIFFERENT, "unstable")
    judgement.mark((neither & ~measures.same) | (one_sided & overflown), UNDECIDED, "one precision")
    before = np.logical_or.accumulate(np.concatenate([[blown_up], measures.void.ravel()]))[:-1]
    wild = ~np.isfinite(measures.d64)
    judgement.mark(measures.void & (measures.ratio <= K), UNDECIDED, "nonfinite")
    judgement.mark(wild, DIFFERENT, "nonfinite")
    judgement.mark(wild & before.reshape(wild.shape), UNDECIDED, "nonfinite")
    judgement.mark(np.broadcast_to(missing, measures.d64.shape), UNDECIDED, "missing")
    return judgement


def is_null(measures: Measures) -> np.ndarray:
    """True where the exact value is 0: in float64 nothing is left but what rounding explains."""
    size = measures.size
    return (size > 0) & (size <= K * measures.noise * SHRINK)


def proportion(one: np.ndarray, other: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """How many times the smaller of two sides' float32 noises, or float32's own grain, goes into the larger."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(one, other) / np.maximum(np.minimum(one, other), EPS32 * grain + UNDERFLOW)


def disproportionate(measures: Measures) -> np.ndarray:
    """Suspects: where one side's float32 noise is out of proportion to the other's; confirmed on the same state.

    Of what is exactly 0 either side may show nothing but 0, by luck.
    """
    return (proportion(measures.noise_reference, measures.noise_candidate, measures.grain) > K32) & ~is_null(measures)


def float32_explains(measures: Measures) -> np.ndarray:
    """What float32's noise can explain of d64 where a side is float32 inside, or rolls dice, from this step or an
    earlier one on: the quantity's own noise and, as one sample can be lucky, what is usual among the step's."""
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(measures.size > 0, measures.noise / measures.size, 0.0)
    usual = np.median(np.nan_to_num(relative, posinf=0.0), axis=1, keepdims=True)
    return K * (measures.noise + (EPS32 + usual) * measures.size)


def lost_in_noise(measures: Measures, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where, on both sides, the noise of the loss or of the outputs has passed a tenth of their size, (steps, 2):
    either chaos or an ill-conditioned step. (Large noise on one side only is neither; see `disproportionate`.)

    largest (2,) holds the largest loss and output before; the sizes (steps, 2) handed back are the largest so far, so
    that a loss that converges to 0 is not taken for chaos.
    """
    noise = np.minimum(measures.noise_reference, measures.noise_candidate)[:, loss_and_outputs(measures.layout)]
    size = np.maximum.accumulate(np.vstack([largest, measures.size[:, loss_and_outputs(measures.layout)]]))[1:]
    return noise > CHAOS * size, size


def loss_and_outputs(layout: Layout) -> list[int]:
    """Where they stand in report order."""
    loss = [quantity.kind for quantity in layout.quantities].index("loss")
    return [loss, loss - 1]  # the network's output stands right before the loss
