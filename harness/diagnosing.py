"""From differences to causes: what is asked at each place, and what the answers are called."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import frameworks as registry
from harness.blocks import Block
from harness.causes import TABLE, Named, named
from harness.comparison import Divergence
from harness.diverging import place_of
from harness.editing import Edit, Parts, edited
from harness.elsewhere import Moment
from harness.feeding import Feed
from harness.finding import Finding
from harness.ops import Combine
from harness.orders import reordered
from harness.owning import Own
from harness.points import Point, behind, is_certain, points_of, refed, without
from harness.probing import probed
from harness.questions import blocks, buffers, gradients, losses, updates
from harness.remapping import Remedy, remedy
from harness.solving import Question, Solved, joined, solved

SEARCH = 10.0
"""Seconds that one comparison may search for causes."""

PARTS = 1
"""Whole parts that are exchanged at once, at most: more is another computation, no edit of this one."""

WIDEST = 4
"""Pairs behind each other that are taken for none."""

STRUCTURAL = ("layer-missing", "bias-missing", "activation-different")
"""Causes that say what stands where: they rest on what the two sides have before it being a pair."""

GENERIC = "layer-different"
VAGUE = (GENERIC, "float32-constant")
"""Another kind of layer altogether says little: the two may be no pair at all; a rounding is no difference."""


def findings(
    moment: Moment, own: Own, new: Sequence[int], proof: Block | Remedy | None = None, end: float = math.inf
) -> list[Finding]:
    """Why each of these quantities, which differ by themselves, does; in the order of the computation.

    Own errors of one block, of the loss, and of all updates have one cause each, or one set. What explains a step must
    explain the next one too. proof: what proves the first of them. What a wrong map of the weights explains goes with
    it. end: when the search stops, by `time.monotonic`; what was not asked by then is unknown, and says so.
    """
    found: list[Finding] = []
    left = list(new)
    for text, feed in _orders(moment):
        there, then, still = refed(moment, own, left, feed)
        if len(still) < len(left):
            found.append(_fed_otherwise(moment, own, then, left[0], text))
            moment, own, left, proof = there, then, still, None
            break
    points = points_of(moment, own) if left else []
    left = [k for k in left if not _hidden(points[0], k)]
    while left:
        i = left[0]
        if isinstance(proof, Remedy):
            found.append(_mapped(moment, i, proof))
            moment, own, left = behind(moment, own, left, proof)
            points, proof = points_of(moment, own), None
            continue
        if time.monotonic() > end:
            said = [] if _follows(moment, found, i) else [_unknown(moment, i, f"search stopped after {SEARCH:.0f} s")]
            return [*_without_echoes(found), *said]
        answers, within = _answered(points, i, end)
        if not _sure(answers) or _doubtful(moment, left):
            wider = _wider(moment, own, left, i, end)
            if wider and (_sure(wider[2][0]) or not (answers or proof)):
                (moment, own, left, i), points, (answers, within) = wider
            elif proof and not _sure(answers) and (_sure(block := _of_block(points[0], proof)) or not answers):
                answers = block
        if not answers and moment.plan.compared[i].kind == "activation" and (proof := remedy(moment, own, i)):
            continue
        if not answers and not _follows(moment, found, i):
            answers = _probed(points, found, i)
        if _on_doubtful(moment, found):
            answers = [replace(a, status="likely") if a.id in STRUCTURAL else a for a in answers]
        found += [a for a in answers if (a.id, a.edit) not in {(f.id, f.edit) for f in found}]
        left = [k for k in left if k not in _settled(moment, i) | _behind(moment, within)]
        proof = None
    return _without_echoes(found)


def with_random_layer(causes: Sequence[Finding], said: str) -> list[Finding]:
    """A layer that is random on one side alone is behind the first forward difference that nothing proves. said: which
    layer it is, in words."""
    forward = [cause for cause in causes if cause.where.startswith("forward:")]
    unproven = next((cause for cause in forward if cause.status != "proven"), None)
    if unproven is None or any(cause.id == "dropout-active" for cause in forward):
        return list(causes)
    place = {name: getattr(unproven, name) for name in ("where", "candidate_where", "step")}
    random = Finding(id="dropout-active", status="likely", edit=said, **place)
    return [random if cause is unproven else cause for cause in causes]


def _on_doubtful(moment: Moment, found: Sequence[Finding]) -> bool:
    """A forward difference before is not proven, and its two sides need be no pair: what was fed from it proves no
    block to be absent."""
    doubtful = {f.where.partition(":")[2] for f in found if f.status != "proven" and f.where.startswith("forward:")}
    pairs = [pair for pair in moment.plan.alignment if pair.reference.removesuffix("/linear") in doubtful]
    return not all(is_certain(moment, pair, transferred=True) for pair in pairs)


def _sure(answers: Sequence[Finding]) -> bool:
    return bool(answers) and all(answer.status == "proven" for answer in answers)


def _doubtful(moment: Moment, left: Sequence[int]) -> bool:
    """Two activations in a row differ, and the first need not be a pair: one edit may be behind both."""
    first, *behind = (moment.plan.compared[k] for k in left[:2])
    return (
        first.aligned is not None
        and bool(behind)
        and behind[0].kind == "activation"
        and not is_certain(moment, first.aligned)
    )


def _wider(
    moment: Moment, own: Own, left: Sequence[int], i: int, end: float
) -> tuple[tuple[Moment, Own, list[int], int], list[Point], tuple[list[Finding], tuple[str, ...]]] | None:
    """What proves why the activations behind i differ, where the two sides of i are taken for no pair: what stands in
    the same place need not be the same. Else the first that has an answer; None where nothing has."""
    likely = None
    for _ in range(WIDEST):
        pair = moment.plan.compared[i].aligned
        if moment.plan.compared[i].kind != "activation" or pair is None or is_certain(moment, pair):
            break
        if time.monotonic() > end:
            break
        moment, own, left = without(moment, own, left, i)
        if not left:
            break
        i, points = left[0], points_of(moment, own)
        answers = _answered(points, i, end)
        found = (moment, own, list(left), i), points, answers
        if _sure(answers[0]):
            return found
        likely = found if answers[0] and likely is None else likely
    return likely


def _behind(moment: Moment, within: Sequence[str]) -> set[int]:
    """The gradients of what lies within blocks whose difference is explained: they differ for the same reason."""
    layers = {p.name: p.layer for p in moment.sides[0].watched["float64"].parameters}
    return {
        k
        for k, q in enumerate(moment.plan.compared)
        if (q.kind == "activation_gradient" and q.reference in within)
        or (q.kind == "gradient" and q.link is not None and layers[q.link.reference.parameter] in within)
    }


def of_another_form(difference: Divergence) -> Finding:
    """The cause of a difference that float32 alone has."""
    return Finding(
        id="unstable-form",
        where=difference.place,
        candidate_where=difference.candidate_place,
        step=difference.step,
        status="likely",
        edit=difference.text,
    )


def _without_echoes(found: Sequence[Finding]) -> list[Finding]:
    """Without what is only likely of a cause that is proven too: the same difference, met again on its way."""
    proven = {id for finding in found if finding.status == "proven" for id in (finding.id, *finding.same)}
    return [f for f in found if f.status != "likely" or f.id not in proven or f.where.startswith("forward:")]


def _hidden(point: Point, i: int) -> bool:
    """A cotangent that the candidate has, but does not show once its blocks are fed: inside a derivative by hand."""
    quantity, name = point.moment.plan.compared[i], point.moment.plan.compared[i].candidate
    shown = [taken.records["float64"].cotangents for taken in (point.moment.candidate, point.alone)]
    return quantity.kind == "activation_gradient" and name in shown[0] and name not in shown[1]


def _orders(moment: Moment) -> Iterator[tuple[str, Feed]]:
    one, other = moment.sides
    return reordered(one.feed, other.feed, (one.name, other.name), moment.step)


def _fed_otherwise(moment: Moment, own: Own, then: Own, i: int, text: str) -> Finding:
    return Finding(
        id="data-order",
        where=place_of(moment.plan, i, 0),
        candidate_where=place_of(moment.plan, i, 1),
        step=moment.step,
        status="proven",
        edit=text,
        before64=float(own.measures.d64[0, i]),
        after64=float(then.measures.d64[0, i]),
        before32=float(own.measures.d32[0, i]),
        after32=float(then.measures.d32[0, i]),
    )


def _follows(moment: Moment, found: Sequence[Finding], i: int) -> bool:
    """Where a block computes something else, or the loss does so for a reason that is not proven, what flows back is
    something else too."""
    return moment.plan.compared[i].kind.endswith("gradient") and any(
        f.where.startswith("forward:") or (f.where == "loss" and f.status != "proven") for f in found
    )


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


def _answered(points: Sequence[Point], i: int, end: float) -> tuple[list[Finding], tuple[str, ...]]:
    """What the first question says whose answer is proven, else the first that has one, and the blocks that it is
    about; nothing where none has."""
    found: list[Finding] = []
    within: tuple[str, ...] = ()
    first = points[0]
    elsewhere = [{question.of: question for question in _asked(point, i)} for point in points[1:]]
    for question in _asked(first, i):
        answer = solved(joined([question, *(of[question.of] for of in elsewhere if question.of in of)]), end)
        if answer and _exchanges(answer.edits) <= PARTS:
            places = place_of(first.moment.plan, i, 0), place_of(first.moment.plan, i, 1)
            about = question.of[0] if first.moment.plan.compared[i].kind == "activation" and question.of else ()
            answers = list(_named(first.moment, places, answer))
            if _sure(answers):
                return answers, about
            found, within = (found, within) if found else (answers, about)
    return found, within


def _of_block(point: Point, block: Block) -> list[Finding]:
    """A block that only one side has, or two that no value has paired: substituting it proves the place, and the cause
    where the reference knows the block."""
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
            id=causes[0].id if causes else "layer-missing" if block.alone is not None else GENERIC,
            same=causes[0].same if causes else (),
            where=places[0],
            candidate_where=places[1],
            step=moment.step,
            status="proven" if causes else "likely",
            edit=f"{block.text}: {_value(parts[0])}" if parts else block.text,
        )
    ]


def _probed(points: Sequence[Point], found: Sequence[Finding], i: int) -> list[Finding]:
    """What a probe says, if any holds; nothing for the gradient of a penalty that the loss has shown."""
    probe, plan = probed(points, i), points[0].moment.plan
    if probe is None:
        return [_unknown(points[0].moment, i)]
    of_penalty = any(f.id.startswith("l2-") or f.id == "weight-decay-scope" for f in found)
    if probe.signature == "gradient:penalty" and of_penalty:
        return []
    cause, *same = (row.id for row in TABLE.values() if probe.signature in row.edits)
    return [
        Finding(
            id=cause,
            same=tuple(same),
            where=place_of(plan, i, 0),
            candidate_where=place_of(plan, i, 1),
            step=points[0].moment.step,
            status="proven" if probe.proven else "likely",
            edit=probe.text,
            before64=probe.before,
            after64=probe.after,
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


def _unknown(moment: Moment, i: int, why: str = "no edit of what is known here explains it") -> Finding:
    return Finding(
        id="",
        where=place_of(moment.plan, i, 0),
        candidate_where=place_of(moment.plan, i, 1),
        step=moment.step,
        status="unknown",
        edit=f"{moment.plan.compared[i].name} differs by itself; {why}",
    )


def _named(moment: Moment, places: tuple[str, str], answer: Solved) -> Iterator[Finding]:
    """A finding for each cause in an answer."""
    others = {cause.id for edits in answer.others for cause in named(edits, answer.parts)}
    # several parts exchanged at once are one edit of a kind unknown
    fitted = answer.fitted and places[0].startswith("forward:")  # a loss and all updates are more than one block
    sure = not fitted and _exchanges(answer.edits) < 2 and not any(map(_formula, answer.edits))
    for cause in named(answer.edits, answer.parts):
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
        said.append(f"{what} {_value(edit.before)} in {names[0]}, {_value(edit.after)} in {names[1]}".strip())
    return "; ".join(said)


def _value(value: object) -> str:
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
