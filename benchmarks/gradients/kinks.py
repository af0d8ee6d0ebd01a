"""Correct functions looked at right at a kink, with a valid subgradient, and a few with an invalid one."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import normal
from benchmarks.gradients.reductions import length
from benchmarks.gradients.rules import rule, wrong

ONE_ZERO = np.array([[-1.3, 0.0, 0.7], [2.1, -0.4, 1.1]])
ZEROS = np.array([[0.0, 0.0, 0.7], [2.1, 0.0, -0.4]])
EDGES = np.array([-1.0, -0.2, 0.4, 1.0, 2.0])
EQUAL = np.array([0.3, -1.2, 0.8])
MARGIN = np.array([1.0, -0.5, 0.3, 2.0])
NEAR = np.array([1e-9, -1e-9, 0.5, -1.0])


def relu(xp: Any, x: Any) -> Any:
    return xp.maximum(x, xp.zeros_like(x))


ITEMS = [
    *rule(
        "kinks/relu at 0, flat",
        [ONE_ZERO],
        relu,
        lambda xp, x, v: xp.where(x > 0, v, 0 * v),
        wrong("one and a half", "subgradient", lambda xp, x, v: xp.where(x > 0, v, xp.where(x < 0, 0 * v, 1.5 * v))),
        wrong("minus one", "subgradient", lambda xp, x, v: xp.where(x > 0, v, xp.where(x < 0, 0 * v, -v))),
        wrong("half everywhere", "factor", lambda xp, x, v: 0.5 * xp.where(x > 0, v, 0 * v)),
        kind="awkward",
    ),
    *rule(
        "kinks/relu at 0, steep",
        [ONE_ZERO],
        relu,
        lambda xp, x, v: xp.where(x >= 0, v, 0 * v),
        kind="awkward",
    ),
    *rule(
        "kinks/relu at 0, between",
        [ZEROS],
        relu,
        lambda xp, x, v: v * 0.5 * (1 + xp.sign(x)),
        kind="awkward",
    ),
    *rule(
        "kinks/relu at many zeros",
        [ZEROS],
        relu,
        lambda xp, x, v: xp.where(x > 0, v, 0 * v),
        wrong("mask turned round", "region surrogate unknown", lambda xp, x, v: xp.where(x > 0, 0 * v, v)),
        kind="awkward",
    ),
    *rule("kinks/relu very near 0", [NEAR], relu, lambda xp, x, v: xp.where(x > 0, v, 0 * v), kind="awkward"),
    *rule(
        "kinks/absolute value at 0",
        [ZEROS],
        lambda xp, x: xp.abs(x),
        lambda xp, x, v: v * xp.sign(x),
        wrong("twice", "factor", lambda xp, x, v: 2 * v * xp.sign(x)),
        kind="awkward",
    ),
    *rule(
        "kinks/absolute value at 0, one",
        [ONE_ZERO],
        lambda xp, x: xp.abs(x),
        lambda xp, x, v: xp.where(x >= 0, v, -v),
        kind="awkward",
    ),
    *rule(
        "kinks/leaky relu at 0",
        [ONE_ZERO],
        lambda xp, x: xp.where(x > 0, x, 0.1 * x),
        lambda xp, x, v: xp.where(x > 0, v, 0.1 * v),
        kind="awkward",
    ),
    *rule(
        "kinks/clip at its edges",
        [EDGES],
        lambda xp, x: xp.clip(x, -1.0, 1.0),
        lambda xp, x, v: xp.where(xp.abs(x) <= 1, v, 0 * v),
        kind="awkward",
    ),
    *rule(
        "kinks/clip at its edges, closed",
        [EDGES],
        lambda xp, x: xp.clip(x, -1.0, 1.0),
        lambda xp, x, v: xp.where(xp.abs(x) < 1, v, 0 * v),
        kind="awkward",
    ),
    *rule(
        "kinks/hinge at the margin",
        [MARGIN],
        lambda xp, x: xp.sum(relu(xp, 1 - x)),
        lambda xp, x, v: -v * xp.where(x < 1, xp.ones_like(x), xp.zeros_like(x)),
        kind="awkward",
    ),
    *rule(
        "kinks/maximum of equals",
        [EQUAL, EQUAL],
        lambda xp, x, y: xp.maximum(x, y),
        lambda xp, x, y, v: (0.5 * v * (1 + xp.sign(x - y)), 0.5 * v * (1 + xp.sign(y - x))),
        wrong(
            "all to both",
            "subgradient region",
            lambda xp, x, y, v: (xp.where(x >= y, v, 0 * v), xp.where(y >= x, v, 0 * v)),
        ),
        kind="awkward",
    ),
    *rule(
        "kinks/maximum of equals, first",
        [EQUAL, EQUAL],
        lambda xp, x, y: xp.maximum(x, y),
        lambda xp, x, y, v: (xp.where(x >= y, v, 0 * v), xp.where(y > x, v, 0 * v)),
        kind="awkward",
    ),
    *rule(
        "kinks/deep relus at 0",
        [normal(4, 3), np.zeros((3, 3))],
        lambda xp, x, w: relu(xp, xp.matmul(x, w)),
        lambda xp, x, w, v: (
            xp.matmul(xp.where(xp.matmul(x, w) > 0, v, 0 * v), xp.swapaxes(w, 0, 1)),
            xp.matmul(xp.swapaxes(x, 0, 1), xp.where(xp.matmul(x, w) > 0, v, 0 * v)),
        ),
        kind="awkward",
    ),
    *rule(
        "kinks/soft threshold at its threshold",
        [np.array([0.5, -0.5, 1.2, 0.1, -2.0])],
        lambda xp, x: xp.sign(x) * relu(xp, xp.abs(x) - 0.5),
        lambda xp, x, v: xp.where(xp.abs(x) > 0.5, v, 0 * v),
        kind="awkward",
    ),
    *rule(
        "kinks/length of 0",
        [np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])],
        lambda xp, x: xp.sqrt(xp.sum(x**2, axis=-1)),
        lambda xp, x, v: v[:, None] * x / xp.where((n := length(xp, x)) > 0, n, xp.ones_like(n)),
        kind="awkward",
    ),
    *rule(
        "kinks/total variation of equals",
        [np.array([1.0, 1.0, 1.0, 2.0, 0.5])],
        lambda xp, x: xp.sum(xp.abs(x[1:] - x[:-1])),
        lambda xp, x, v: (
            v
            * (
                xp.concatenate([0 * x[:1], xp.sign(x[1:] - x[:-1])], axis=0)
                - xp.concatenate([xp.sign(x[1:] - x[:-1]), 0 * x[:1]], axis=0)
            )
        ),
        kind="awkward",
    ),
    *rule(
        "kinks/table between its points",
        [np.array([0.0, 1.0, 1.5, 3.0])],
        lambda xp, x: xp.where(x < 1, 2 * x, xp.where(x < 3, x + 1, 4 + 0 * x)),
        lambda xp, x, v: xp.where(x < 1, 2 * v, xp.where(x < 3, v, 0 * v)),
        wrong(
            "slope of the segment before",
            "region subgradient surrogate",
            lambda xp, x, v: xp.where(x < 1.2, 2 * v, xp.where(x < 3, v, 0 * v)),
            [np.array([0.0, 1.1, 1.5, 2.5])],
        ),
        kind="awkward",
    ),
    *rule(
        "kinks/relu before a product",
        [ONE_ZERO, np.array([[0.5], [-1.0], [2.0]])],
        lambda xp, x, w: xp.matmul(relu(xp, x), w),
        lambda xp, x, w, v: (
            xp.where(x > 0, xp.matmul(v, xp.swapaxes(w, 0, 1)), 0 * x),
            xp.matmul(xp.swapaxes(relu(xp, x), 0, 1), v),
        ),
        kind="awkward",
    ),
]
