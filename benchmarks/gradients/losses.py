"""Losses: factors of the batch, targets that have a gradient too, weights and masks that are dropped."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import apart, normal, simplex, uniform
from benchmarks.gradients.reductions import softmax
from benchmarks.gradients.rules import like, rule, wrong
from benchmarks.gradients.slopes import sigmoid, softplus

X, Y = normal(6, 4), normal(6, 4, seed=1)
COINS = (uniform(6, 4, low=0, high=1, seed=2) > 0.5).astype(float)
CLASSES = np.eye(4)[[0, 3, 1, 1, 2, 0]]
P, Q = simplex(6, 4), simplex(6, 4, seed=3)
WEIGHTS = uniform(4, low=0.5, high=2.0)
SIGNS = np.where(COINS[:, 0] > 0, 1.0, -1.0)


def binary(xp: Any, z: Any, y: Any) -> Any:
    """Cross entropy of logits: log(1 + exp z) - y z, summed."""
    return xp.sum(softplus(xp, z) - y * z)


ITEMS = [
    *rule(
        "losses/mean squared error",
        [X, Y],
        lambda xp, x, y: xp.mean((x - y) ** 2),
        lambda xp, x, y, v: (2 * v * (x - y) / 24, 2 * v * (y - x) / 24),
        wrong("target's sign", "sign", lambda xp, x, y, v: (2 * v * (x - y) / 24, 2 * v * (x - y) / 24)),
        wrong("by the batch only", "factor", lambda xp, x, y, v: (2 * v * (x - y) / 6, 2 * v * (y - x) / 6)),
        wrong("target's zero", "zero", lambda xp, x, y, v: (2 * v * (x - y) / 24, 0 * y)),
    ),
    *rule(
        "losses/binary cross entropy",
        [X, COINS],
        binary,
        lambda xp, z, y, v: (v * (sigmoid(xp, z) - y), -v * z),
        wrong("mean for sum", "factor", lambda xp, z, y, v: (v * (sigmoid(xp, z) - y) / 24, -v * z)),
        wrong("cotangent ignored", "ignores-cotangent", lambda xp, z, y, v: (sigmoid(xp, z) - y, -z)),
        wrong("target dropped", "missing-term region", lambda xp, z, y, v: (v * sigmoid(xp, z), -v * z)),
    ),
    *rule(
        "losses/cross entropy of logits",
        [X, CLASSES],
        lambda xp, z, y: -xp.mean(xp.sum(y * xp.log(softmax(xp, z)), axis=-1)),
        lambda xp, z, y, v: (
            v * (softmax(xp, z) * xp.sum(y, axis=-1, keepdims=True) - y) / 6,
            -v * xp.log(softmax(xp, z)) / 6,
        ),
        wrong(
            "sum for mean",
            "factor",
            lambda xp, z, y, v: (v * (softmax(xp, z) - y), -v * xp.log(softmax(xp, z)) / 6),
        ),
        wrong(
            "labels' sign",
            "sign",
            lambda xp, z, y, v: (v * (softmax(xp, z) - y) / 6, v * xp.log(softmax(xp, z)) / 6),
        ),
        wrong(
            "softmax's derivative twice",
            "unknown",
            lambda xp, z, y, v: (
                v * (s := softmax(xp, z)) * ((s - y) - xp.sum(s * (s - y), axis=-1, keepdims=True)) / 6,
                -v * xp.log(softmax(xp, z)) / 6,
            ),
        ),
    ),
    *rule(
        "losses/weighted cross entropy",
        [X, WEIGHTS],
        lambda xp, z, w: -xp.sum(w * like(xp, CLASSES, z) * xp.log(softmax(xp, z))),
        lambda xp, z, w, v: (
            v * (softmax(xp, z) * xp.sum(w * like(xp, CLASSES, z), axis=-1, keepdims=True) - w * like(xp, CLASSES, z)),
            -v * xp.sum(like(xp, CLASSES, z) * xp.log(softmax(xp, z)), axis=0),
        ),
        wrong(
            "weights dropped",
            "element unknown missing-term",
            lambda xp, z, w, v: (
                v * (softmax(xp, z) - like(xp, CLASSES, z)),
                -v * xp.sum(like(xp, CLASSES, z) * xp.log(softmax(xp, z)), axis=0),
            ),
        ),
    ),
    *rule(
        "losses/Kullback-Leibler",
        [P, Q],
        lambda xp, p, q: xp.sum(p * (xp.log(p) - xp.log(q))),
        lambda xp, p, q, v: (v * (xp.log(p) - xp.log(q) + 1), -v * p / q),
        wrong("1 dropped", "missing-term", lambda xp, p, q, v: (v * (xp.log(p) - xp.log(q)), -v * p / q)),
        wrong("second's sign", "sign", lambda xp, p, q, v: (v * (xp.log(p) - xp.log(q) + 1), v * p / q)),
    ),
    *rule(
        "losses/hinge",
        [apart(6)],
        lambda xp, x: xp.sum(xp.maximum(1 - like(xp, SIGNS, x) * x, 0 * x)),
        lambda xp, x, v: v * xp.where(like(xp, SIGNS, x) * x < 1, -like(xp, SIGNS, x) + 0 * x, 0 * x),
        wrong(
            "margin forgotten",
            "region surrogate missing-term element",
            lambda xp, x, v: -v * like(xp, SIGNS, x),
            [apart(6) * 8],
        ),
    ),
    *rule(
        "losses/contrastive",
        [normal(5, 3), normal(5, 3, seed=1)],
        lambda xp, a, b: -xp.sum(xp.log(softmax(xp, xp.matmul(a, xp.swapaxes(b, 0, 1)))) * like(xp, np.eye(5), a)),
        lambda xp, a, b, v: (
            v * xp.matmul(softmax(xp, xp.matmul(a, xp.swapaxes(b, 0, 1))) - like(xp, np.eye(5), a), b),
            v
            * xp.matmul(xp.swapaxes(softmax(xp, xp.matmul(a, xp.swapaxes(b, 0, 1))) - like(xp, np.eye(5), a), 0, 1), a),
        ),
        wrong(
            "second not transposed",
            "unknown",
            lambda xp, a, b, v: (
                v * xp.matmul(softmax(xp, xp.matmul(a, xp.swapaxes(b, 0, 1))) - like(xp, np.eye(5), a), b),
                v * xp.matmul(softmax(xp, xp.matmul(a, xp.swapaxes(b, 0, 1))) - like(xp, np.eye(5), a), a),
            ),
        ),
    ),
    *rule(
        "losses/focal",
        [X],
        lambda xp, z: xp.sum(sigmoid(xp, -z) ** 2 * softplus(xp, -z)),
        lambda xp, z, v: -v * sigmoid(xp, -z) ** 2 * (2 * sigmoid(xp, z) * softplus(xp, -z) + sigmoid(xp, -z)),
        wrong(
            "modulation as a constant",
            "missing-term",
            lambda xp, z, v: -v * sigmoid(xp, -z) ** 3,
        ),
    ),
    *rule(
        "losses/Gaussian likelihood",
        [X, 0.3 * Y],
        lambda xp, m, s: xp.sum(s + 0.5 * m**2 * xp.exp(-2 * s)),
        lambda xp, m, s, v: (v * m * xp.exp(-2 * s), v * (1 - m**2 * xp.exp(-2 * s))),
        wrong(
            "normaliser dropped",
            "missing-term",
            lambda xp, m, s, v: (v * m * xp.exp(-2 * s), -v * m**2 * xp.exp(-2 * s)),
        ),
        wrong(
            "half missing in one",
            "factor",
            lambda xp, m, s, v: (2 * v * m * xp.exp(-2 * s), v * (1 - m**2 * xp.exp(-2 * s))),
        ),
    ),
]
