"""What holds for every gradient, exactly: shape, linearity in the cotangent, repetition, inputs left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frameworks.protocol import Arrays, Pullback
from harness.gradients.comparisons import CONFIRMED, Comparison
from harness.gradients.directions import norm, projected
from harness.gradients.finding import Finding
from harness.gradients.points import EPS, Point, filled, own
from harness.gradients.probing import EXPLAINED
from harness.gradients.telling import floating

STRETCHES = (-64.0, 2.0**-20)
"""Powers of two: scaling a cotangent by them is exact, and so must be the gradient's."""


def misshapen(grads: Sequence[np.ndarray | None], xs: Arrays) -> Finding | None:
    """Each floating input needs a gradient of its own shape and precision."""
    if len(grads) != len(xs):
        return Finding(pattern="shape", reason=f"{len(grads)} gradients for {len(xs)} inputs")
    for i, (grad, x) in enumerate(zip(grads, xs, strict=True)):
        if grad is None or not floating(x):
            continue
        if grad.shape != x.shape:
            words = f"the gradient of input {i} has shape {grad.shape}, the input {x.shape}"
            if _sums_to(grad.shape, x.shape):
                return Finding(pattern="broadcast", reason=f"{words}: it is to be summed over what was broadcast")
            return Finding(pattern="shape", reason=words)
        if grad.dtype.kind == "c" and x.dtype.kind != "c":
            return Finding(pattern="shape", reason=f"the gradient of input {i} is complex, the input real")
        if grad.dtype.itemsize < x.dtype.itemsize:
            return Finding(pattern="float32", reason=f"the gradient of input {i} is {grad.dtype}, the input {x.dtype}")
    return None


