"""Correct functions of badly scaled inputs: 1e-8 beside 1e8, huge sums, ill-conditioned matrices; and staircases."""

from __future__ import annotations

import numpy as np

from benchmarks.gradients.data import normal, uniform
from benchmarks.gradients.products import inverse, t
from benchmarks.gradients.rules import like, rule, wrong

MIXED = np.array([1e-8, 1e8, 1.0, -1e-8, -3e4])
STEPS = np.array([-1.3, 0.2, 0.7, 2.4])
WEIGHTS = np.array([1e-6, 1e6, 1.0, 1e3, 1e-3])
BAD = np.diag([1e6, 1.0, 1e-3]) + 1e-4 * normal(3, 3)
MANY = normal(200_000)


ITEMS = [
    *rule(
        "scales/squares of mixed sizes",
        [MIXED],
        lambda xp, x: x**2,
        lambda xp, x, v: 2 * v * x,
        wrong("small ones zero", "region element", lambda xp, x, v: xp.where(xp.abs(x) < 1e-6, 0 * x, 2 * v * x)),
        kind="awkward",
    ),
    *rule(
        "scales/sum of mixed weights",
        [normal(5)],
        lambda xp, x: xp.sum(like(xp, WEIGHTS, x) * xp.sin(x)),
        lambda xp, x, v: v * like(xp, WEIGHTS, x) * xp.cos(x),
        wrong(
            "lightest wrong",
            "element unknown",
            lambda xp, x, v: v * like(xp, WEIGHTS * np.array([2.0, 1, 1, 1, 1]), x) * xp.cos(x),
            at=(0, (0,)),
        ),
        kind="awkward",
    ),
    *rule(
        "scales/tiny numbers",
        [normal(3, 4, scale=1e-8)],
        lambda xp, x: xp.expm1(x),
        lambda xp, x, v: v * xp.exp(x),
        wrong("sign", "sign", lambda xp, x, v: -v * xp.exp(x)),
        kind="awkward",
    ),
    *rule(
        "scales/tiny gradient",
        [normal(3, 4)],
        lambda xp, x: 1e-12 * xp.tanh(x),
        lambda xp, x, v: 1e-12 * v * (1 - xp.tanh(x) ** 2),
        wrong("sign", "sign", lambda xp, x, v: -1e-12 * v * (1 - xp.tanh(x) ** 2)),
        kind="awkward",
    ),
    *rule(
        "scales/huge numbers",
        [normal(3, 4, scale=1e12)],
        lambda xp, x: x**2 / (1e12 + xp.abs(x)),
        lambda xp, x, v: v * (2 * x * (1e12 + xp.abs(x)) - x**2 * xp.sign(x)) / (1e12 + xp.abs(x)) ** 2,
        kind="awkward",
    ),
    *rule(
        "scales/small beside a large constant",
        [normal(4)],
        lambda xp, x: 1e9 + xp.sin(x),
        lambda xp, x, v: v * xp.cos(x),
        wrong("sign", "sign", lambda xp, x, v: -v * xp.cos(x)),
        kind="awkward",
    ),
    *rule(
        "scales/two inputs far apart",
        [normal(4, scale=1e-6), normal(4, seed=1, scale=1e6)],
        lambda xp, x, y: xp.sin(x * y),
        lambda xp, x, y, v: (v * y * xp.cos(x * y), v * x * xp.cos(x * y)),
        wrong("second's half", "factor", lambda xp, x, y, v: (v * y * xp.cos(x * y), 0.5 * v * x * xp.cos(x * y))),
        kind="awkward",
    ),
    *rule(
        "scales/ill-conditioned inverse",
        [BAD],
        inverse,
        lambda xp, a, v: -xp.matmul(xp.matmul(t(xp, inverse(xp, a)), v), t(xp, inverse(xp, a))),
        kind="awkward",
    ),
    *rule(
        "scales/mean of two hundred thousand",
        [MANY],
        lambda xp, x: xp.mean(x**2),
        lambda xp, x, v: 2 * v * x / 200_000,
        wrong("sum for mean", "factor", lambda xp, x, v: 2 * v * x),
        kind="awkward",
    ),
    *rule(
        "scales/sum of two hundred thousand",
        [MANY],
        lambda xp, x: xp.sum(xp.sin(x)),
        lambda xp, x, v: v * xp.cos(x),
        kind="awkward",
    ),
    *rule(
        "scales/floor",
        [STEPS],
        lambda xp, x: xp.floor(x) * 1.0,
        lambda xp, x, v: 0 * x,
        wrong("straight through", "surrogate", lambda xp, x, v: 1.0 * v),
        kind="awkward",
    ),
    *rule(
        "scales/sign",
        [STEPS],
        lambda xp, x: xp.sign(x),
        lambda xp, x, v: 0 * x,
        wrong("hard tanh's", "surrogate", lambda xp, x, v: xp.where(xp.abs(x) <= 1, v, 0 * v)),
        kind="awkward",
    ),
    *rule(
        "scales/rounding",
        [STEPS],
        lambda xp, x: xp.floor(x + 0.5),
        lambda xp, x, v: 0 * x,
        wrong("straight through", "surrogate", lambda xp, x, v: 1.0 * v),
        kind="awkward",
    ),
    *rule(
        "scales/fractional part",
        [STEPS],
        lambda xp, x: x - xp.floor(x),
        lambda xp, x, v: 1.0 * v,
        kind="awkward",
    ),
    *rule(
        "scales/staircase and slope",
        [STEPS],
        lambda xp, x: xp.floor(3 * x) + x**2,
        lambda xp, x, v: 2 * x * v,
        wrong("stairs' slope added", "unknown surrogate", lambda xp, x, v: (2 * x + 3) * v),
        kind="awkward",
    ),
    *rule(
        "scales/constant",
        [STEPS],
        lambda xp, x: 0 * x + 2.5,
        lambda xp, x, v: 0 * x,
        kind="awkward",
    ),
    *rule(
        "scales/quantised to a tenth, announced",
        [STEPS],
        lambda xp, x: xp.floor(x * 10 + 0.5) / 10,
        lambda xp, x, v: 1.0 * v,
        options={"vjp": lambda v, x: v},
        kind="awkward",
    ),
    *rule(
        "scales/stopped gradient, announced",
        [normal(4), uniform(4, low=0.5, high=2.0)],
        lambda xp, x, y: x * y,
        lambda xp, x, y, v: (v * y, 0 * y),
        wrong(
            "and yet another factor",
            "factor",
            lambda xp, x, y, v: (2 * v * y, 0 * y),
            options={"vjp": lambda v, x, y: (v * y, 0 * y)},
        ),
        options={"vjp": lambda v, x, y: (v * y, 0 * y)},
        kind="awkward",
    ),
    *rule(
        "scales/reversed gradient, announced",
        [normal(4)],
        lambda xp, x: 1.0 * x,
        lambda xp, x, v: -0.5 * v,
        options={"vjp": lambda v, x: -0.5 * v},
        kind="awkward",
    ),
    *rule(
        "scales/reversed gradient",
        [normal(4)],
        lambda xp, x: 1.0 * x,
        None,
        wrong("not announced", "surrogate sign", lambda xp, x, v: -v),
    ),
]
