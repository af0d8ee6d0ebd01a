"""Sums, means, extremes, deviations and norms over axes, and what divides by such a sum.

forward(op, x) -> y        backward(op, dy, y, x) -> (dx,), with None for a mask
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.ops import CumulativeSum, Deviation, Extremum, LogSumExp, Norm, Reduce, SoftmaxOver, UnitNorm
from reference.shaping import tied

Array = np.ndarray


def _axes(axes: tuple[int, ...], x: Array) -> tuple[int, ...]:
    return tuple(sorted(axis % x.ndim for axis in axes))


def _wide(y: Array, axes: tuple[int, ...], keep: bool) -> Array:
    """A result with its axes of length 1 again."""
    return y if keep else np.expand_dims(y, axes)


def _kept(y: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return y if keep else y.squeeze(axes)


# --- sums -------------------------------------------------------------------------------------------------------


def total(op: Reduce, x: Array, *mask: Array) -> Array:
    axes, weights, count = _weights(op, x, mask)
    y = (x * weights).sum(axis=axes, keepdims=op.keep)
    return y / _kept(count, axes, op.keep) if op.kind == "mean" else y


def total_backward(op: Reduce, dy: Array, y: Array, x: Array, *mask: Array) -> tuple[Array | None, ...]:
    # y = Σ w x / n: dx = w dy / n
    axes, weights, count = _weights(op, x, mask)
    wide = _wide(dy, axes, op.keep)
    dx = np.broadcast_to(wide / count if op.kind == "mean" else wide, x.shape) * weights
    return (dx, *(None for _ in mask))


def _weights(op: Reduce, x: Array, mask: tuple[Array, ...]) -> tuple[tuple[int, ...], Array, Array]:
    """The axes, what each element counts, and the number of elements that count."""
    axes = _axes(op.axes, x)
    if not op.masked:
        count = np.full((1,) * x.ndim, math.prod(x.shape[axis] for axis in axes), x.dtype)
        return axes, np.ones((1,) * x.ndim, x.dtype), count
    weights = mask[0].reshape(*mask[0].shape, *(1,) * (x.ndim - mask[0].ndim)).astype(bool).astype(x.dtype)
    return axes, weights, np.broadcast_to(weights, x.shape).sum(axis=axes, keepdims=True)


def cumulative(op: CumulativeSum, x: Array) -> Array:
    flipped = np.flip(x, op.axis) if op.reverse else x
    y = np.cumsum(flipped, axis=op.axis)
    return np.flip(y, op.axis) if op.reverse else y


def cumulative_backward(op: CumulativeSum, dy: Array, y: Array, x: Array) -> tuple[Array]:
    # x_j is in y_i for all i >= j: dx_j = Σ_{i >= j} dy_i, the sum from the other end
    return (cumulative(replace(op, reverse=not op.reverse), dy),)


# --- extremes ---------------------------------------------------------------------------------------------------


def extremum(op: Extremum, x: Array) -> Array:
    return (np.max if op.kind == "max" else np.min)(x, axis=op.axes, keepdims=op.keep)


def extremum_backward(op: Extremum, dy: Array, y: Array, x: Array) -> tuple[Array]:
    axes = _axes(op.axes, x)
    return (tied(x == _wide(y, axes, op.keep), _wide(dy, axes, op.keep), axes, op.tie),)


# --- deviations and norms ---------------------------------------------------------------------------------------


def deviation(op: Deviation, x: Array) -> Array:
    v = np.square(x - x.mean(axis=op.axes, keepdims=True)).sum(axis=op.axes, keepdims=op.keep) / _freedom(op, x)
    return v if op.kind == "variance" else np.sqrt(v + op.epsilon)


def deviation_backward(op: Deviation, dy: Array, y: Array, x: Array) -> tuple[Array]:
    axes = _axes(op.axes, x)
    dv, root = _wide(dy, axes, op.keep), _wide(y, axes, op.keep)
    if op.kind == "standard_deviation":
        # s = √(v + ε): ds/dv = 1/(2 s)
        dv = _halved(dv, root, op.slope_at_zero)
    # v = Σ d²/(n - ddof), d = x - mean: dv/dx = 2 d/(n - ddof), as Σ d = 0 makes the mean's part vanish
    return (dv * 2 * (x - x.mean(axis=axes, keepdims=True)) / _freedom(op, x),)


def _freedom(op: Deviation, x: Array) -> float:
    # a float, and NaN for no freedom at all, so that it divides as the frameworks' does
    return float(math.prod(x.shape[axis] for axis in _axes(op.axes, x)) - op.ddof) or math.nan


def _halved(dy: Array, root: Array, at_zero: str) -> Array:
    """dy / (2 root), and at a root of 0 what the op says flows back."""
    number = 0.0 if at_zero == "zero" else math.nan
    return np.where(root == 0, np.full_like(dy, number), dy / (2 * np.where(root == 0, np.ones_like(root), root)))


def norm(op: Norm, x: Array) -> Array:
    a = np.abs(x)
    if op.power == math.inf:
        return a.max(axis=op.axes, keepdims=op.keep)
    s = _power(a, op.power).sum(axis=op.axes, keepdims=op.keep) + op.epsilon
    return np.sqrt(s) if op.power == 2 else s ** (1 / op.power)


def norm_backward(op: Norm, dy: Array, y: Array, x: Array) -> tuple[Array]:
    axes, a = _axes(op.axes, x), np.abs(x)
    dn, n = _wide(dy, axes, op.keep), _wide(y, axes, op.keep)
    if op.power == math.inf:
        return (tied(a == n, dn, axes, "split") * np.sign(x),)
    # n = (Σ|x|^p + ε)^(1/p): dn/dx = |x|^(p-1) sign x n^(1-p)
    at = n == 0
    slope = np.sign(x) * _power(a, op.power - 1) * np.where(at, np.ones_like(n), n) ** (1 - op.power)
    return (dn * np.where(at, np.full_like(n, 0.0 if op.slope_at_zero == "zero" else math.nan), slope),)


def _power(a: Array, power: float) -> Array:
    # of a number that is not negative; the usual powers without the general function's rounding
    if power == 2:
        return a * a
    return a if power == 1 else np.where(a > 0, np.where(a > 0, a, np.ones_like(a)) ** power, a)


def unit_norm(op: UnitNorm, x: Array) -> Array:
    return x / _length(op, x)[0]


def unit_norm_backward(op: UnitNorm, dy: Array, y: Array, x: Array) -> tuple[Array]:
    length, slope = _length(op, x)
    # y = x/l(n): dx = dy/l - (Σ dy x) l'(n)/l² x/n
    n = np.sqrt((x * x).sum(axis=op.axes, keepdims=True))
    inner = (dy * x).sum(axis=op.axes, keepdims=True)
    direction = x / np.where(n == 0, np.ones_like(n), n)
    return (dy / length - inner * slope / (length * length) * direction,)


def _length(op: UnitNorm, x: Array) -> tuple[Array, Array]:
    """What x is divided by, and its derivative by the norm n of x."""
    s = (x * x).sum(axis=op.axes, keepdims=True)
    n = np.sqrt(s)
    match op.epsilon_placement:
        case "max":
            return np.maximum(n, op.epsilon), (n >= op.epsilon).astype(x.dtype)
        case "max_square":
            return np.sqrt(np.maximum(s, op.epsilon)), (s >= op.epsilon).astype(x.dtype)
        case "inside":
            length = np.sqrt(s + op.epsilon)
            return length, n / length
        case "outside":
            return n + op.epsilon, np.ones_like(n)


# --- exponentials -----------------------------------------------------------------------------------------------


def log_sum_exp(op: LogSumExp, x: Array) -> Array:
    # log Σ exp x = m + log Σ exp(x - m), m the largest, so that nothing overflows
    m = x.max(axis=op.axes, keepdims=True)
    m = np.where(np.isfinite(m), m, np.zeros_like(m))
    y = m + np.log(np.exp(x - m).sum(axis=op.axes, keepdims=True))
    return _kept(y, _axes(op.axes, x), op.keep)


def log_sum_exp_backward(op: LogSumExp, dy: Array, y: Array, x: Array) -> tuple[Array]:
    # ∂y/∂x_k = exp(x_k)/Σ exp x = exp(x_k - y)
    axes = _axes(op.axes, x)
    return (_wide(dy, axes, op.keep) * np.exp(x - _wide(y, axes, op.keep)),)


def softmax(op: SoftmaxOver, z: Array) -> Array:
    # p_k = exp(z_k) / Σ_j exp(z_j); log p_k = z_k - log Σ_j exp(z_j)
    z = z - z.max(axis=op.axes, keepdims=True)
    e = np.exp(z)
    s = e.sum(axis=op.axes, keepdims=True)
    return z - np.log(s) if op.log else e / s


def softmax_backward(op: SoftmaxOver, dy: Array, y: Array, z: Array) -> tuple[Array]:
    if op.log:
        # ∂log p_k/∂z_j = δ_kj - p_j, so dz_j = dy_j - p_j Σ_k dy_k
        return (dy - np.exp(y) * dy.sum(axis=op.axes, keepdims=True),)
    # ∂p_k/∂z_j = p_k (δ_kj - p_j), so dz_j = p_j (dy_j - Σ_k dy_k p_k)
    return (y * (dy - (dy * y).sum(axis=op.axes, keepdims=True)),)


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Any, ...]]]] = {
    Reduce: (total, total_backward),
    CumulativeSum: (cumulative, cumulative_backward),
    Extremum: (extremum, extremum_backward),
    Deviation: (deviation, deviation_backward),
    Norm: (norm, norm_backward),
    UnitNorm: (unit_norm, unit_norm_backward),
    LogSumExp: (log_sum_exp, log_sum_exp_backward),
    SoftmaxOver: (softmax, softmax_backward),
}
