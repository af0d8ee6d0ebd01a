"""Odd shapes: numbers without axes, one element, no elements, strides, an input given twice."""

from __future__ import annotations

import numpy as np

from benchmarks.gradients.data import normal
from benchmarks.gradients.rules import rule, wrong

ITEMS = [
    *rule(
        "small/number",
        [np.array(0.7)],
        lambda xp, x: xp.sin(x) * x,
        lambda xp, x, v: v * (xp.sin(x) + x * xp.cos(x)),
        wrong("sign", "sign", lambda xp, x, v: -v * (xp.sin(x) + x * xp.cos(x))),
        wrong("term dropped", "missing-term unknown factor", lambda xp, x, v: v * x * xp.cos(x)),
    ),
    *rule(
        "small/one element",
        [normal(1, 1)],
        lambda xp, x: xp.exp(x),
        lambda xp, x, v: v * xp.exp(x),
        wrong("half", "factor", lambda xp, x, v: 0.5 * v * xp.exp(x)),
        wrong("cotangent ignored", "ignores-cotangent", lambda xp, x, v: xp.exp(x)),
    ),
    *rule(
        "small/no elements",
        [np.zeros((0, 3))],
        lambda xp, x: xp.sin(x),
        lambda xp, x, v: v * xp.cos(x),
        kind="awkward",
    ),
    *rule(
        "small/no elements beside some",
        [np.zeros((0, 3)), normal(3, 2)],
        lambda xp, x, w: xp.matmul(x, w),
        lambda xp, x, w, v: (xp.matmul(v, xp.swapaxes(w, 0, 1)), xp.matmul(xp.swapaxes(x, 0, 1), v)),
        kind="awkward",
    ),
    *rule(
        "small/sum of no elements and a number",
        [np.zeros((0,)), np.array(2.0)],
        lambda xp, x, a: xp.sum(x) + a**2,
        lambda xp, x, a, v: (v + 0 * x, 2 * v * a),
        kind="awkward",
    ),
    *rule(
        "small/unused input",
        [normal(3), normal(3, seed=1)],
        lambda xp, x, y: xp.cos(x),
        lambda xp, x, y, v: (-v * xp.sin(x), 0 * y),
        kind="awkward",
    ),
    *rule(
        "small/unused input without a gradient",
        [normal(3), normal(3, seed=1)],
        lambda xp, x, y: xp.cos(x),
        lambda xp, x, y, v: (-v * xp.sin(x), None),
        kind="awkward",
    ),
    *rule(
        "small/used input without a gradient",
        [normal(3), normal(3, seed=1)],
        lambda xp, x, y: xp.cos(x) * y,
        None,
        wrong("None", "zero", lambda xp, x, y, v: (-v * xp.sin(x) * y, None)),
    ),
    *rule(
        "small/one column",
        [normal(5, 1)],
        lambda xp, x: x * xp.sum(x, axis=1, keepdims=True),
        lambda xp, x, v: 2 * v * x,
        wrong("flattened", "shape", lambda xp, x, v: xp.reshape(2 * v * x, (-1,))),
    ),
    *rule(
        "small/five axes",
        [normal(1, 2, 1, 3, 2)],
        lambda xp, x: xp.sum(x**2, axis=3),
        lambda xp, x, v: 2 * x * v[:, :, :, None],
        wrong("2 missing", "factor", lambda xp, x, v: x * v[:, :, :, None]),
    ),
    *rule(
        "small/identity",
        [normal(2, 3)],
        lambda xp, x: 1.0 * x,
        lambda xp, x, v: 1.0 * v,
        wrong("twice", "factor", lambda xp, x, v: 2.0 * v),
    ),
]
