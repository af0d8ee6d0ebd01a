"""From differences to causes: what is asked at each place, and what the answers are called."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.answering import GENERIC, Place, are_proven, best_answer, findings_of, in_words, questions_about
from harness.blocks import Block
from harness.causes import TABLE, named
from harness.comparison import Divergence
from harness.diverging import place_of
from harness.editing import Edit
from harness.elsewhere import Moment
from harness.feeding import Feed
from harness.finding import Finding
from harness.following import shown
from harness.judging import K
from harness.orders import reordered
from harness.owning import Own
from harness.points import Point, behind, is_certain, points_of, refed
from harness.probing import probed
from harness.questions import blocks
from harness.remapping import Remedy, links_behind, remedy
from harness.solving import solved

SEARCH = 10.0
"""Seconds that one comparison may search for causes."""

STRUCTURAL = ("layer-missing", "bias-missing", "activation-different")
"""Causes that say what stands where: they rest on what the two sides have before it being a pair."""


def findings(
    moment: Moment, own: Own, new: Sequence[int], proof: Block | Remedy | None = None, end: float = math.inf
) -> list[Finding]:
    """Why each of these quantities, which differ by themselves, does; in the order of the computation.

    Own errors of one block, of the loss, and of all updates have one cause each, or one set. What explains a step must
    explain the next one too. proof: what proves the first of them. What a wrong map of the weights explains goes with
    it. end: when the search stops, by `time.process_time`; what was not asked by then is unknown, and says so.
    """
    found: list[Finding] = []
    left = list(new)
    for text, feed in _orders(moment):
        there, then, still = refed(moment, own, left, feed)
        if len(still) < len(left):
            found.append(_fed_otherwise(moment, own, then, left[0], text))
            moment, own, left, proof = there, then, still, None
            break
    points = points_of(moment, own, left) if left else []
    left = [k for k in left if not _hidden(points[0], k)]
    while left:
        i = left[0]
        if isinstance(proof, Remedy):
            found.append(_mapped(moment, i, proof))
            moment, own, left = behind(moment, own, left, proof)
            points, proof = points_of(moment, own, left), None
            continue
        if time.process_time() > end:
            said = (
                [] if _follows(points[0], found, i) else [_unknown(moment, i, f"search stopped after {SEARCH:.0f} s")]
            )
            return [*found, *said]
        if _holds_others(moment, i) and (right := remedy(moment, own, i)):
            proof = right
            continue
        here = Place(moment=moment, own=own, left=left, points=points, questions=questions_about(points, i))
        there, answers, within = best_answer(here, end, anything=proof is None)
        if there is not here:
            moment, own, left, points, i = there.moment, there.own, there.left, there.points, there.left[0]
        elif proof and not are_proven(answers) and (are_proven(block := _of_block(points[0], proof)) or not answers):
            answers = block
        if not answers and moment.plan.compared[i].kind == "activation" and (proof := remedy(moment, own, i)):
            continue
        if not answers and not _follows(points[0], found, i):
            answers = _probed(points, found, i)
        if _on_doubtful(moment, found):
            no_pair = _may_be_no_pair(moment, i)
            answers = [replace(a, status="likely") if no_pair or a.id in STRUCTURAL else a for a in answers]
        found += [a for a in answers if (a.id, a.edit) not in {(f.id, f.edit) for f in found}]
        left = [k for k in left if k not in _settled(moment, i) | _behind(moment, within)]
        proof = None
    return found


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


def _holds_others(moment: Moment, i: int) -> bool:
    """A parameter behind an activation has not the other side's values: that is asked before any edit."""
    return moment.plan.compared[i].kind == "activation" and not all(link.expected for link in links_behind(moment, i))


def _on_doubtful(moment: Moment, found: Sequence[Finding]) -> bool:
    """A forward difference before is not proven, and its two sides need be no pair: what was fed from it proves no
    block to be absent, and nothing of two blocks that need be no pair either."""
    doubtful = {f.where.partition(":")[2] for f in found if f.status != "proven" and f.where.startswith("forward:")}
    pairs = [pair for pair in moment.plan.alignment if pair.reference.removesuffix("/linear") in doubtful]
    return not all(is_certain(moment, pair, transferred=True) for pair in pairs)


def _may_be_no_pair(moment: Moment, i: int) -> bool:
    """What stands at the same place on both sides, for no other reason than that."""
    pair = moment.plan.compared[i].aligned
    return pair is not None and not is_certain(moment, pair)


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


def without_echoes(found: Sequence[Finding]) -> list[Finding]:
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


def _follows(point: Point, found: Sequence[Finding], i: int) -> bool:
    """Where a block computes something else, or the loss does so for a reason that is not proven, what flows back is
    something else too; and what agrees once it is fed the other side's gradients follows from its own."""
    moment, quantity = point.moment, point.moment.plan.compared[i]
    if quantity.kind == "update":
        one, other = shown(quantity, moment.reference, point.alone)
        agree = np.abs(one - other).max(initial=0.0) <= K * point.own.measures.budget[0, i]
        return bool(agree) and any(f.where.startswith("gradient:") for f in found)
    return quantity.kind.endswith("gradient") and any(
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
            return {i} | {  # an entropy takes the logits that lie before its output
                k
                for k, q in enumerate(compared)
                if q.kind == "activation_gradient" and q.reference.removesuffix("/linear") in outputs
            }
    return {i}


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
            return list(findings_of(moment, places, answer, blocks.near(calls, (block.reference, block.candidate))))
    parts = blocks.only_there(calls, block)
    near = blocks.near(calls, (block.reference, block.candidate))
    causes = named([Edit(position=0, field="", before=parts[0], after=None)], parts, near) if parts else ()
    return [
        Finding(
            id=causes[0].id if causes else "layer-missing" if block.alone is not None else GENERIC,
            same=causes[0].same if causes else (),
            where=places[0],
            candidate_where=places[1],
            step=moment.step,
            status="proven" if causes else "likely",
            edit=f"{block.text}: {in_words(parts[0])}" if parts else block.text,
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
        before32=right.before32,
        after32=right.after32,
    )


def _unknown(moment: Moment, i: int, why: str = "no edit of what is known here explains it") -> Finding:
    return Finding(
        id="",
        where=place_of(moment.plan, i, 0),
        candidate_where=place_of(moment.plan, i, 1),
        step=moment.step,
        status="unknown",
        edit=f"{moment.plan.compared[i].name} differs by itself; {why}",
    )
