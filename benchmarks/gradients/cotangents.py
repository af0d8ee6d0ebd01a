"""What backwards do to their cotangent, and what they keep from call to call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gradients import Item, Subject, item
from benchmarks.gradients.data import apart, normal
from benchmarks.gradients.rules import BUILDERS, flipped, like, numpy_pair, rule, wrong

X = normal(3, 4)
SQUARE = normal(3, 3)
FRAMEWORKS = ("torch", "tensorflow", "jax", "numpy")


def slope(xp: Any, x: Any) -> Any:
    return 1 - xp.tanh(x) ** 2


def counting(every: int) -> Callable[..., Any]:
    """A backward that doubles every so many calls."""
    calls = [0]

    def backward(xp: Any, x: Any, v: Any) -> Any:
        calls[0] += 1
        return v * slope(xp, x) * (2 if calls[0] % every == 0 else 1)

    return backward


def accumulating() -> Callable[..., Any]:
    """Adds to the gradient of the call before."""
    kept: list[Any] = []

    def backward(xp: Any, x: Any, v: Any) -> Any:
        kept.append(v * slope(xp, x))
        return sum(kept[-2:])

    return backward


def jittering(size: float) -> Callable[..., Any]:
    rng = np.random.default_rng(0)

    def backward(xp: Any, x: Any, v: Any) -> Any:
        return v * slope(xp, x) * (1 + size * rng.standard_normal())

    return backward


def _keeping(name: str, make: Callable[[], Callable[..., Any]], patterns: str, framework: str) -> Item:
    """A fresh function for each who builds it."""

    def build() -> Subject:
        builder = numpy_pair if framework == "numpy" else BUILDERS[framework]
        return Subject(function=builder(lambda xp, x: xp.tanh(x), make()), inputs=(X,))

    return item(f"cotangents/{name}", framework, "wrong", build, patterns)


ITEMS = [
    *rule(
        "cotangents/hyperbolic tangent",
        [X],
        lambda xp, x: xp.tanh(x),
        lambda xp, x, v: v * slope(xp, x),
        wrong("positive ones only", "nonlinear-cotangent", lambda xp, x, v: xp.maximum(v, 0 * v) * slope(xp, x)),
        wrong("their mean", "unknown", lambda xp, x, v: xp.mean(v) * slope(xp, x)),
        wrong("their sign", "nonlinear-cotangent", lambda xp, x, v: xp.sign(v) * slope(xp, x)),
        wrong("by their largest", "nonlinear-cotangent", lambda xp, x, v: v / xp.amax(xp.abs(v)) * slope(xp, x)),
        wrong(
            "small ones dropped",
            "nonlinear-cotangent",
            lambda xp, x, v: xp.where(xp.abs(v) < 1e-2, 0 * v, v) * slope(xp, x),
        ),
        wrong("plus decay", "nonlinear-cotangent unknown", lambda xp, x, v: v * slope(xp, x) + 1e-2 * x),
        wrong("clipped far out", "nonlinear-cotangent", lambda xp, x, v: xp.clip(v * slope(xp, x), -10.0, 10.0)),
        wrong("first row's for all", "unknown broadcast", lambda xp, x, v: v[:1] * slope(xp, x)),
        wrong("reversed", "unknown transposed", lambda xp, x, v: flipped(xp, v) * slope(xp, x)),
        wrong("scaled down by 1e-5", "factor", lambda xp, x, v: v * slope(xp, x) * 1e-5),
    ),
    *rule(
        "cotangents/square matrix",
        [SQUARE],
        lambda xp, x: xp.tanh(x),
        None,
        wrong("transposed", "transposed unknown", lambda xp, x, v: xp.swapaxes(v, 0, 1) * slope(xp, x)),
        wrong("diagonal's sign", "element", lambda xp, x, v: v * slope(xp, x) * (1 - 2 * like(xp, np.eye(3), x))),
    ),
    *rule(
        "cotangents/guided relu",
        [apart(3, 4)],
        lambda xp, x: xp.maximum(x, 0 * x),
        None,
        wrong(
            "positive ones only",
            "nonlinear-cotangent",
            lambda xp, x, v: xp.where((x > 0) & (v > 0), v, 0 * v),
        ),
    ),
    *[
        _keeping(name, make, patterns, framework)
        for framework in FRAMEWORKS
        for name, make, patterns in (
            ("doubled every second call", partial(counting, 2), "stale nondeterministic"),
            ("doubled every fifth call", partial(counting, 5), "stale nondeterministic"),
            ("added to the last", accumulating, "stale nondeterministic"),
            ("jitter of 1e-3", partial(jittering, 1e-3), "nondeterministic"),
            ("jitter of 1e-9", partial(jittering, 1e-9), "nondeterministic"),
        )
    ],
]
