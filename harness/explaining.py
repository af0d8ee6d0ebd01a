"""What an alarm means: the step is taken again, and that confirms it, explains it, or it is a difference.

No alarm is raised from one sample. The step is repeated perturbed by an ulp (luck) and unperturbed (determinism); then
`hypotheses` are tried: a kink, an exact zero, a constant rounded through float32, float32 inside.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

import numpy as np

from harness.case import PRECISIONS
from harness.comparing import EPS64, SHRINK, per_quantity
from harness.hypotheses import (
    explained,
    float32_inside,
    held_slopes,
    inherited_row,
    jittered_row,
    kink_row,
    leaking_constants,
    of_null_gradients,
)
from harness.judging import (
    BECAUSE,
    CHAOS,
    DIFFERENT,
    K32,
    ROUNDING,
    UNDECIDED,
    Judgement,
    K,
    disproportionate,
    float32_explains,
    is_null,
    loss_and_outputs,
    proportion,
)
from harness.pair import Moment, Pair
from harness.running import Side
from reference import training

SAMPLES = 4

CERTAIN = 1e5
"""A ratio d64/budget above which an alarm needs no confirmation: one lucky sample made at most 13,250."""

NEARBY = 2.0**-9
"""Relative move to another sample of rounding: far above float32's grain, small against what would change the step."""


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
    allowed = K * measures.budget
    if not all(side.repeats(moment.chunk, before, rows, allowed) for side, before, rows in moment.both(pair)):
        return _explain_recorded(pair, moment, judgement)
    alarms = alarms_of(pair, judgement)
    if alarms.any():
        spreads = rounding_again(pair, moment, judgement)
        apart = _irreproducible(pair, moment, K * (measures.budget + np.fmin(*spreads)))
        if apart is not None:
            _give_up(pair, judgement, alarms, apart, "nondeterministic")
            return Outcome.GO_ON
        confirm(judgement, np.add(*spreads))
        alarms = alarms_of(pair, judgement)
    if not alarms.any():
        _check_steadiness(pair, moment, judgement)
        return Outcome.GO_ON
    if outcome := _explain_by_reference(pair, moment, judgement, alarms):
        return outcome
    if float32_inside(pair, moment, judgement, first=int(np.argmax(alarms[0]))):
        _give_up(pair, judgement, alarms, 0.0, "one precision")
        return Outcome.GO_ON
    pair.lost = ""
    return Outcome.GO_ON


def _explain_by_reference(pair: Pair, moment: Moment, judgement: Judgement, alarms: np.ndarray) -> Outcome | None:
    """What the reference alone can explain, from the candidate's own numbers; None for nothing."""
    if explained(kink_row(pair, moment, judgement), moment, judgement):
        judgement.mark(alarms, ROUNDING, "kink")
        return Outcome.RESYNCHRONISE
    if explained(inherited_row(pair, moment), moment, judgement):
        judgement.mark(alarms, ROUNDING, "")
        judgement.mark(alarms & of_null_gradients(judgement), ROUNDING, "null")
        return Outcome.RESYNCHRONISE
    if leaks := leaking_constants(pair, moment, judgement):
        _adopt_leak(pair, leaks)
        return Outcome.RETAKE
    return None


def _explain_recorded(pair: Pair, moment: Moment, judgement: Judgement) -> Outcome:
    """Settle the alarms of a recorded step that cannot be taken again: what would need that is undecided."""
    measures, alarms = judgement.measures, alarms_of(pair, judgement)
    suspects = disproportionate(measures) & ~pair.missing & (judgement.verdict == ROUNDING)
    judgement.mark(suspects, UNDECIDED, "unconfirmed")
    if not alarms.any():
        return Outcome.GO_ON
    # a recorded reference that today's code does not compute again cannot be spoken for by it
    speaks = pair.reference.repeats(moment.chunk, moment.before[0], moment.rows[0], K * measures.budget)
    if speaks and (outcome := _explain_by_reference(pair, moment, judgement, alarms)):
        return outcome
    sure = all(_steady(side, before["float64"], moment, K * measures.budget) for side, before, _ in moment.both(pair))
    doubtful = alarms & ((measures.ratio <= CERTAIN) | (measures.d64 <= float32_explains(measures))) & (not sure)
    judgement.mark(doubtful, UNDECIDED, "unconfirmed")
    pair.lost = "unconfirmed" if (doubtful == alarms).all() else ""
    return Outcome.GO_ON


