"""Why losses differ: both sides' losses of the same outputs, as numbers and by their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from harness.case import Sigmoid
from harness.editing import UNFIT, Parts, Puzzle, apart
from harness.elsewhere import Moment
from harness.following import Taken, shown
from harness.judging import K
from harness.objectives import Loss
from harness.objectives_standard import BY_ELEMENT, BY_ROW, standard_losses
from harness.ops import Function, SoftmaxOver
from harness.owning import Own
from harness.recipe import Batch
from harness.solving import Question
from reference.kinds import apply, pull_back
from reference.objectives import value_and_gradient

Role = Literal["reference", "candidate"]
ROLES: tuple[Role, Role] = ("reference", "candidate")

BEFORE = (
    None,
    SoftmaxOver(axes=(-1,), log=False),
    SoftmaxOver(axes=(-1,), log=True),
    Sigmoid(),
    Function(name="log", exponent=1.0),
    Function(name="exp", exponent=1.0),
)
"""What a user's loss may do to the output first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Which side's targets and example weights the loss reads."""

    targets: Role
    weights: Role


def question(moment: Moment, own: Own, alone: Taken) -> Question | None:
    """The loss of a model with one output, and its gradient. None for other models."""
    plan, record = moment.plan, moment.reference.records["float64"]
    if len(record.outputs) != 1 or record.loss is None:
        return None
    output = record.outputs[0]
    chosen = [
        i
        for i, quantity in enumerate(plan.compared)
        if quantity.kind == "loss" or (quantity.kind == "activation_gradient" and quantity.reference == output)
    ]
    if not chosen or plan.compared[chosen[0]].kind != "loss":
        return None
    batches = tuple(side.feed.batch(moment.step, "float64") for side in moment.sides)
    if any(len(batch.targets) > 1 for batch in batches):
        return None
    pairs = [shown(plan.compared[i], moment.reference, alone) for i in chosen]
    q = record.activations[output]

    def compute(parts: Parts) -> list[np.ndarray]:
        before, term, targets, rest, given = parts
        loss = replace(rest, term=term, targets=targets)
        y = _target(batches[ROLES.index(given.targets)])
        read = q if before is None else apply(before, (q,), ())
        value, slope = value_and_gradient(loss, read, y, batches[ROLES.index(given.weights)].weights)
        if before is not None:
            (slope,), _ = pull_back(before, slope, read, (q,), ())
        return [np.asarray(value.sum()), slope][: len(chosen)]

    values = ([one for one, _ in pairs], [other for _, other in pairs])
    enough = [K * own.measures.budget[0, i] for i in chosen]
    read = [_parts(moment, side, batches, q) for side in (0, 1)]
    for side in (0, 1):
        puzzle = Puzzle(compute=compute, wanted=values[side], enough=enough)
        if not read[side] or apart(puzzle, read[side]) > 1:
            read[side] = _recognised(puzzle, ROLES[side], read[side])
    terms = {1: (*BY_ELEMENT, *BY_ROW), 0: BEFORE}
    return Question(parts=(read[0], read[1]), values=values, compute=compute, enough=enough, alternatives=terms)


def _target(batch: Batch) -> np.ndarray | None:
    return batch.targets[0] if batch.targets else None


def _parts(moment: Moment, side: int, batches: Sequence[Batch], q: np.ndarray) -> Parts:
    """A side's loss as it is read; () where it is not known."""
    losses: Sequence[Loss | None] = getattr(moment.sides[side].watched["float64"], "losses", lambda _: ())(
        batches[side]
    )
    if len(losses) != 1 or losses[0] is None:
        return ()
    loss = losses[0]
    term, role = loss.term, ROLES[side]
    axis = getattr(term, "axis", None)
    if axis is not None and axis % q.ndim == q.ndim - 1:
        term = replace(term, axis=-1)  # type: ignore[call-arg]
    return None, term, loss.targets, _rest(loss), Given(targets=role, weights=role)


def _rest(loss: Loss) -> Any:
    return replace(loss, term=None, targets=None)  # type: ignore[arg-type]


def _recognised(puzzle: Puzzle, role: Role, read: Parts) -> Parts:
    """A loss of the user's own code by what it computes: a standard one, up to what is done first and a factor."""
    given = Given(targets=role, weights=role)
    for parts in _guesses(given, read):
        scaled = _scaled(puzzle, parts)
        if scaled and apart(puzzle, scaled) <= 1:
            return scaled
    return ()


def _guesses(given: Given, read: Parts) -> Iterator[Parts]:
    for before in BEFORE:
        if read:
            yield (before, *read[1:])
        for loss in standard_losses():
            yield before, loss.term, loss.targets, _rest(loss), given


def _scaled(puzzle: Puzzle, parts: Parts) -> Parts:
    """The parts with the factor that gives the value wanted."""
    try:
        with np.errstate(all="ignore"):
            value = float(puzzle.compute(parts)[0])
    except UNFIT:
        return ()
    wanted = float(puzzle.wanted[0])
    if not np.isfinite(value) or not value:
        return ()
    factor = wanted / value
    near = float(f"{factor:.12g}")
    return (*parts[:3], replace(parts[3], factor=parts[3].factor * near), parts[4])
