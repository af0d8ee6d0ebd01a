"""Why a gradient differs: what the blocks behind it make of the reference's cotangents."""

from __future__ import annotations

import itertools

import numpy as np

from harness.calls import Call
from harness.editing import Parts
from harness.elsewhere import Moment
from harness.following import Taken, shown
from harness.judging import K
from harness.owning import Own
from harness.questions.blocks import Calls, held_by
from harness.questions.buffers import layer_of
from harness.questions.chains import Chain, beside, chains, run_back
from harness.solving import Question


def question(moment: Moment, own: Own, alone: Taken, i: int, calls: Calls) -> Question | None:
    """The gradient of a parameter from its layer's cotangent, or of an activation from those of the blocks that read
    it. None where the reference's blocks are not known."""
    quantity, enough = moment.plan.compared[i], K * own.measures.budget[0, i]
    values = shown(quantity, moment.reference, alone)
    if quantity.kind == "gradient":
        return _of_parameter(moment, i, calls, values, enough)
    return _of_activation(moment, i, calls, values, enough)


def _of_parameter(
    moment: Moment, i: int, calls: Calls, values: tuple[np.ndarray, np.ndarray], enough: float
) -> Question | None:
    quantity = moment.plan.compared[i]
    names = [layer_of(moment, i, side) for side in (0, 1)]
    one, other = (next(chains(of, name), None) for of, name in zip(calls, names, strict=True))
    cotangent = moment.reference.records["float64"].cotangents.get(names[0])
    assert quantity.link is not None
    parameter = quantity.link.reference.parameter
    if one is None or cotangent is None:
        return None
    place = next(((k, row.index(parameter)) for k, row in enumerate(one.names) if parameter in row), None)
    if place is None:
        return None
    op, index = place
    held = one.parameters[op][index]
    axes = _axes(moment.reference.before["float64"].values[parameter], held)
    if axes is None:
        return None
    dy = one.canonical(cotangent)
    parts, holding = _sides(one, other)

    def compute(ops: Parts) -> list[np.ndarray]:
        _, gradients = run_back(ops, one, holding, dy)
        found = gradients[op][index]
        return [np.zeros_like(held) if found is None else found]

    return Question(
        parts=parts,
        values=([values[0].transpose(axes)], [values[1].transpose(axes)]),
        compute=compute,
        enough=[enough],
    )


def _of_activation(
    moment: Moment, i: int, calls: Calls, values: tuple[np.ndarray, np.ndarray], enough: float
) -> Question | None:
    quantity = moment.plan.compared[i]
    record = moment.reference.records["float64"]
    read = calls[0].get(quantity.reference)
    if read is None:
        return None
    partners = {pair.reference: pair.candidate for pair in moment.plan.alignment}
    readers = [name for name, call in calls[0].items() if _reads(call, read.output) and name in record.cotangents]
    if len(readers) != 1 or readers[0] == quantity.reference:
        return None
    one = next(chains(calls[0], readers[0]), None)
    other = next(chains(calls[1], partners.get(readers[0], "")), None)
    if one is None:
        return None
    dy = one.canonical(record.cotangents[readers[0]])
    parts, holding = _sides(one, other)
    position = next(k for k, array in enumerate(one.inputs) if _equal(array, read.output))

    def compute(ops: Parts) -> list[np.ndarray]:
        inputs, _ = run_back(ops, one, holding, dy)
        found = inputs[position]
        return [np.zeros_like(read.output) if found is None else found]

    return Question(
        parts=parts,
        values=([read.canonical(values[0])], [read.canonical(values[1])]),
        compute=compute,
        enough=[enough],
    )


def _sides(one: Chain, other: Chain | None) -> tuple[tuple[Parts, Parts], list]:
    if other is None:
        return (one.ops, ()), [[parameters] for parameters in one.parameters]
    parts = beside(one, other)
    return parts, held_by(one, other, parts)


def _reads(call: Call, output: np.ndarray) -> bool:
    return bool(call.ops) and any(_equal(array, output) for array in call.inputs)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one, other))


def _axes(own: np.ndarray, canonical: np.ndarray) -> tuple[int, ...] | None:
    """The transposition that makes a parameter canonical; None where it takes more than that."""
    if own.ndim != canonical.ndim:
        return None
    return next(
        (axes for axes in itertools.permutations(range(own.ndim)) if _equal(own.transpose(axes), canonical)), None
    )
