"""Normalisations and dropout.

    forward(op, x, mask, *parameters) -> y      backward(op, dy, y, x, mask, *parameters) -> gradients in that order

All but the last two rest on one formula: x̂ = (x - m) r, where m and v are a mean and variance over axes and
r is 1/√(v + ε) or another function of v; its derivative is in `standardised_backward`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.ops import BatchNorm, Dropout, GroupNorm, LayerNorm, ResponseNorm
from reference.convolution import channel_order, reorder, restore
from reference.shaping import masks_apart, sum_to

Array = np.ndarray
Axes = tuple[int, ...]

# --- one formula ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """How x is standardised: over axes; each element counts `weights` times (1, or a mask) in a mean over `count`, and
    in a variance over `freedom`."""

    axes: Axes
    weights: Array | float
    count: Array | float
    freedom: Array | float
    center: bool
    epsilon: float
    placement: str


def standardised(by: Moments, x: Array) -> tuple[Array, Array, Array]:
    """x̂, m and v (with axes of length 1)."""
    m = np.zeros((1,) * x.ndim, x.dtype)
    if by.center:
        m = (x * by.weights).sum(axis=by.axes, keepdims=True) / by.count
    v = (np.square(x - m) * by.weights).sum(axis=by.axes, keepdims=True) / by.freedom
    return (x - m) * inverse_root(by, v)[0], m, v


def inverse_root(by: Moments, v: Array) -> tuple[Array, Array]:
    """r and dr/dv."""
    match by.placement:
        case "inside":
            # r = (v + ε)^(-1/2), dr/dv = -r³/2
            r = 1 / np.sqrt(v + by.epsilon)
            return r, -(r**3) / 2
        case "outside":
            # r = 1/(s + ε), s = √v, dr/dv = -r²/(2 s); where s = 0 all x - m are 0 and nothing depends on it
            s = np.sqrt(v)
            r = 1 / (s + by.epsilon)
            return r, np.where(s == 0, np.zeros_like(s), -(r**2) / (2 * np.where(s == 0, np.ones_like(s), s)))
        case _:
            # r = max(v, ε)^(-1/2)
            r = 1 / np.sqrt(np.maximum(v, by.epsilon))
            return r, np.where(v >= by.epsilon, -(r**3) / 2, np.zeros_like(r))


def standardised_backward(by: Moments, g: Array, x: Array, m: Array, v: Array) -> Array:
    """dx from g = dL/dx̂."""
    r, slope = inverse_root(by, v)
    d = x - m
    # x̂ = d r(v), v = Σ w d² / f: dd = g r + 2 w d/f dv, dv = r'(v) Σ g d
    dv = slope * (g * d).sum(axis=by.axes, keepdims=True)
    dd = g * r + 2 * by.weights * d * (dv / by.freedom)
    # d = x - m, m = Σ w x / n: dx = dd - w/n Σ dd
    return dd - by.weights * (dd.sum(axis=by.axes, keepdims=True) / by.count) if by.center else dd


def _affine(x: Array, scale: Array | None, offset: Array | None) -> Array:
    x = x if scale is None else x * scale
    return x if offset is None else x + offset


def _present(op: BatchNorm | LayerNorm | GroupNorm, given: tuple[Array, ...]) -> tuple[Array | None, Array | None]:
    """Scale and offset, None for one that the op does not use."""
    both = given if len(given) == 2 else (*given, *given) if op.scale != op.offset else (None, None)
    return both[0] if op.scale else None, both[1] if op.offset else None


def _own_gradients(
    op: BatchNorm | LayerNorm | GroupNorm, given: tuple[Array, ...], dscale: Array, doffset: Array
) -> list[Array]:
    """The gradients of the parameters given, from the unreduced ones of scale and offset; 0 where one is not used."""
    found = [dscale * op.scale, doffset * op.offset]
    return found if len(given) == 2 else [found[0] if op.scale else found[1]] * len(given)


# --- batch ------------------------------------------------------------------------------------------------------


def batch_norm(op: BatchNorm, x: Array, *rest: Array) -> Array:
    masks, (*given, mean, variance) = masks_apart(op.masked, rest)
    by, wide = _batch_moments(op, x, masks)
    hat = standardised(by, x)[0] if op.training else (x - wide(mean)) * inverse_root(by, wide(variance))[0]
    return _affine(hat, *(None if p is None else wide(p) for p in _present(op, tuple(given))))


def batch_norm_backward(op: BatchNorm, dy: Array, y: Array, x: Array, *rest: Array) -> tuple[Array | None, ...]:
    masks, (*given, mean, variance) = masks_apart(op.masked, rest)
    by, wide = _batch_moments(op, x, masks)
    scale, _ = _present(op, tuple(given))
    g = dy if scale is None else dy * wide(scale)
    if op.training:
        hat, m, v = standardised(by, x)
        dx = standardised_backward(by, g, x, m, v)
    else:
        # m and v are constants
        r = inverse_root(by, wide(variance))[0]
        hat, dx = (x - wide(mean)) * r, g * r
    # y = scale x̂ + offset: dscale = Σ dy x̂, doffset = Σ dy
    own = _own_gradients(op, tuple(given), (dy * hat).sum(axis=by.axes), dy.sum(axis=by.axes))
    return (dx, *(None for _ in masks), *own, None, None)


def moved(
    op: BatchNorm, x: Array, mean: Array, variance: Array, batches: int, mask: Array | None = None
) -> tuple[Array, Array]:
    """The moving mean and variance after a batch x, of which `batches` came before."""
    if not (op.training and op.tracks):
        return mean, variance
    by, _ = _batch_moments(op, x, () if mask is None else (mask,))
    m, v = (s.squeeze(by.axes) for s in standardised(by, x)[1:])
    if op.moving_variance == "unbiased":
        n = x.size / x.shape[op.axis] if mask is None else float(np.sum(mask != 0))
        v = v * (n / (n - 1))
    keep = op.momentum if op.momentum is not None else batches / (batches + 1)
    return keep * mean + (1 - keep) * m, keep * variance + (1 - keep) * v


def _batch_moments(op: BatchNorm, x: Array, masks: tuple[Array, ...]) -> tuple[Moments, Callable[[Array], Array]]:
    """The moments, and what brings an array (channels,) to x's axes."""
    channel = op.axis % x.ndim
    axes = tuple(axis for axis in range(x.ndim) if axis != channel)
    weights: Array | float = 1.0
    count: Array | float = math.prod(x.shape[axis] for axis in axes)
    if op.masked:
        weights = masks[0].astype(bool).astype(x.dtype)
        weights = weights.reshape(*weights.shape, *(1,) * (x.ndim - weights.ndim))
        count = np.broadcast_to(weights, x.shape).sum(axis=axes, keepdims=True) + op.mask_epsilon
    by = Moments(
        axes=axes, weights=weights, count=count, freedom=count, center=True, epsilon=op.epsilon, placement="inside"
    )
    return by, lambda a: a.reshape([-1 if axis == channel else 1 for axis in range(x.ndim)])


