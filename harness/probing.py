"""What may be said of blocks and loops that the reference does not know: simple relations between two sides' values.

Each probe looks at the step and at the next one; it is evidence, and a proof only where the step taken so agrees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.case import PRECISIONS, Precision
from harness.elsewhere import Moment
from harness.feeding import Feed
from harness.following import parameters_of, retake, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.owning import Own
from harness.points import Point
from harness.probing_losses import of_an_activation, scaled_terms
from harness.questions.scopes import is_frozen, made_updates
from harness.recipe import Batch
from harness.views import see_gradient, see_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A relation that holds: the signature of the edit that it would be, in words, and whether a step proves it."""

    signature: str
    text: str
    proven: bool
    before: float | None = None
    after: float | None = None


def probed(points: Sequence[Point], i: int) -> Probe | None:
    """The first relation between the two sides' values of quantity i that holds at all points."""
    match points[0].moment.plan.compared[i].kind:
        case "activation":
            return _other_inputs(points[0].moment, points[0].own, i)
        case "gradient" | "activation_gradient":
            return next(_of_gradient(points, i), None)
        case "update":
            return _of_update(points, i)
        case "loss":
            return next((Probe(signature=s, text=t, proven=False) for s, t in _of_loss(points, i)), None)
    return None


# --- data -------------------------------------------------------------------------------------------------------


def _other_inputs(moment: Moment, own: Own, i: int) -> Probe | None:
    """The candidate's step with its inputs in another order."""
    states = mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before)
    fed = forced_by(moment.plan, moment.reference, moment.candidate)
    before = float(own.measures.d64[0, i])
    for signature, text, feed in _feeds(moment):
        batches: dict[Precision, Batch] = {precision: feed.batch(moment.step, precision) for precision in PRECISIONS}
        again = retake(moment.sides[1], states, batches, fed)
        pair = shown(moment.plan.compared[i], moment.reference, again)
        after = _gap(*pair) if pair[0].shape == pair[1].shape else np.inf
        if after <= K * own.measures.budget[0, i]:
            return Probe(signature=signature, text=text, proven=True, before=before, after=after)
    return None


def _feeds(moment: Moment) -> Iterator[tuple[str, str, Feed]]:
    theirs = moment.sides[1].feed
    for order in itertools.permutations(range(len(theirs.inputs))):
        inputs = tuple(theirs.inputs[k] for k in order)
        alike = [one.shape for one in inputs] == [own.shape for own in theirs.inputs]
        if order != tuple(range(len(order))) and len(order) <= 4 and alike:
            swapped = replace(theirs, inputs=inputs)
            yield "batches:columns", f"the inputs come in another order; meant: {order}", swapped


# --- the loss ----------------------------------------------------------------------------------------------------


def _of_loss(points: Sequence[Point], i: int) -> Iterator[tuple[str, str]]:
    yield from filter(None, (scaled_terms(points), of_an_activation(points, i)))
    yield "loss:other", "equal outputs and targets give another loss"


# --- gradients --------------------------------------------------------------------------------------------------


