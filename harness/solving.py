"""The edit that makes the reference compute one side's values in place of the other's: what proves a cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.cause import Near
from harness.editing import (
    Alternatives,
    Edit,
    Parts,
    Puzzle,
    apart,
    differing,
    edited,
    same_float32,
    searched,
    smallest,
)

Compute = Callable[[Parts], Sequence[np.ndarray]]
Values = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The same computation on both sides, from the same numbers.

    parts: what each side is read as, () where it is not known. values: what each side computed, float64; values32: in
    the float32 runs, where that is to be told. compute: what the reference makes of parts. enough: for each array the
    largest difference that rounding explains. alternatives: by position, parts that may stand there where a side is not
    known. searching: whether edits of the one side that is known are searched for. of: what the question is about, the
    same at every point. free: positions whose parts are no matter of meaning (what passes through float32). near: what
    makes what the parts read, and what reads what they compute.
    """

    parts: tuple[Parts, Parts]
    values: tuple[Values, Values]
    compute: Compute
    enough: Sequence[float]
    alternatives: Alternatives = field(default_factory=dict)
    searching: bool = True
    values32: tuple[Values, Values] = ((), ())
    of: tuple[tuple[str, ...], ...] = ()
    free: frozenset[int] = frozenset()
    near: Near = ((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The edits that turn the reference side's parts into the candidate's; others: sets that fit as well.

    before, after: how far the two sides are apart, and how far the values are from what the edited parts compute, in
    float64; before32, after32: the same of the float32 runs' values, NaN where they are not told. fitted: a whole part
    stands there whose numbers were solved for: it computes the values, which need not be why.
    """

    parts: Parts
    edits: tuple[Edit, ...]
    others: tuple[tuple[Edit, ...], ...]
    before: float
    after: float
    before32: float
    after32: float
    fitted: bool = False


def joined(questions: Sequence[Question]) -> Question:
    """One question of several points: what is read as the first says, and must hold at all of them."""
    return replace(
        questions[0],
        values=([v for q in questions for v in q.values[0]], [v for q in questions for v in q.values[1]]),
        compute=lambda parts: [array for question in questions for array in question.compute(parts)],
        enough=[limit for question in questions for limit in question.enough],
    )


def solved(question: Question, end: float = math.inf) -> Solved | None:
    """The smallest edits that prove why the two sides differ; None where none do. end: of a search, as in `searched`.

    A side's parts are believed only where the reference reproduces that side's own values. Where the sides agree, there
    is nothing to explain.
    """
    return compared(question) or sought(question, end)


def compared(question: Question) -> Solved | None:
    """As `solved`, of what both sides are known to compute."""
    reference, candidate = (_believed(question, side) for side in (0, 1))
    if not (reference and candidate) or _agree(question):
        return None
    edits = differing(reference, candidate) if len(reference) == len(candidate) else []
    leaks = [e for e in edits if e.position in question.free or same_float32(e)]
    if leaks and apart(_puzzle(question, 1), edited(reference, leaks)) <= 1:
        return _answer(question, reference, [tuple(leaks)])
    reference = edited(reference, leaks)
    fits = smallest(_puzzle(question, 1), reference, [edit for edit in edits if edit not in leaks])
    return _answer(question, reference, fits) if fits else None


def sought(question: Question, end: float = math.inf) -> Solved | None:
    """As `solved`, of what one side alone is known to compute: which edit of it gives the other's values."""
    reference, candidate = (_believed(question, side) for side in (0, 1))
    if not question.searching or bool(reference) == bool(candidate) or _agree(question):
        return None
    fits = searched(_puzzle(question, 1 if reference else 0), reference or candidate, question.alternatives, end)
    if not fits:
        return None
    if reference:
        return replace(_answer(question, reference, fits), fitted=_fitted(question, fits[0]))
    return replace(_turned(question, candidate, fits[0], fits[1:]), fitted=_fitted(question, fits[0]))


def _agree(question: Question) -> bool:
    gaps = [float(np.abs(one - other).max(initial=0.0)) for one, other in zip(*question.values, strict=True)]
    return all(gap <= limit for gap, limit in zip(gaps, question.enough, strict=True))


def _fitted(question: Question, edits: Sequence[Edit]) -> bool:
    return any(not edit.field and edit.after not in question.alternatives.get(edit.position, ()) for edit in edits)


def _believed(question: Question, side: int) -> Parts:
    """What a side is read as, if the reference so reproduces its values; else ()."""
    parts = question.parts[side]
    return parts if parts and apart(_puzzle(question, side), parts) <= 1 else ()


def _puzzle(question: Question, side: int) -> Puzzle:
    return Puzzle(compute=question.compute, wanted=question.values[side], enough=question.enough)


def _answer(question: Question, parts: Parts, fits: Sequence[tuple[Edit, ...]]) -> Solved:
    return _told(question, parts, fits[0], fits[1:], question.compute(edited(parts, fits[0])), 1)


def _turned(question: Question, parts: Parts, edits: tuple[Edit, ...], others: Sequence[tuple[Edit, ...]]) -> Solved:
    """Edits of the candidate's parts that make them the reference's, told the other way round."""
    reference = edited(parts, edits)

    def back(some: tuple[Edit, ...]) -> tuple[Edit, ...]:
        return tuple(replace(edit, before=edit.after, after=edit.before) for edit in some)

    return _told(question, reference, back(edits), [back(some) for some in others], question.compute(reference), 0)


def _told(
    question: Question,
    parts: Parts,
    edits: tuple[Edit, ...],
    others: Sequence[tuple[Edit, ...]],
    made: Values,
    side: int,
) -> Solved:
    values, rounded = question.values, question.values32
    told = len(rounded[side])
    return Solved(
        parts=parts,
        edits=edits,
        others=tuple(others),
        before=_gap(*(_told_of(question, of) for of in values)),
        after=_gap(_told_of(question, made), _told_of(question, values[side])),
        before32=_gap(*rounded) if told else math.nan,
        after32=_gap(made[:told], rounded[side]) if told else math.nan,
    )


def _told_of(question: Question, arrays: Values) -> Values:
    """The arrays in which the two sides should agree."""
    return [array for array, limit in zip(arrays, question.enough, strict=True) if limit < math.inf]


def _gap(one: Values, other: Values) -> float:
    return max((float(np.abs(a - b).max(initial=0.0)) for a, b in zip(one, other, strict=True)), default=0.0)
