"""What an alarm means: the step is taken again, and that confirms it, explains it, or it is a difference.

No alarm is raised from one sample. The step is repeated perturbed by an ulp (luck) and unperturbed (determinism); then
`hypotheses` are tried: a kink, an exact zero, a constant rounded through float32, float32 inside.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

import numpy as np

from harness.case import Precision
from harness.comparing import EPS32, per_quantity
from harness.hypotheses import explained, float32_inside, kink_row, leaking_constants, null_row
from harness.judging import BECAUSE, DIFFERENT, K32, LUCKY, ROUNDING, UNDECIDED, Judgement, K, disproportionate, is_null
from harness.pair import Moment, Pair
from harness.running import Rows, Side

PERTURBATIONS = 4


class Outcome(Enum):
    """What an explained step means for the steps after it."""

    GO_ON = "nothing"
    RESYNCHRONISE = (
        "parameters now really differ for a reason that is no difference: all go on from the reference's state"
    )
    RETAKE = "the reference has changed: this step is taken again"


def explain(pair: Pair, moment: Moment, judgement: Judgement) -> Outcome:
    """Settle the alarms of one step; `judgement` holds that step alone and is marked in place."""
    measures = judgement.measures
    if (judgement.because[judgement.verdict == DIFFERENT] != BECAUSE.index("")).any():
        pair.lost = ""  # not finite on one side: nothing to confirm
        return Outcome.GO_ON
    if alarms_of(pair, judgement).any():
        confirm(pair, moment, judgement)
    alarms = alarms_of(pair, judgement)
    if not alarms.any():
        _check_steadiness(pair, moment, judgement)
        return Outcome.GO_ON
    if _irreproducible(pair, moment, judgement):
        judgement.mark(alarms, UNDECIDED, "nondeterministic")
        pair.lost = "nondeterministic"
        return Outcome.GO_ON
    if explained(kink_row(pair, moment, judgement), moment, judgement):
        judgement.mark(alarms, ROUNDING, "kink")
        return Outcome.RESYNCHRONISE
    if explained(null_row(pair, moment, judgement), moment, judgement):
        judgement.mark(alarms, ROUNDING, "null")
        return Outcome.RESYNCHRONISE
    if pair.plain is None and (leaks := leaking_constants(pair, moment, judgement)):
        _adopt_leak(pair, leaks)
        return Outcome.RETAKE
    if float32_inside(pair, moment, judgement, first=int(np.argmax(alarms[0]))):
        within = alarms & (measures.d64 <= K * (measures.noise + EPS32 * measures.size))
        judgement.mark(within, UNDECIDED, "one precision")
        pair.lost = "one precision" if (within == alarms).all() else ""
        return Outcome.GO_ON
    pair.lost = ""
    return Outcome.GO_ON


def alarms_of(pair: Pair, judgement: Judgement) -> np.ndarray:
    return (judgement.measures.ratio > K) & ~pair.missing


def _adopt_leak(pair: Pair, constants: tuple[str, ...]) -> None:
    pair.plain = pair.reference
    pair.reference = pair.restart_reference(replace(pair.case, float32_constants=constants))
    pair.notes.append(
        f"{pair.candidate.name} rounds {', '.join(constants)} through float32 in its float64 run (proven)"
    )


# --- luck -------------------------------------------------------------------------------------------------------


def confirm(pair: Pair, moment: Moment, judgement: Judgement) -> None:
    """Take the step again in float64, examples permuted and every input and parameter moved by at most one ulp; the
    largest spread joins the budget of the quantities whose ratio luck could explain."""
    measures = judgement.measures
    spread = sum(_spread(side, before, rows, moment, "float64") for side, before, rows in moment.both(pair))
    doubtful = (measures.ratio > K) & (measures.ratio < LUCKY)
    measures.spread[doubtful] = np.asarray(spread)[doubtful]
    cleared = doubtful & (measures.ratio <= K)
    judgement.mark(cleared, ROUNDING, "")
    judgement.mark(cleared & is_null(measures), ROUNDING, "null")


def _spread(side: Side, before: Rows, rows: Rows, moment: Moment, precision: Precision) -> np.ndarray:
    """Largest change by quantity over the perturbations, (1, quantities)."""
    seeds = range(PERTURBATIONS)
    moved = [_perturbed(side, before[precision], moment, precision, seed) for seed in seeds]
    return np.max([per_quantity(moment.layout, rows[precision], row) for row in moved], axis=0)


def _perturbed(side: Side, state: np.ndarray, moment: Moment, precision: Precision, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chunk, eps = moment.chunk, float(np.finfo(precision).eps)

    def nudged(values: np.ndarray) -> np.ndarray:
        return values * (1 + eps * rng.integers(-1, 2, values.shape))

    batch = chunk.x.shape[1]
    order = rng.permutation(batch)
    moved = replace(chunk, x=nudged(chunk.x.astype(precision))[:, order], y=chunk.y[:, order])
    row = side.retake(moved, precision, nudged(state.astype(precision)))
    back = np.argsort(order)
    for quantity in moment.layout.quantities:
        if quantity.batched:
            values = row[0, quantity.columns].reshape(quantity.shape)
            row[0, quantity.columns] = values[back].ravel()
    return row


def _irreproducible(pair: Pair, moment: Moment, judgement: Judgement) -> bool:
    """True where a side, taking the same step from the same state again, does not come within the budget of itself."""
    allowed = K * judgement.measures.budget
    for side, before, rows in moment.both(pair):
        again = side.retake(moment.chunk, "float64", before["float64"])
        if (per_quantity(moment.layout, rows["float64"], again) > allowed)[:, ~pair.missing].any():
            pair.notes.append(f"{side.name} does not reproduce step {moment.chunk.first} from the same state")
            return True
    return False


# --- one side far worse in float32 ------------------------------------------------------------------------------


def _check_steadiness(pair: Pair, moment: Moment, judgement: Judgement) -> None:
    """Mark `unstable` where one side's float32 is out of proportion, judged on the step's own noise from the same
    state: what the runs inherited (a ReLU that flipped in one float32 run) is no instability."""
    suspects = disproportionate(judgement.measures) & ~pair.missing
    if not suspects.any():
        return
    start = moment.before[0]["float32"]
    noises = []
    for side, _, _ in moment.both(pair):
        exact = side.retake(moment.chunk, "float64", start)
        rows = [side.retake(moment.chunk, "float32", start)]
        rows += [_perturbed(side, start, moment, "float32", seed) for seed in range(PERTURBATIONS)]
        noises.append(np.max([per_quantity(moment.layout, exact, row) for row in rows], axis=0))
    floor = EPS32 * judgement.measures.grain
    worse = np.maximum(*noises) > K32 * np.maximum(np.minimum(*noises), floor)
    unstable = suspects & worse
    if unstable.any():
        judgement.mark(unstable, DIFFERENT, "unstable")
        culprit = pair.sides[int(noises[1][unstable].max() > noises[0][unstable].max())]
        pair.notes.append(f"{culprit.name} loses far more digits in float32 than the other side does")
        pair.lost = ""