def _steady(side: Side, state: np.ndarray, moment: Moment, allowed: np.ndarray) -> bool:
    """Whether the side can take the step again and does so alike each time: a record that says otherwise is wrong."""
    if side.bound:
        return False
    again = [side.retake(moment.chunk, "float64", state) for _ in range(SAMPLES)]
    return all((per_quantity(moment.layout, again[0], row) <= allowed).all() for row in again[1:])


def alarms_of(pair: Pair, judgement: Judgement) -> np.ndarray:
    return (judgement.measures.ratio > K) & ~pair.missing


def _give_up(pair: Pair, judgement: Judgement, alarms: np.ndarray, apart: np.ndarray | float, because: str) -> None:
    """Leave undecided what float32, or how far a side is `apart` from itself, can explain; more is different."""
    measures = judgement.measures
    within = alarms & (measures.d64 <= K * apart + float32_explains(measures))
    judgement.mark(within, UNDECIDED, because)
    pair.lost = because if (within == alarms).all() else ""


def _adopt_leak(pair: Pair, constants: tuple[str, ...]) -> None:
    pair.plain = pair.plain or pair.reference
    pair.reference = pair.restart_reference(
        replace(pair.case, float32_constants=(*pair.case.float32_constants, *constants))
    )
    pair.notes.append(
        f"{pair.candidate.name} rounds {', '.join(constants)} through float32 in its float64 run (proven)"
    )


# --- luck -------------------------------------------------------------------------------------------------------


def rounding_again(pair: Pair, moment: Moment, judgement: Judgement) -> list[np.ndarray]:
    """Sample the step's rounding again: the largest found by quantity, (1, quantities), on either side.

    In three ways: in float64 with examples permuted and every input and parameter moved by at most an ulp; as float32
    noise (shrunk as the rule says) at points nearby; and with the reference's activations moved by at most an ulp, for
    both sides. A ReLU's mask that such a move flips is no rounding and would excuse a bug of any size: within reach of
    a kink the reference, with its derivatives held there, answers for both.
    """
    slopes = held_slopes(pair, moment, judgement)
    reference = moment.rows[0]["float64"]
    jittered = [jittered_row(pair, moment, np.random.default_rng(seed), slopes) for seed in range(SAMPLES)]
    jitter = np.max([per_quantity(moment.layout, reference, row) for row in jittered], axis=0)
    if slopes:
        held = Side(
            name=pair.reference.name,
            case=pair.case,
            start=lambda case, precision: training.start(case, precision, slopes),
            state=moment.before[0]["float64"],
            missing={},
        )
        spreads = 2 * [_spread(held, moment.before[0]["float64"], reference, moment, shuffled=False)]
    else:
        spreads = [
            _spread(side, before["float64"], rows["float64"], moment) for side, before, rows in moment.both(pair)
        ]
    noises = [noise_nearby(side, before["float64"], moment) * SHRINK for side, before, _ in moment.both(pair)]
    return [spread + noise + jitter for spread, noise in zip(spreads, noises, strict=True)]


def confirm(judgement: Judgement, spread: np.ndarray) -> None:
    """Let the spread of the step's rounding join the budget of the alarmed quantities.

    Not of the state: an adaptive optimizer makes steps of any size of a gradient's rounding, and `inherited_row` asks
    its rule more sharply.
    """
    measures = judgement.measures
    state = [quantity.kind in ("update", "parameter", "slot") for quantity in measures.layout.quantities]
    doubtful = (measures.ratio > K) & np.isfinite(spread) & ~np.array(state)
    measures.spread[doubtful] = spread[doubtful]
    cleared = doubtful & (measures.ratio <= K)
    judgement.mark(cleared, ROUNDING, "")
    judgement.mark(cleared & is_null(measures), ROUNDING, "null")


