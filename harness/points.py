"""Where the two sides are asked: the step itself, and the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.activations import Aligned
from harness.elsewhere import Moment, fed_alike, further
from harness.feeding import Feed
from harness.following import Plan, Taken, measures_of, parameters_of
from harness.judging import K
from harness.owning import Own
from harness.recipe import State
from harness.remapping import Remedy, righted


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A step at which the two sides are asked; alone: the candidate's, each block fed what the reference's was."""

    moment: Moment
    own: Own
    alone: Taken


def points_of(moment: Moment, own: Own, left: Sequence[int]) -> list[Point]:
    """The step itself, and the next one from the reference's state: what explains a step must explain that too. left:
    the quantities that will be asked about; of a large model's parameters no others fit into memory."""
    there, alone = further(moment, 0)
    measures = measures_of(moment.plan, there.reference, alone)
    measures.noise_candidate = np.fmax(measures.noise_candidate, measures.noise_reference)
    there = replace(there, reference=_kept(there.reference, moment.plan, left, 0))
    alone = _kept(alone, moment.plan, left, 1)
    keep = frozenset() if moment.reference.before["float64"].count else moment.keep  # a start is a side's own
    here = _kept(fed_alike(replace(moment, keep=keep)), moment.plan, left, 1)
    points = [Point(moment=moment, own=own, alone=here)]
    if np.isfinite(measures.d64).all():
        points.append(Point(moment=there, own=replace(own, measures=measures), alone=alone))
    return points


def _kept(taken: Taken, plan: Plan, left: Sequence[int], side: int) -> Taken:
    """The step with what it made of those parameters alone that are asked about; of all, where an update is."""
    asked = [plan.compared[i] for i in left]
    if any(quantity.kind == "update" for quantity in asked):
        return taken
    links = [(q.link.reference, q.link.candidate)[side] for q in asked if q.link is not None]
    names = {name for link in links for name in parameters_of(link)}

    def of(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: array for name, array in values.items() if name in names}

    return replace(
        taken,
        records={
            precision: replace(
                record,
                gradients=of(record.gradients),
                after=record.after and State(values=of(record.after.values), count=record.after.count),
            )
            for precision, record in taken.records.items()
        },
    )


def behind(moment: Moment, own: Own, new: Sequence[int], right: Remedy) -> tuple[Moment, Own, list[int]]:
    """The moment with the weights mapped as meant, and what still differs by itself."""
    return _again(replace(moment, plan=righted(moment.plan, right.edit)), own, new)


def refed(moment: Moment, own: Own, new: Sequence[int], feed: Feed) -> tuple[Moment, Own, list[int]]:
    """The moment with the candidate fed so, and what still differs by itself."""
    one, other = moment.sides
    return _again(replace(moment, sides=(one, replace(other, feed=feed))), own, new)


def without(moment: Moment, own: Own, new: Sequence[int], i: int) -> tuple[Moment, Own, list[int]]:
    """The moment in which the two sides of activation i are no pair, and what differs by itself then: of what did
    before, and of the activations and the loss behind it."""
    plan, pair = moment.plan, moment.plan.compared[i].aligned
    kept = [k for k, quantity in enumerate(plan.compared) if quantity.aligned is not pair]
    alignment = tuple(a for a in plan.alignment if a is not pair)
    there = replace(moment, plan=replace(plan, alignment=alignment, compared=tuple(plan.compared[k] for k in kept)))
    if not kept:
        return there, own, []
    measures = measures_of(there.plan, moment.reference, fed_alike(there))
    measures.spread[...] = np.fmax(measures.spread, own.measures.spread[:, kept])
    before = {plan.compared[k].name for k in new}
    differ = [
        k
        for k, quantity in enumerate(there.plan.compared)
        if not measures.ratio[0, k] <= K
        and (quantity.name in before or (k >= i and quantity.kind in ("activation", "loss")))
    ]
    return there, replace(own, measures=measures), differ


def is_certain(moment: Moment, pair: Aligned, *, transferred: bool = False) -> bool:
    """The two sides of a pair agree where they are fed alike, or are layers that hold the same parameters;
    transferred: with the same values."""
    layers = [{p.name: p.layer for p in side.watched["float64"].parameters} for side in moment.sides]
    names = [name.removesuffix("/linear").partition("#")[0] for name in (pair.reference, pair.candidate)]
    return pair.by == "value" or any(
        [layers[0][link.reference.parameter], layers[1][link.candidate.parameter]] == names
        for link in moment.plan.pairing.links
        if link.expected or not transferred
    )


def _again(moment: Moment, own: Own, new: Sequence[int]) -> tuple[Moment, Own, list[int]]:
    measures = measures_of(moment.plan, moment.reference, fed_alike(moment))
    measures.spread[...] = np.fmax(measures.spread, own.measures.spread)
    return moment, replace(own, measures=measures), [i for i in new if not measures.ratio[0, i] <= K]
