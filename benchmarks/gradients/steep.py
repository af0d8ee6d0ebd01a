"""Correct functions that are hard to difference: steep, oscillating, near a pole, cancelling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.gradients.data import normal, uniform
from benchmarks.gradients.reductions import logsumexp, softmax, softmax_backward
from benchmarks.gradients.rules import rule, wrong
from benchmarks.gradients.slopes import softplus

X = normal(3, 4)
LARGE = np.array([50.0, 200.0, 600.0, -300.0])
FAR = np.array([-900.0, -30.0, 0.1, 40.0, 800.0])
TINY = np.array([1e-9, 3e-7, 1e-5, 2e-3])


def safe_sigmoid(xp: Any, x: Any) -> Any:
    return 0.5 * (1 + xp.tanh(0.5 * x))


ITEMS = [
    *rule(
        "steep/exponential of large numbers",
        [LARGE],
        lambda xp, x: xp.exp(x),
        lambda xp, x, v: v * xp.exp(x),
        wrong("1e-3 too large", "factor", lambda xp, x, v: 1.001 * v * xp.exp(x)),
        kind="awkward",
    ),
    *rule(
        "steep/sharp sigmoid",
        [np.array([-1e-3, 2e-5, 3e-4, 0.5])],
        lambda xp, x: safe_sigmoid(xp, 1e4 * x),
        lambda xp, x, v: 1e4 * v * safe_sigmoid(xp, 1e4 * x) * safe_sigmoid(xp, -1e4 * x),
        wrong(
            "sharpness missing",
            "factor",
            lambda xp, x, v: v * safe_sigmoid(xp, 1e4 * x) * safe_sigmoid(xp, -1e4 * x),
        ),
        kind="awkward",
    ),
    *rule(
        "steep/fast oscillation",
        [X],
        lambda xp, x: xp.sin(1e4 * x),
        lambda xp, x, v: 1e4 * v * xp.cos(1e4 * x),
        wrong("sign", "sign", lambda xp, x, v: -1e4 * v * xp.cos(1e4 * x)),
        kind="awkward",
    ),
    *rule(
        "steep/slow and fast together",
        [X],
        lambda xp, x: x**2 + 1e-3 * xp.sin(1e3 * x),
        lambda xp, x, v: v * (2 * x + xp.cos(1e3 * x)),
        wrong("fast part dropped", "missing-term", lambda xp, x, v: 2 * v * x),
        kind="awkward",
    ),
    *rule(
        "steep/reciprocal near its pole",
        [np.array([1e-6, -3e-4, 2e-8, 0.7])],
        lambda xp, x: 1 / x,
        lambda xp, x, v: -v / x**2,
        wrong("sign", "sign", lambda xp, x, v: v / x**2),
        kind="awkward",
    ),
    *rule(
        "steep/logarithm near 0",
        [np.array([1e-12, 1e-7, 1e-3, 5.0])],
        lambda xp, x: xp.log(x),
        lambda xp, x, v: v / x,
        kind="awkward",
    ),
    *rule(
        "steep/tangent near its pole",
        [np.array([math.pi / 2 - 1e-5, 1.2, -0.4])],
        lambda xp, x: xp.sin(x) / xp.cos(x),
        lambda xp, x, v: v / xp.cos(x) ** 2,
        kind="awkward",
    ),
    *rule(
        "steep/cancelled quotient",
        [TINY],
        lambda xp, x: ((1 + x) - 1) / x,
        lambda xp, x, v: 0 * x * v,
        kind="awkward",
    ),
    *rule(
        "steep/cancelled cosine",
        [np.array([1e-4, 1e-3, 0.1, 1.0])],
        lambda xp, x: (1 - xp.cos(x)) / x**2,
        lambda xp, x, v: v * (xp.sin(x) / x**2 - 4 * xp.sin(x / 2) ** 2 / x**3),
        kind="awkward",
    ),
    *rule(
        "steep/variance far from 0",
        [1e6 + X],
        lambda xp, x: xp.mean(x**2, axis=-1) - xp.mean(x, axis=-1) ** 2,
        lambda xp, x, v: v[:, None] * (x - xp.mean(x, axis=-1, keepdims=True)) / 2,
        kind="awkward",
    ),
    *rule(
        "steep/softplus far out",
        [FAR],
        softplus,
        lambda xp, x, v: v * safe_sigmoid(xp, x),
        wrong("overflows in the backward", "nan", lambda xp, x, v: v * xp.exp(x) / (1 + xp.exp(x))),
        kind="awkward",
    ),
    *rule(
        "steep/softmax of large logits",
        [400 * X],
        softmax,
        softmax_backward,
        kind="awkward",
    ),
    *rule(
        "steep/logsumexp of large numbers",
        [1000 + X],
        logsumexp,
        lambda xp, x, v: v[..., None] * softmax(xp, x),
        wrong("sign", "sign", lambda xp, x, v: -v[..., None] * softmax(xp, x)),
        kind="awkward",
    ),
    *rule(
        "steep/gaussian far out",
        [np.array([0.5, 5.0, 12.0, 40.0])],
        lambda xp, x: xp.exp(-(x**2)),
        lambda xp, x, v: -2 * x * v * xp.exp(-(x**2)),
        kind="awkward",
    ),
    *rule(
        "steep/tenth power",
        [normal(5, scale=10.0)],
        lambda xp, x: x**10,
        lambda xp, x, v: 10 * v * x**9,
        wrong("eleven for ten", "factor", lambda xp, x, v: 11 * v * x**9),
        kind="awkward",
    ),
    *rule(
        "steep/chain of fifty sines",
        [normal(3)],
        lambda xp, x: chained(xp, x)[0],
        lambda xp, x, v: v * chained(xp, x)[1],
        kind="awkward",
    ),
    *rule(
        "steep/logistic map",
        [uniform(3, low=0.2, high=0.8)],
        lambda xp, x: mapped(xp, x)[0],
        lambda xp, x, v: v * mapped(xp, x)[1],
        kind="awkward",
    ),
    *rule(
        "steep/tempered softmax",
        [X],
        lambda xp, x: softmax(xp, x / 1e-3),
        lambda xp, x, v: softmax_backward(xp, x / 1e-3, v) / 1e-3,
        kind="awkward",
    ),
    *rule(
        "steep/logarithm of a sigmoid",
        [FAR],
        lambda xp, x: -softplus(xp, -x),
        lambda xp, x, v: v * safe_sigmoid(xp, -x),
        kind="awkward",
    ),
    *rule(
        "steep/logit near 0 and 1",
        [np.array([1e-9, 0.5, 1 - 1e-9])],
        lambda xp, p: xp.log(p) - xp.log1p(-p),
        lambda xp, p, v: v / (p * (1 - p)),
        kind="awkward",
    ),
    *rule(
        "steep/elastic bump",
        [np.array([0.3, 0.9, 0.99])],
        lambda xp, x: xp.exp(-1 / (1 - x**2)),
        lambda xp, x, v: -2 * x * v * xp.exp(-1 / (1 - x**2)) / (1 - x**2) ** 2,
        kind="awkward",
    ),
]


def chained(xp: Any, x: Any) -> tuple[Any, Any]:
    """Fifty times x <- sin(1.1 x), and the slope."""
    slope = xp.ones_like(x)
    for _ in range(50):
        slope = slope * 1.1 * xp.cos(1.1 * x)
        x = xp.sin(1.1 * x)
    return x, slope


def mapped(xp: Any, x: Any) -> tuple[Any, Any]:
    """Ten times x <- 3.9 x (1 - x), and the slope."""
    slope = xp.ones_like(x)
    for _ in range(10):
        slope = slope * 3.9 * (1 - 2 * x)
        x = 3.9 * x * (1 - x)
    return x, slope
