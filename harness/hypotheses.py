"""Explanations of an alarm that are no difference, each tried by taking the step once more.

The first hand back the row that the reference shows under the hypothesis; the alarm is explained where that row agrees
with the candidate's within the budget, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from harness.case import Case, LeakyReLU, ReLU, wire
from harness.comparing import EPS32, EPS64, per_quantity
from harness.judging import UNDECIDED, Judgement, K, is_null
from harness.pair import Moment, Pair
from harness.running import take
from reference import training
from reference.constants import constants_of
from reference.optimizers import update_rule

Slopes = Mapping[str, np.ndarray]
"""By ReLU or LeakyReLU node: derivatives that replace the ordinary ones where they are not NaN."""

NUDGE = 2.0**-40
"""Relative move of the inputs: far above float64's rounding, far below float32's."""


def explained(row: np.ndarray | None, moment: Moment, judgement: Judgement) -> bool:
    """True where a re-run of the reference, `row` (1, size), agrees with the candidate within the budget everywhere."""
    if row is None:
        return False
    left = per_quantity(moment.layout, row, moment.rows[1]["float64"])
    decided = judgement.verdict != UNDECIDED
    return bool((left <= K * judgement.measures.budget)[decided].all())


def _step(case: Case, moment: Moment, slopes: Slopes | None = None) -> np.ndarray:
    """The reference's row (1, size) from the candidate's own state, updated by the candidate's own gradients.

    Where it differs from the candidate's, forward, backward or update of this very step do. What rounding made of the
    steps before plays no part, nor what an adaptive optimizer makes of a gradient's: where that is all but 0, a step of
    any size.
    """
    layout, candidate, before = moment.layout, moment.rows[1]["float64"][0], moment.before[1]["float64"]
    stepper = training.start(case, "float64", slopes)
    stepper.load(before, moment.chunk.first)
    row = take(stepper, moment.chunk, "float64", before)
    _update(case, moment, row[0], candidate[layout.gradients], before)
    return row


def _update(case: Case, moment: Moment, row: np.ndarray, gradients: np.ndarray, before: np.ndarray) -> None:
    """Fill a row's state and updates by the reference's rule."""
    layout, state = moment.layout, before.copy()
    W, *slots = state.reshape(-1, len(gradients))  # noqa: N806
    update = update_rule(case.optimizer, np.dtype(np.float64), case.float32_constants)
    with np.errstate(all="ignore"):
        update(moment.chunk.first + 1, W, gradients, *slots)
    row[layout.state] = state
    row[layout.updates] = (state - before)[: len(W)]


def jittered_row(pair: Pair, moment: Moment, rng: np.random.Generator, slopes: Slopes) -> np.ndarray:
    """The reference's row (1, size) when every activation moves by at most an ulp, as another library's exp or tanh
    moves it. Where an activation saturates, no move of the step's inputs shows what that does to its derivative."""
    chunk, before = moment.chunk, moment.before[0]["float64"]
    compiled = training.pass_of(pair.case, chunk.x.shape[1:], chunk.y.shape[1:], np.dtype(np.float64), slopes)
    tensors = compiled.tensors
    tensors.x[...], tensors.y[...] = chunk.x[0], chunk.y[0]
    tensors.row[moment.layout.state] = before
    with np.errstate(all="ignore"):
        for node, call in zip(pair.case.nodes, compiled.forward, strict=False):  # the loss, last, has no node
            call()
            tensors.activations[node.name][...] *= 1 + EPS64 * rng.integers(-1, 2, tensors.activations[node.name].shape)
        for call in (compiled.forward[-1], *compiled.backward):
            call()
    row = np.append(tensors.row, np.zeros(len(before)))[None, : moment.layout.size]
    _update(pair.case, moment, row[0], tensors.row[moment.layout.gradients], before)
    return row


def kink_row(pair: Pair, moment: Moment, judgement: Judgement) -> np.ndarray | None:
    """The reference's step with the candidate's subgradients at ReLU inputs that rounding cannot tell from 0; None
    where there is no such input. Inputs that are exactly 0 on both sides are a tie, a convention, and left alone."""
    slopes: dict[str, np.ndarray] = {}
    readers = [name for _, reads in wire(pair.case) for name in reads]
    for name, (op, read, near) in _near_kinks(pair, moment, judgement).items():
        z_candidate = _shown(moment, 1, read)
        near = near & ((z_candidate != 0) | (_shown(moment, 0, read) != 0))
        if near.any():
            low = _low(op)
            taken = np.where(z_candidate > 0, 1.0, low)
            if readers.count(read) == 1:
                da, dz = _shown(moment, 1, f"dL/d{name}"), _shown(moment, 1, f"dL/d{read}")
                taken = np.clip(np.divide(dz, da, out=taken, where=da != 0), low, 1.0)
            slopes[name] = np.where(near, taken, np.nan)
    if not slopes:
        return None
    return _step(pair.case, moment, slopes)


