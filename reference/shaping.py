"""Ops that move, copy or join elements: what flows back goes the same way in reverse, and copies add.

forward(op, *inputs) -> y        backward(op, dy, y, *inputs) -> gradients, None for indices and conditions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from harness.ops import (
    Combine,
    Concat,
    Expand,
    Flatten,
    Gated,
    Gather,
    Pad,
    Permute,
    PReLU,
    Repeat,
    Reshape,
    Select,
    Slice,
    Stack,
)
from reference.pointwise import pulled, value

Array = np.ndarray

# --- one input --------------------------------------------------------------------------------------------------


def flatten(op: Flatten, x: Array) -> Array:
    return x.transpose(_order(op)).reshape(*x.shape[: op.start], -1)


def flatten_backward(op: Flatten, dy: Array, y: Array, x: Array) -> tuple[Array]:
    order = _order(op)
    return (dy.reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order)),)


def _order(op: Flatten) -> tuple[int, ...]:
    return (*range(op.start), *(op.start + axis for axis in op.order))


def reshape(op: Reshape, x: Array) -> Array:
    return x.reshape(len(x), *op.shape)


def reshape_backward(op: Reshape, dy: Array, y: Array, x: Array) -> tuple[Array]:
    return (dy.reshape(x.shape),)


def permute(op: Permute, x: Array) -> Array:
    return x.transpose(op.axes)


def permute_backward(op: Permute, dy: Array, y: Array, x: Array) -> tuple[Array]:
    return (dy.transpose(np.argsort([axis % x.ndim for axis in op.axes])),)


def take_slice(op: Slice, x: Array) -> Array:
    y = x[_places(op, x)]
    return y.squeeze(op.axis) if op.squeeze else y


def slice_backward(op: Slice, dy: Array, y: Array, x: Array) -> tuple[Array]:
    # y_i = x_{start + i step}: what was not taken gets 0
    dx = np.zeros_like(x)
    dx[_places(op, x)] = np.expand_dims(dy, op.axis) if op.squeeze else dy
    return (dx,)


def _places(op: Slice, x: Array) -> tuple[slice, ...]:
    places = [slice(None)] * x.ndim
    places[op.axis] = slice(op.start, op.stop, op.step)
    return tuple(places)


def repeat(op: Repeat, x: Array) -> Array:
    if op.order == "elements":
        return np.repeat(x, op.times, axis=op.axis)
    return np.concatenate([x] * op.times, axis=op.axis)


def repeat_backward(op: Repeat, dy: Array, y: Array, x: Array) -> tuple[Array]:
    # each element feeds `times` copies, whose gradients add
    axis = op.axis % x.ndim
    inner, outer = (x.shape[axis], op.times), (op.times, x.shape[axis])
    copies = inner if op.order == "elements" else outer
    split = dy.reshape(*x.shape[:axis], *copies, *x.shape[axis + 1 :])
    return (split.sum(axis=axis + 1 if op.order == "elements" else axis),)


def expand(op: Expand, x: Array) -> Array:
    return np.expand_dims(x, op.axis)


def expand_backward(op: Expand, dy: Array, y: Array, x: Array) -> tuple[Array]:
    return (dy.squeeze(op.axis),)


NUMPY_PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(op: Pad, x: Array) -> Array:
    return padded(x, op.widths, op.mode, op.value)


def pad_backward(op: Pad, dy: Array, y: Array, x: Array) -> tuple[Array]:
    return (unpadded(dy, x.shape, op.widths, op.mode),)


def padded(x: Array, widths: tuple[tuple[int, int], ...], mode: str, number: float) -> Array:
    """x with (low, high) more elements along every axis; a negative width cuts."""
    if not any(width for pair in widths for width in pair):
        return x
    if mode != "constant":
        return np.pad(x, widths, mode=NUMPY_PADDING[mode])  # type: ignore[call-overload]
    grown = np.pad(x, [(max(low, 0), max(high, 0)) for low, high in widths], constant_values=number)
    return grown[_cut(grown.shape, [(min(low, 0), min(high, 0)) for low, high in widths])]


def unpadded(dy: Array, shape: tuple[int, ...], widths: tuple[tuple[int, int], ...], mode: str) -> Array:
    """The gradient of x of this shape from that of `padded(x, widths, mode, ...)`."""
    if not any(width for pair in widths for width in pair):
        return dy
    if mode == "constant":
        # what was added is constant, what was cut gets 0: the padding with all widths negated
        return padded(dy, tuple((-low, -high) for low, high in widths), mode, 0.0)
    for axis, width in enumerate(widths):
        # y_i = x_{source i}, so dx_j = Σ dy_i over all i with source j
        if width != (0, 0):
            source = np.pad(np.arange(shape[axis]), width, mode=NUMPY_PADDING[mode])  # type: ignore[call-overload]
            dx = np.zeros((*dy.shape[:axis], shape[axis], *dy.shape[axis + 1 :]), dy.dtype)
            np.add.at(np.moveaxis(dx, axis, 0), source, np.moveaxis(dy, axis, 0))
            dy = dx
    return dy


def _cut(shape: tuple[int, ...], widths: list[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(-low, length + high) for length, (low, high) in zip(shape, widths, strict=True))


# --- several inputs ---------------------------------------------------------------------------------------------


def concat(op: Concat, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis=op.axis)


def concat_backward(op: Concat, dy: Array, y: Array, *inputs: Array) -> tuple[Array, ...]:
    ends = np.cumsum([x.shape[op.axis] for x in inputs])[:-1]
    return tuple(np.split(dy, ends, axis=op.axis))


def stack(op: Stack, *inputs: Array) -> Array:
    return np.stack(inputs, axis=op.axis)


def stack_backward(op: Stack, dy: Array, y: Array, *inputs: Array) -> tuple[Array, ...]:
    return tuple(np.moveaxis(dy, op.axis, 0))


def gather(op: Gather, x: Array, indices: Array) -> Array:
    return np.take(x, indices, axis=op.axis)


def gather_backward(op: Gather, dy: Array, y: Array, x: Array, indices: Array) -> tuple[Array, None]:
    axis = op.axis % x.ndim
    # y_i = x_{k_i}, so dx_k = Σ dy_i over all i with k_i = k
    moved = np.moveaxis(dy, range(axis, axis + indices.ndim), range(indices.ndim))
    dx = np.zeros_like(x)
    np.add.at(np.moveaxis(dx, axis, 0), indices, moved)
    return dx, None


def select(op: Select, condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, a, b)


def select_backward(op: Select, dy: Array, y: Array, condition: Array, a: Array, b: Array) -> tuple[None, Array, Array]:
    zero = np.zeros_like(dy)
    return None, sum_to(np.where(condition, dy, zero), a.shape), sum_to(np.where(condition, zero, dy), b.shape)


def sum_to(dy: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of x of this shape that was broadcast to dy's: the copies' gradients add."""
    wide = (1,) * (dy.ndim - len(shape)) + shape
    copied = tuple(axis for axis in range(dy.ndim) if wide[axis] != dy.shape[axis])
    return dy.sum(axis=copied, keepdims=True).reshape(shape) if copied else dy.reshape(shape)


