"""Functions of several outputs, of constants' outputs, and of second derivatives."""

from __future__ import annotations

from typing import Any

from benchmarks.gradients.data import normal
from benchmarks.gradients.reductions import deviation, length
from benchmarks.gradients.rules import rule, wrong
from benchmarks.gradients.slopes import softplus

X, Y = normal(3, 4), normal(3, 4, seed=1)
SECOND = {"order": 2}
AUTODIFF = ("torch", "tensorflow", "jax")


def mean_and_variance(xp: Any, x: Any) -> Any:
    return xp.mean(x, axis=-1), xp.mean(deviation(xp, x) ** 2, axis=-1)


def frozen(xp: Any, x: Any) -> Any:
    """x as a constant, as a user freezes it in each framework."""
    name = xp.__name__
    if name == "torch":
        return x.detach()
    if name.startswith("tensorflow"):
        import tensorflow as tf

        return tf.stop_gradient(x)
    if name.startswith("jax"):
        import jax

        return jax.lax.stop_gradient(x)
    return x


ITEMS = [
    *rule(
        "outputs/sine and cosine",
        [X],
        lambda xp, x: (xp.sin(x), xp.cos(x)),
        lambda xp, x, v, w: v * xp.cos(x) - w * xp.sin(x),
        wrong("second ignored", "zero missing-term", lambda xp, x, v, w: v * xp.cos(x)),
        wrong("first ignored", "zero missing-term", lambda xp, x, v, w: -w * xp.sin(x)),
        wrong("second's sign", "sign", lambda xp, x, v, w: v * xp.cos(x) + w * xp.sin(x)),
        wrong("cotangents exchanged", "unknown", lambda xp, x, v, w: w * xp.cos(x) - v * xp.sin(x)),
        wrong("second doubled", "factor", lambda xp, x, v, w: v * xp.cos(x) - 2 * w * xp.sin(x)),
    ),
    *rule(
        "outputs/mean and variance",
        [X],
        mean_and_variance,
        lambda xp, x, v, w: v[..., None] / 4 + w[..., None] * deviation(xp, x) / 2,
        wrong("variance's zero", "zero missing-term", lambda xp, x, v, w: v[..., None] / 4 + 0 * x),
        wrong("mean's not divided", "factor", lambda xp, x, v, w: v[..., None] + w[..., None] * deviation(xp, x) / 2),
    ),
    *rule(
        "outputs/polar coordinates",
        [X, Y],
        lambda xp, x, y: (xp.sqrt(x**2 + y**2), xp.arctan2(y, x)),
        lambda xp, x, y, v, w: (
            v * x / xp.sqrt(x**2 + y**2) - w * y / (x**2 + y**2),
            v * y / xp.sqrt(x**2 + y**2) + w * x / (x**2 + y**2),
        ),
        wrong(
            "angle's sign in one",
            "sign",
            lambda xp, x, y, v, w: (
                v * x / xp.sqrt(x**2 + y**2) + w * y / (x**2 + y**2),
                v * y / xp.sqrt(x**2 + y**2) + w * x / (x**2 + y**2),
            ),
        ),
    ),
    *rule(
        "outputs/unit vector and length",
        [X],
        lambda xp, x: (x / length(xp, x), length(xp, x)),
        lambda xp, x, v, w: (
            (v - x * xp.sum(v * x, axis=-1, keepdims=True) / length(xp, x) ** 2) / length(xp, x) + w * x / length(xp, x)
        ),
        wrong(
            "length's zero",
            "zero missing-term",
            lambda xp, x, v, w: (v - x * xp.sum(v * x, axis=-1, keepdims=True) / length(xp, x) ** 2) / length(xp, x),
        ),
    ),
    *rule(
        "outputs/loss and its auxiliary",
        [X],
        lambda xp, x: (xp.sum(x**2), xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x))),
        lambda xp, x, v, w: 2 * x * v,
    ),
    *rule(
        "outputs/second order of a cube",
        [X],
        lambda xp, x: x**3,
        lambda xp, x, v: 3 * x**2 * v,
        wrong(
            "slope frozen",
            "second-order",
            lambda xp, x, v: 3 * frozen(xp, x) ** 2 * v,
            options=SECOND,
        ),
        wrong("half frozen", "second-order", lambda xp, x, v: 3 * x * frozen(xp, x) * v, options=SECOND),
        options=SECOND,
        frameworks=AUTODIFF,
    ),
    *rule(
        "outputs/second order of a softplus",
        [X],
        softplus,
        lambda xp, x, v: 0.5 * v * (1 + xp.tanh(0.5 * x)),
        wrong("sigmoid frozen", "second-order", lambda xp, x, v: v * frozen(xp, 1 / (1 + xp.exp(-x))), options=SECOND),
        options=SECOND,
        frameworks=AUTODIFF,
    ),
]