# --- layer and group --------------------------------------------------------------------------------------------


def layer_norm(op: LayerNorm, x: Array, *parameters: Array) -> Array:
    return _affine(standardised(_layer_moments(op, x), x)[0], *_present(op, parameters))


def layer_norm_backward(op: LayerNorm, dy: Array, y: Array, x: Array, *parameters: Array) -> tuple[Array, ...]:
    by = _layer_moments(op, x)
    scale, _ = _present(op, parameters)
    hat, m, v = standardised(by, x)
    dx = standardised_backward(by, dy if scale is None else dy * scale, x, m, v)
    own = _own_gradients(op, parameters, dy * hat, dy)
    return (dx, *(sum_to(d, p.shape) for d, p in zip(own, parameters, strict=True)))


def _layer_moments(op: LayerNorm, x: Array) -> Moments:
    n = math.prod(x.shape[axis] for axis in op.axes)
    return Moments(
        axes=op.axes,
        weights=1.0,
        count=n,
        freedom=n - op.ddof or math.nan,
        center=op.center,
        epsilon=op.epsilon,
        placement=op.epsilon_placement,
    )


def group_norm(op: GroupNorm, x: Array, *parameters: Array) -> Array:
    by, order, rows = _groups(op, x)
    hat = restore(standardised(by, rows)[0].reshape(x.shape), order, 1)
    return _affine(hat, *(None if p is None else _by_channel(p, x) for p in _present(op, parameters)))


