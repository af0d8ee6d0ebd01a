"""Convolutions in any number of spatial axes, and their transposes.

    forward(op, x, W, b) -> z        backward(op, dz, z, x, W, b) -> (dx, dW, db)

Both rest on one bilinear map and its two adjoints. With x (N, g, c, *positions), W (*k, g, o, c), z (N, g, o, *places)

    correlate:  z_p  = Σ_j W_j x_{p s + j d}
    spread:     dx_{p s + j d} += W_jᵀ dz_p
    kernel:     dW_j = Σ_p dz_p x_{p s + j d}ᵀ

each is a loop over the kernel's positions j and a matrix product for all places at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.ops import Conv, ConvTranspose
from reference.shaping import padded, unpadded

Array = np.ndarray
Shape = tuple[int, ...]

# --- windows ----------------------------------------------------------------------------------------------------


def taps(kernel: Shape, stride: Shape, dilation: Shape, places: Shape) -> Iterator[tuple[Shape, tuple[Any, ...]]]:
    """Each position j of a kernel, with the index of what it meets at all places: x[..., j d : ... : s]."""
    for j in np.ndindex(*kernel):
        starts = [k * d for k, d in zip(j, dilation, strict=True)]
        yield j, (..., *(slice(a, a + n * s, s) for a, n, s in zip(starts, places, stride, strict=True)))


def reach(kernel: Shape, dilation: Shape) -> Shape:
    """How many positions a dilated kernel spans."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


# --- the map and its adjoints -----------------------------------------------------------------------------------


