"""The questions about one difference, and the answer: compared before searched for, proven before likely."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import tee

import frameworks as registry
from harness.cause import Near
from harness.causes import Named, named
from harness.diverging import place_of
from harness.editing import Edit, Parts, edited
from harness.elsewhere import Moment
from harness.finding import Finding
from harness.ops import Combine
from harness.owning import Own
from harness.points import Point, is_certain, points_of, without
from harness.questions import blocks, buffers, gradients, losses, updates
from harness.solving import Question, Solved, compared, joined, sought

PARTS = 1
"""Whole parts that are exchanged at once, at most: more is another computation, no edit of this one."""

WIDEST = 4
"""Pairs behind each other that are taken for none."""

GENERIC = "layer-different"
VAGUE = (GENERIC, "float32-constant")
"""Another kind of layer altogether says little: the two may be no pair at all; a rounding is no difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What differs by itself at a moment, and what is asked about the first of it."""

    moment: Moment
    own: Own
    left: list[int]
    points: list[Point]
    questions: list[Question]


def best_answer(here: Place, end: float, anything: bool) -> tuple[Place, list[Finding], tuple[str, ...]]:
    """Where the first proven answer is, at the place itself or behind it, and the blocks that it is about; what both
    sides are known to compute is compared before anything is searched for. Else the first likely answer; of a place
    behind, where anything is better than none."""
    likely: tuple[Place, list[Finding], tuple[str, ...]] = here, [], ()
    for solve, wider in zip((compared, partial(sought, end=end)), tee(_wider(here, end)), strict=True):
        answers, about = _answered(here, solve)
        if are_proven(answers) and not _doubtful(here.moment, here.left):
            return here, answers, about
        for there in wider:
            further, within = _answered(there, solve)
            if are_proven(further):
                return there, further, within
            if anything and further and not (likely[1] or answers):
                likely = there, further, within
        if are_proven(answers):
            return here, answers, about
        if answers and (likely[0] is not here or not likely[1]):
            likely = here, answers, about
    return likely


def _wider(here: Place, end: float) -> Iterator[Place]:
    """The activations behind the first that differs, where its two sides, and theirs, are taken for no pair: what
    stands in the same place need not be the same."""
    moment, own, left = here.moment, here.own, here.left
    for _ in range(WIDEST):
        quantity = moment.plan.compared[left[0]]
        if quantity.kind != "activation" or quantity.aligned is None or is_certain(moment, quantity.aligned):
            return
        if time.process_time() > end:
            return
        moment, own, left = without(moment, own, left, left[0])
        if not left:
            return
        points = points_of(moment, own, left)
        yield Place(moment=moment, own=own, left=left, points=points, questions=questions_about(points, left[0]))


def _doubtful(moment: Moment, left: Sequence[int]) -> bool:
    """Two activations in a row differ, and the first need not be a pair: one edit may be behind both."""
    first, *behind = (moment.plan.compared[k] for k in left[:2])
    return (
        first.aligned is not None
        and bool(behind)
        and behind[0].kind == "activation"
        and not is_certain(moment, first.aligned)
    )


def questions_about(points: Sequence[Point], i: int) -> list[Question]:
    """What may tell why quantity i differs, at all points at once."""
    elsewhere = [{question.of: question for question in _asked(point, i)} for point in points[1:]]
    return [
        joined([question, *(of[question.of] for of in elsewhere if question.of in of)])
        for question in _asked(points[0], i)
    ]


def _asked(point: Point, i: int) -> Iterator[Question]:
    """What may tell why quantity i differs, the simplest first."""
    moment, own, alone = point.moment, point.own, point.alone
    quantity = moment.plan.compared[i]
    names = quantity.reference, quantity.candidate
    asked: Question | None
    match quantity.kind:
        case "update":
            asked = updates.question(moment, own, alone)
        case "loss":
            asked = losses.question(moment, own, alone)
        case "activation":
            yield from blocks.questions(moment, own, alone, i, blocks.calls_near(moment, names))
            return
        case "activation_gradient":
            yield from gradients.questions(moment, own, alone, i, blocks.calls_near(moment, names))
            return
        case _:
            layers = buffers.layer_of(moment, i, 0), buffers.layer_of(moment, i, 1)
            calls = blocks.calls_near(moment, layers)
            if quantity.kind == "gradient":
                yield from gradients.questions(moment, own, alone, i, calls)
                return
            asked = buffers.question(moment, own, alone, i, calls)
    if asked:
        yield asked


def _answered(place: Place, solve: Callable[[Question], Solved | None]) -> tuple[list[Finding], tuple[str, ...]]:
    """What the first question says whose answer is proven, else the first that has one, and the blocks that it is
    about; nothing where none has."""
    found: list[Finding] = []
    within: tuple[str, ...] = ()
    moment, i = place.moment, place.left[0]
    for question in place.questions:
        answer = solve(question)
        if answer and _exchanges(answer.edits) <= PARTS:
            places = place_of(moment.plan, i, 0), place_of(moment.plan, i, 1)
            about = question.of[0] if moment.plan.compared[i].kind == "activation" and question.of else ()
            answers = list(findings_of(moment, places, answer, question.near))
            if are_proven(answers):
                return answers, about
            found, within = (found, within) if found else (answers, about)
    return found, within


def findings_of(moment: Moment, places: tuple[str, str], answer: Solved, near: Near = ((), ())) -> Iterator[Finding]:
    """A finding for each cause in an answer."""
    others = {cause.id for edits in answer.others for cause in named(edits, answer.parts, near)}
    # several parts exchanged at once are one edit of a kind unknown
    fitted = answer.fitted and places[0].startswith("forward:")  # a loss and all updates are more than one block
    sure = not fitted and _exchanges(answer.edits) < 2 and not any(map(_formula, answer.edits))
    causes = named(answer.edits, answer.parts, near)
    sure = sure and GENERIC not in [cause.id for cause in causes]  # beside a layer of another kind nothing is
    for cause in causes:
        yield Finding(
            id=cause.id,
            same=tuple(sorted({*cause.same, *others} - {cause.id})),
            where=places[0],
            candidate_where=places[1],
            step=moment.step,
            status="proven" if sure and cause.id not in VAGUE else "likely",
            edit=_text(moment, cause, answer.parts),
            before64=answer.before,
            after64=answer.after,
            before32=None if math.isnan(answer.before32) else answer.before32,
            after32=None if math.isnan(answer.after32) else answer.after32,
            advice=_advice(moment, cause, answer.parts),
        )


def are_proven(answers: Sequence[Finding]) -> bool:
    return bool(answers) and all(answer.status == "proven" for answer in answers)


def _exchanges(edits: Sequence[Edit]) -> int:
    """How many whole parts stand for others; the same exchange in several places is one."""
    return len({(repr(edit.before), repr(edit.after)) for edit in edits if not edit.field})


def _formula(edit: Edit) -> bool:
    """Arithmetic between values of one side alone: part of a formula written by hand, no layer."""
    part = edit.before if edit.after is None else edit.after
    return not edit.field and isinstance(part, Combine) and part.kind not in ("add", "multiply")


def _text(moment: Moment, cause: Named, parts: Parts) -> str:
    names = [side.name for side in moment.sides]
    said = []
    for edit in cause.edits:
        what = f"{type(parts[edit.position]).__name__}.{edit.field}" if edit.field else ""
        said.append(f"{what} {in_words(edit.before)} in {names[0]}, {in_words(edit.after)} in {names[1]}".strip())
    return "; ".join(said)


def in_words(value: object) -> str:
    return "none" if value is None else f"{value!r}" if isinstance(value, str) else str(value)


def _advice(moment: Moment, cause: Named, parts: Parts) -> dict[str, str]:
    """What to write on either side to have what the other has, in that framework's words."""
    other = edited(parts, cause.edits)
    advice = {}
    for role, side, held in (("candidate", 1, parts), ("reference", 0, other)):
        written = registry.models(moment.sides[side].framework).written
        parted = [(held[edit.position], [edit.field] if edit.field else []) for edit in cause.edits]
        lines = [written(part, fields) for part, fields in parted if part is not None]
        advice[role] = ", ".join(dict.fromkeys(line for line in lines if line))
    return advice