COMBINED: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "average": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def combine(op: Combine, *inputs: Array) -> Array:
    y = reduce(COMBINED[op.kind], inputs)
    return y / len(inputs) if op.kind == "average" else y


def combine_backward(op: Combine, dy: Array, y: Array, *inputs: Array) -> tuple[Array, ...]:
    if op.kind in ("add", "average"):
        # ∂y/∂x_k = 1, or 1/n
        parts = [dy if op.kind == "add" else dy / len(inputs)] * len(inputs)
    elif op.kind == "multiply":
        # ∂y/∂x_k = Π_{j≠k} x_j, formed without a division, for x_k may be 0
        parts = [reduce(np.multiply, inputs[:k] + inputs[k + 1 :], dy) for k in range(len(inputs))]
    elif op.kind in ("maximum", "minimum"):
        parts = list(tied(np.stack([np.broadcast_to(x, y.shape) == y for x in inputs]), dy[None], (0,), op.tie))
    else:
        a, b = inputs
        parts = {
            "subtract": lambda: [dy, -dy],
            # y = a/b: ∂y/∂a = 1/b, ∂y/∂b = -a/b² = -y/b
            "divide": lambda: [dy / b, -dy * y / b],
            # y = a^b: ∂y/∂a = b a^(b-1), ∂y/∂b = a^b log a, 0 where a = 0 (as y is 0 there for all b > 0)
            "power": lambda: [dy * b * a ** (b - 1), dy * y * np.log(np.where(a == 0, np.ones_like(a), a))],
        }[op.kind]()
    return tuple(sum_to(part, x.shape) for part, x in zip(parts, inputs, strict=True))


