"""Where each element goes: shifted, permuted, pooled, padded, cumulated, repeated."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import apart, normal
from benchmarks.gradients.rules import flipped, like, rule, wrong

X = normal(7)
ROWS = normal(3, 4)
SQUARE = normal(3, 3)
CUBE = normal(3, 3, 3)
TALL = apart(12)
LONG = normal(100_000)
AT = 77_777
TABLE, WORDS = normal(5, 3), np.array([1, 3, 3, 0, 1, 3])
WEIGHTS = normal(7, seed=1)


def reversed_sums(xp: Any, v: Any) -> Any:
    return flipped(xp, xp.cumsum(flipped(xp, v), 0))


def chosen(xp: Any, x: Any, words: np.ndarray) -> Any:
    """The words' rows as a matrix of zeros and ones."""
    return like(xp, np.eye(5)[words], x)


def windows(xp: Any, x: Any, width: int = 3) -> Any:
    return xp.reshape(x, (-1, width))


def largest_of_each(xp: Any, x: Any) -> Any:
    """1 where the largest of its window is, as (windows, width)."""
    w = windows(xp, x)
    return xp.where(w == xp.amax(w, axis=1, keepdims=True), xp.ones_like(w), xp.zeros_like(w))


def spread_out(xp: Any, v: Any, width: int = 3) -> Any:
    return xp.reshape(v[:, None] * xp.ones_like(v)[:width][None, :], (-1,))


def marked(xp: Any, x: Any, at: int) -> Any:
    return like(xp, (np.arange(x.shape[0]) == at).astype(float), x)


