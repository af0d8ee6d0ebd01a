"""Answers found by iteration and differentiated by the implicit function theorem: exact gradients of inexact values."""

from __future__ import annotations

from typing import Any

from benchmarks.gradients.data import normal, uniform
from benchmarks.gradients.rules import rule, wrong

A = uniform(4, low=0.5, high=3.0)
MATRIX = 0.2 * normal(3, 3)


def newton_root(xp: Any, a: Any) -> Any:
    x = 1 + 0 * a
    for _ in range(30):
        x = 0.5 * (x + a / x)
    return x


def bisected(xp: Any, a: Any, steps: int) -> Any:
    """x + x^3 = a between -1 - |a| and 1 + |a|, halved so often: a staircase when looked at closely."""
    low, high = -1 - xp.abs(a), 1 + xp.abs(a)
    for _ in range(steps):
        middle = 0.5 * (low + high)
        above = middle + middle**3 > a
        low, high = xp.where(above, low, middle), xp.where(above, middle, high)
    return 0.5 * (low + high)


def fixed_point(xp: Any, a: Any, steps: int = 60) -> Any:
    """x = 0.5 cos x + a."""
    x = 0 * a
    for _ in range(steps):
        x = 0.5 * xp.cos(x) + a
    return x


def loosely(xp: Any, a: Any) -> Any:
    """Iterated until the change is below 1e-13, as solvers stop."""
    x, before = 0 * a, 1 + 0 * a
    while bool(xp.amax(xp.abs(x - before)) > 1e-13):
        x, before = 0.5 * xp.cos(x) + a, x
    return x


def equilibrium(xp: Any, w: Any) -> Any:
    """z = tanh(w z + 1)."""
    z = 0 * w[:, :1]
    for _ in range(80):
        z = xp.tanh(xp.matmul(w, z) + 1)
    return z


def equilibrium_backward(xp: Any, w: Any, v: Any, iterations: int = 80) -> Any:
    z = equilibrium(xp, w)
    slope = 1 - z**2
    u = v
    for _ in range(iterations):
        u = v + xp.matmul(xp.swapaxes(w, 0, 1), slope * u)
    return xp.matmul(slope * u, xp.swapaxes(z, 0, 1))


def decay(xp: Any, k: Any, steps: int = 200) -> Any:
    """y' = -k y from y(0) = 1 to t = 1 by Heun's method."""
    y, h = 1 + 0 * k, 1 / steps
    for _ in range(steps):
        y = y + 0.5 * h * (-k * y - k * (y - h * k * y))
    return y


def decay_slope(xp: Any, k: Any, steps: int = 200) -> Any:
    """Of the discrete solution, (1 - hk + (hk)^2 / 2)^steps."""
    h = 1 / steps
    return steps * (1 - h * k + 0.5 * (h * k) ** 2) ** (steps - 1) * (h * h * k - h)


ITEMS = [
    *rule(
        "solvers/root by Newton's method",
        [A],
        newton_root,
        lambda xp, a, v: 0.5 * v / newton_root(xp, a),
        wrong("half missing", "factor", lambda xp, a, v: v / newton_root(xp, a)),
        kind="awkward",
    ),
    *rule(
        "solvers/bisection to the last digit",
        [A],
        lambda xp, a: bisected(xp, a, 60),
        lambda xp, a, v: v / (1 + 3 * bisected(xp, a, 60) ** 2),
        wrong("3 missing", "unknown", lambda xp, a, v: v / (1 + bisected(xp, a, 60) ** 2)),
        kind="awkward",
    ),
    *rule(
        "solvers/bisection to seven digits",
        [A],
        lambda xp, a: bisected(xp, a, 23),
        lambda xp, a, v: v / (1 + 3 * bisected(xp, a, 60) ** 2),
        wrong("sign", "sign", lambda xp, a, v: -v / (1 + 3 * bisected(xp, a, 60) ** 2)),
        kind="awkward",
    ),
    *rule(
        "solvers/fixed point",
        [A],
        fixed_point,
        lambda xp, a, v: v / (1 + 0.5 * xp.sin(fixed_point(xp, a))),
        wrong("one iteration's gradient", "unknown surrogate", lambda xp, a, v: 1.0 * v),
        kind="awkward",
    ),
    *rule(
        "solvers/fixed point to 1e-13",
        [A],
        loosely,
        lambda xp, a, v: v / (1 + 0.5 * xp.sin(fixed_point(xp, a))),
        wrong("sign of the sine", "unknown", lambda xp, a, v: v / (1 - 0.5 * xp.sin(fixed_point(xp, a)))),
        kind="awkward",
        frameworks=("torch", "tensorflow", "numpy"),
    ),
    *rule(
        "solvers/equilibrium of a network",
        [MATRIX],
        equilibrium,
        equilibrium_backward,
        wrong("one iteration", "unknown missing-term", lambda xp, w, v: equilibrium_backward(xp, w, v, 0)),
        kind="awkward",
    ),
    *rule(
        "solvers/equation by Heun's method",
        [A],
        decay,
        lambda xp, k, v: decay_slope(xp, k) * v,
        wrong("sign", "sign", lambda xp, k, v: -decay_slope(xp, k) * v),
        kind="awkward",
    ),
    *rule(
        "solvers/Lambert's function",
        [A],
        lambda xp, a: lambert(xp, a),
        lambda xp, a, v: v / (a + xp.exp(lambert(xp, a))),
        kind="awkward",
    ),
]


def lambert(xp: Any, a: Any) -> Any:
    w = xp.log1p(a)
    for _ in range(25):
        w = w - (w * xp.exp(w) - a) / (xp.exp(w) * (1 + w))
    return w
