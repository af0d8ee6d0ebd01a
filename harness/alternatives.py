"""The wrong maps that people load weights through: each fits the shape, and has the id of the cause it would prove."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import numpy as np

from harness.evidence import axis_orders
from harness.recipe import Parameter, Shape
from harness.structure import GATES, KERAS_GATES, plain_kind
from harness.views import Link, View, ordered, part_shape, plain, seen_shape


def candidate_maps(
    link: Link, reference: Parameter, candidate: Parameter, context: tuple[Shape, Shape] | None = None
) -> Iterator[tuple[str, View]]:
    """Views of the candidate's parameter other than the link's, each with the id of its cause, the likeliest first.

    context: the shapes, without batch, of the reference's and the candidate's activation before the flatten.
    The k-th map of the gates means the same order for every parameter of an RNN.
    """
    reference, candidate = plain_kind(reference), plain_kind(candidate)
    view = link.candidate.view
    shape = seen_shape(link.reference.view, reference.shape)
    yield from _gate_orders(view, shape, reference, candidate)
    yield from _channel_orders(view, shape, reference, candidate)
    yield from _head_orders(view, shape, reference, candidate)
    yield from _axes(view, shape, candidate, candidate.op or reference.op)
    yield from _flips(view, shape, reference, candidate)
    if context is not None:
        yield from _flattenings(view, shape, candidate, context)


def _gate_orders(view: View, shape: Shape, reference: Parameter, candidate: Parameter) -> Iterator[tuple[str, View]]:
    op = candidate.op
    torch, others = GATES.get(op, ("", ""))
    if len(torch) < 2 or reference.op != op or not {reference.role, candidate.role} <= _GATED:
        return
    axis = 0 if reference.framework == "pytorch" else len(shape) - 1
    native = _native(candidate)
    letters = torch if candidate.framework == "pytorch" else [others[native.index(gate)] for gate in range(len(torch))]
    own = _native(reference)  # the gates, counted as torch has them, in the order that the layer takes its blocks for
    blocks = np.arange(shape[axis]).reshape(len(torch), -1)
    for places in permutations(range(len(torch))):
        if places == tuple(range(len(torch))):
            continue
        taken = blocks[[own.index(places[gate]) for gate in own]].ravel()
        held = ",".join(letters[places.index(gate)] for gate in native)
        if other := ordered(view, candidate.shape, axis, taken, f"gate order {held}"):
            yield "rnn-gate-order", other


_GATED = {
    f"{role}{way}" for way in ("", "_reverse") for role in ("kernel", "bias", "recurrent_kernel", "recurrent_bias")
}


def _native(parameter: Parameter) -> tuple[int, ...]:
    count = len(GATES[parameter.op][0])
    plain_order = tuple(range(count))
    return plain_order if parameter.framework == "pytorch" else KERAS_GATES.get(parameter.op, plain_order)


def _channel_orders(view: View, shape: Shape, reference: Parameter, candidate: Parameter) -> Iterator[tuple[str, View]]:
    """A depthwise convolution's output channels counted multiplier first."""
    sides = [one for one in (reference, candidate) if one.op == "DepthwiseConv" and one.framework != "pytorch"]
    if not sides or "kernel" not in sides[0].role or reference.framework == candidate.framework:
        return
    channels, multiplier = sides[0].shape[-2:]
    if multiplier == 1 or channels == 1:
        return
    if reference.framework == "pytorch":
        first, second, *space = view.axes or range(len(candidate.shape))
        yield "conv-groups-order", replace(view, axes=(second, first, *space), result=shape)
    else:
        space = candidate.shape[2:]
        axes = (*range(2, 2 + len(space)), 1, 0)
        yield "conv-groups-order", View(part=view.part, shape=(multiplier, channels, *space), axes=axes)


