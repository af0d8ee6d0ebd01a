"""The float32 path: the same function and backward in float32, against what float32 itself must cost."""

from __future__ import annotations

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.directions import norm, spread
from harness.gradients.finding import Finding
from harness.gradients.points import EPS, Point, filled, narrowed, own
from harness.gradients.telling import floating

WORSE = 1000.0
"""A float32 gradient may be off by so many times what rounding its inputs does, and what float32 costs the values: the
limit for float32 noise in `harness.judging`."""

EPS32 = float(np.finfo(np.float32).eps)


def float32_path(point: Point) -> tuple[Finding | None, str]:
    """The gradient in float32: a finding where it is wrong, or words where there is only something to say.

    Raises what the function raises.
    """
    narrow = tuple(narrowed(x) for x in point.xs)
    vs = tuple(narrowed(v) for v in point.vs[0])
    ys, pullback = point.function.pull(own(narrow))
    grads = filled(pullback(own(vs)), point.xs)
    wide = tuple(x.astype(p.dtype) for x, p in zip(narrow, point.xs, strict=True))
    cost = max(_distance(a, b) for a, b in zip((ys,), (point.ys,), strict=True))
    exact = all(np.array_equal(a, b) for a, b in zip(wide, point.xs, strict=True))
    base = point.grads[0] if exact else _gradients(point, wide)
    moved = _gradients(
        point, tuple(x * (1 + EPS32 / 2 * spread(x.shape, 900, point.seed)) if floating(x) else x for x in wide)
    )
    if not all(np.isfinite(y).all() for y in ys if floating(y)) or not all(np.isfinite(g).all() for g in base):
        return None, ""
    if not all(np.isfinite(g).all() for g in grads):
        return None, "the gradient is not finite in float32, where the value is"
    off, allowed = _distance(grads, base), WORSE * max(EPS32, cost, _distance(moved, base))
    if not off > allowed or not 1e-30 < norm(base) < 1e30:
        return None, ""
    return Finding(
        pattern="float32",
        reason=f"in float32 the gradient is off by {off:.2g} of its size; float32 explains {allowed / WORSE:.2g}",
    ), ""


def narrow_backward(point: Point) -> Finding | None:
    """Gradients that are float32's to the last digit, of a function that is not float32's."""
    if max(point.eps) > EPS:
        return None
    for i, (grad, x) in enumerate(zip(point.grads[0], point.xs, strict=True)):
        if floating(x) and single(grad):
            return Finding(
                pattern="float32", reason=f"the gradient of input {i} has passed through float32, the value not"
            )
    return None


def coarse(point: Point) -> Finding | None:
    """Gradients that stand still while the inputs move by 2^-38 of their size, but not at 2^-18: float32 on the way."""
    still = []
    for step in (2.0**-38, 2.0**-18):
        grads = _gradients(
            point, tuple(x * (1 + step * spread(x.shape, 901, point.seed)) if floating(x) else x for x in point.xs)
        )
        still.append(sum(int((a == b).sum()) for a, b in zip(grads, _gradients(point, point.xs), strict=True)))
    total = sum(x.size for x in point.xs if floating(x))
    if still[0] > 0.9 * total > 2 * still[1]:
        return Finding(pattern="float32", reason="the gradient passes through float32, the value does not")
    return None


def single(y: np.ndarray) -> bool:
    """Whether all values are float32's, some with more digits than a small whole number or a simple fraction has."""
    if y.dtype in (np.float32, np.complex64, np.float16):
        return True
    if y.dtype.kind not in "fc" or not y.size:
        return False
    narrow = np.complex64 if y.dtype.kind == "c" else np.float32
    # the first few decide for most
    if not all(np.array_equal(part.astype(narrow), part, equal_nan=True) for part in (y.reshape(-1)[:64], y)):
        return False
    mantissa = np.frexp(np.real(y))[0] * 2.0**13
    return bool((mantissa != np.floor(mantissa))[np.isfinite(y)].any())


def _gradients(point: Point, xs: Arrays) -> Arrays:
    _, pullback = point.function.pull(own(xs))
    return filled(pullback(tuple(narrowed(v).astype(v.dtype) for v in point.vs[0])), xs)


def _distance(found: Arrays, wanted: Arrays) -> float:
    """The largest relative distance in norm of two gradients, or two outputs."""
    pairs = [(a, b, norm((b,))) for a, b in zip(found, wanted, strict=True) if floating(b)]
    return max((norm((a - b,)) / size for a, b, size in pairs if size > 0), default=0.0)