def _of_gradient(points: Sequence[Point], i: int) -> Iterator[Probe]:
    moment = points[0].moment
    pairs = [shown(point.moment.plan.compared[i], point.moment.reference, point.alone) for point in points]
    enough = [K * point.own.measures.budget[0, i] for point in points]
    if all(_gap(*pair) <= limit for pair, limit in zip(pairs, enough, strict=True)):
        # what a hook makes of a gradient is gone where another is put in its place: the step as it was shows it
        points, enough = points[:1], enough[:1]
        pairs = [shown(moment.plan.compared[i], moment.reference, moment.candidate)]
    names = [side.name for side in moment.sides]
    if (piled := _piled(moment)) and moment.plan.compared[i].kind == "gradient":
        yield piled
    yield from _left_over(points, i, pairs, enough)
    for side in (0, 1):
        if all(not pair[side].any() and pair[1 - side].any() for pair in pairs):
            yield Probe(signature=_stopped(moment, i), text=f"nothing flows back in {names[side]}", proven=False)
    factors = [float((pair[1] * pair[0]).sum() / np.square(pair[0]).sum()) for pair in pairs if pair[0].any()]
    if len(factors) == len(pairs) and np.ptp(factors) <= 1e-6 * abs(factors[0]) and not np.isclose(factors[0], 1):
        scaled = [_gap(factors[0] * one, other) for one, other in pairs]
        if all(gap <= limit * max(1.0, abs(factors[0])) for gap, limit in zip(scaled, enough, strict=True)):
            kind = "sign" if np.isclose(factors[0], -1) else "factor"
            text = f"{names[1]} has {factors[0]:.6g} times what {names[0]} has"
            yield Probe(signature=f"gradient:{kind}", text=text, proven=False, before=_gap(*pairs[0]), after=scaled[0])
    if all(one.ndim == 2 and one.shape[0] == one.shape[1] for one, _ in pairs):
        gaps = [_gap(one.T, other) for one, other in pairs]
        if all(gap <= limit for gap, limit in zip(gaps, enough, strict=True)):
            text = f"{names[1]} has the transpose of what {names[0]} has"
            yield Probe(signature="gradient:transposed", text=text, proven=False, before=_gap(*pairs[0]), after=gaps[0])
    yield from _penalised(points, i, pairs, enough)
    if moment.plan.compared[i].kind == "activation_gradient" or len(points) > 1:
        text = (
            "the same forward pass and the same cotangents, another derivative: written by hand, or stopped in a branch"
        )
        yield Probe(signature="gradient:other", text=text, proven=False)


def _left_over(
    points: Sequence[Point], i: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]], enough: Sequence[float]
) -> Iterator[Probe]:
    """A difference that is what one side's own step found of the step before: it was not cleared."""
    link = points[0].moment.plan.compared[i].link
    if link is None or points[0].moment.plan.compared[i].kind != "gradient":
        return
    for side, of in ((0, link.reference), (1, link.candidate)):
        records = [(p.moment.reference, p.alone)[side].records["float64"].found for p in points]
        found = [see_gradient(of, record) for record in records]
        gaps = [
            np.inf if old is None else _gap(pair[side] - old, pair[1 - side])
            for pair, old in zip(pairs, found, strict=True)
        ]
        if all(gap <= limit for gap, limit in zip(gaps, enough, strict=True)):
            text = f"{points[0].moment.sides[side].name} adds to the gradients of the step before: they are not cleared"
            yield Probe(signature="gradient:piled", text=text, proven=False, before=_gap(*pairs[0]), after=gaps[0])


def _penalised(
    points: Sequence[Point], i: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]], enough: Sequence[float]
) -> Iterator[Probe]:
    """A difference that is a multiple of the parameter itself."""
    link = points[0].moment.plan.compared[i].link
    if link is None:
        return
    weights = [see_value(link.reference, point.moment.reference.before["float64"].values) for point in points]
    ratios = [
        float(((other - one) * w).sum() / np.square(w).sum())
        for (one, other), w in zip(pairs, weights, strict=True)
        if w.any()
    ]
    if len(ratios) == len(pairs) and np.ptp(ratios) <= 1e-6 * abs(ratios[0]):
        gaps = [_gap(one + ratios[0] * w, other) for (one, other), w in zip(pairs, weights, strict=True)]
        if all(gap <= limit for gap, limit in zip(gaps, enough, strict=True)):
            text = f"the gradients differ by {ratios[0]:.6g} times the parameter"
            yield Probe(signature="gradient:penalty", text=text, proven=False, before=_gap(*pairs[0]), after=gaps[0])


def _stopped(moment: Moment, i: int) -> str:
    link = moment.plan.compared[i].link
    return "update:zero" if link is not None and is_frozen(moment, link) else "gradient:zero"


def _piled(moment: Moment) -> Probe | None:
    """How the two sides gather gradients, where they do so in other ways."""
    rules = [side.watched["float64"].rule() for side in moment.sides]
    ways = [None if rule is None else rule.accumulation for rule in rules]
    if ways[0] is None or ways[1] is None or ways[0] == ways[1] or not moment.step:
        return None
    text = "; ".join(f"{way} in {side.name}" for way, side in zip(ways, moment.sides, strict=True))
    averaged = replace(ways[0], combine=ways[1].combine) == ways[1]
    return Probe(signature="gradient:averaged" if averaged else "gradient:piled", text=text, proven=False)


