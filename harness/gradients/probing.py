"""One point: projections of the gradient against differences of the function along directions."""

from __future__ import annotations

import math

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.comparisons import CONFIRMED, Comparison
from harness.gradients.directions import moved, norm, projected
from harness.gradients.points import EPS, Point
from harness.gradients.telling import floating
from reference.differences import Slope, slopes_by_differences

NARROW = 2.0**-11
"""The first step: the error of one extrapolation, h⁴ / 480 times the fifth derivative, is then below rounding's."""

EXPLAINED = 16
"""A difference within so many times the rounding of both sides needs no better derivative; nothing fails by it."""


def compared(point: Point, ds: Arrays, step: float = NARROW, fair: bool = False) -> Comparison:
    """The gradient's projection on a direction against two steps, or three; against a ladder where those leave a doubt.

    Agreement needs no estimate of the error: that two numbers agree to rounding by chance is out of the question.
    fair: the direction is balanced, and is to show errors of its smallest elements.
    """
    base = point.base
    expected, scale = _expected(point, ds)
    rounding = point.rounding
    slopes: list[np.ndarray] = []
    bends: list[np.ndarray] = []
    for h in (step, step / 2, step / 4):
        right, left = (sample(point, ds, t) for t in (h, -h))
        slopes.append((right - left) / (2 * h))
        bends.append((right - base + (left - base)) / h)
        if h == step:
            continue
        # the terms in h², then in h⁴ cancel
        found = slopes[-1] + (slopes[-1] - slopes[-2]) / 3
        if len(slopes) == 3:
            found = found + (found - (slopes[1] + (slopes[1] - slopes[0]) / 3)) / 15
        limit = EXPLAINED * rounding / h
        smooth = np.abs(bends[-1]) <= 0.75 * np.abs(bends[-2]) + limit
        close = np.abs(found - expected) <= limit
        sharp = limit <= (1e-3 * scale if fair else 1e-9 * np.maximum(scale, np.abs(base)))
        if (smooth & close & sharp).all():
            return Comparison(
                ds=ds,
                expected=expected,
                found=found,
                error=np.maximum(rounding / h, np.abs(found - expected)),
                scale=scale,
                jump=np.zeros_like(base),
                jump_error=np.zeros_like(base),
                natural=point.natural,
                unit=max(point.eps, default=EPS),
                step=h,
                fine=False,
            )
        if not (smooth & sharp).all():
            break
    return laddered(point, ds)


def laddered(point: Point, ds: Arrays, start: float = 0.25, narrowest: float = 0.0) -> Comparison:
    """The gradient's projection on a direction against a ladder of steps, none below `narrowest`."""
    base = point.base
    narrowest = narrowest or 1e-15
    slope = slopes_by_differences(lambda t: sample(point, ds, t), base, point.rounding, start, narrowest)
    if slope.tread and (grain := grain_of(point, ds)):
        return laddered(point, ds, start, grain) if grain > narrowest else _comparison(point, ds, slope)
    return _comparison(point, ds, slope)


def _comparison(point: Point, ds: Arrays, slope: Slope) -> Comparison:
    expected, scale = _expected(point, ds)
    # a sawtooth of rounding errors has smooth teeth; but a function that stands still within them does so on purpose
    doubt = np.where(slope.value == 0, 0, 0.02 * np.abs(slope.value - expected))
    near = (np.abs(slope.values - expected) <= CONFIRMED * slope.errors) & (slope.errors <= doubt)
    return Comparison(
        supported=np.any(near, axis=0),
        ds=ds,
        expected=expected,
        found=slope.value,
        error=slope.error,
        scale=scale,
        jump=slope.jump,
        jump_error=slope.jump_error,
        natural=point.natural,
        unit=max(point.eps, default=EPS),
        step=float(np.nanmin(slope.steps)) if np.isfinite(slope.steps).any() else NARROW,
        fine=True,
    )


def grain_of(point: Point, ds: Arrays) -> float:
    """The narrowest sensible step for a function that rounds on the way: outputs that answer to a step of 2^-14 stand
    still at a narrower one. 0 for others: where a function is constant in pieces, few answer to 2^-14."""
    moving = []
    for k in range(10, 36, 4):
        try:
            ys = point.function.value(moved(point.xs, ds, 2.0**-k))
        except Exception:  # outside of what the function takes
            return 0.0
        moving.append(sum(int((a != b).sum()) for a, b in zip(ys, point.ys, strict=True) if floating(b)))
        if moving[-1] < 0.9 * moving[0]:
            return 2.0 ** (10 - k) if len(moving) > 2 else 0.0
    return 0.0


def sample(point: Point, ds: Arrays, t: float) -> np.ndarray:
    try:
        ys = point.function.value(moved(point.xs, ds, t))
    except Exception:  # outside of what the function takes
        return np.full(len(point.vs), np.nan)
    return np.array([projected(v, ys) for v in point.vs])


def along(grads: Arrays, ds: Arrays) -> tuple[float, float]:
    """The projection of the gradients on a direction, and its size, signs apart."""
    total = squares = 0.0
    for g, d in zip(grads, ds, strict=True):
        if floating(g):
            products = np.real(g.conj() * d) if g.dtype.kind == "c" else g * d
            total += float(products.sum())
            squares = math.hypot(squares, norm([products]))
    return total, squares


def _expected(point: Point, ds: Arrays) -> tuple[np.ndarray, np.ndarray]:
    totals, sizes = zip(*(along(g, ds) for g in point.grads), strict=True)
    return np.array(totals), np.array(sizes)