def group_norm_backward(op: GroupNorm, dy: Array, y: Array, x: Array, *parameters: Array) -> tuple[Array, ...]:
    by, order, rows = _groups(op, x)
    scale, _ = _present(op, parameters)
    hat, m, v = standardised(by, rows)
    g = reorder(dy if scale is None else dy * _by_channel(scale, x), order, 1).reshape(rows.shape)
    dx = restore(standardised_backward(by, g, rows, m, v).reshape(x.shape), order, 1)
    hat = restore(hat.reshape(x.shape), order, 1)
    axes = (0, *range(2, x.ndim))
    return (dx, *_own_gradients(op, parameters, (dy * hat).sum(axis=axes), dy.sum(axis=axes)))


def _groups(op: GroupNorm, x: Array) -> tuple[Moments, Array, Array]:
    """The moments, the order of the channels, and x as rows (batch, groups, elements)."""
    order = channel_order(x.shape[1], op.groups, op.group_order)
    rows = reorder(x, order, 1).reshape(len(x), op.groups, -1)
    by = Moments(
        axes=(2,),
        weights=1.0,
        count=rows.shape[2],
        freedom=rows.shape[2],
        center=True,
        epsilon=op.epsilon,
        placement=op.epsilon_placement,
    )
    return by, order, rows


def _by_channel(p: Array, x: Array) -> Array:
    return p.reshape(-1, *(1,) * (x.ndim - 2))


# --- neighbouring channels --------------------------------------------------------------------------------------


def response_norm(op: ResponseNorm, x: Array) -> Array:
    # y = x u^-β, u = k + α Σ_window x²
    return x * _response(op, x) ** -op.beta


def response_norm_backward(op: ResponseNorm, dy: Array, y: Array, x: Array) -> tuple[Array]:
    u = _response(op, x)
    # ∂y_e/∂x_c = δ_ec u_e^-β - 2αβ x_e u_e^(-β-1) x_c for c in e's window; c is in it for e in the mirrored window
    s = dy * x * u ** (-op.beta - 1)
    return (dy * u**-op.beta - 2 * op.alpha * op.beta * x * _around(s, op.above, op.below),)


def _response(op: ResponseNorm, x: Array) -> Array:
    return op.k + op.alpha * _around(x * x, op.below, op.above)


def _around(s: Array, below: int, above: int) -> Array:
    """The sum of each channel and its neighbours."""
    channels = s.shape[1]
    wide = np.pad(s, [(0, 0), (below, above), *[(0, 0)] * (s.ndim - 2)])
    return sum((wide[:, k : k + channels] for k in range(below + above + 1)), start=np.zeros_like(s))


# --- dropout ----------------------------------------------------------------------------------------------------


def dropout(op: Dropout, x: Array, *mask: Array) -> Array:
    return x * _kept(op, x, mask)


def dropout_backward(op: Dropout, dy: Array, y: Array, x: Array, *mask: Array) -> tuple[Array | None, ...]:
    return (dy * _kept(op, x, mask), *(None for _ in mask))


def _kept(op: Dropout, x: Array, mask: tuple[Array, ...]) -> Array | float:
    if not op.active:
        return 1 - op.rate if op.scaling == "inference" else 1.0
    kept = mask[0].astype(bool).astype(x.dtype)
    return kept / (1 - op.rate) if op.scaling == "kept" else kept


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Any, ...]]]] = {
    BatchNorm: (batch_norm, batch_norm_backward),
    LayerNorm: (layer_norm, layer_norm_backward),
    GroupNorm: (group_norm, group_norm_backward),
    ResponseNorm: (response_norm, response_norm_backward),
    Dropout: (dropout, dropout_backward),
}