def _spread(side: Side, state: np.ndarray, row: np.ndarray, moment: Moment, shuffled: bool = True) -> np.ndarray:
    """Largest change by quantity, (1, quantities), when examples are permuted and numbers moved by an ulp."""
    changes = []
    for seed in range(SAMPLES):
        rng = np.random.default_rng(seed)
        order = rng.permutation(moment.chunk.x.shape[1]) if shuffled else np.arange(moment.chunk.x.shape[1])
        x, y = _moved(moment.chunk.x, EPS64, rng), moment.chunk.y
        chunk = replace(moment.chunk, x=x[:, order], y=y[:, order])
        moved = side.retake(chunk, "float64", _moved(state, EPS64, rng))
        back = np.argsort(order)
        for quantity in moment.layout.quantities:
            if quantity.batched:
                values = moved[0, quantity.columns].reshape(quantity.shape)
                moved[0, quantity.columns] = values[back].ravel()
        changes.append(per_quantity(moment.layout, row, moved))
    return np.max(changes, axis=0)


def noise_nearby(side: Side, state: np.ndarray, moment: Moment) -> np.ndarray:
    """Largest float32 noise by quantity, (1, quantities), at and near the state: one sample can be lucky, all the more
    where a value sits on a coarse grid (a probability near 1)."""
    return noise_samples(side, state, moment).max(axis=0, keepdims=True)


def noise_samples(side: Side, state: np.ndarray, moment: Moment) -> np.ndarray:
    """Float32 noise by quantity, (SAMPLES, quantities), of the step from the same numbers in both precisions."""
    noises = []
    for seed in range(SAMPLES):
        rng = np.random.default_rng(seed)
        near = replace(moment.chunk, x=_float32(_moved(moment.chunk.x, seed * NEARBY, rng)))
        start = _float32(_moved(state, seed * NEARBY, rng))
        rows = [side.retake(near, precision, start) for precision in PRECISIONS]
        noises.append(per_quantity(moment.layout, *rows))
    return np.concatenate(noises)


def _moved(values: np.ndarray, by: float, rng: np.random.Generator) -> np.ndarray:
    return values * (1 + by * rng.uniform(-1, 1, values.shape))


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def _irreproducible(pair: Pair, moment: Moment, allowed: np.ndarray) -> np.ndarray | None:
    """How far a side is from itself, (1, quantities), when it takes the same step from the same state again; None where
    that is within `allowed`. Asked before `confirm`: the spread of a side that rolls dice is not its rounding."""
    for side, before, rows in moment.both(pair):
        again = [side.retake(moment.chunk, "float64", before["float64"]) for _ in range(SAMPLES)]
        apart = np.max([per_quantity(moment.layout, rows["float64"], row) for row in again], axis=0)
        if (apart > allowed)[:, ~pair.missing].any():
            pair.notes.append(f"{side.name} does not reproduce step {moment.chunk.first} from the same state")
            return apart
    return None


def inherits_noise(pair: Pair, moment: Moment, noisy: np.ndarray, sizes: np.ndarray) -> bool:
    """True where noise of the loss or outputs, noisy (2,), comes from the steps before, which is chaos, and not from
    this step alone, which is ill-conditioned (a saturated example) and can be judged."""
    if not noisy.any():
        return False
    own = noise_nearby(pair.reference, moment.before[0]["float64"], moment)[0, loss_and_outputs(moment.layout)]
    return bool((noisy & (own <= CHAOS * sizes)).any())


# --- one side far worse in float32 ------------------------------------------------------------------------------


def _check_steadiness(pair: Pair, moment: Moment, judgement: Judgement) -> None:
    """Mark `unstable` where one side's float32 is out of proportion in every sample of the step's own noise from the
    same state: what the runs inherited, or a ReLU that flips in one sample of one side, is no instability."""
    suspects = disproportionate(judgement.measures) & ~pair.missing
    if not suspects.any():
        return
    noises = [noise_samples(side, moment.before[0]["float64"], moment) for side, _, _ in moment.both(pair)]
    suspects &= ~of_null_gradients(judgement)
    unstable = suspects & (proportion(noises[0], noises[1], judgement.measures.grain) > K32).all(axis=0)
    if unstable.any():
        judgement.mark(unstable, DIFFERENT, "unstable")
        culprit = pair.sides[int((noises[1] > noises[0])[:, unstable[0]].any())]
        pair.notes.append(f"{culprit.name} loses far more digits in float32 than the other side does")
        pair.lost = ""