def _sums_to(wide: tuple[int, ...], narrow: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(wide, narrow) == wide
    except ValueError:
        return False


def raised(error: Exception, xs: Arrays, ys: Arrays) -> Finding:
    """A backward that raises; about a shape, where an input was broadcast, it is the sum that is missing."""
    words = (str(error).strip().splitlines() or [""])[0]
    narrow = any(y.size > x.size and floating(x) for x in xs for y in ys)
    pattern = "raises"
    # torch/csrc/autograd/engine.cpp (2.13) and jax/_src/custom_derivatives.py (0.10) about a gradient's shape
    if "returned an invalid gradient" in str(error) or "Custom VJP bwd rule must produce" in str(error):
        pattern = "broadcast" if narrow and len(xs) > 1 else "shape"
    return Finding(pattern=pattern, reason=f"the backward raised {type(error).__name__}: {words}")


def nonlinear(point: Point, pullback: Pullback) -> Finding | None:
    """vjp(s v) == s vjp(v), but for what measurably is rounding; then in what way it is not."""
    v, grads, size = point.vs[0], point.grads[0], norm(point.grads[0])
    if not np.isfinite(size):
        return None
    for stretch in STRETCHES:
        scaled = filled(pullback(tuple(stretch * a for a in v)), point.xs)
        if norm([s - stretch * g for s, g in zip(scaled, grads, strict=True)]) > 1e-6 * abs(stretch) * size:
            break
    else:
        return None
    if not all(map(_alike, filled(pullback(own(v)), point.xs), grads)):
        return Finding(pattern="nondeterministic", reason="the backward gives another gradient at a later call")
    if all(map(np.array_equal, scaled, grads)):
        return Finding(pattern="ignores-cotangent", reason="the gradient does not depend on the cotangent")

    def answers(factor: float, by: float) -> bool:
        found = filled(pullback(tuple(factor * a for a in v)), point.xs)
        return norm([f - by * g for f, g in zip(found, grads, strict=True)]) <= 1e-9 * abs(by) * size

    words = "not linear in it"
    if answers(2, 4):
        words = "quadratic in it"
    elif answers(-1, 1) and answers(2, 2):
        words = "even in it, as of its absolute value"
    elif answers(-1, -1) and answers(2, 1):
        words = "of one size whatever its size, as of its sign, or with a norm divided out"
    elif answers(-1, -1):
        words = "clipped, or cut off, by size; if that is meant, give it as vjp="
    reason = f"the gradient for {stretch:.3g} times a cotangent is not {stretch:.3g} times the gradient: {words}"
    return Finding(pattern="nonlinear-cotangent", reason=reason)


def unrepeated(point: Point) -> tuple[Finding | None, str]:
    """The same point again: the finding for a backward that does not repeat itself, or words for a function."""
    ys, pullback = point.function.pull(own(point.xs))
    grads = filled(pullback(own(point.vs[0])), point.xs)
    if not all(_alike(a, b) for a, b in zip(ys, point.ys, strict=True)):
        return None, "the function does not repeat itself: fix its random seed"
    if all(_alike(a, b) for a, b in zip(grads, point.grads[0], strict=True)):
        return None, ""
    return Finding(
        pattern="nondeterministic", reason="the backward gives another gradient for the same inputs and cotangent"
    ), ""


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, NaN alike; looking for NaN costs ten times as much."""
    return np.array_equal(a, b) or np.array_equal(a, b, equal_nan=True)


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, or but for the order of a sum."""
    return same(a, b) or (a.shape == b.shape and norm([a - b]) <= EXPLAINED * EPS * norm([a]))


def stale(point: Point, pullback: Pullback) -> Finding | None:
    """The backward of the first call again, after other calls."""
    grads = filled(pullback(own(point.vs[0])), point.xs)
    if all(_alike(a, b) for a, b in zip(grads, point.grads[0], strict=True)):
        return None
    return Finding(
        pattern="stale",
        reason="the gradient of a call changes when the function is called elsewhere in between: what the backward "
        "needs must be saved by each call for itself",
    )


def written(given: Arrays, xs: Arrays, ys: Arrays) -> Finding | None:
    """Inputs written into, unless the function returns them as its outputs."""
    for i, (a, b) in enumerate(zip(given, xs, strict=True)):
        if not same(a, b) and not any(np.shares_memory(a, y) for y in ys):
            return Finding(pattern="mutates", reason=f"the function writes into its input {i}")
    return None


def again(point: Point, pullback: Pullback, given: Arrays) -> Finding | None:
    """The same backward a second time: neither it nor the first may have written into the cotangent, which is the
    caller's, or into the inputs that the function was given; and it must say the same."""
    vs = own(point.vs[0])
    grads = filled(pullback(vs), point.xs)
    if not all(map(np.array_equal, vs, point.vs[0])):
        return Finding(pattern="mutates", reason="the backward writes into the cotangent that it is given")
    if not all(map(same, given, point.xs)):
        return Finding(pattern="mutates", reason="the backward writes into the inputs")
    if not all(map(_alike, grads, point.grads[0])):
        reason = "the backward of one call gives another gradient when it is run again for the same cotangent"
        return Finding(pattern="nondeterministic", reason=reason)
    return None


def primal(point: Point, ys: Arrays, nearby: Arrays) -> Finding | None:
    """The value under differentiation against the plain one; nearby: the plain one at inputs moved by one ulp."""
    for j, (y, plain, near) in enumerate(zip(point.ys, ys, nearby, strict=True)):
        if y.shape != plain.shape:
            return Finding(pattern="primal", reason=f"output {j} under differentiation has another shape")
        if same(y, plain):
            continue
        allowed = EXPLAINED * (np.abs(near - plain) + point.eps[j] * (np.abs(plain) + np.max(np.abs(plain), initial=0)))
        if not (np.abs(y - plain) <= allowed).all():
            return Finding(
                pattern="primal",
                reason=f"output {j} under differentiation is not the function's value: off by "
                f"{np.max(np.abs(y - plain)):.3g}",
            )
    return None


def relaid(point: Point, comparisons: Sequence[Comparison]) -> tuple[Finding | None, str]:
    """Inputs and cotangents in another memory layout, against the differences; a function that refuses is noted."""
    try:
        _, pullback = point.function.pull(tuple(_relaid(x) for x in point.xs))
    except Exception as error:
        return None, f"the function does not take inputs that are not contiguous: {type(error).__name__}"
    try:
        grads = filled(pullback(tuple(_relaid(v) for v in point.vs[0])), point.xs)
    except Exception as error:
        words = (str(error).splitlines() or [""])[0]
        reason = f"the backward raised {type(error).__name__} for arrays that are not contiguous: {words}"
        return Finding(pattern="non-contiguous", reason=reason), ""
    if all(_alike(a, b) for a, b in zip(grads, point.grads[0], strict=True)):
        return None, ""
    if not against(comparisons, [projected(grads, c.ds) for c in comparisons]):
        return None, ""
    return Finding(pattern="non-contiguous", reason="the gradient is wrong for arrays that are not contiguous"), ""


def _relaid(x: np.ndarray) -> np.ndarray:
    """The same array, every other element of a wider one, its axes stored in reverse."""
    if not x.size or not x.ndim:
        return x.copy()
    wide = np.zeros((*x.shape[:0:-1], 2 * x.shape[0]), x.dtype)
    relaid = wide.T[::2]
    relaid[...] = x
    return relaid


def forward(point: Point, comparisons: Sequence[Comparison]) -> Finding | None:
    """The Jacobian-vector product by forward mode, where offered, against the differences."""
    seen = []
    for c in comparisons[:2]:
        tangents = point.function.push(own(point.xs), own(c.ds))
        if tangents is None:
            return None
        seen.append(projected(point.vs[0], tangents))
    if not against(comparisons[:2], seen):
        return None
    return Finding(
        pattern="jvp",
        reason=f"forward mode gives {seen[0]:.10g} along a direction, differences {comparisons[0].found[0]:.10g}",
    )


def against(comparisons: Sequence[Comparison], alternatives: Sequence[float]) -> bool:
    """Whether other projections (for the first cotangent, one for each comparison) contradict the differences."""
    return any(
        abs(c.found[0] - other) > CONFIRMED * c.error[0] + 8 * c.unit * c.scale[0]
        for c, other in zip(comparisons, alternatives, strict=True)
        if not c.kinked
    )
