"""Functions of each element by itself, and the ways in which their derivatives go wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.gradients.data import apart, normal, uniform
from benchmarks.gradients.rules import rule, wrong

X = normal(3, 4)
POSITIVE = uniform(3, 4, low=0.5, high=3.0)
AWAY = apart(3, 4)


def sigmoid(xp: Any, x: Any) -> Any:
    return 1 / (1 + xp.exp(-x))


def gelu_gate(xp: Any, x: Any) -> Any:
    """The gate of GELU in its tanh form."""
    return 0.5 * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_slope(xp: Any, x: Any) -> Any:
    t = xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


def softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x)))


def mish_slope(xp: Any, x: Any) -> Any:
    t = xp.tanh(softplus(xp, x))
    return t + x * (1 - t**2) * sigmoid(xp, x)


ITEMS = [
    *rule(
        "slopes/sine",
        [X],
        lambda xp, x: xp.sin(x),
        lambda xp, x, v: v * xp.cos(x),
        wrong("sign", "sign", lambda xp, x, v: -v * xp.cos(x)),
        wrong("zero", "zero", lambda xp, x, v: xp.zeros_like(x)),
        wrong("cotangent ignored", "ignores-cotangent", lambda xp, x, v: xp.cos(x)),
        wrong("cotangent squared", "nonlinear-cotangent", lambda xp, x, v: v * v * xp.cos(x)),
        wrong("size of the cotangent", "nonlinear-cotangent", lambda xp, x, v: xp.abs(v) * xp.cos(x)),
        wrong("clipped cotangent", "nonlinear-cotangent", lambda xp, x, v: xp.clip(v, -0.5, 0.5) * xp.cos(x)),
        wrong(
            "normalised cotangent",
            "nonlinear-cotangent",
            lambda xp, x, v: v / xp.sqrt(xp.sum(v * v)) * xp.cos(x),
        ),
        wrong("1e-3 too large", "factor", lambda xp, x, v: 1.001 * v * xp.cos(x)),
        wrong("1e-6 too large", "factor", lambda xp, x, v: (1 + 1e-6) * v * xp.cos(x)),
        wrong("1e-8 too large", "factor", lambda xp, x, v: (1 + 1e-8) * v * xp.cos(x)),
        wrong("an offset of 1e-7", "unknown", lambda xp, x, v: v * (xp.cos(x) + 1e-7)),
    ),
    *rule(
        "slopes/cube",
        [X],
        lambda xp, x: x**3,
        lambda xp, x, v: 3 * x**2 * v,
        wrong("twice", "factor", lambda xp, x, v: 6 * x**2 * v),
        wrong("factor of the power missing", "factor", lambda xp, x, v: x**2 * v),
        wrong("wrong for negatives", "region", lambda xp, x, v: 3 * x * xp.abs(x) * v),
    ),
    *rule(
        "slopes/tanh",
        [X],
        lambda xp, x: xp.tanh(x),
        lambda xp, x, v: v * (1 - xp.tanh(x) ** 2),
        wrong("half", "factor", lambda xp, x, v: 0.5 * v * (1 - xp.tanh(x) ** 2)),
        wrong("input for output", "unknown", lambda xp, x, v: v * (1 - x**2)),
    ),
    *rule(
        "slopes/sigmoid",
        [X],
        lambda xp, x: 0.5 * (1 + xp.tanh(0.5 * x)),
        lambda xp, x, v: v * sigmoid(xp, x) * sigmoid(xp, -x),
        wrong("input for output", "unknown", lambda xp, x, v: v * x * (1 - x), [X]),
        wrong(
            "cut beyond 2",
            "region",
            lambda xp, x, v: xp.where(xp.abs(x) > 2, 0 * x, v * sigmoid(xp, x) * sigmoid(xp, -x)),
            [np.array([[-3.0, -1.0, 0.5], [2.5, 1.2, 4.0]])],
        ),
    ),
    *rule(
        "slopes/swish",
        [X],
        lambda xp, x: x * sigmoid(xp, x),
        lambda xp, x, v: v * sigmoid(xp, x) * (1 + x * (1 - sigmoid(xp, x))),
        wrong("second term dropped", "missing-term", lambda xp, x, v: v * sigmoid(xp, x)),
        wrong(
            "first term dropped",
            "missing-term",
            lambda xp, x, v: v * x * sigmoid(xp, x) * (1 - sigmoid(xp, x)),
        ),
    ),
    *rule(
        "slopes/gelu",
        [X],
        lambda xp, x: x * gelu_gate(xp, x),
        lambda xp, x, v: v * gelu_slope(xp, x),
        wrong(
            "the sigmoid form's slope",
            "unknown",
            lambda xp, x, v: v * (s := sigmoid(xp, 1.702 * x)) * (1 + 1.702 * x * (1 - s)),
        ),
    ),
    *rule(
        "slopes/softplus",
        [X],
        softplus,
        lambda xp, x, v: v * sigmoid(xp, x),
        wrong("flat below zero", "region", lambda xp, x, v: xp.where(x > 0, v * sigmoid(xp, x), 0 * v), [X]),
    ),
    *rule(
        "slopes/mish",
        [X],
        lambda xp, x: x * xp.tanh(softplus(xp, x)),
        lambda xp, x, v: v * mish_slope(xp, x),
        wrong("second term dropped", "missing-term", lambda xp, x, v: v * xp.tanh(softplus(xp, x))),
    ),
    *rule(
        "slopes/leaky relu",
        [AWAY],
        lambda xp, x: xp.where(x > 0, x, 0.1 * x),
        lambda xp, x, v: xp.where(x > 0, v, 0.1 * v),
        wrong("slope for negatives", "region", lambda xp, x, v: xp.where(x > 0, v, 0.2 * v)),
        wrong("mask missing", "region surrogate", lambda xp, x, v: v * xp.ones_like(x)),
    ),
    *rule(
        "slopes/elu",
        [AWAY],
        lambda xp, x: xp.where(x > 0, x, 1.5 * xp.expm1(x)),
        lambda xp, x, v: xp.where(x > 0, v, 1.5 * xp.exp(x) * v),
        wrong("alpha missing", "region", lambda xp, x, v: xp.where(x > 0, v, xp.exp(x) * v)),
    ),
    *rule(
        "slopes/relu",
        [AWAY],
        lambda xp, x: xp.maximum(x, xp.zeros_like(x)),
        lambda xp, x, v: xp.where(x > 0, v, 0 * v),
        wrong("mask missing", "region surrogate", lambda xp, x, v: 1.0 * v),
        wrong("mask turned round", "region surrogate unknown", lambda xp, x, v: xp.where(x < 0, v, 0 * v)),
    ),
    *rule(
        "slopes/absolute value",
        [AWAY],
        lambda xp, x: xp.abs(x),
        lambda xp, x, v: v * xp.sign(x),
        wrong("sign missing", "region surrogate", lambda xp, x, v: 1.0 * v),
    ),
    *rule(
        "slopes/clip",
        [AWAY * 3],
        lambda xp, x: xp.clip(x, -1.0, 1.0),
        lambda xp, x, v: xp.where(xp.abs(x) < 1, v, 0 * v),
        wrong("passes outside", "region surrogate", lambda xp, x, v: 1.0 * v),
    ),
    *rule(
        "slopes/huber",
        [AWAY * 3],
        lambda xp, x: xp.where(xp.abs(x) < 1, 0.5 * x**2, xp.abs(x) - 0.5),
        lambda xp, x, v: v * xp.where(xp.abs(x) < 1, x, xp.sign(x)),
        wrong("quadratic everywhere", "region", lambda xp, x, v: v * x),
    ),
    *rule(
        "slopes/logarithm",
        [POSITIVE],
        lambda xp, x: xp.log1p(x),
        lambda xp, x, v: v / (1 + x),
        wrong("of x, not 1 + x", "unknown", lambda xp, x, v: v / x),
    ),
    *rule(
        "slopes/root",
        [POSITIVE],
        lambda xp, x: xp.sqrt(x),
        lambda xp, x, v: 0.5 * v / xp.sqrt(x),
        wrong("half missing", "factor", lambda xp, x, v: v / xp.sqrt(x)),
        wrong("the root missing", "unknown", lambda xp, x, v: 0.5 * v / x),
    ),
    *rule(
        "slopes/reciprocal",
        [POSITIVE],
        lambda xp, x: 1 / x,
        lambda xp, x, v: -v / x**2,
        wrong("sign", "sign", lambda xp, x, v: v / x**2),
    ),
    *rule(
        "slopes/tempered exponential",
        [X],
        lambda xp, x: xp.exp(x / 10.0),
        lambda xp, x, v: v * xp.exp(x / 10.0) / 10.0,
        wrong("temperature missing", "factor", lambda xp, x, v: v * xp.exp(x / 10.0)),
    ),
    *rule(
        "slopes/degrees",
        [X * 90],
        lambda xp, x: xp.sin(x * (math.pi / 180)),
        lambda xp, x, v: v * xp.cos(x * (math.pi / 180)) * (math.pi / 180),
        wrong("degrees for radians", "factor", lambda xp, x, v: v * xp.cos(x * (math.pi / 180))),
        wrong("six digits of pi", "factor", lambda xp, x, v: v * xp.cos(x * (math.pi / 180)) * 3.14159 / 180),
    ),
    *rule(
        "slopes/gaussian",
        [X],
        lambda xp, x: xp.exp(-0.5 * x**2),
        lambda xp, x, v: -v * x * xp.exp(-0.5 * x**2),
        wrong("inner derivative missing", "unknown", lambda xp, x, v: v * xp.exp(-0.5 * x**2)),
    ),
    *rule(
        "slopes/power",
        [POSITIVE],
        lambda xp, x: x**2.5,
        lambda xp, x, v: 2.5 * v * x**1.5,
        wrong("exponent not lowered", "unknown", lambda xp, x, v: 2.5 * v * x**2.5),
    ),
    *rule("slopes/arctangent", [X], lambda xp, x: xp.arctan(x), lambda xp, x, v: v / (1 + x**2)),
    *rule(
        "slopes/logcosh",
        [X],
        lambda xp, x: softplus(xp, 2 * x) - x,
        lambda xp, x, v: v * xp.tanh(x),
        wrong("clipped to a line", "unknown", lambda xp, x, v: v * xp.clip(x, -1.0, 1.0)),
    ),
    *rule(
        "slopes/polynomial",
        [X],
        lambda xp, x: 1 + x * (2 - x * (0.5 - 0.25 * x)),
        lambda xp, x, v: v * (2 - x + 0.75 * x**2),
        wrong("quadratic term dropped", "missing-term", lambda xp, x, v: v * (2 - x)),
    ),
]
