"""Cells and parametrisations: LSTM, rotary positions, weight normalisation, sparsemax, segments, convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import apart, normal, uniform
from benchmarks.gradients.reductions import inner, length, softmax
from benchmarks.gradients.rules import like, rule, wrong
from benchmarks.gradients.slopes import sigmoid

GATES, STATE = normal(3, 8), normal(3, 2, seed=1)
X, V, G = normal(4, 6), normal(3, 5), uniform(3, 1, low=0.5, high=2.0)
ANGLES = np.outer(np.arange(4.0), [1.0, 0.1, 0.01])
SEGMENTS = np.array([0, 2, 2, 0, 2])
VALUES = normal(5, 3)
IMAGES, FILTERS = normal(3, 8), normal(2, 3, seed=2)
CODES = np.array([[0.0, 1.0], [2.0, -1.0], [-1.5, 0.3]])


def lstm(xp: Any, z: Any, c: Any) -> tuple[Any, Any]:
    """Gates in the order i, f, g, o, two units: the new hidden and cell states."""
    i, f, o = sigmoid(xp, z[:, :2]), sigmoid(xp, z[:, 2:4]), sigmoid(xp, z[:, 6:])
    cell = f * c + i * xp.tanh(z[:, 4:6])
    return o * xp.tanh(cell), cell


def lstm_backward(xp: Any, z: Any, c: Any, dh: Any, dc: Any, through_cell: bool = True, forget: Any = None) -> Any:
    i, f, o = sigmoid(xp, z[:, :2]), sigmoid(xp, z[:, 2:4]), sigmoid(xp, z[:, 6:])
    g = xp.tanh(z[:, 4:6])
    t = xp.tanh(f * c + i * g)
    d = dc + dh * o * (1 - t**2) if through_cell else dc
    gates = [d * g * i * (1 - i), d * (c if forget is None else forget) * f * (1 - f), d * i * (1 - g**2)]
    return xp.concatenate([*gates, dh * t * o * (1 - o)], axis=1), d * f


def rotated(xp: Any, x: Any, way: float = 1.0) -> Any:
    cos, sin = like(xp, np.cos(ANGLES), x), like(xp, way * np.sin(ANGLES), x)
    a, b = x[:, :3], x[:, 3:]
    return xp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1)


def sparsemax(xp: Any, x: Any) -> Any:
    """Projection of each row on the simplex by bisection (Martins and Astudillo, 2016, arXiv:1602.02068)."""
    low, high = xp.amax(x, axis=-1, keepdims=True) - 1, xp.amax(x, axis=-1, keepdims=True)
    for _ in range(60):
        middle = 0.5 * (low + high)
        over = xp.sum(xp.maximum(x - middle, 0 * x), axis=-1, keepdims=True) > 1
        low, high = xp.where(over, middle, low), xp.where(over, high, middle)
    return xp.maximum(x - 0.5 * (low + high), 0 * x)


def sparsemax_backward(xp: Any, x: Any, v: Any, projected: bool = True) -> Any:
    support = xp.where(sparsemax(xp, x) > 1e-12, xp.ones_like(x), xp.zeros_like(x))
    mean = inner(xp, support, v) / xp.sum(support, axis=-1, keepdims=True)
    return support * (v - projected * mean)


def members(xp: Any, x: Any) -> Any:
    """Rows into segments, (segments, rows)."""
    return like(xp, np.eye(3)[SEGMENTS].T, x)


COUNTS = np.array([[2.0], [1.0], [3.0]])
"""Rows of each segment; the second has none, and is not divided."""


def filtered(xp: Any, x: Any, k: Any) -> Any:
    """Valid correlation of (batch, time) with (filters, 3): (batch, filters, time)."""
    return sum(x[:, None, i : i + 6] * k[None, :, i : i + 1] for i in range(3))


def filtered_backward(xp: Any, x: Any, k: Any, v: Any, batch: int = 3) -> Any:
    pads = [
        xp.concatenate([0 * x[:, :i], xp.einsum("bft,f->bt", v, k[:, i]), 0 * x[:, : 2 - i]], axis=1) for i in range(3)
    ]
    dk = [xp.einsum("bft,bt->f", v[:batch], x[:batch, i : i + 6]) for i in range(3)]
    return sum(pads[1:], pads[0]), xp.stack(dk, 1)


ITEMS = [
    *rule(
        "cells/LSTM",
        [GATES, STATE],
        lstm,
        lstm_backward,
        wrong(
            "cell's path through the output dropped",
            "missing-term zero",
            lambda xp, *g: lstm_backward(xp, *g, through_cell=False),
        ),
        wrong(
            "forget gate's state forgotten",
            "element unknown region",
            lambda xp, z, c, dh, dc: lstm_backward(xp, z, c, dh, dc, forget=1 + 0 * c),
        ),
        wrong(
            "cell's cotangent ignored",
            "zero missing-term",
            lambda xp, z, c, dh, dc: lstm_backward(xp, z, c, dh, 0 * dc),
        ),
    ),
    *rule(
        "cells/rotary positions",
        [X],
        rotated,
        lambda xp, x, v: rotated(xp, v, -1.0),
        wrong("rotated the same way", "unknown transposed", lambda xp, x, v: rotated(xp, v)),
    ),
    *rule(
        "cells/weight normalisation",
        [G, V],
        lambda xp, g, w: g * w / length(xp, w),
        lambda xp, g, w, v: (
            inner(xp, v, w) / length(xp, w),
            g / length(xp, w) * (v - w * inner(xp, v, w) / inner(xp, w, w)),
        ),
        wrong(
            "projection missing",
            "missing-term",
            lambda xp, g, w, v: (inner(xp, v, w) / length(xp, w), g / length(xp, w) * v),
        ),
        wrong(
            "length's own not divided",
            "unknown",
            lambda xp, g, w, v: (inner(xp, v, w), g / length(xp, w) * (v - w * inner(xp, v, w) / inner(xp, w, w))),
        ),
    ),
    *rule(
        "cells/sparsemax",
        [apart(3, 4, seed=3) * 2],
        sparsemax,
        sparsemax_backward,
        wrong("mean not subtracted", "missing-term", lambda xp, x, v: sparsemax_backward(xp, x, v, projected=False)),
        wrong("softmax's", "unknown", lambda xp, x, v: softmax(xp, x) * (v - inner(xp, softmax(xp, x), v))),
        kind="awkward",
    ),
    *rule(
        "cells/mean of segments",
        [VALUES],
        lambda xp, x: xp.matmul(members(xp, x), x) / like(xp, COUNTS, x),
        lambda xp, x, v: xp.matmul(xp.swapaxes(members(xp, x), 0, 1), v / like(xp, COUNTS, x)),
        wrong("counts forgotten", "unknown element", lambda xp, x, v: xp.matmul(xp.swapaxes(members(xp, x), 0, 1), v)),
    ),
    *rule(
        "cells/batch of convolutions",
        [IMAGES, FILTERS],
        filtered,
        filtered_backward,
        wrong(
            "filters from the first image",
            "missing-term broadcast",
            lambda xp, *g: filtered_backward(xp, *g, batch=1),
        ),
        wrong(
            "mean over the batch",
            "factor",
            lambda xp, *g: (filtered_backward(xp, *g)[0], filtered_backward(xp, *g)[1] / 3),
        ),
    ),
    *rule(
        "cells/nearest code, straight through",
        [CODES + 0.1],
        lambda xp, x: like(xp, CODES, x) + 0 * x,
        None,
        wrong("not announced", "surrogate", lambda xp, x, v: 1.0 * v),
    ),
    *rule(
        "cells/soft threshold of a gate",
        [apart(3, 4)],
        lambda xp, x: xp.where(xp.abs(x) > 0.4, x - 0.4 * xp.sign(x), 0 * x),
        lambda xp, x, v: xp.where(xp.abs(x) > 0.4, v, 0 * v),
        wrong("passes everywhere", "region surrogate missing-term", lambda xp, x, v: 1.0 * v),
    ),
    *rule(
        "cells/hard swish at its corners",
        [np.array([-3.0, -1.0, 0.0, 2.0, 3.0])],
        lambda xp, x: x * xp.clip(x / 6 + 0.5, 0.0, 1.0),
        lambda xp, x, v: v * xp.where(x <= -3, 0 * x, xp.where(x >= 3, 1 + 0 * x, x / 3 + 0.5)),
        wrong(
            "x's own factor",
            "missing-term region",
            lambda xp, x, v: v * xp.where(x <= -3, 0 * x, xp.where(x >= 3, 1 + 0 * x, x / 6 + 0.5)),
        ),
        kind="awkward",
    ),
    *rule(
        "cells/masked softmax",
        [normal(3, 4)],
        lambda xp, x: softmax(xp, x + like(xp, np.array([0.0, -1e30, 0.0, 0.0]), x)),
        lambda xp, x, v: (s := softmax(xp, x + like(xp, np.array([0.0, -1e30, 0.0, 0.0]), x))) * (v - inner(xp, s, v)),
        wrong(
            "mask forgotten",
            "unknown",
            lambda xp, x, v: softmax(xp, x) * (v - inner(xp, softmax(xp, x), v)),
        ),
        kind="awkward",
    ),
    *rule(
        "cells/label smoothing",
        [normal(3, 4)],
        lambda xp, x: -xp.sum(like(xp, 0.9 * np.eye(4)[:3] + 0.025, x) * xp.log(softmax(xp, x))),
        lambda xp, x, v: v * (softmax(xp, x) - like(xp, 0.9 * np.eye(4)[:3] + 0.025, x)),
        wrong("of hard labels", "unknown", lambda xp, x, v: v * (softmax(xp, x) - like(xp, np.eye(4)[:3], x))),
        wrong(
            "third row ignored",
            "element",
            lambda xp, x, v: (
                v
                * like(xp, np.array([[1.0], [1], [0]]), x)
                * (softmax(xp, x) - like(xp, 0.9 * np.eye(4)[:3] + 0.025, x))
            ),
        ),
    ),
]