# --- updates ----------------------------------------------------------------------------------------------------


def _of_update(points: Sequence[Point], i: int) -> Probe | None:
    return _not_yet(points[0]) or _added(points, i) or _at_other_rates(points) or _in_repeated_rows(points[0])


def _not_yet(point: Point) -> Probe | None:
    """One side alone makes an update at this step."""
    made, names = made_updates(point.moment, point.alone), [side.name for side in point.moment.sides]
    if made[0] == made[1]:
        return None
    text = f"{names[made.index(True)]} makes an update at this step, {names[made.index(False)]} makes none"
    return Probe(signature="update:none", text=text, proven=False)


def _added(points: Sequence[Point], i: int) -> Probe | None:
    """Several parameters that are added on one side move the sum as many times as fast."""
    link = points[0].moment.plan.compared[i].link
    counts = [len(parameters_of(side)) for side in (link.reference, link.candidate)] if link else [1, 1]
    if counts[0] == counts[1]:
        return None
    for point in points:
        one, other = shown(point.moment.plan.compared[i], point.moment.reference, point.alone)
        if not _gap(one * counts[1], other * counts[0]) <= max(counts) * K * point.own.measures.budget[0, i]:
            return None
    text = f"{counts[0]} parameters are added here in the reference, {counts[1]} in the candidate: each takes the step"
    return Probe(signature="links:added", text=text, proven=True)


def _in_repeated_rows(point: Point) -> Probe | None:
    """Only embeddings move otherwise, and only in rows that the batch takes several times."""
    moment, own = point.moment, point.own
    batch = moment.sides[0].feed.batch(moment.step, "float64")
    taken = [values.ravel() for values in batch.inputs if values.dtype.kind in "iu"]
    counts = np.bincount(np.concatenate(taken)) if taken else np.zeros(0, int)
    roles = {p.name: p.role for p in moment.sides[0].watched["float64"].parameters}
    differing = [
        k for k, q in enumerate(moment.plan.compared) if q.kind == "update" and not own.measures.ratio[0, k] <= K
    ]
    for k in differing:
        link = moment.plan.compared[k].link
        one, other = shown(moment.plan.compared[k], moment.reference, moment.candidate)  # fed, rows are added up before
        if link is None or roles[link.reference.parameter] != "embeddings":
            return None
        rows = np.flatnonzero((np.abs(one - other) > K * own.measures.budget[0, k]).reshape(len(one), -1).any(axis=1))
        if not len(rows) or rows.max() >= len(counts) or not (counts[rows] > 1).all():
            return None
    if not differing:
        return None
    text = "only embeddings move otherwise, and only in rows that the batch takes several times"
    return Probe(signature="update:rows", text=text, proven=False)


def _at_other_rates(points: Sequence[Point]) -> Probe | None:
    """All updates are the same times as large, another time as large at each point: the rate changes otherwise."""
    factors = []
    for point in points:
        updates = [k for k, quantity in enumerate(point.moment.plan.compared) if quantity.kind == "update"]
        pairs = [shown(point.moment.plan.compared[k], point.moment.reference, point.alone) for k in updates]
        size = sum(float(np.square(one).sum()) for one, _ in pairs)
        factor = sum(float((one * other).sum()) for one, other in pairs) / size if size else 0.0
        enough = [K * max(1.0, abs(factor)) * point.own.measures.budget[0, k] for k in updates]
        if not all(_gap(factor * one, other) <= limit for (one, other), limit in zip(pairs, enough, strict=True)):
            return None
        factors.append(factor)
    if len(factors) < 2 or np.ptp(factors) <= 1e-6 * abs(factors[0]):
        return None
    said = " and then ".join(f"{factor:.6g}" for factor in factors)
    return Probe(signature="update:rates", text=f"all updates are {said} times as large in the candidate", proven=False)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max(initial=0.0))