def held_slopes(pair: Pair, moment: Moment, judgement: Judgement) -> Slopes:
    """The reference's own derivatives at ReLU inputs that rounding cannot tell from 0, ties included."""
    return {
        name: np.where(near, np.where(_shown(moment, 0, read) > 0, 1.0, _low(op)), np.nan)
        for name, (op, read, near) in _near_kinks(pair, moment, judgement).items()
    }


def _near_kinks(
    pair: Pair, moment: Moment, judgement: Judgement
) -> dict[str, tuple[ReLU | LeakyReLU, str, np.ndarray]]:
    """By node: its op, the name of its input, and where that input is within rounding of 0 on some side."""
    budget = judgement.measures.budget[0]
    position = {quantity.name: i for i, quantity in enumerate(moment.layout.quantities)}
    found: dict[str, tuple[ReLU | LeakyReLU, str, np.ndarray]] = {}
    for node, reads in wire(pair.case):
        if isinstance(node.op, ReLU | LeakyReLU) and reads[0] != "x":
            z = np.minimum(np.abs(_shown(moment, 0, reads[0])), np.abs(_shown(moment, 1, reads[0])))
            near = z <= K * budget[position[reads[0]]]
            if near.any():
                found[node.name] = node.op, reads[0], near
    return found


def _shown(moment: Moment, side: int, name: str) -> np.ndarray:
    """A quantity of the reference's (0) or candidate's (1) step."""
    quantity = moment.layout.find(name)
    return moment.rows[side]["float64"][0, quantity.columns].reshape(quantity.shape)


def _low(op: ReLU | LeakyReLU) -> float:
    return op.negative_slope if isinstance(op, LeakyReLU) else 0.0


def inherited_row(pair: Pair, moment: Moment) -> np.ndarray:
    """The reference's step without more ado: it agrees where this step only passes on, or amplifies, what rounding made
    of the steps before or of its gradients."""
    return _step(pair.case, moment)


def of_null_gradients(judgement: Judgement) -> np.ndarray:
    """Quantities, (1, quantities), of parameters whose exact gradient is 0."""
    quantities, nulls = judgement.measures.layout.quantities, is_null(judgement.measures)[0]
    tensors = {q.tensor for q, null in zip(quantities, nulls, strict=True) if null and q.kind == "gradient"}
    return np.array([[q.tensor in tensors for q in quantities]])


def leaking_constants(pair: Pair, moment: Moment, judgement: Judgement) -> tuple[str, ...]:
    """The smallest set of constants which, rounded through float32 (beside those already known to be), make the
    reference's step agree with the candidate's; () where none does."""
    known = pair.case.float32_constants
    names = [name for name in constants_of(pair.case) if name not in known]
    for size in range(1, len(names) + 1):
        for constants in combinations(names, size):
            case = replace(pair.case, float32_constants=(*known, *constants))
            if explained(_step(case, moment), moment, judgement):
                return constants
    return ()


def float32_inside(pair: Pair, moment: Moment, judgement: Judgement, first: int) -> bool:
    """True where the candidate's float64 is float32 inside: the first alarmed quantity lies on the float32 grid (the
    reference's does not), or does not follow inputs that move by 2**-40."""
    columns = moment.layout.quantities[first].columns
    reference, candidate = (rows["float64"][0, columns] for rows in moment.rows[:2])

    def on_grid(values: np.ndarray) -> bool:
        return bool((values == values.astype(np.float32)).all())

    if candidate.any() and on_grid(candidate) and not on_grid(reference):
        return True
    moved = replace(moment.chunk, x=moment.chunk.x * (1 + NUDGE))
    follows = [
        side.retake(moved, "float64", before["float64"] * (1 + NUDGE))[0, columns] - rows["float64"][0, columns]
        for side, before, rows in moment.both(pair)
    ]
    expected, found = (np.abs(follow).max() for follow in follows)
    resolvable = expected > K * judgement.measures.budget[0, first]
    smooth = max(expected, found) <= K * EPS32 * judgement.measures.size[0, first]  # float32's steps, no flipped mask
    return bool(resolvable and smooth and np.abs(follows[1] - follows[0]).max() > expected / 2)
