"""Layers: normalisation, attention, recurrent cells, dropout with its mask given, each with what is forgotten in it."""

from __future__ import annotations

from typing import Any

from benchmarks.gradients.data import normal, uniform
from benchmarks.gradients.reductions import inner, softmax
from benchmarks.gradients.rules import rule, wrong

X = normal(4, 6)
SCALE, SHIFT = uniform(6, low=0.5, high=1.5), normal(6, seed=1)
MASK = (uniform(4, 6, low=0, high=1, seed=5) > 0.5).astype(float)
Q, K, V = normal(3, 4, seed=6), normal(5, 4, seed=7), normal(5, 2, seed=8)
H, W = normal(2, 3, seed=9), normal(3, 3, seed=10, scale=0.5)
EPSILON = 1e-5


def mean(xp: Any, x: Any, axis: int = -1) -> Any:
    return xp.mean(x, axis=axis, keepdims=True)


def whitened(xp: Any, x: Any, axis: int = -1, epsilon: float = EPSILON) -> tuple[Any, Any]:
    """The normalised values and 1 / standard deviation."""
    centred = x - mean(xp, x, axis)
    rate = (mean(xp, centred**2, axis) + epsilon) ** -0.5
    return centred * rate, rate


def layer_norm(xp: Any, x: Any, g: Any, b: Any) -> Any:
    return whitened(xp, x)[0] * g + b


def layer_norm_backward(
    xp: Any,
    x: Any,
    g: Any,
    b: Any,
    v: Any,
    mean_term: bool = True,
    variance_term: bool = True,
    epsilon: float = EPSILON,
) -> Any:
    y, rate = whitened(xp, x, epsilon=epsilon)
    u = v * g
    inside = u - mean_term * mean(xp, u) - variance_term * y * mean(xp, u * y)
    return inside * rate, xp.sum(v * y, axis=0), xp.sum(v, axis=0)


def rms_norm_backward(xp: Any, x: Any, v: Any, epsilon: float = EPSILON, projected: bool = True) -> Any:
    rate = (mean(xp, x**2) + epsilon) ** -0.5
    return rate * v - projected * x * rate**3 * mean(xp, v * x)


def batch_norm_backward(xp: Any, x: Any, v: Any, statistics: bool = True) -> Any:
    y, rate = whitened(xp, x, axis=0)
    return rate * (v - statistics * (mean(xp, v, 0) + y * mean(xp, v * y, 0)))


def attention(xp: Any, q: Any, k: Any, v: Any) -> Any:
    return xp.matmul(softmax(xp, xp.matmul(q, xp.swapaxes(k, 0, 1)) / 2), v)


def attention_backward(
    xp: Any, q: Any, k: Any, v: Any, u: Any, key_scale: float = 0.5, projected: bool = True, value: bool = True
) -> Any:
    p = softmax(xp, xp.matmul(q, xp.swapaxes(k, 0, 1)) / 2)
    dp = xp.matmul(u, xp.swapaxes(v, 0, 1))
    ds = p * (dp - projected * inner(xp, p, dp))
    dv = xp.matmul(xp.swapaxes(p, 0, 1), u)
    return xp.matmul(ds, k) / 2, xp.matmul(xp.swapaxes(ds, 0, 1), q) * key_scale, dv if value else 0 * dv


def recurrent(xp: Any, h: Any, w: Any) -> Any:
    """Two steps of h <- tanh(h w)."""
    return xp.tanh(xp.matmul(xp.tanh(xp.matmul(h, w)), w))


def recurrent_backward(xp: Any, h: Any, w: Any, v: Any, through_time: bool = True) -> Any:
    first = xp.tanh(xp.matmul(h, w))
    d2 = v * (1 - xp.tanh(xp.matmul(first, w)) ** 2)
    d1 = xp.matmul(d2, xp.swapaxes(w, 0, 1)) * (1 - first**2)
    dw = xp.matmul(xp.swapaxes(first, 0, 1), d2)
    return xp.matmul(d1, xp.swapaxes(w, 0, 1)), dw + through_time * xp.matmul(xp.swapaxes(h, 0, 1), d1)


