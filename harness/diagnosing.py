"""From differences to causes: what is asked at each place, and what the answers are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

import frameworks as registry
from harness.blocks import Block
from harness.causes import Named, named
from harness.diverging import place_of
from harness.editing import Edit, Part, Parts, edited
from harness.elsewhere import Moment, fed_alike, further
from harness.finding import Finding
from harness.following import Taken, measures_of
from harness.owning import Own
from harness.questions import blocks, buffers, gradients, losses, updates
from harness.solving import Question, Solved, joined, solved


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A step at which the two sides are asked; alone: the candidate's, each block fed what the reference's was."""

    moment: Moment
    own: Own
    alone: Taken


def findings(moment: Moment, own: Own, new: Sequence[int]) -> list[Finding]:
    """Why each of these quantities, which differ by themselves, does; in the order of the computation.

    Own errors of one block, of the loss, and of all updates have one cause each, or one set. What explains a step must
    explain the next one too.
    """
    points = [Point(moment=moment, own=own, alone=fed_alike(moment)), *_further(moment, own)]
    found: list[Finding] = []
    settled: set[int] = set()
    for i in new:
        if i in settled:
            continue
        settled |= _settled(moment, i)
        answers = _answered(points, i)
        found += [new for new in answers if not any((new.id, new.edit) == (old.id, old.edit) for old in found)]
    return found


def _further(moment: Moment, own: Own) -> list[Point]:
    there, alone = further(moment, 0)
    measures = measures_of(moment.plan, there.reference, alone)
    measures.noise_candidate = np.fmax(measures.noise_candidate, measures.noise_reference)
    finite = np.isfinite(measures.d64).all()
    return [Point(moment=there, own=replace(own, measures=measures), alone=alone)] if finite else []


def _settled(moment: Moment, i: int) -> set[int]:
    """The quantities that an answer for i answers too."""
    compared = moment.plan.compared
    match compared[i].kind:
        case "update":
            return {k for k, quantity in enumerate(compared) if quantity.kind == "update"}
        case "loss":
            outputs = moment.reference.records["float64"].outputs
            return {i} | {
                k for k, q in enumerate(compared) if q.kind == "activation_gradient" and q.reference in outputs
            }
    return {i}


def _answered(points: Sequence[Point], i: int) -> list[Finding]:
    """What the first question that has an answer says."""
    first = points[0]
    for questions in zip(*(list(_asked(point, i)) for point in points), strict=False):
        answer = solved(joined(questions))
        if answer:
            return list(_named(first.moment, first.own, i, answer))
    return [_unknown(first.moment, i)]


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
            asked = gradients.question(moment, own, alone, i, blocks.calls_near(moment, names))
        case _:
            layers = buffers.layer_of(moment, i, 0), buffers.layer_of(moment, i, 1)
            asking = buffers if quantity.kind == "buffer" else gradients
            asked = asking.question(moment, own, alone, i, blocks.calls_near(moment, layers))
    if asked:
        yield asked


def _unknown(moment: Moment, i: int) -> Finding:
    return Finding(
        id="",
        where=place_of(moment.plan, i, 0),
        candidate_where=place_of(moment.plan, i, 1),
        step=moment.step,
        status="unknown",
        edit=f"{moment.plan.compared[i].name} differs by itself; no edit of what is known here explains it",
    )


def _named(moment: Moment, own: Own, i: int, answer: Solved) -> Iterator[Finding]:
    """A finding for each cause in an answer."""
    others = {cause.id for edits in answer.others for cause in named(edits, answer.parts)}
    for cause in named(answer.edits, answer.parts):
        yield Finding(
            id=cause.id,
            same=tuple(sorted({*cause.same, *others} - {cause.id})),
            where=place_of(moment.plan, i, 0),
            candidate_where=place_of(moment.plan, i, 1),
            step=moment.step,
            status="proven",
            edit=_text(moment, cause, answer.parts),
            before64=answer.before,
            after64=answer.after,
            advice=_advice(moment, cause, answer.parts),
        )


def _text(moment: Moment, cause: Named, parts: Parts) -> str:
    names = [side.name for side in moment.sides]
    said = []
    for edit in cause.edits:
        what = f"{type(parts[edit.position]).__name__}.{edit.field}" if edit.field else ""
        said.append(f"{what} {_value(edit.before)} in {names[0]}, {_value(edit.after)} in {names[1]}".strip())
    return "; ".join(said)


def _value(value: object) -> str:
    return "none" if value is None else f"{value!r}" if isinstance(value, str) else str(value)


def _advice(moment: Moment, cause: Named, parts: Parts) -> dict[str, str]:
    """What to write on either side to have what the other has, in that framework's words."""
    other = edited(parts, cause.edits)
    advice = {}
    for role, side, held in (("candidate", 1, parts), ("reference", 0, other)):
        written = getattr(registry.models(moment.sides[side].framework), "written", lambda *_: "")
        lines = [_written(written, held[edit.position], edit) for edit in cause.edits]
        advice[role] = ", ".join(dict.fromkeys(line for line in lines if line))
    return advice


def _written(written: object, part: Part, edit: Edit) -> str:
    if part is None:
        return ""
    return written(part, [edit.field] if edit.field else [])  # type: ignore[operator]


def of_block(moment: Moment, i: int, block: Block) -> Finding:
    """A block that only one side has, as `block_behind` proved it."""
    return Finding(
        id="layer-missing",
        where=f"forward:{block.reference}",
        candidate_where=f"forward:{block.candidate}",
        step=moment.step,
        status="proven",
        edit=block.text,
    )