def correlate(op: Conv | ConvTranspose, x: Array, W: Array) -> Array:
    """z (N, out, *places) of x (N, in, *positions), W (out, in/groups, *k), without padding."""
    kernel = W.shape[2:]
    spans = zip(x.shape[2:], reach(kernel, op.dilation), op.stride, strict=True)
    places = tuple((length - span) // s + 1 for length, span, s in spans)
    blocks = _by_position(W, op.groups)
    z = np.zeros((len(x), op.groups, len(W) // op.groups, math.prod(places)), x.dtype)
    for j, at in taps(kernel, op.stride, op.dilation, places):
        z += blocks[j] @ _grouped(x[at], op.groups)
    return z.reshape(len(x), len(W), *places)


def spread(op: Conv | ConvTranspose, dz: Array, W: Array, positions: Shape) -> Array:
    """dx (N, in, *positions) of dz (N, out, *places): the adjoint of correlate in x."""
    blocks = _by_position(W, op.groups)
    dx = np.zeros((len(dz), W.shape[1] * op.groups, *positions), dz.dtype)
    rows = _grouped(dz, op.groups)
    for j, at in taps(W.shape[2:], op.stride, op.dilation, dz.shape[2:]):
        part = dx[at]
        part += (blocks[j].swapaxes(-1, -2) @ rows).reshape(part.shape)
    return dx


def kernel_gradient(op: Conv | ConvTranspose, dz: Array, x: Array, W: Array) -> Array:
    """dW of W's shape (out, in/groups, *k): the adjoint of correlate in W."""
    dW = np.zeros_like(W)
    rows = _grouped(dz, op.groups)
    for j, at in taps(W.shape[2:], op.stride, op.dilation, dz.shape[2:]):
        dW[(..., *j)] = (rows @ _grouped(x[at], op.groups).swapaxes(-1, -2)).sum(axis=0).reshape(W.shape[:2])
    return dW


def _grouped(x: Array, groups: int) -> Array:
    return x.reshape(len(x), groups, x.shape[1] // groups, -1)


def _by_position(W: Array, groups: int) -> Array:
    """W (out, in/groups, *k) as contiguous matrices (*k, groups, out/groups, in/groups)."""
    first = np.moveaxis(W, (0, 1), (-2, -1))
    return np.ascontiguousarray(first).reshape(*W.shape[2:], groups, -1, W.shape[1])


# --- channels and kernels as they come --------------------------------------------------------------------------


def channel_order(channels: int, groups: int, order: str) -> Array:
    """The channels group by group."""
    if order == "blocks":
        return np.arange(channels)
    return np.arange(channels).reshape(-1, groups).T.ravel()


def reorder(x: Array, order: Array, axis: int) -> Array:
    """x with the channels in that order; `restore` undoes it."""
    return x if (order[:-1] < order[1:]).all() else np.take(x, order, axis=axis)


def restore(x: Array, order: Array, axis: int) -> Array:
    return reorder(x, np.argsort(order), axis)


def _orders(op: Conv | ConvTranspose, x: Array, W: Array) -> tuple[Array, Array]:
    """Of the input's and the output's channels; W as its axes are read."""
    outputs = len(W) if isinstance(op, Conv) else W.shape[1] * op.groups
    a, b = (channel_order(n, op.groups, op.group_order) for n in (x.shape[1], outputs))
    return a, b


def _read(op: ConvTranspose, W: Array) -> Array:
    """The kernel as it acts; an involution along the spatial axes, so it also undoes itself."""
    return np.flip(W, axis=tuple(range(2, W.ndim))) if op.flip else W


def _spatial(widths: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return ((0, 0), (0, 0), *widths)


# --- convolution ------------------------------------------------------------------------------------------------


def conv(op: Conv, x: Array, W: Array, *b: Array) -> Array:
    W = W.transpose(op.kernel_axes)
    inputs, outputs = _orders(op, x, W)
    wide = padded(reorder(x, inputs, 1), _spatial(op.padding), op.padding_mode, op.padding_value)
    z = restore(correlate(op, wide, reorder(W, outputs, 0)), outputs, 1)
    return z + b[0].reshape(-1, *(1,) * (z.ndim - 2)) if op.bias else z


def conv_backward(op: Conv, dz: Array, z: Array, x: Array, W: Array, *b: Array) -> tuple[Array, ...]:
    W = W.transpose(op.kernel_axes)
    inputs, outputs = _orders(op, x, W)
    ordered, dz_ordered, W_ordered = reorder(x, inputs, 1), reorder(dz, outputs, 1), reorder(W, outputs, 0)
    wide = padded(ordered, _spatial(op.padding), op.padding_mode, op.padding_value)
    dwide = spread(op, dz_ordered, W_ordered, wide.shape[2:])
    dx = restore(unpadded(dwide, ordered.shape, _spatial(op.padding), op.padding_mode), inputs, 1)
    dW = restore(kernel_gradient(op, dz_ordered, wide, W_ordered), outputs, 0).transpose(np.argsort(op.kernel_axes))
    return (dx, dW, *_bias_gradient(op, dz, b))


def _bias_gradient(op: Conv | ConvTranspose, dz: Array, b: tuple[Array, ...]) -> tuple[Array, ...]:
    # b_o is added at every place: db_o = Σ dz over examples and places; a b that is not used has none
    return tuple(dz.sum(axis=(0, *range(2, dz.ndim))) * op.bias for _ in b)


# --- transposed convolution -------------------------------------------------------------------------------------


def conv_transpose(op: ConvTranspose, x: Array, W: Array, *b: Array) -> Array:
    W = _read(op, W.transpose(op.kernel_axes))
    inputs, outputs = _orders(op, x, W)
    # what is the gradient of a convolution from `out` to `in` channels
    full = spread(op, reorder(x, inputs, 1), reorder(W, inputs, 0), _full(op, x, W))
    z = restore(padded(full, _trim(op), "constant", 0.0), outputs, 1)
    return z + b[0].reshape(-1, *(1,) * (z.ndim - 2)) if op.bias else z


def conv_transpose_backward(op: ConvTranspose, dz: Array, z: Array, x: Array, W: Array, *b: Array) -> tuple[Array, ...]:
    W = _read(op, W.transpose(op.kernel_axes))
    inputs, outputs = _orders(op, x, W)
    ordered, W_ordered = reorder(x, inputs, 1), reorder(W, inputs, 0)
    shape = (len(x), len(outputs), *_full(op, x, W))
    dfull = unpadded(reorder(dz, outputs, 1), shape, _trim(op), "constant")
    # z is linear in x by the adjoint of correlate, so dx is correlate itself, and x takes the place of its dz
    dx = restore(correlate(op, dfull, W_ordered), inputs, 1)
    dW = restore(kernel_gradient(op, ordered, dfull, W_ordered), inputs, 0)
    dW = _read(op, dW).transpose(np.argsort(op.kernel_axes))
    return (dx, dW, *_bias_gradient(op, dz, b))


def _full(op: ConvTranspose, x: Array, W: Array) -> Shape:
    spans = zip(x.shape[2:], op.stride, reach(W.shape[2:], op.dilation), strict=True)
    return tuple((length - 1) * s + span for length, s, span in spans)


def _trim(op: ConvTranspose) -> tuple[tuple[int, int], ...]:
    pairs = zip(op.padding, op.output_padding, strict=True)
    return _spatial([(-low, more - high) for (low, high), more in pairs])


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Array, ...]]]] = {
    Conv: (conv, conv_backward),
    ConvTranspose: (conv_transpose, conv_transpose_backward),
}
