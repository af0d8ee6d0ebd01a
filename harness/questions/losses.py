"""Why losses differ: both sides' losses of the same outputs, as numbers and by their gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from harness.case import Sigmoid
from harness.editing import UNFIT, Parts, Puzzle, apart, differing
from harness.elsewhere import Moment
from harness.following import Taken, shown
from harness.judging import K
from harness.objectives import Loss, Penalty
from harness.objectives_standard import BY_ELEMENT, BY_ROW, standard_losses
from harness.ops import Function, SoftmaxOver
from harness.owning import Own
from harness.questions.scopes import in_common, trained_links, values_of
from harness.recipe import Batch
from harness.solving import Question
from reference.kinds import apply, pull_back
from reference.objectives import penalty_and_gradients, value_and_gradient

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

PENALTIES = tuple(
    Penalty(l1=l1, l2=l2, half=False, rooted=False, scope=scope)
    for scope in ("kernels", "all")
    for l1, l2 in ((0.0, 1.0), (1.0, 0.0))
)
"""Penalties tried where a side's is not known; the factor is solved for."""

CLIP = (1e-7, 1 - 1e-7)
"""Keras 3.15, keras.config.epsilon(): how probabilities are clipped."""

EACH = 4
"""Parts of one output's loss: what is done first, the term, the targets, the rest of a Loss. Behind them all stand the
penalty and what is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Which side's targets and example weights the losses read."""

    targets: Role
    weights: Role


def question(moment: Moment, own: Own, alone: Taken) -> Question | None:
    """The loss, and its gradient by each of the outputs. None for a model whose own code computes it."""
    record = moment.reference.records["float64"]
    if record.loss is None:
        return None
    places = [
        next(
            (i for i, q in enumerate(moment.plan.compared) if q.kind == "activation_gradient" and q.reference == o),
            None,
        )
        for o in record.outputs
    ]
    loss = next(i for i, quantity in enumerate(moment.plan.compared) if quantity.kind == "loss")
    chosen = [loss, *(i for i in places if i is not None)]
    batches = [side.feed.batch(moment.step, "float64") for side in moment.sides]
    outputs = [record.activations[name] for name in record.outputs]
    parameters = values_of(moment, trained_links(moment))

    def compute(parts: Parts) -> list[np.ndarray]:
        *each, penalty, given = parts
        total = penalty_and_gradients(penalty, parameters)[0] if penalty else 0.0
        slopes = []
        for k, (q, place) in enumerate(zip(outputs, places, strict=True)):
            value, slope = _computed(each[EACH * k : EACH * (k + 1)], q, k, batches, given)
            total += value
            slopes += [slope] if place is not None else []
        return [np.asarray(total), *slopes]

    pairs, rounded = (
        [shown(moment.plan.compared[i], moment.reference, alone, precision) for i in chosen]
        for precision in ("float64", "float32")
    )
    values = [one for one, _ in pairs], [other for _, other in pairs]
    enough = [K * own.measures.budget[0, i] for i in chosen]
    readings = [
        _readings(
            Puzzle(compute=compute, wanted=values[side], enough=enough), _parts(moment, side, batches, outputs), side
        )
        for side in (0, 1)
    ]
    pair = min(itertools.product(*readings), key=lambda pair: _distance(*pair))
    last = EACH * len(outputs)
    return Question(
        parts=(pair[0], pair[1]),
        values=values,
        compute=compute,
        enough=enough,
        values32=([one for one, _ in rounded], [other for _, other in rounded]),
        alternatives={0: BEFORE, 1: (*_clipped(pair), *BY_ELEMENT, *BY_ROW), last: (None, *PENALTIES)},
    )


def _clipped(pair: Sequence[Parts]) -> list[Any]:
    """The known side's first term, with Keras's clipping of probabilities or without."""
    term: Any = next((parts[1] for parts in pair if parts), None)
    return [replace(term, clip=clip) for clip in (None, CLIP)] if hasattr(term, "clip") else []


def _computed(
    parts: Sequence[Any], q: np.ndarray, k: int, batches: Sequence[Batch], given: Given
) -> tuple[float, np.ndarray]:
    """The loss of output k and its gradient."""
    before, term, targets, rest = parts
    of, weighing = (batches[ROLES.index(role)] for role in (given.targets, given.weights))
    read = q if before is None else apply(before, (q,), ())
    y = of.targets[k] if of.targets else None
    value, slope = value_and_gradient(replace(rest, term=term, targets=targets), read, y, weighing.weights)
    if before is not None:
        (slope,), _ = pull_back(before, slope, read, (q,), ())
    assert slope is not None
    return float(value.sum()), slope


def _parts(moment: Moment, side: int, batches: Sequence[Batch], outputs: Sequence[np.ndarray]) -> Parts:
    """A side's losses and penalty as they are read; () where one is not known."""
    watched = moment.sides[side].watched["float64"]
    losses = watched.losses(batches[side])
    if len(losses) != len(outputs):
        return ()
    parts: list[Any] = []
    for loss, q in zip(losses, outputs, strict=True):
        if loss is None:
            return ()
        parts += [None, _along_last(loss.term, q.ndim), loss.targets, _rest(loss)]
    penalty = watched.penalty()
    if penalty:
        penalty = replace(penalty, scope=in_common(moment, side, penalty.scope, trained_links(moment)))
    return *parts, penalty, Given(targets=ROLES[side], weights=ROLES[side])


def _along_last(term: Any, ndim: int) -> Any:
    """The last axis as -1, however a framework counts it."""
    axis = getattr(term, "axis", None)
    return term if axis is None or axis % ndim != ndim - 1 else replace(term, axis=-1)


def _rest(loss: Loss) -> Any:
    return replace(loss, term=None, targets=None)  # type: ignore[arg-type]


def _readings(puzzle: Puzzle, read: Parts, side: int) -> list[Parts]:
    """What a side's loss may be: as it is read, if so it is; else what computes the same, of the losses that users
    write by hand, up to what is done first and a factor."""
    if read and apart(puzzle, read) <= 1:
        return [read]
    given = Given(targets=ROLES[side], weights=ROLES[side])
    fits = [found for parts in _guesses(given, read) if (found := _scaled(puzzle, parts)) and apart(puzzle, found) <= 1]
    return fits or [read]


def _guesses(given: Given, read: Parts) -> Iterator[Parts]:
    for before in BEFORE:
        if read:
            yield before, *read[1:]
        for loss in standard_losses():
            yield before, loss.term, loss.targets, _rest(loss), None, given


def _scaled(puzzle: Puzzle, parts: Parts) -> Parts:
    """The parts with the factor that gives the value wanted; () where there is none."""
    try:
        with np.errstate(all="ignore"):
            value = float(puzzle.compute(parts)[0])
    except UNFIT:
        return ()
    if not np.isfinite(value) or not value:
        return ()
    factor = float(f"{float(puzzle.wanted[0]) / value:.12g}")
    return (*parts[:3], replace(parts[3], factor=parts[3].factor * factor), *parts[4:])


def _distance(one: Parts, other: Parts) -> int:
    return len(differing(one, other)) if one and other else 0
