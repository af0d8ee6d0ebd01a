"""Pooling: one number for each window of an image's spatial axes.

forward(op, x) -> y        backward(op, dy, y, x) -> (dx,)        x (batch, channels, *spatial)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.ops import AdaptivePool, AveragePool, LpPool, MaxPool
from reference.convolution import reach, taps
from reference.shaping import padded, tied, unpadded

Array = np.ndarray
Shape = tuple[int, ...]
Widths = tuple[tuple[int, int], ...]

# --- windows ----------------------------------------------------------------------------------------------------


def _places(lengths: Shape, span: Shape, stride: Shape, padding: Widths, ceil_mode: bool) -> tuple[Shape, Widths]:
    """The number of windows along each axis, and how far the last reaches beyond the padding (for x's every axis)."""
    places, beyond = [], [(0, 0), (0, 0)]
    for length, k, s, (low, high) in zip(lengths, span, stride, padding, strict=True):
        room = length + low + high - k
        n = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (n - 1) * s >= length + low:
            n -= 1  # a window that begins in the high padding is none (torch, aten/src/ATen/native/Pool.h)
        places.append(n)
        beyond.append((0, max(0, (n - 1) * s - room)))
    return tuple(places), tuple(beyond)


def _around(padding: Widths) -> Widths:
    return ((0, 0), (0, 0), *padding)


# --- largest ----------------------------------------------------------------------------------------------------


def max_pool(op: MaxPool, x: Array) -> Array:
    return _windows(op, x)[0].max(axis=0)


def max_pool_backward(op: MaxPool, dy: Array, y: Array, x: Array) -> tuple[Array]:
    windows, beyond, wide = _windows(op, x)
    # y is one element of its window: that one receives dy, and the windows that share it add
    parts = tied(windows == y, dy[None], (0,), op.tie)
    dwide = np.zeros(wide, dy.dtype)
    for part, (_, at) in zip(parts, taps(op.size, op.stride, op.dilation, dy.shape[2:]), strict=True):
        dwide[at] += part
    inner = tuple(n + low + high for n, (low, high) in zip(x.shape, _around(op.padding), strict=True))
    return (unpadded(unpadded(dwide, inner, beyond, "constant"), x.shape, _around(op.padding), "constant"),)


def _windows(op: MaxPool, x: Array) -> tuple[Array, Widths, Shape]:
    """Elements by place in the window (first axis, C order), what was added beyond the padding, the padded shape."""
    places, beyond = _places(x.shape[2:], reach(op.size, op.dilation), op.stride, op.padding, op.ceil_mode)
    wide = padded(padded(x, _around(op.padding), "constant", op.padding_value), beyond, "constant", -math.inf)
    return np.stack([wide[at] for _, at in taps(op.size, op.stride, op.dilation, places)]), beyond, wide.shape


# --- means ------------------------------------------------------------------------------------------------------


def average_pool(op: AveragePool, x: Array) -> Array:
    places, beyond = _places(x.shape[2:], op.size, op.stride, op.padding, op.ceil_mode)
    wide = padded(padded(x, _around(op.padding), "constant", 0.0), beyond, "constant", 0.0)
    return _window_sums(op.size, op.stride, places, wide) / _count(op, x, places, beyond)


def average_pool_backward(op: AveragePool, dy: Array, y: Array, x: Array) -> tuple[Array]:
    places, beyond = _places(x.shape[2:], op.size, op.stride, op.padding, op.ceil_mode)
    # y = Σ x / n: every element of the window receives dy/n
    share = dy / _count(op, x, places, beyond)
    inner = tuple(n + low + high for n, (low, high) in zip(x.shape, _around(op.padding), strict=True))
    dwide = np.zeros(tuple(n + high for n, (_, high) in zip(inner, beyond, strict=True)), dy.dtype)
    for _, at in taps(op.size, op.stride, (1,) * len(places), places):
        dwide[at] += share
    return (unpadded(unpadded(dwide, inner, beyond, "constant"), x.shape, _around(op.padding), "constant"),)


def _window_sums(size: Shape, stride: Shape, places: Shape, wide: Array) -> Array:
    y = np.zeros((*wide.shape[:2], *places), wide.dtype)
    for _, at in taps(size, stride, (1,) * len(places), places):
        y += wide[at]
    return y


def _count(op: AveragePool, x: Array, places: Shape, beyond: Widths) -> Array:
    """What each window's sum is divided by."""
    if op.divisor is not None:
        return np.full((1, 1, *places), op.divisor, x.dtype)
    own = padded(np.ones((1, 1, *x.shape[2:]), x.dtype), _around(op.padding), "constant", float(op.count_include_pad))
    return _window_sums(op.size, op.stride, places, padded(own, beyond, "constant", 0.0))


def lp_pool(op: LpPool, x: Array) -> Array:
    s = math.prod(op.size) * average_pool(_means(op), x**op.power)
    return s ** (1 / op.power)


def lp_pool_backward(op: LpPool, dy: Array, y: Array, x: Array) -> tuple[Array]:
    # y = s^(1/p): dy/ds = s^(1/p - 1)/p = y/(p s), and 0 at s = 0, where torch's relu stops it (functional.lp_pool2d)
    means = average_pool(_means(op), x**op.power)
    s = math.prod(op.size) * means
    ds = np.where(s == 0, np.zeros_like(s), dy * y / (op.power * np.where(s == 0, np.ones_like(s), s)))
    (dpower,) = average_pool_backward(_means(op), ds * math.prod(op.size), means, x**op.power)
    # ds/dx = p x^(p-1) in each window
    return (dpower * op.power * x ** (op.power - 1),)


def _means(op: LpPool) -> AveragePool:
    return AveragePool(
        size=op.size,
        stride=op.stride,
        padding=((0, 0),) * len(op.size),
        ceil_mode=op.ceil_mode,
        count_include_pad=False,
        divisor=None,
    )


# --- a given number of windows ----------------------------------------------------------------------------------


def adaptive_pool(op: AdaptivePool, x: Array) -> Array:
    axes = tuple(range(2, x.ndim))
    sizes = _sizes(op, x)
    y = np.empty((*x.shape[:2], *sizes), x.dtype)
    for place, window in _adaptive(sizes, x.shape[2:]):
        y[(..., *place)] = (np.mean if op.kind == "mean" else np.max)(x[window], axis=axes)
    return y


def adaptive_pool_backward(op: AdaptivePool, dy: Array, y: Array, x: Array) -> tuple[Array]:
    axes = tuple(range(2, x.ndim))
    wide = (..., *(None,) * len(axes))
    dx = np.zeros_like(x)
    for place, window in _adaptive(_sizes(op, x), x.shape[2:]):
        g, inside = dy[(..., *place)][wide], x[window]
        if op.kind == "mean":
            dx[window] += g / math.prod(inside.shape[2:])
        else:
            dx[window] += tied(inside == y[(..., *place)][wide], g, axes, op.tie)
    return (dx,)


def _sizes(op: AdaptivePool, x: Array) -> Shape:
    return tuple(length if n is None else n for n, length in zip(op.size, x.shape[2:], strict=True))


def _adaptive(sizes: Shape, lengths: Sequence[int]) -> Iterator[tuple[Shape, tuple[Any, ...]]]:
    """Each place of the result, and the window that it sees."""
    along = [
        [slice(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
        for n, length in zip(sizes, lengths, strict=True)
    ]
    for place in itertools.product(*(range(n) for n in sizes)):
        yield place, (..., *(windows[i] for windows, i in zip(along, place, strict=True)))


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Array, ...]]]] = {
    MaxPool: (max_pool, max_pool_backward),
    AveragePool: (average_pool, average_pool_backward),
    LpPool: (lp_pool, lp_pool_backward),
    AdaptivePool: (adaptive_pool, adaptive_pool_backward),
}
