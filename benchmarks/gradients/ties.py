"""Correct choices among equals (max, sort, top k, pooling, median), and sorting where nothing ties."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import apart, normal
from benchmarks.gradients.rules import like, rule, wrong

TIED = np.array([[1.0, 3.0, 3.0], [2.0, -1.0, 2.0]])
ALL = np.full((2, 4), 0.7)
DISTINCT = apart(7)
WEIGHTS = normal(7, seed=1)


def best(xp: Any, x: Any) -> Any:
    hit = xp.where(x == xp.amax(x, axis=-1, keepdims=True), xp.ones_like(x), xp.zeros_like(x))
    return hit / xp.sum(hit, axis=-1, keepdims=True)


def first_best(xp: Any, x: Any) -> Any:
    """One-hot of the first largest of each row."""
    hit = xp.where(x == xp.amax(x, axis=-1, keepdims=True), xp.ones_like(x), xp.zeros_like(x))
    return xp.where(xp.cumsum(hit, -1) == 1, hit, xp.zeros_like(x))


def ranking(xp: Any, x: Any) -> Any:
    """The permutation matrix that sorts a vector ascending; ties keep their order."""
    n = x.shape[0]
    earlier = like(xp, np.tril(np.ones((n, n)), -1), x)
    below = xp.where(x[None, :] < x[:, None], xp.ones_like(x)[None, :] * xp.ones_like(x)[:, None], 0 * earlier)
    equal = xp.where(x[None, :] == x[:, None], earlier, 0 * earlier)
    rank = xp.sum(below + equal, axis=1)
    places = like(xp, np.arange(float(n)), x)
    return xp.where(rank[None, :] == places[:, None], 1 + 0 * earlier, 0 * earlier)


def sorted_values(xp: Any, x: Any) -> Any:
    return xp.matmul(ranking(xp, x), x[:, None])[:, 0]


ITEMS = [
    *rule(
        "ties/largest, shared",
        [TIED],
        lambda xp, x: xp.amax(x, axis=-1),
        lambda xp, x, v: v[:, None] * best(xp, x),
        wrong(
            "the whole to each",
            "subgradient region",
            lambda xp, x, v: xp.where(best(xp, x) > 0, v[:, None] + 0 * x, 0 * x),
        ),
        kind="awkward",
    ),
    *rule(
        "ties/largest, first",
        [TIED],
        lambda xp, x: xp.amax(x, axis=-1),
        lambda xp, x, v: v[:, None] * first_best(xp, x),
        kind="awkward",
    ),
    *rule(
        "ties/all equal",
        [ALL],
        lambda xp, x: xp.amax(x, axis=-1),
        lambda xp, x, v: v[:, None] * best(xp, x),
        kind="awkward",
    ),
    *rule(
        "ties/all equal, first",
        [ALL],
        lambda xp, x: xp.amax(x, axis=-1),
        lambda xp, x, v: v[:, None] * first_best(xp, x),
        kind="awkward",
    ),
    *rule(
        "ties/pooling of a flat image",
        [np.zeros((4, 3))],
        lambda xp, x: xp.amax(x, axis=-1) + xp.mean(x, axis=-1),
        lambda xp, x, v: v[:, None] * (first_best(xp, x) + 1 / 3),
        kind="awkward",
    ),
    *rule(
        "ties/sort of distinct values",
        [DISTINCT],
        lambda xp, x: sorted_values(xp, x) * like(xp, WEIGHTS, x),
        lambda xp, x, v: xp.matmul(xp.swapaxes(ranking(xp, x), 0, 1), (v * like(xp, WEIGHTS, x))[:, None])[:, 0],
        wrong(
            "permuted the same way",
            "unknown transposed",
            lambda xp, x, v: xp.matmul(ranking(xp, x), (v * like(xp, WEIGHTS, x))[:, None])[:, 0],
        ),
        wrong("not permuted", "unknown", lambda xp, x, v: v * like(xp, WEIGHTS, x)),
    ),
    *rule(
        "ties/sort with equals",
        [np.array([2.0, 1.0, 2.0, 0.5, 1.0])],
        lambda xp, x: sorted_values(xp, x),
        lambda xp, x, v: xp.matmul(xp.swapaxes(ranking(xp, x), 0, 1), v[:, None])[:, 0],
        kind="awkward",
    ),
    *rule(
        "ties/top three",
        [DISTINCT],
        lambda xp, x: sorted_values(xp, x)[-3:],
        lambda xp, x, v: xp.matmul(xp.swapaxes(ranking(xp, x)[-3:], 0, 1), v[:, None])[:, 0],
        kind="awkward",
    ),
    *rule(
        "ties/median",
        [DISTINCT],
        lambda xp, x: sorted_values(xp, x)[3],
        lambda xp, x, v: v * ranking(xp, x)[3],
        wrong("one beside it", "element unknown", lambda xp, x, v: v * ranking(xp, x)[4]),
        kind="awkward",
    ),
    *rule(
        "ties/range with equals",
        [np.array([3.0, 3.0, -1.0, -1.0, 0.5])],
        lambda xp, x: xp.amax(x, axis=0) - xp.amin(x, axis=0),
        lambda xp, x, v: v * (best(xp, x) - best(xp, -x)),
        kind="awkward",
    ),
    *rule(
        "ties/Chebyshev distance",
        [np.array([1.0, -2.0, 0.5]), np.array([0.0, -1.0, 1.5])],
        lambda xp, x, y: xp.amax(xp.abs(x - y), axis=0),
        lambda xp, x, y, v: (
            v * best(xp, xp.abs(x - y)) * xp.sign(x - y),
            -v * best(xp, xp.abs(x - y)) * xp.sign(x - y),
        ),
        kind="awkward",
    ),
]
