"""Matrix products, inverses, convolutions: transposed, shifted and flipped."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import normal
from benchmarks.gradients.rules import flipped, rule, wrong

A, B = normal(4, 4), normal(4, 4, seed=1)
X, W, BIAS = normal(5, 3), normal(3, 3, seed=2), normal(3, seed=3)
WELL = np.eye(4) * 3 + 0.5 * A
SIGNAL, KERNEL = normal(9), normal(3, seed=4)


def t(xp: Any, a: Any) -> Any:
    return xp.swapaxes(a, -1, -2)


def inverse(xp: Any, a: Any) -> Any:
    if xp.__name__.startswith("tensorflow"):
        import tensorflow as tf

        return tf.linalg.inv(a)
    return xp.linalg.inv(a)


def determinant(xp: Any, a: Any) -> Any:
    if xp.__name__.startswith("tensorflow"):
        import tensorflow as tf

        return tf.linalg.det(a)
    return xp.linalg.det(a)


def correlate(xp: Any, x: Any, k: Any, padding: int = 0) -> Any:
    """Sums over windows of three, as deep learning's convolution: out[i] = x[i] k0 + x[i+1] k1 + x[i+2] k2."""
    if padding:
        zeros = 0 * x[:padding]
        x = xp.concatenate([zeros, x, zeros], axis=0)
    n = x.shape[0] - 2
    return x[:n] * k[0] + x[1 : n + 1] * k[1] + x[2 : n + 2] * k[2]


def correlation_backward(xp: Any, x: Any, k: Any, v: Any, turned: bool = True, shift: int = 0) -> Any:
    dx = correlate(xp, v, flipped(xp, k) if turned else k, padding=2)
    dk = xp.stack([xp.sum(v * x[i : i + 7]) for i in range(3)])
    return xp.roll(dx, shift, 0), dk


def inverse_backward(xp: Any, a: Any, v: Any) -> Any:
    p = t(xp, inverse(xp, a))
    return -xp.matmul(xp.matmul(p, v), p)


