"""Functions of two or three inputs: broadcasting, exchanged and forgotten gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import apart, normal, uniform
from benchmarks.gradients.rules import like, rule, wrong

X, Y = normal(4, 3), normal(4, 3, seed=1)
BIAS = normal(3, seed=2)
COLUMN = normal(4, 1, seed=3)
POSITIVE, EXPONENT = uniform(4, 3, low=0.5, high=2.0), uniform(4, 3, low=1.5, high=3.0, seed=1)
SPREAD = apart(4, 6)
ONE = np.zeros((4, 3))
ONE[2, 1] = 1


def hypotenuse(xp: Any, x: Any, y: Any) -> Any:
    return xp.sqrt(x**2 + y**2)


ITEMS = [
    *rule(
        "pairs/added bias",
        [X, BIAS],
        lambda xp, x, b: x + b,
        lambda xp, x, b, v: (v, xp.sum(v, axis=0)),
        wrong("first row for the sum", "broadcast", lambda xp, x, b, v: (v, v[0])),
        wrong("mean for the sum", "factor broadcast", lambda xp, x, b, v: (v, xp.sum(v, axis=0) / 4.0)),
    ),
    *rule(
        "pairs/added bias",
        [X, BIAS],
        lambda xp, x, b: x + b,
        None,
        wrong("sum over the batch missing", "broadcast shape", lambda xp, x, b, v: (v, v)),
        frameworks=("tensorflow", "jax", "numpy"),
    ),
    *rule(
        "pairs/added bias, summed by torch itself",
        [X, BIAS],
        lambda xp, x, b: x + b,
        lambda xp, x, b, v: (v, v),  # torch reduces a gradient that expands its input's shape
        frameworks=("torch",),
    ),
    *rule(
        "pairs/scaled columns",
        [X, COLUMN],
        lambda xp, x, s: x * s,
        lambda xp, x, s, v: (v * s, xp.sum(v * x, axis=1, keepdims=True)),
        wrong("sum forgets x", "unknown", lambda xp, x, s, v: (v * s, xp.sum(v, axis=1, keepdims=True))),
        wrong("summed over all", "broadcast", lambda xp, x, s, v: (v * s, xp.ones_like(s) * xp.sum(v * x))),
    ),
    *rule(
        "pairs/product",
        [X, Y],
        lambda xp, x, y: x * y,
        lambda xp, x, y, v: (v * y, v * x),
        wrong("exchanged", "unknown", lambda xp, x, y, v: (v * x, v * y)),
        wrong("second detached", "zero", lambda xp, x, y, v: (v * y, xp.zeros_like(y))),
        wrong("second's sign", "sign", lambda xp, x, y, v: (v * y, -v * x)),
    ),
    *rule(
        "pairs/product and sine",
        [X, Y],
        lambda xp, x, y: x * y + xp.sin(x),
        lambda xp, x, y, v: (v * (y + xp.cos(x)), v * x),
        wrong("sine's term dropped", "missing-term", lambda xp, x, y, v: (v * y, v * x)),
    ),
    *rule(
        "pairs/quotient",
        [X, POSITIVE],
        lambda xp, x, y: x / y,
        lambda xp, x, y, v: (v / y, -v * x / y**2),
        wrong("square missing", "unknown", lambda xp, x, y, v: (v / y, -v * x / y)),
        wrong("denominator detached", "zero", lambda xp, x, y, v: (v / y, 0 * y)),
    ),
    *rule(
        "pairs/power",
        [POSITIVE, EXPONENT],
        lambda xp, x, y: x**y,
        lambda xp, x, y, v: (
            xp.where(y == 0, 0 * v, v * y * x ** xp.where(y == 0, 1 + y, y - 1)),
            xp.where(x == 0, 0 * v, v * x**y * xp.log(xp.where(x == 0, 1 + x, x))),
        ),
        wrong("logarithm dropped", "unknown", lambda xp, x, y, v: (v * y * x ** (y - 1), v * x**y)),
    ),
    *rule(
        "pairs/angle",
        [X, Y],
        lambda xp, y, x: xp.arctan2(y, x),
        lambda xp, y, x, v: (v * x / (x**2 + y**2), -v * y / (x**2 + y**2)),
        wrong(
            "arguments exchanged",
            "unknown sign",
            lambda xp, y, x, v: (-v * y / (x**2 + y**2), v * x / (x**2 + y**2)),
        ),
    ),
    *rule(
        "pairs/hypotenuse",
        [X, Y],
        hypotenuse,
        lambda xp, x, y, v: (v * x / hypotenuse(xp, x, y), v * y / hypotenuse(xp, x, y)),
        wrong(
            "one element",
            "element",
            lambda xp, x, y, v: (
                v * x / hypotenuse(xp, x, y) * (1 + 0.1 * like(xp, ONE, x)),
                v * y / hypotenuse(xp, x, y),
            ),
            at=(0, (2, 1)),
        ),
    ),
    *rule(
        "pairs/larger of two",
        [X, Y],
        lambda xp, x, y: xp.maximum(x, y),
        lambda xp, x, y, v: (xp.where(x > y, v, 0 * v), xp.where(y > x, v, 0 * v)),
        wrong("both get it", "region surrogate missing-term", lambda xp, x, y, v: (1.0 * v, 1.0 * v)),
        wrong(
            "the other gets it",
            "unknown region surrogate",
            lambda xp, x, y, v: (xp.where(y > x, v, 0 * v), xp.where(x > y, v, 0 * v)),
        ),
    ),
    *rule(
        "pairs/choice",
        [X, Y],
        lambda xp, x, y: xp.where(x > 0, x * y, y),
        lambda xp, x, y, v: (xp.where(x > 0, v * y, 0 * v), xp.where(x > 0, v * x, v)),
        wrong(
            "second branch dropped",
            "region missing-term",
            lambda xp, x, y, v: (xp.where(x > 0, v * y, 0 * v), xp.where(x > 0, v * x, 0 * v)),
        ),
    ),
    *rule(
        "pairs/interpolation",
        [X, Y, uniform(4, 1, low=0.1, high=0.9)],
        lambda xp, x, y, t: (1 - t) * x + t * y,
        lambda xp, x, y, t, v: (v * (1 - t), v * t, xp.sum(v * (y - x), axis=1, keepdims=True)),
        wrong(
            "weight's sign",
            "sign",
            lambda xp, x, y, t, v: (v * (1 - t), v * t, xp.sum(v * (x - y), axis=1, keepdims=True)),
        ),
        wrong(
            "weight's first term dropped",
            "missing-term",
            lambda xp, x, y, t, v: (v * (1 - t), v * t, xp.sum(v * y, axis=1, keepdims=True)),
        ),
    ),
    *rule(
        "pairs/scalar times tensor",
        [np.array(1.7), X],
        lambda xp, a, x: a * x,
        lambda xp, a, x, v: (xp.sum(v * x), v * a),
        wrong("mean for the sum", "factor broadcast", lambda xp, a, x, v: (xp.mean(v * x), v * a)),
    ),
    *rule(
        "pairs/squared distances",
        [X, normal(5, 3, seed=4)],
        lambda xp, x, c: xp.sum((x[:, None, :] - c[None, :, :]) ** 2, axis=2),
        lambda xp, x, c, v: (
            2 * xp.sum(v[:, :, None] * (x[:, None, :] - c[None, :, :]), axis=1),
            2 * xp.sum(v[:, :, None] * (c[None, :, :] - x[:, None, :]), axis=0),
        ),
        wrong(
            "factor 2 missing in one",
            "factor",
            lambda xp, x, c, v: (
                2 * xp.sum(v[:, :, None] * (x[:, None, :] - c[None, :, :]), axis=1),
                xp.sum(v[:, :, None] * (c[None, :, :] - x[:, None, :]), axis=0),
            ),
        ),
        wrong(
            "centres' sign",
            "sign",
            lambda xp, x, c, v: (
                2 * xp.sum(v[:, :, None] * (x[:, None, :] - c[None, :, :]), axis=1),
                2 * xp.sum(v[:, :, None] * (x[:, None, :] - c[None, :, :]), axis=0),
            ),
        ),
    ),
    *rule(
        "pairs/gated unit",
        [SPREAD],
        lambda xp, x: x[:, :3] / (1 + xp.exp(-x[:, 3:])),
        lambda xp, x, v: xp.concatenate(
            [
                v / (1 + xp.exp(-x[:, 3:])),
                v * x[:, :3] / (1 + xp.exp(-x[:, 3:])) / (1 + xp.exp(x[:, 3:])),
            ],
            axis=1,
        ),
        wrong(
            "gate's half zero",
            "zero region missing-term",
            lambda xp, x, v: xp.concatenate([v / (1 + xp.exp(-x[:, 3:])), xp.zeros_like(v)], axis=1),
        ),
        wrong(
            "halves exchanged",
            "unknown",
            lambda xp, x, v: xp.concatenate(
                [
                    v * x[:, :3] / (1 + xp.exp(-x[:, 3:])) / (1 + xp.exp(x[:, 3:])),
                    v / (1 + xp.exp(-x[:, 3:])),
                ],
                axis=1,
            ),
        ),
    ),
]
