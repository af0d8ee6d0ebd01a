"""A difference in words: where it is, how large, and why where that is proven."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from harness.blocks import Block, block_behind
from harness.comparing import Measures
from harness.comparison import Divergence
from harness.elsewhere import Moment
from harness.following import Plan, shown
from harness.mismatch import mismatch
from harness.owning import Own
from harness.remapping import Remedy, remedy

PLACES = {
    "activation": "forward",
    "activation_gradient": "gradient",
    "gradient": "gradient",
    "update": "update",
    "slot": "slot",
    "buffer": "state",
    "parameter": "update",
}
"""Where a difference starts, by the kind of the quantity; the loss is its own place."""


def divergence(moment: Moment, i: int, measures: Measures) -> Divergence:
    """A quantity that differs by itself; measures: those that say so."""
    if not np.isfinite(measures.budget[0, i]):
        return worse(moment, i, measures)
    quantity = moment.plan.compared[i]
    one, other = shown(quantity, moment.reference, moment.candidate)
    found = mismatch(one, other, float(measures.size[0, i]), float(measures.budget[0, i]))
    places = [place_of(moment.plan, i, name) for name in (0, 1)]
    text = (
        f"{quantity.name}: {found.differing}/{found.elements} elements differ, worst {measures.d64[0, i]:.3g}"
        f"{f' at {found.index}' if found.index else ''} of {found.size:.3g}; rounding explains {found.budget:.2g}"
    )
    return Divergence(
        place=places[0],
        candidate_place=places[1],
        step=moment.step,
        name=quantity.name,
        index=found.index,
        text=text,
        mismatch=found,
    )


def worse(moment: Moment, i: int, measures: Measures) -> Divergence:
    """A quantity whose float32 is far worse on one side, or not finite there."""
    quantity = moment.plan.compared[i]
    noises = measures.noise_reference[0, i], measures.noise_candidate[0, i]
    bad = int(not (np.isnan(noises[0]) or noises[0] > noises[1]))
    names = [side.name for side in moment.sides]
    off = f"off by {noises[bad]:.2g}" if np.isfinite(noises[bad]) else "not finite"
    text = (
        f"{quantity.name}: the same function in float64, but in float32 {names[bad]} is {off}, {names[1 - bad]} "
        f"off by {noises[1 - bad]:.2g}, of {measures.size[0, i]:.3g}"
    )
    places = [place_of(moment.plan, i, side) for side in (0, 1)]
    return Divergence(
        place=places[0], candidate_place=places[1], step=moment.step, name=quantity.name, index=(), text=text
    )


def explained(found: Divergence, moment: Moment, own: Own, i: int) -> tuple[Divergence, Block | Remedy | None]:
    """With what proves a first difference in the forward pass: a block behind it (the place is right before what
    shows it), or a wrong map of the weights."""
    block = block_behind(moment, own, i)
    if block is not None:
        places = [f"forward:{name.removesuffix('/linear')}" for name in (block.reference, block.candidate)]
        text = f"{block.text}; {found.text}"
        return replace(found, place=places[0], candidate_place=places[1], text=text), block
    right = None if moment.plan.compared[i].kind == "loss" else remedy(moment, own, i)
    if right is None:
        return _reshaped(found, moment, i), None
    why = f"{right.text}; mapped so, float64 agrees ({right.before:.2g} before, {right.after:.2g} after)"
    return replace(found, cause=right.cause, why=why, edit=right.edit), right


def place_of(plan: Plan, i: int, side: int) -> str:
    """A cotangent's place is that of the first parameter gradient behind it."""
    quantity = plan.compared[i]
    if quantity.kind == "loss":
        return "loss"
    if quantity.kind == "activation_gradient":
        behind = [q for q in plan.compared[i:] if q.kind == "gradient"]
        quantity = behind[0] if behind else quantity
    name = quantity.candidate if side else quantity.reference
    if quantity.kind == "activation":
        name = name.removesuffix("/linear")
    return f"{PLACES[quantity.kind]}:{name}"


def _reshaped(found: Divergence, moment: Moment, i: int) -> Divergence:
    """The place where a layer before activation i puts out another number of values on either side, and so is not
    compared: one that has the same parameters, or the only one between i and what was compared before it."""
    plan, records = moment.plan, [taken.records["float64"] for taken in (moment.reference, moment.candidate)]
    pair = plan.compared[i].aligned
    if pair is None or pair not in plan.alignment:
        return found
    before = plan.alignment[: plan.alignment.index(pair)][-1:]
    shown = [list(record.activations) for record in records]
    between = [
        names[names.index(start) + 1 if start else 0 : names.index(end)]
        for names, start, end in zip(
            shown,
            (before[0].reference, before[0].candidate) if before else ("", ""),
            (pair.reference, pair.candidate),
            strict=True,
        )
    ]
    layers = [{p.name: p.layer for p in side.watched["float64"].parameters} for side in moment.sides]
    linked = {(layers[0][link.reference.parameter], layers[1][link.candidate.parameter]) for link in plan.pairing.links}
    for one, other in itertools.product(*between):
        names = one.removesuffix("/linear"), other.removesuffix("/linear")
        alone = [one] == between[0] and [other] == between[1]
        shapes = records[0].activations[one].shape, records[1].activations[other].shape
        if (names in linked or alone) and math.prod(shapes[0]) != math.prod(shapes[1]):
            said = f"{names[0]} has shape {shapes[0]} in {moment.sides[0].name}, {shapes[1]} in {moment.sides[1].name}"
            places = [f"forward:{name}" for name in names]
            return replace(found, place=places[0], candidate_place=places[1], text=f"{said}; {found.text}")
    return found