def _head_orders(view: View, shape: Shape, reference: Parameter, candidate: Parameter) -> Iterator[tuple[str, View]]:
    """Attention's heads taken for the features of a head."""
    headed = next(
        (one for one in (candidate, reference) if one.op == "MultiHeadAttention" and len(one.shape) == 3), None
    )
    if headed is None or headed.role not in {"query_kernel", "key_kernel", "value_kernel", "out_kernel"}:
        return
    heads, size = headed.shape[:2] if headed.role == "out_kernel" else headed.shape[1:]
    if len(shape) == 2 and heads > 1 and size > 1:
        axis = int(headed.role == "out_kernel")
        for order in (np.arange(heads * size).reshape(heads, size), np.arange(heads * size).reshape(size, heads)):
            if other := ordered(view, candidate.shape, axis, order.T.ravel(), "heads and their features swapped"):
                yield "weight-order-mismatch", other


def _axes(view: View, shape: Shape, candidate: Parameter, op: str) -> Iterator[tuple[str, View]]:
    """Other orders of the axes that fit, and the memory as it lies."""
    own = part_shape(view.part, candidate.shape)
    n = len(own)
    if len(shape) < 2:
        return
    expected = view.axes or tuple(range(n))
    channels = {0, 1} if candidate.framework == "pytorch" else {n - 2, n - 1}
    fits = [axes for axes in axis_orders(n) if tuple(own[axis] for axis in axes) == shape]
    fits.sort(key=lambda axes: sum(axis != other for axis, other in zip(axes, expected, strict=False)))
    tried = set() if view.shape else {_moved(expected, own)}
    for axes in [*fits, tuple(range(n))]:
        if _moved(axes, own) in tried:
            continue
        tried.add(_moved(axes, own))
        cause = "conv-kernel-axes" if "Conv" in op else "weight-layout-transpose"
        misplaced = {axis for axis, other in zip(axes, expected, strict=False) if axis != other}
        if op == "ConvTranspose" and candidate.op and misplaced & channels:
            cause = "convtranspose-kernel-flip"
        yield cause, plain(View(part=view.part, axes=axes, result=shape), own)


def _moved(axes: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
    """The order of the axes that have a length."""
    return tuple(axis for axis in axes if shape[axis] != 1)


def _flips(view: View, shape: Shape, reference: Parameter, candidate: Parameter) -> Iterator[tuple[str, View]]:
    """Kernels that run backward along the axes of space."""
    if candidate.op not in {"Conv", "ConvTranspose", "DepthwiseConv"} or "kernel" not in candidate.role:
        return
    n = len(shape)
    space = [axis for axis in (range(2, n) if reference.framework == "pytorch" else range(n - 2)) if shape[axis] > 1]
    cause = "convtranspose-kernel-flip" if candidate.op == "ConvTranspose" else "conv-kernel-axes"
    for flips in dict.fromkeys([tuple(space), *((axis,) for axis in space)]):
        if flips and view.shape is None:
            yield cause, replace(view, flips=flips)


def _flattenings(
    view: View, shape: Shape, candidate: Parameter, context: tuple[Shape, Shape]
) -> Iterator[tuple[str, View]]:
    """Features that were flattened from an activation in another order of its axes, either way."""
    tried: list[np.ndarray] = []
    for activation, other_side in (context[::-1], context):
        size, n = math.prod(activation), len(activation)
        if size not in shape:
            continue
        moved = [(n - 1, *range(n - 1)), (*range(1, n), 0), *(axis_orders(n) if n < 4 else ())]
        moved.sort(key=lambda axes: tuple(activation[axis] for axis in axes) != other_side)
        places = np.arange(size).reshape(activation)
        for axes in dict.fromkeys(moved):
            index = places.transpose(axes).ravel()
            for order in (index, np.argsort(index)):
                if np.array_equal(order, np.arange(size)) or any(np.array_equal(order, before) for before in tried):
                    continue
                tried.append(order)
                for axis in [axis for axis, length in enumerate(shape) if length == size]:
                    if other := ordered(view, candidate.shape, axis, order, "flattened in another order"):
                        yield "flatten-order", other
