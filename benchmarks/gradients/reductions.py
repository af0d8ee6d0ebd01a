"""Sums, means, norms and softmaxes: factors of n, inner products and projections that are forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import normal, uniform
from benchmarks.gradients.rules import rule, wrong

X = normal(4, 5)
POSITIVE = uniform(4, 5, low=0.5, high=2.0)
LARGE = 1000 + normal(4, 5)
TALL = normal(8, 6, seed=2)


def softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def logsumexp(xp: Any, x: Any) -> Any:
    top = xp.amax(x, axis=-1, keepdims=True)
    return xp.log(xp.sum(xp.exp(x - top), axis=-1)) + top[..., 0]


def inner(xp: Any, a: Any, b: Any) -> Any:
    return xp.sum(a * b, axis=-1, keepdims=True)


def length(xp: Any, x: Any) -> Any:
    return xp.sqrt(inner(xp, x, x))


def softmax_backward(xp: Any, x: Any, v: Any) -> Any:
    s = softmax(xp, x)
    return s * (v - inner(xp, s, v))


def deviation(xp: Any, x: Any) -> Any:
    return x - xp.mean(x, axis=-1, keepdims=True)


def of_the_others(xp: Any, x: Any) -> Any:
    """For each element the product of the others in its row."""
    n = x.shape[-1]
    return xp.stack([xp.prod(xp.concatenate([x[:, :i], x[:, i + 1 :]], axis=-1), -1) for i in range(n)], -1)


def only_row(xp: Any, x: Any, row: int) -> Any:
    """1 in one row and 0 elsewhere."""
    marked = np.zeros(tuple(x.shape))
    marked[row] = 1
    return xp.asarray(marked, dtype=x.dtype)


ITEMS = [
    *rule(
        "reductions/mean of squares",
        [X],
        lambda xp, x: xp.mean(x**2),
        lambda xp, x, v: 2 * x * v / 20,
        wrong("sum for mean", "factor", lambda xp, x, v: 2 * x * v),
        wrong("divided by the rows", "factor", lambda xp, x, v: 2 * x * v / 4),
    ),
    *rule(
        "reductions/sum of squares",
        [X],
        lambda xp, x: xp.sum(x**2),
        lambda xp, x, v: 2 * x * v,
        wrong("mean for sum", "factor", lambda xp, x, v: 2 * x * v / 20),
        wrong("2 missing", "factor", lambda xp, x, v: x * v),
    ),
    *rule(
        "reductions/softmax",
        [X],
        softmax,
        softmax_backward,
        wrong("inner product missing", "missing-term", lambda xp, x, v: softmax(xp, x) * v),
        wrong(
            "diagonal of the Jacobian",
            "missing-term",
            lambda xp, x, v: softmax(xp, x) * (1 - softmax(xp, x)) * v,
        ),
        wrong(
            "inner product over all rows",
            "unknown missing-term",
            lambda xp, x, v: softmax(xp, x) * (v - xp.sum(softmax(xp, x) * v)),
        ),
        wrong(
            "one row zero",
            "element region",
            lambda xp, x, v: softmax_backward(xp, x, v) * (1 - only_row(xp, x, 5)),
            [TALL],
        ),
        wrong(
            "one row scaled",
            "element region",
            lambda xp, x, v: softmax_backward(xp, x, v) * (1 + 0.01 * only_row(xp, x, 2)),
            [TALL],
        ),
    ),
    *rule(
        "reductions/log-softmax",
        [X],
        lambda xp, x: x - logsumexp(xp, x)[..., None],
        lambda xp, x, v: v - softmax(xp, x) * xp.sum(v, axis=-1, keepdims=True),
        wrong("sum of the cotangent missing", "unknown nonlinear-cotangent", lambda xp, x, v: v - softmax(xp, x)),
        wrong("softmax dropped", "missing-term", lambda xp, x, v: 1.0 * v),
    ),
    *rule(
        "reductions/logsumexp",
        [X],
        logsumexp,
        lambda xp, x, v: v[..., None] * softmax(xp, x),
        wrong(
            "overflows in the backward",
            "nan",
            lambda xp, x, v: v[..., None] * xp.exp(x) / xp.sum(xp.exp(x), axis=-1, keepdims=True),
            [LARGE],
        ),
        wrong("exponentials not normalised", "element unknown", lambda xp, x, v: v[..., None] * xp.exp(x)),
    ),
    *rule(
        "reductions/unit vectors",
        [X],
        lambda xp, x: x / length(xp, x),
        lambda xp, x, v: (v - x * inner(xp, x, v) / inner(xp, x, x)) / length(xp, x),
        wrong("projection missing", "missing-term", lambda xp, x, v: v / length(xp, x)),
        wrong(
            "projection's sign",
            "missing-term sign unknown",
            lambda xp, x, v: (v + x * inner(xp, x, v) / inner(xp, x, x)) / length(xp, x),
        ),
    ),
    *rule(
        "reductions/norm",
        [X],
        lambda xp, x: length(xp, x)[..., 0],
        lambda xp, x, v: v[..., None] * x / length(xp, x),
        wrong("of the square", "unknown element", lambda xp, x, v: 2 * v[..., None] * x),
    ),
    *rule(
        "reductions/cosine similarity",
        [X, normal(4, 5, seed=1)],
        lambda xp, x, y: (inner(xp, x, y) / length(xp, x) / length(xp, y))[..., 0],
        lambda xp, x, y, v: (
            v[..., None] / length(xp, x) / length(xp, y) * (y - x * inner(xp, x, y) / inner(xp, x, x)),
            v[..., None] / length(xp, x) / length(xp, y) * (x - y * inner(xp, x, y) / inner(xp, y, y)),
        ),
        wrong(
            "lengths as constants",
            "missing-term",
            lambda xp, x, y, v: (
                v[..., None] / length(xp, x) / length(xp, y) * y,
                v[..., None] / length(xp, x) / length(xp, y) * x,
            ),
        ),
    ),
    *rule(
        "reductions/variance",
        [X],
        lambda xp, x: xp.sum(deviation(xp, x) ** 2, axis=-1) / 4,
        lambda xp, x, v: v[..., None] * deviation(xp, x) / 2,
        wrong("n for n - 1", "factor", lambda xp, x, v: 2 * v[..., None] * deviation(xp, x) / 5),
        wrong("mean not subtracted", "unknown missing-term", lambda xp, x, v: v[..., None] * x / 2),
    ),
    *rule(
        "reductions/standard deviation",
        [X],
        lambda xp, x: xp.sqrt(xp.mean(deviation(xp, x) ** 2, axis=-1)),
        lambda xp, x, v: v[..., None] * deviation(xp, x) / (5 * xp.sqrt(xp.mean(deviation(xp, x) ** 2, -1))[..., None]),
        wrong(
            "division by it missing",
            "element unknown factor",
            lambda xp, x, v: v[..., None] * deviation(xp, x) / 5,
        ),
    ),
    *rule(
        "reductions/product",
        [POSITIVE],
        lambda xp, x: xp.prod(x, -1),
        lambda xp, x, v: v[..., None] * of_the_others(xp, x),
        wrong(
            "not divided by the element",
            "unknown",
            lambda xp, x, v: v[..., None] * xp.prod(x, -1)[..., None] + 0 * x,
        ),
    ),
    *rule(
        "reductions/weighted mean",
        [X, POSITIVE],
        lambda xp, x, w: xp.sum(w * x, axis=-1) / xp.sum(w, axis=-1),
        lambda xp, x, w, v: (
            v[..., None] * w / xp.sum(w, axis=-1, keepdims=True),
            v[..., None] * (x - inner(xp, w, x) / xp.sum(w, -1, keepdims=True)) / xp.sum(w, -1, keepdims=True),
        ),
        wrong(
            "sum of the weights as a constant",
            "missing-term",
            lambda xp, x, w, v: (
                v[..., None] * w / xp.sum(w, axis=-1, keepdims=True),
                v[..., None] * x / xp.sum(w, axis=-1, keepdims=True),
            ),
        ),
        wrong(
            "divided by n",
            "element factor unknown",
            lambda xp, x, w, v: (
                v[..., None] * w / 5,
                v[..., None] * (x - inner(xp, w, x) / xp.sum(w, -1, keepdims=True)) / xp.sum(w, -1, keepdims=True),
            ),
        ),
    ),
    *rule(
        "reductions/entropy",
        [POSITIVE / 4],
        lambda xp, p: -xp.sum(p * xp.log(p), axis=-1),
        lambda xp, p, v: -v[..., None] * (xp.log(p) + 1),
        wrong("1 dropped", "missing-term", lambda xp, p, v: -v[..., None] * xp.log(p)),
    ),
    *rule(
        "reductions/largest",
        [X],
        lambda xp, x: xp.amax(x, axis=-1),
        lambda xp, x, v: xp.where(x == xp.amax(x, axis=-1, keepdims=True), v[..., None] + 0 * x, 0 * x),
        wrong("to all elements", "region surrogate missing-term", lambda xp, x, v: v[..., None] + 0 * x),
        wrong("spread as by a softmax", "unknown", lambda xp, x, v: v[..., None] * softmax(xp, x)),
    ),
    *rule(
        "reductions/p-norm",
        [POSITIVE],
        lambda xp, x: xp.sum(x**3, axis=-1) ** (1 / 3),
        lambda xp, x, v: v[..., None] * x**2 * xp.sum(x**3, axis=-1, keepdims=True) ** (-2 / 3),
        wrong(
            "outer power's factor",
            "factor",
            lambda xp, x, v: 3 * v[..., None] * x**2 * xp.sum(x**3, axis=-1, keepdims=True) ** (-2 / 3),
        ),
    ),
]
