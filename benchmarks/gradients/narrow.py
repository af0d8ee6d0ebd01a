"""Correct functions at the border of their domain: roots at 0, arcs at 1, clipped probabilities, guarded branches."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import normal, uniform
from benchmarks.gradients.rules import rule, wrong

SMALL = np.array([1e-12, 1e-8, 1e-4, 1.0])
SIGNED = np.array([-1.5, -0.3, 0.4, 2.0])


def guarded(xp: Any, x: Any) -> Any:
    """x where it is positive, else 1: the double where."""
    return xp.where(x > 0, x, xp.ones_like(x))


ITEMS = [
    *rule(
        "narrow/root just above 0",
        [SMALL],
        lambda xp, x: xp.sqrt(x),
        lambda xp, x, v: 0.5 * v / xp.sqrt(x),
        wrong("half missing", "factor", lambda xp, x, v: v / xp.sqrt(x)),
        kind="awkward",
    ),
    *rule(
        "narrow/arc cosine near 1",
        [np.array([1 - 1e-9, -1 + 1e-6, 0.3])],
        lambda xp, x: xp.arccos(x),
        lambda xp, x, v: -v / xp.sqrt((1 - x) * (1 + x)),
        wrong("sign", "sign", lambda xp, x, v: v / xp.sqrt((1 - x) * (1 + x))),
        kind="awkward",
    ),
    *rule(
        "narrow/arc sine near 1",
        [np.array([1 - 1e-12, 0.999, -0.5])],
        lambda xp, x: xp.arcsin(x),
        lambda xp, x, v: v / xp.sqrt((1 - x) * (1 + x)),
        kind="awkward",
    ),
    *rule(
        "narrow/three halves power at 0",
        [np.array([0.0, 1e-6, 2.0])],
        lambda xp, x: x * xp.sqrt(x),
        lambda xp, x, v: 1.5 * v * xp.sqrt(x),
        kind="awkward",
    ),
    *rule(
        "narrow/square by its root at 0",
        [np.array([0.0, 1e-6, 2.0])],
        lambda xp, x: xp.sqrt(x) ** 4,
        lambda xp, x, v: 2 * v * x,
        kind="awkward",
    ),
    *rule(
        "narrow/clipped probability",
        [np.array([0.0, 1e-9, 0.3, 1.0])],
        lambda xp, p: -xp.log(xp.clip(p, 1e-7, 1 - 1e-7)),
        lambda xp, p, v: xp.where((p > 1e-7) & (p < 1 - 1e-7), -v / xp.clip(p, 1e-7, 1.0), 0 * v),
        wrong("through the clip", "region surrogate", lambda xp, p, v: -v / xp.clip(p, 1e-7, 1.0)),
        kind="awkward",
    ),
    *rule(
        "narrow/entropy near 0",
        [np.array([1e-10, 1e-3, 0.4, 1.0])],
        lambda xp, p: -p * xp.log(p),
        lambda xp, p, v: -v * (xp.log(p) + 1),
        kind="awkward",
    ),
    *rule(
        "narrow/root of the positive part",
        [SIGNED],
        lambda xp, x: xp.where(x > 0, xp.sqrt(guarded(xp, x)), 0 * x),
        lambda xp, x, v: xp.where(x > 0, 0.5 * v / xp.sqrt(guarded(xp, x)), 0 * v),
        wrong(
            "guard forgotten in the backward",
            "nan",
            lambda xp, x, v: v * xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x)) * 0.5 / xp.sqrt(x),
        ),
        kind="awkward",
    ),
    *rule(
        "narrow/logarithm of the positive part",
        [np.array([-1.0, 0.0, 0.5, 2.0])],
        lambda xp, x: xp.where(x > 0, xp.log1p(guarded(xp, x)), 0 * x),
        lambda xp, x, v: xp.where(x > 0, v / (1 + guarded(xp, x)), 0 * v),
        kind="awkward",
    ),
    *rule(
        "narrow/x by x without its hole",
        [np.array([0.0, 0.5, -1.0])],
        lambda xp, x: xp.where(x == 0, xp.ones_like(x), xp.sin(x) / xp.where(x == 0, xp.ones_like(x), x)),
        lambda xp, x, v: (
            v
            * xp.where(
                xp.abs(x) < 1e-3,
                -x / 3 + x**3 / 30,
                (x * xp.cos(x) - xp.sin(x)) / xp.where(x == 0, xp.ones_like(x), x) ** 2,
            )
        ),
        wrong(
            "nan at the hole",
            "nan",
            lambda xp, x, v: v * (x * xp.cos(x) - xp.sin(x)) / x**2,
        ),
        kind="awkward",
    ),
    *rule(
        "narrow/x log y at 0",
        [np.array([0.0, 0.5, 1.0]), np.array([0.3, 0.5, 2.0])],
        lambda xp, x, y: x * xp.log(y),
        lambda xp, x, y, v: (v * xp.log(y), v * x / y),
        kind="awkward",
    ),
    *rule(
        "narrow/inverse hyperbolic cosine near 1",
        [np.array([1 + 1e-8, 1.5, 10.0])],
        lambda xp, x: xp.log(x + xp.sqrt((x - 1) * (x + 1))),
        lambda xp, x, v: v / xp.sqrt((x - 1) * (x + 1)),
        kind="awkward",
    ),
    *rule(
        "narrow/relative entropy with a zero",
        [np.array([0.0, 0.4, 0.6])],
        lambda xp, p: xp.sum(xp.where(p > 0, p * xp.log(guarded(xp, p)), 0 * p)) + xp.sum(p**2),
        lambda xp, p, v: v * xp.where(p > 0, xp.log(guarded(xp, p)) + 1, 0 * p) + 2 * v * p,
        kind="awkward",
    ),
    *rule(
        "narrow/barrier",
        [uniform(4, low=1e-3, high=1e-2)],
        lambda xp, x: -xp.sum(xp.log(x) + xp.log(0.02 - x)),
        lambda xp, x, v: -v * (1 / x - 1 / (0.02 - x)),
        wrong("second wall's sign", "unknown sign missing-term", lambda xp, x, v: -v * (1 / x + 1 / (0.02 - x))),
        kind="awkward",
    ),
    *rule(
        "narrow/length plus epsilon",
        [np.array([[0.0, 0.0], [3.0, -4.0]])],
        lambda xp, x: xp.sqrt(xp.sum(x**2, axis=-1) + 1e-12),
        lambda xp, x, v: v[:, None] * x / xp.sqrt(xp.sum(x**2, axis=-1, keepdims=True) + 1e-12),
        kind="awkward",
    ),
    *rule(
        "narrow/length of a tiny vector",
        [normal(2, 3, scale=1e-9)],
        lambda xp, x: xp.sqrt(xp.sum(x**2, axis=-1)),
        lambda xp, x, v: v[:, None] * x / xp.sqrt(xp.sum(x**2, axis=-1, keepdims=True)),
        wrong("sign", "sign", lambda xp, x, v: -v[:, None] * x / xp.sqrt(xp.sum(x**2, axis=-1, keepdims=True))),
        kind="awkward",
    ),
]