ITEMS = [
    *rule(
        "places/running sum",
        [X],
        lambda xp, x: xp.cumsum(x, 0),
        lambda xp, x, v: reversed_sums(xp, v),
        wrong("without the element itself", "unknown missing-term", lambda xp, x, v: reversed_sums(xp, v) - v),
        wrong("not reversed", "unknown transposed", lambda xp, x, v: xp.cumsum(v, 0)),
    ),
    *rule(
        "places/roll",
        [X],
        lambda xp, x: xp.roll(x, 2, 0) * like(xp, WEIGHTS, x),
        lambda xp, x, v: xp.roll(v * like(xp, WEIGHTS, x), -2, 0),
        wrong("the same way", "unknown transposed", lambda xp, x, v: xp.roll(v * like(xp, WEIGHTS, x), 2, 0)),
    ),
    *rule(
        "places/flip",
        [X],
        lambda xp, x: flipped(xp, x) ** 2,
        lambda xp, x, v: 2 * flipped(xp, v) * x,
        wrong("not flipped", "unknown", lambda xp, x, v: 2 * v * x),
    ),
    *rule(
        "places/transpose",
        [SQUARE],
        lambda xp, x: xp.swapaxes(x, 0, 1) ** 2,
        lambda xp, x, v: 2 * x * xp.swapaxes(v, 0, 1),
        wrong("not turned back", "transposed unknown", lambda xp, x, v: 2 * xp.swapaxes(x, 0, 1) * v),
    ),
    *rule(
        "places/axes permuted",
        [CUBE],
        lambda xp, x: xp.moveaxis(x, 0, 2) ** 2,
        lambda xp, x, v: 2 * x * xp.moveaxis(v, 2, 0),
        wrong("by the same permutation", "transposed unknown", lambda xp, x, v: 2 * x * xp.moveaxis(v, 0, 2)),
    ),
    *rule(
        "places/padding",
        [X],
        lambda xp, x: xp.concatenate([0 * x[:2], x, 0 * x[:1]], axis=0),
        lambda xp, x, v: v[2:-1],
        wrong("off by one", "unknown", lambda xp, x, v: v[1:-2]),
        wrong("from the other side", "unknown", lambda xp, x, v: v[3:]),
    ),
    *rule(
        "places/differences",
        [X],
        lambda xp, x: x[1:] - x[:-1],
        lambda xp, x, v: xp.concatenate([-v[:1], v[:-1] - v[1:], v[-1:]], axis=0),
        wrong(
            "first element's forgotten",
            "element",
            lambda xp, x, v: xp.concatenate([0 * v[:1], v[:-1] - v[1:], v[-1:]], axis=0),
            at=(0, (0,)),
        ),
    ),
    *rule(
        "places/maximum of windows",
        [TALL],
        lambda xp, x: xp.amax(windows(xp, x), axis=1),
        lambda xp, x, v: xp.reshape(largest_of_each(xp, x) * v[:, None], (-1,)),
        wrong(
            "index off by one",
            "unknown element",
            lambda xp, x, v: xp.roll(xp.reshape(largest_of_each(xp, x) * v[:, None], (-1,)), 1, 0),
        ),
        wrong("to the whole window", "region surrogate unknown", lambda xp, x, v: spread_out(xp, v)),
        wrong(
            "index in the next window",
            "unknown",
            lambda xp, x, v: xp.roll(xp.reshape(largest_of_each(xp, x) * v[:, None], (-1,)), 3, 0),
        ),
    ),
    *rule(
        "places/mean of windows",
        [TALL],
        lambda xp, x: xp.mean(windows(xp, x) ** 2, axis=1),
        lambda xp, x, v: 2 * x * spread_out(xp, v) / 3,
        wrong("divided by the stride", "factor", lambda xp, x, v: 2 * x * spread_out(xp, v) / 4),
    ),
    *rule(
        "places/nearest upsampling",
        [X],
        lambda xp, x: xp.reshape(xp.stack([x, x], 1), (-1,)),
        lambda xp, x, v: xp.sum(windows(xp, v, 2), axis=1),
        wrong("first copy only", "missing-term unknown", lambda xp, x, v: v[::2]),
        wrong("mean of the copies", "factor", lambda xp, x, v: xp.mean(windows(xp, v, 2), axis=1)),
    ),
    *rule(
        "places/embedding as a product",
        [TABLE],
        lambda xp, table: xp.matmul(chosen(xp, table, WORDS), table),
        lambda xp, table, v: xp.matmul(xp.swapaxes(chosen(xp, table, WORDS), 0, 1), v),
        wrong(
            "last occurrence only",
            "element missing-term unknown",
            lambda xp, table, v: xp.matmul(
                xp.swapaxes(chosen(xp, table, WORDS) * like(xp, np.array([[0.0], [0], [0], [1], [1], [1]]), v), 0, 1), v
            ),
        ),
        wrong(
            "padding row's gradient kept out",
            "element",
            lambda xp, table, v: (
                xp.matmul(xp.swapaxes(chosen(xp, table, WORDS), 0, 1), v)
                * like(xp, np.array([[0.0], [1], [1], [1], [1]]), v)
            ),
        ),
    ),
    *rule(
        "places/sine of many",
        [LONG],
        lambda xp, x: xp.sin(x),
        lambda xp, x, v: v * xp.cos(x),
        wrong(
            "one element a tenth too large",
            "element",
            lambda xp, x, v: v * xp.cos(x) * (1 + 0.1 * marked(xp, x, AT)),
            at=(0, (AT,)),
        ),
        wrong(
            "one element zero",
            "element zero",
            lambda xp, x, v: v * xp.cos(x) * (1 - marked(xp, x, AT)),
            at=(0, (AT,)),
        ),
        wrong(
            "last element's sign",
            "element",
            lambda xp, x, v: v * xp.cos(x) * (1 - 2 * marked(xp, x, len(LONG) - 1)),
            at=(0, (len(LONG) - 1,)),
        ),
    ),
    *rule(
        "places/columns' sums of squares",
        [ROWS],
        lambda xp, x: xp.sum(x**2, axis=0),
        lambda xp, x, v: 2 * x * v,
        wrong(
            "last row forgotten",
            "element",
            lambda xp, x, v: 2 * xp.concatenate([x[:-1], 0 * x[-1:]], axis=0) * v,
        ),
        wrong(
            "last column forgotten",
            "element",
            lambda xp, x, v: 2 * xp.concatenate([x[:, :-1], 0 * x[:, -1:]], axis=1) * v,
        ),
    ),
    *rule(
        "places/upper triangle",
        [SQUARE],
        lambda xp, x: xp.sum(like(xp, np.triu(np.ones((3, 3))), x) * x**3),
        lambda xp, x, v: 3 * v * like(xp, np.triu(np.ones((3, 3))), x) * x**2,
        wrong(
            "without the diagonal",
            "element unknown",
            lambda xp, x, v: 3 * v * like(xp, np.triu(np.ones((3, 3)), 1), x) * x**2,
        ),
        wrong(
            "lower instead",
            "unknown transposed",
            lambda xp, x, v: 3 * v * like(xp, np.tril(np.ones((3, 3))), x) * x**2,
        ),
    ),
]
