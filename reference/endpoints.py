"""What kind of point a descent has come to: minimum, saddle, maximum, or no stationary point yet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal

import numpy as np

Array = np.ndarray
End = Literal["minimum", "saddle", "maximum", "still moving"]

ARRIVED = 1e-3
"""A stationary point nearer than this, as a part of `length`, counts as reached."""
FLAT = 1e-6
"""Curvature below this part of the largest is zero: differences give a Hessian to about 1e-9 of its largest entry."""
PROBE = 1e-2
"""How far to look along a flat direction, as a part of `length`: far above ARRIVED, so that f's next term shows."""


def classify(gradient: Array, hessian: Array, f: Callable[[Array], float], point: Array, length: float = 1.0) -> End:
    """The kind of point (n,) with gradient (n,) and hessian (n, n) of f there.

    length: the distance that is large in the problem's own units; the point's own size counts too, so that
    reach = max(length, |point|). Along each eigenvector of the Hessian, with eigenvalue λ and gradient component g:

    - curved, |λ| > FLAT max|λ|: the nearest stationary point is the Newton step |g/λ| away; beyond ARRIVED reach the
      point is still moving. Else λ's sign says whether f rises or falls.
    - flat: a gradient above ARRIVED reach max|λ| is still moving. Else f is probed at PROBE reach on both sides, less
      its slope; it may rise, fall, or (a monkey saddle) both. Where f does not change it says nothing.

    Falling and rising make a saddle, falling alone a maximum, all else a minimum (nothing lower is near: also a valley
    floor or a plateau). A point, gradient or Hessian that is not finite is still moving: the run has diverged.
    """
    if not (np.isfinite(point).all() and np.isfinite(gradient).all() and np.isfinite(hessian).all()):
        return "still moving"
    reach = max(length, float(np.linalg.norm(point)))
    curvatures, directions = np.linalg.eigh(hessian)
    largest = float(np.abs(curvatures).max())
    slopes = directions.T @ gradient
    curved = np.abs(curvatures) > FLAT * largest

    # near a stationary point g = λ (distance along the eigenvector), so the Newton step is -g/λ
    if (np.abs(slopes) > ARRIVED * reach * np.where(curved, np.abs(curvatures), largest)).any():
        return "still moving"

    rises, falls = bool((curvatures[curved] > 0).any()), bool((curvatures[curved] < 0).any())
    here, h = f(point), PROBE * reach
    for slope, direction in zip(slopes[~curved], directions.T[~curved], strict=True):
        for side in (h, -h):
            there = f(point + side * direction)
            noise = 64 * sys.float_info.epsilon * max(abs(here), abs(there), largest * h * h)
            # f(p + h d) - f(p) - h g: what is left of Taylor's series where g and λ vanish
            change = there - here - side * slope
            rises, falls = rises or change > noise, falls or change < -noise
    if falls:
        return "saddle" if rises else "maximum"
    return "minimum"


def hessian_by_differences(gradient: Callable[[Array], Array], point: Array) -> Array:
    """The Hessian (n, n) at point (n,) from 2n gradients (n,), made symmetric; exact to about eps^(2/3)."""
    H = np.empty((point.size, point.size))
    for i in range(point.size):
        # error h²f‴/6 from the series, eps/h from rounding: balanced at h = eps^(1/3)
        h = sys.float_info.epsilon ** (1 / 3) * max(1.0, abs(float(point[i])))
        e = np.zeros(point.size)
        e[i] = h
        H[i] = (gradient(point + e) - gradient(point - e)) / (2 * h)
    return (H + H.T) / 2
