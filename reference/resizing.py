"""Resampling of spatial axes: along each axis y = A x, so dx = Aᵀ dy.

forward(op, x) -> y        backward(op, dy, y, x) -> (dx,)        x (batch, channels, *spatial)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.ops import Resize

Array = np.ndarray


def resize(op: Resize, x: Array) -> Array:
    for axis, length in enumerate(x.shape[2:]):
        x = _along(x, interpolation(op, axis, length).astype(x.dtype), axis + 2)
    return x


def resize_backward(op: Resize, dy: Array, y: Array, x: Array) -> tuple[Array]:
    for axis, length in enumerate(x.shape[2:]):
        dy = _along(dy, interpolation(op, axis, length).T.astype(dy.dtype), axis + 2)
    return (dy,)


def _along(x: Array, A: Array, axis: int) -> Array:
    return np.moveaxis(np.tensordot(A, x, axes=(1, axis)), 0, axis)


def interpolation(op: Resize, axis: int, length: int) -> Array:
    """The weights A (out, in) of one spatial axis."""
    n, step = op.size[axis], op.step[axis]
    u = _positions(op, n, step, length)
    A = np.zeros((n, length))
    if op.interpolation == "nearest":
        nearest = np.floor(u if op.nearest_rounding == "floor" else u + 0.5).astype(int)
        A[np.arange(n), np.clip(nearest, 0, length - 1)] = 1
        return A
    stretch = max(step, 1.0) if op.antialias else 1.0
    reach = int(np.ceil((1 if op.interpolation == "linear" else 2) * stretch))
    # the pixels that output i can see, and each one's weight by its distance from u_i
    pixels = np.floor(u).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    weights = _kernel(op, (u[:, None] - pixels) / stretch)
    if op.border == "renormalise":
        weights = np.where((pixels >= 0) & (pixels < length), weights, 0)
    if op.border == "renormalise" or op.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    np.add.at(A, (np.arange(n)[:, None], np.clip(pixels, 0, length - 1)), weights)
    return A


def _positions(op: Resize, n: int, step: float, length: int) -> Array:
    i = np.arange(n)
    match op.grid:
        case "half_pixel":
            return (i + 0.5) * step - 0.5
        case "align_corners":
            return i * ((length - 1) / (n - 1) if n > 1 else 0.0)
        case "asymmetric":
            return i * step


def _kernel(op: Resize, t: Array) -> Array:
    t = np.abs(t)
    if op.interpolation == "linear":
        return np.maximum(1 - t, 0)
    # Keys, IEEE Trans. ASSP 29 (1981) 1153-1160: a piecewise cubic of the distance
    a = op.cubic_a
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Array, ...]]]] = {
    Resize: (resize, resize_backward)
}