ITEMS = [
    *rule(
        "products/matrix product",
        [A, B],
        lambda xp, a, b: xp.matmul(a, b),
        lambda xp, a, b, v: (xp.matmul(v, t(xp, b)), xp.matmul(t(xp, a), v)),
        wrong(
            "factors not transposed",
            "transposed unknown",
            lambda xp, a, b, v: (xp.matmul(v, b), xp.matmul(a, v)),
        ),
        wrong(
            "first transposed",
            "transposed",
            lambda xp, a, b, v: (t(xp, xp.matmul(v, t(xp, b))), xp.matmul(t(xp, a), v)),
        ),
        wrong("second zero", "zero", lambda xp, a, b, v: (xp.matmul(v, t(xp, b)), xp.zeros_like(b))),
        wrong("first's sign", "sign", lambda xp, a, b, v: (-xp.matmul(v, t(xp, b)), xp.matmul(t(xp, a), v))),
    ),
    *rule(
        "products/linear layer",
        [X, W, BIAS],
        lambda xp, x, w, b: xp.matmul(x, t(xp, w)) + b,
        lambda xp, x, w, b, v: (xp.matmul(v, w), xp.matmul(t(xp, v), x), xp.sum(v, axis=0)),
        wrong(
            "weights' transposed",
            "transposed",
            lambda xp, x, w, b, v: (xp.matmul(v, w), xp.matmul(t(xp, x), v), xp.sum(v, axis=0)),
        ),
        wrong(
            "mean over the batch",
            "factor",
            lambda xp, x, w, b, v: (xp.matmul(v, w), xp.matmul(t(xp, v), x) / 5, xp.sum(v, axis=0) / 5),
        ),
        wrong(
            "input through the wrong side",
            "transposed unknown",
            lambda xp, x, w, b, v: (xp.matmul(v, t(xp, w)), xp.matmul(t(xp, v), x), xp.sum(v, axis=0)),
        ),
        wrong(
            "bias from the first row",
            "broadcast",
            lambda xp, x, w, b, v: (xp.matmul(v, w), xp.matmul(t(xp, v), x), v[0]),
        ),
    ),
    *rule(
        "products/outer product",
        [normal(4), normal(3, seed=1)],
        lambda xp, x, y: x[:, None] * y[None, :],
        lambda xp, x, y, v: (xp.sum(v * y[None, :], axis=1), xp.sum(v * x[:, None], axis=0)),
        wrong(
            "factor forgotten",
            "unknown",
            lambda xp, x, y, v: (xp.sum(v, axis=1), xp.sum(v * x[:, None], axis=0)),
        ),
    ),
    *rule(
        "products/quadratic form",
        [normal(4), A],
        lambda xp, x, a: xp.sum(x * xp.matmul(a, x[:, None])[:, 0]),
        lambda xp, x, a, v: (
            v * (xp.matmul(a, x[:, None])[:, 0] + xp.matmul(t(xp, a), x[:, None])[:, 0]),
            v * x[:, None] * x[None, :],
        ),
        wrong(
            "taken for symmetric",
            "unknown transposed missing-term",
            lambda xp, x, a, v: (2 * v * xp.matmul(a, x[:, None])[:, 0], v * x[:, None] * x[None, :]),
        ),
    ),
    *rule(
        "products/inverse",
        [WELL],
        inverse,
        inverse_backward,
        wrong(
            "transpositions missing",
            "transposed unknown",
            lambda xp, a, v: -xp.matmul(xp.matmul(inverse(xp, a), v), inverse(xp, a)),
        ),
        wrong("sign", "sign", lambda xp, a, v: -inverse_backward(xp, a, v)),
        wrong("transposed", "transposed", lambda xp, a, v: t(xp, inverse_backward(xp, a, v))),
    ),
    *rule(
        "products/logarithm of the determinant",
        [WELL],
        lambda xp, a: xp.log(determinant(xp, a)),
        lambda xp, a, v: v * t(xp, inverse(xp, a)),
        wrong("transposed", "transposed", lambda xp, a, v: v * inverse(xp, a)),
        wrong("of the determinant itself", "factor", lambda xp, a, v: v * determinant(xp, a) * t(xp, inverse(xp, a))),
    ),
    *rule(
        "products/solution of a linear system",
        [WELL, normal(4, 2, seed=5)],
        lambda xp, a, b: xp.matmul(inverse(xp, a), b),
        lambda xp, a, b, v: (
            -xp.matmul(xp.matmul(t(xp, inverse(xp, a)), v), t(xp, xp.matmul(inverse(xp, a), b))),
            xp.matmul(t(xp, inverse(xp, a)), v),
        ),
        wrong(
            "matrix detached",
            "zero",
            lambda xp, a, b, v: (0 * a, xp.matmul(t(xp, inverse(xp, a)), v)),
        ),
        wrong(
            "solved with the matrix itself",
            "unknown transposed",
            lambda xp, a, b, v: (
                -xp.matmul(xp.matmul(t(xp, inverse(xp, a)), v), t(xp, xp.matmul(inverse(xp, a), b))),
                xp.matmul(inverse(xp, a), v),
            ),
        ),
    ),
    *rule(
        "products/convolution",
        [SIGNAL, KERNEL],
        correlate,
        correlation_backward,
        wrong(
            "kernel not flipped",
            "unknown",
            lambda xp, x, k, v: correlation_backward(xp, x, k, v, turned=False),
        ),
        wrong("padding off by one", "unknown", lambda xp, x, k, v: correlation_backward(xp, x, k, v, shift=1)),
        wrong(
            "kernel's gradient flipped",
            "unknown",
            lambda xp, x, k, v: (
                correlation_backward(xp, x, k, v)[0],
                flipped(xp, correlation_backward(xp, x, k, v)[1]),
            ),
        ),
    ),
    *rule(
        "products/same convolution",
        [SIGNAL, KERNEL],
        lambda xp, x, k: correlate(xp, x, k, padding=1),
        lambda xp, x, k, v: (
            correlate(xp, v, flipped(xp, k), padding=1),
            xp.stack([xp.sum(v[1:] * x[:-1]), xp.sum(v * x), xp.sum(v[:-1] * x[1:])]),
        ),
        wrong(
            "border dropped",
            "element unknown",
            lambda xp, x, k, v: (
                xp.concatenate([0 * v[:1], correlate(xp, v, flipped(xp, k)), 0 * v[:1]], axis=0),
                xp.stack([xp.sum(v[1:] * x[:-1]), xp.sum(v * x), xp.sum(v[:-1] * x[1:])]),
            ),
        ),
    ),
    *rule(
        "products/Gram matrix",
        [X],
        lambda xp, x: xp.matmul(t(xp, x), x),
        lambda xp, x, v: xp.matmul(x, v + t(xp, v)),
        wrong("one side only", "missing-term", lambda xp, x, v: xp.matmul(x, v)),
        wrong("twice one side", "unknown missing-term", lambda xp, x, v: 2 * xp.matmul(x, v)),
    ),
    *rule(
        "products/bilinear",
        [normal(4, 3), normal(2, 3, 3, seed=1), normal(4, 3, seed=2)],
        lambda xp, x, w, y: xp.einsum("bi,oij,bj->bo", x, w, y),
        lambda xp, x, w, y, v: (
            xp.einsum("bo,oij,bj->bi", v, w, y),
            xp.einsum("bo,bi,bj->oij", v, x, y),
            xp.einsum("bo,oij,bi->bj", v, w, x),
        ),
        wrong(
            "weights' last axes exchanged",
            "transposed",
            lambda xp, x, w, y, v: (
                xp.einsum("bo,oij,bj->bi", v, w, y),
                xp.einsum("bo,bi,bj->oij", v, y, x),
                xp.einsum("bo,oij,bi->bj", v, w, x),
            ),
        ),
    ),
]
