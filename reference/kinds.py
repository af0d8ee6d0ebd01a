"""Every kind of op in one table, and the two functions that use it.

The kinds of `reference.layers` write into buffers, which a small net's speed needs; the others return new arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.case import Add, Dense, Polynomial
from reference import (
    attention,
    convolution,
    normalising,
    pointwise,
    pooling,
    products,
    recurrence,
    reducing,
    resizing,
    shaping,
)
from reference.layers import BACKWARD, FORWARD

Array = np.ndarray
Forward = Callable[..., Array]
Backward = Callable[..., tuple[Array | None, ...]]

_MODULES = (
    *(pointwise, shaping, products, convolution, pooling, resizing),
    *(normalising, recurrence, attention, reducing),
)
LAYERS: Mapping[type, tuple[Forward, Backward]] = {
    kind: functions for module in _MODULES for kind, functions in module.LAYERS.items()
}


# --- into new arrays --------------------------------------------------------------------------------------------


def apply(op: Any, inputs: Sequence[Array], parameters: Sequence[Array]) -> Array:
    """y of one op; what has no number is NaN or infinite, without a warning."""
    arrays = (*inputs, *parameters)
    with np.errstate(all="ignore"):
        if type(op) in LAYERS:
            return LAYERS[type(op)][0](op, *arrays)
        y = np.empty(_shape(op, [a.shape for a in arrays]), np.result_type(*arrays))
        FORWARD[type(op)](op, y, *arrays)
        return y


def pull_back(
    op: Any, dy: Array, y: Array, inputs: Sequence[Array], parameters: Sequence[Array]
) -> tuple[tuple[Array | None, ...], tuple[Array | None, ...]]:
    """dL/d(inputs) and dL/d(parameters) from dy = dL/dy; None for what has no derivative (indices, masks, buffers).

    They may share dy's memory.
    """
    arrays = (*inputs, *parameters)
    with np.errstate(all="ignore"):
        if type(op) in LAYERS:
            gradients = LAYERS[type(op)][1](op, dy, y, *arrays)
        else:
            gradients = tuple(np.empty(a.shape, y.dtype) for a in arrays)
            BACKWARD[type(op)](op, dy, y, *arrays, *gradients)
    return gradients[: len(inputs)], gradients[len(inputs) :]


def _shape(op: Any, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    match op:
        case Dense(units=units):
            return (*shapes[0][:-1], units)
        case Add():
            return np.broadcast_shapes(*shapes)
        case Polynomial(points=points):
            return (points,)
    return shapes[0]


# --- into buffers -----------------------------------------------------------------------------------------------


def forward_into(op: Any) -> Callable[..., object]:
    """The forward function that writes: f(op, y, *inputs, *parameters)."""
    return FORWARD.get(type(op), _write)


def backward_into(op: Any) -> Callable[..., object]:
    """The backward function that writes: f(op, dy, y, *arrays, *their gradients), None where nobody needs one."""
    return BACKWARD.get(type(op), _write_back)


def _write(op: Any, y: Array, *arrays: Array) -> None:
    y[...] = LAYERS[type(op)][0](op, *arrays)


def _write_back(op: Any, dy: Array, y: Array, *arrays_and_gradients: Array | None) -> None:
    half = len(arrays_and_gradients) // 2
    found = LAYERS[type(op)][1](op, dy, y, *arrays_and_gradients[:half])
    for into, gradient in zip(arrays_and_gradients[half:], found, strict=True):
        if into is not None:
            into[...] = 0 if gradient is None else gradient