ITEMS = [
    *rule(
        "layers/layer norm",
        [X, SCALE, SHIFT],
        layer_norm,
        layer_norm_backward,
        wrong(
            "statistics as constants",
            "missing-term",
            lambda xp, *given: layer_norm_backward(xp, *given, mean_term=False, variance_term=False),
        ),
        wrong(
            "mean's term missing",
            "missing-term",
            lambda xp, *given: layer_norm_backward(xp, *given, mean_term=False),
        ),
        wrong(
            "variance's term missing",
            "missing-term",
            lambda xp, *given: layer_norm_backward(xp, *given, variance_term=False),
        ),
        wrong("another epsilon", "unknown", lambda xp, *given: layer_norm_backward(xp, *given, epsilon=1e-3)),
        wrong(
            "scale not applied",
            "missing-term",
            lambda xp, x, g, b, v: (
                layer_norm_backward(xp, x, xp.ones_like(g), b, v)[0],
                *layer_norm_backward(xp, x, g, b, v)[1:],
            ),
        ),
    ),
    *rule(
        "layers/rms norm",
        [X],
        lambda xp, x: x * (mean(xp, x**2) + EPSILON) ** -0.5,
        rms_norm_backward,
        wrong("another epsilon", "unknown", lambda xp, x, v: rms_norm_backward(xp, x, v, 1e-6)),
        wrong("projection missing", "missing-term", lambda xp, x, v: rms_norm_backward(xp, x, v, projected=False)),
    ),
    *rule(
        "layers/batch norm",
        [X],
        lambda xp, x: whitened(xp, x, axis=0)[0],
        batch_norm_backward,
        wrong(
            "statistics as constants",
            "missing-term",
            lambda xp, x, v: batch_norm_backward(xp, x, v, statistics=False),
        ),
    ),
    *rule(
        "layers/attention",
        [Q, K, V],
        attention,
        attention_backward,
        wrong(
            "keys' scale missing",
            "factor",
            lambda xp, *given: attention_backward(xp, *given, key_scale=1),
        ),
        wrong(
            "softmax's inner product missing",
            "missing-term",
            lambda xp, *given: attention_backward(xp, *given, projected=False),
        ),
        wrong("values detached", "zero", lambda xp, *given: attention_backward(xp, *given, value=False)),
    ),
    *rule(
        "layers/recurrent cell",
        [H, W],
        recurrent,
        recurrent_backward,
        wrong(
            "last step only",
            "missing-term",
            lambda xp, h, w, v: recurrent_backward(xp, h, w, v, through_time=False),
        ),
    ),
    *rule(
        "layers/dropout with its mask",
        [X, MASK],
        lambda xp, x, mask: x * mask / 0.5,
        lambda xp, x, mask, v: (v * mask / 0.5, v * x / 0.5),
        wrong("not scaled", "factor", lambda xp, x, mask, v: (v * mask, v * x / 0.5)),
        wrong("mask missing", "region surrogate missing-term element", lambda xp, x, mask, v: (v / 0.5, v * x / 0.5)),
    ),
    *rule(
        "layers/residual block",
        [X, normal(6, 6, seed=3, scale=0.4)],
        lambda xp, x, w: x + xp.tanh(xp.matmul(x, w)),
        lambda xp, x, w, v: (
            v + xp.matmul(v * (1 - xp.tanh(xp.matmul(x, w)) ** 2), xp.swapaxes(w, 0, 1)),
            xp.matmul(xp.swapaxes(x, 0, 1), v * (1 - xp.tanh(xp.matmul(x, w)) ** 2)),
        ),
        wrong(
            "shortcut dropped",
            "missing-term",
            lambda xp, x, w, v: (
                xp.matmul(v * (1 - xp.tanh(xp.matmul(x, w)) ** 2), xp.swapaxes(w, 0, 1)),
                xp.matmul(xp.swapaxes(x, 0, 1), v * (1 - xp.tanh(xp.matmul(x, w)) ** 2)),
            ),
        ),
        wrong(
            "activation's slope dropped",
            "unknown missing-term",
            lambda xp, x, w, v: (
                v + xp.matmul(v, xp.swapaxes(w, 0, 1)),
                xp.matmul(xp.swapaxes(x, 0, 1), v),
            ),
        ),
        wrong(
            "weights transposed",
            "transposed",
            lambda xp, x, w, v: (
                v + xp.matmul(v * (1 - xp.tanh(xp.matmul(x, w)) ** 2), xp.swapaxes(w, 0, 1)),
                xp.matmul(xp.swapaxes(v * (1 - xp.tanh(xp.matmul(x, w)) ** 2), 0, 1), x),
            ),
        ),
    ),
    *rule(
        "layers/group norm of one channel each",
        [normal(3, 2, 8, seed=4)],
        lambda xp, x: whitened(xp, x)[0],
        lambda xp, x, v: layer_norm_backward(xp, x, 1.0, 0.0, v)[0],
        wrong(
            "statistics of the batch",
            "unknown",
            lambda xp, x, v: batch_norm_backward(xp, x, v),
        ),
    ),
]
