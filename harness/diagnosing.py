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
from harness.judging import K
from harness.owning import Own
from harness.questions import blocks, buffers, gradients, losses, updates
from harness.remapping import Remedy, remedy, righted
from harness.solving import Question, Solved, joined, solved


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A step at which the two sides are asked; alone: the candidate's, each block fed what the reference's was."""

    moment: Moment
    own: Own
    alone: Taken


def findings(moment: Moment, own: Own, new: Sequence[int], proof: Block | Remedy | None = None) -> list[Finding]:
    """Why each of these quantities, which differ by themselves, does; in the order of the computation.

    Own errors of one block, of the loss, and of all updates have one cause each, or one set. What explains a step must
    explain the next one too. proof: what proves the first of them. What a wrong map of the weights explains goes with
    it.
    """
    found: list[Finding] = []
    left = list(new)
    points = _points(moment, own)
    while left:
        i = left[0]
        if isinstance(proof, Remedy):
            found.append(_mapped(moment, i, proof))
            moment, own, left = _righted(moment, own, left, proof)
            points, proof = _points(moment, own), None
            continue
        answers = _of_block(points[0], proof) if proof else _answered(points, i)
        if not answers and moment.plan.compared[i].kind == "activation" and (proof := remedy(moment, own, i)):
            continue
        found += [a for a in answers or [_unknown(moment, i)] if (a.id, a.edit) not in {(f.id, f.edit) for f in found}]
        left = [k for k in left if k not in _settled(moment, i)]
        proof = None
    return found


def _points(moment: Moment, own: Own) -> list[Point]:
    """The step itself, and the next one."""
    there, alone = further(moment, 0)
    measures = measures_of(moment.plan, there.reference, alone)
    measures.noise_candidate = np.fmax(measures.noise_candidate, measures.noise_reference)
    points = [Point(moment=moment, own=own, alone=fed_alike(moment))]
    if np.isfinite(measures.d64).all():
        points.append(Point(moment=there, own=replace(own, measures=measures), alone=alone))
    return points


def _righted(moment: Moment, own: Own, new: Sequence[int], right: Remedy) -> tuple[Moment, Own, list[int]]:
    """The moment with the weights mapped as meant, and what still differs by itself."""
    moment = replace(moment, plan=righted(moment.plan, right.edit))
    measures = measures_of(moment.plan, moment.reference, fed_alike(moment))
    measures.spread[...] = np.fmax(measures.spread, own.measures.spread)
    return moment, replace(own, measures=measures), [i for i in new if not measures.ratio[0, i] <= K]


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
    """What the first question that has an answer says; nothing where none has."""
    first = points[0]
    elsewhere = [{question.of: question for question in _asked(point, i)} for point in points[1:]]
    for question in _asked(first, i):
        answer = solved(joined([question, *(of[question.of] for of in elsewhere if question.of in of)]))
        if answer:
            places = place_of(first.moment.plan, i, 0), place_of(first.moment.plan, i, 1)
            return list(_named(first.moment, places, answer))
    return []


def _of_block(point: Point, block: Block) -> list[Finding]:
    """A block that only one side has, or two that no value has paired: substituting it was the proof."""
    moment = point.moment
    places = f"forward:{block.reference}", f"forward:{block.candidate}"
    calls = blocks.calls_near(moment, (block.reference, block.candidate))
    if block.alone is None:
        question = blocks.unpaired(point.moment, point.alone, calls, (block.reference, block.candidate))
        answer = solved(question) if question else None
        if answer:
            return list(_named(moment, places, answer))
    parts = blocks.only_there(calls, block)
    causes = named([Edit(position=0, field="", before=parts[0], after=None)], parts) if parts else ()
    return [
        Finding(
            id=causes[0].id if causes else "layer-missing" if block.alone is not None else "layer-different",
            same=causes[0].same if causes else (),
            where=places[0],
            candidate_where=places[1],
            step=moment.step,
            status="proven",
            edit=f"{block.text}: {_value(parts[0])}" if parts else block.text,
        )
    ]


def _mapped(moment: Moment, i: int, right: Remedy) -> Finding:
    return Finding(
        id=right.cause,
        where=place_of(moment.plan, i, 0),
        candidate_where=place_of(moment.plan, i, 1),
        step=moment.step,
        status="proven",
        edit=right.text,
        before64=right.before,
        after64=right.after,
        advice={"candidate": "harness.transfer(reference, candidate, x)"},
    )


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


def _unknown(moment: Moment, i: int) -> Finding:
    return Finding(
        id="",
        where=place_of(moment.plan, i, 0),
        candidate_where=place_of(moment.plan, i, 1),
        step=moment.step,
        status="unknown",
        edit=f"{moment.plan.compared[i].name} differs by itself; no edit of what is known here explains it",
    )


def _named(moment: Moment, places: tuple[str, str], answer: Solved) -> Iterator[Finding]:
    """A finding for each cause in an answer."""
    others = {cause.id for edits in answer.others for cause in named(edits, answer.parts)}
    for cause in named(answer.edits, answer.parts):
        yield Finding(
            id=cause.id,
            same=tuple(sorted({*cause.same, *others} - {cause.id})),
            where=places[0],
            candidate_where=places[1],
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