def tied(best: Array, dy: Array, axes: tuple[int, ...], tie: str) -> Array:
    """What the elements of a maximum over axes receive of dy: best tells which of them are the largest."""
    if tie == "each":
        return np.where(best, dy, np.zeros_like(dy))
    if tie == "split":
        return np.where(best, dy / best.sum(axis=axes, keepdims=True).astype(dy.dtype), np.zeros_like(dy))
    # the first in C order of the axes, brought to the end and flattened
    last = tuple(range(best.ndim - len(axes), best.ndim))
    rows = np.moveaxis(best, axes, last)
    flat = rows.reshape(*rows.shape[: best.ndim - len(axes)], -1)
    place = flat.argmax(axis=-1) if tie == "first" else flat.shape[-1] - 1 - flat[..., ::-1].argmax(axis=-1)
    chosen = (np.arange(flat.shape[-1]) == place[..., None]) & flat
    return np.where(np.moveaxis(chosen.reshape(rows.shape), last, axes), dy, np.zeros_like(dy))


def gated(op: Gated, x: Array) -> Array:
    kept, gate = _halves(op, x)
    return kept * value(op.activation, gate)


def gated_backward(op: Gated, dy: Array, y: Array, x: Array) -> tuple[Array]:
    # y = a s(b): da = dy s(b), db = dy a s'(b)
    kept, gate = _halves(op, x)
    s = value(op.activation, gate)
    parts = [dy * s, pulled(op.activation, dy * kept, s, gate)]
    return (np.concatenate(parts if op.gate == "second" else parts[::-1], axis=op.axis),)


def _halves(op: Gated, x: Array) -> tuple[Array, Array]:
    first, second = np.split(x, 2, axis=op.axis)
    return (first, second) if op.gate == "second" else (second, first)


def prelu(op: PReLU, z: Array, alpha: Array) -> Array:
    full = alpha.reshape((1,) * (z.ndim - alpha.ndim) + alpha.shape)
    for axis in range(1, z.ndim):
        each, shared = full.shape[axis] > 1, axis in op.shared_axes
        if (shared and each and np.ptp(full, axis=axis).any()) or not (shared or each or z.shape[axis] == 1):
            raise ValueError(f"alpha {alpha.shape} is not one that is shared along {op.shared_axes} alone")
    return np.where(z > 0, z, alpha * z)


def prelu_backward(op: PReLU, dy: Array, y: Array, z: Array, alpha: Array) -> tuple[Array, Array]:
    at_zero = {"alpha": alpha * dy, "one": dy, "zero": np.zeros_like(dy)}[op.slope_at_zero]
    dz = np.where(z > 0, dy, np.where(z < 0, alpha * dy, at_zero))
    # ∂y/∂alpha = z where z <= 0; one alpha serves the whole batch and the shared axes
    dalpha = np.where(z > 0, np.zeros_like(z), z * dy).sum(axis=(0, *op.shared_axes), keepdims=True)
    full = (1,) * (z.ndim - alpha.ndim) + alpha.shape
    spread = np.broadcast_to(dalpha, np.broadcast_shapes(dalpha.shape, full))
    return dz, sum_to(spread, alpha.shape)


# --- arguments --------------------------------------------------------------------------------------------------


def masks_apart(used: bool, rest: Sequence[Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The mask, if one is given, and the other arrays; a boolean mask may be given to an op that does not use it."""
    count = int(used or (len(rest) > 0 and rest[0].dtype.kind == "b"))
    return tuple(rest[:count]), tuple(rest[count:])


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Any, ...]]]] = {
    Flatten: (flatten, flatten_backward),
    Reshape: (reshape, reshape_backward),
    Permute: (permute, permute_backward),
    Slice: (take_slice, slice_backward),
    Repeat: (repeat, repeat_backward),
    Expand: (expand, expand_backward),
    Pad: (pad, pad_backward),
    Concat: (concat, concat_backward),
    Stack: (stack, stack_backward),
    Gather: (gather, gather_backward),
    Select: (select, select_backward),
    Combine: (combine, combine_backward),
    Gated: (gated, gated_backward),
    PReLU: (prelu, prelu_backward),
}
