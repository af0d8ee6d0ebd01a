"""The loss of one element, and its derivative by hand: values, and slopes = d(value)/dq, shaped as q and y broadcast.

Formulas were checked against Keras 3.15 keras/src/losses/losses.py with keras/src/backend/tensorflow/nn.py, optax 0.2.8
optax/losses/{_regression,_classification}.py, and by value against torch 2.13 torch/nn/functional.py, which leaves them
to compiled kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.terms import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Clip,
    Hinge,
    HingeEmbedding,
    Huber,
    KLDivergence,
    Labels,
    LogCosh,
    Output,
    PercentageError,
    Poisson,
    SoftMargin,
    SquaredError,
    SquaredLogError,
)
from reference.layers import logistic

Array = np.ndarray
Formula = Callable[[Any, Array, Array], tuple[Array, Array]]

# --- distances --------------------------------------------------------------------------------------------------


def squared_error(term: SquaredError, q: Array, y: Array) -> tuple[Array, Array]:
    e, scale = q - y, 0.5 if term.half else 1
    # s e²;  d/dq = 2 s e
    return scale * (e * e), 2 * scale * e


def absolute_error(term: AbsoluteError, q: Array, y: Array) -> tuple[Array, Array]:
    e = q - y
    # |e|;  d/dq = sign e
    return np.abs(e), np.where(e == 0, term.slope_at_zero, np.sign(e)).astype(e.dtype)


def huber(term: Huber, q: Array, y: Array) -> tuple[Array, Array]:
    """Huber 1964, eq. 2.12."""
    e, delta = q - y, term.delta
    size = np.abs(e)
    scale = (1 if term.half else 2) / (delta if term.divided_by_delta else 1)
    # e²/2 within delta, delta (|e| - delta/2) beyond;  d/dq = e, and delta sign e: e clipped to [-delta, delta]
    return scale * np.where(size <= delta, e * e / 2, delta * (size - delta / 2)), scale * np.clip(e, -delta, delta)


def log_cosh(term: LogCosh, q: Array, y: Array) -> tuple[Array, Array]:
    e = q - y
    # log cosh e = log (exp e + exp(-e)) - log 2, the larger exponential taken out;  d/dq = tanh e
    return np.logaddexp(e, -e) - term.log_2, np.tanh(e)


def percentage_error(term: PercentageError, q: Array, y: Array) -> tuple[Array, Array]:
    e, scale = q - y, term.factor / np.maximum(np.abs(y), term.floor)
    return scale * np.abs(e), scale * np.sign(e)


def squared_log_error(term: SquaredLogError, q: Array, y: Array) -> tuple[Array, Array]:
    bounded = np.maximum(q, term.floor)
    e = np.log(bounded + 1) - np.log(np.maximum(y, term.floor) + 1)
    # e²;  d/dq = 2 e / (q + 1), 0 below the floor
    return e * e, 2 * e / (bounded + 1) * (q >= term.floor)


def poisson(term: Poisson, q: Array, y: Array) -> tuple[Array, Array]:
    """-log of the Poisson probability of the count y, without log y! or with Stirling's series for it."""
    if term.reads == "log_rate":
        # exp q - y q;  d/dq = exp q - y
        values, slopes = np.exp(q) - y * q, np.exp(q) - y
    else:
        # q - y log(q + ε);  d/dq = 1 - y / (q + ε)
        values, slopes = q - y * np.log(q + term.epsilon), 1 - y / (q + term.epsilon)
    if term.stirling:
        counts = np.where(y > 1, y, 1)
        values = values + np.where(y > 1, counts * np.log(counts) - counts + np.log(2 * math.pi * counts) / 2, 0)
    return values, slopes


def output(term: Output, q: Array, y: Array) -> tuple[Array, Array]:
    slopes = np.broadcast_to(y if term.weighted else np.ones_like(q), np.broadcast_shapes(q.shape, y.shape))
    return slopes * q, slopes


# --- two classes ------------------------------------------------------------------------------------------------


def binary_cross_entropy(term: BinaryCrossEntropy, q: Array, y: Array) -> tuple[Array, Array]:
    a, eps = np.asarray(term.positive_weight or (1.0,), q.dtype), term.log_epsilon
    if term.reads == "logits":
        # -a y log σ(q) - (1-y) log σ(-q), as 1 - σ(q) = σ(-q);  (log σ)' = 1 - σ = σ(-q)
        return -a * y * _log_logistic(q) - (1 - y) * _log_logistic(-q), (1 - y) * logistic(q) - a * y * logistic(-q)
    p, dp = _probability(term, q)
    r = clipped(p, term.clip)
    # L = -(a y log(r + ε) + (1-y) log(1 - r + ε)), both logarithms bounded below
    values = -(a * y * np.maximum(np.log(r + eps), term.log_floor))
    values = values - (1 - y) * np.maximum(np.log1p(eps - r), term.log_floor)
    if eps:
        slopes = (1 - y) / (1 - r + eps) - a * y / (r + eps)
    else:
        # dL/dr = ((1-y) r - a y (1-r)) / (r (1-r)); the floor of a logarithm does not count in it (torch)
        slopes = ((1 - y) * r - a * y * (1 - r)) / np.maximum(r * (1 - r), term.denominator_floor)
    return values, slopes * passes(p, term.clip) * dp


def binary_focal(term: BinaryFocal, q: Array, y: Array) -> tuple[Array, Array]:
    """Lin et al., arXiv:1708.02002, eq. 4 and 5, for targets between 0 and 1 too."""
    entropy, slopes = binary_cross_entropy(term.entropy, q, y)
    p, dp = (
        (logistic(q), logistic(q) * logistic(-q)) if term.entropy.reads == "logits" else _probability(term.entropy, q)
    )
    a_t = 1 if term.alpha is None else term.alpha * y + (1 - term.alpha) * (1 - y)
    # F = a (1 - p_t)^γ E with 1 - p_t = y (1-p) + (1-y) p, whose derivative is 1 - 2y
    missing = y * (1 - p) + (1 - y) * p
    factor = missing**term.gamma
    # F' = a ((1 - p_t)^γ E' + γ (1 - p_t)^(γ-1) (1 - 2y) p' E)
    grown = term.gamma * missing ** (term.gamma - 1) * (1 - 2 * y) * dp * entropy if term.gamma else 0
    return a_t * factor * entropy, a_t * (factor * slopes + grown)


def hinge(term: Hinge, q: Array, y: Array) -> tuple[Array, Array]:
    y = _signs(term.labels, y)
    short = term.margin - y * q
    # max(0, m - y q);  d/dq = -y where m > y q
    if term.power == 1:
        return np.maximum(short, 0), -y * np.where(short == 0, term.slope_at_margin, short > 0)
    short = np.maximum(short, 0)
    return short * short, -2 * y * short


def hinge_embedding(term: HingeEmbedding, q: Array, y: Array) -> tuple[Array, Array]:
    short = term.margin - q
    alike = y == 1
    return np.where(alike, q, np.maximum(short, 0)), np.where(alike, 1, -(short > 0).astype(q.dtype))


def soft_margin(term: SoftMargin, q: Array, y: Array) -> tuple[Array, Array]:
    y = _signs(term.labels, y)
    # log(1 + exp(-y q)) = -log σ(y q);  d/dq = -y σ(-y q)
    return -_log_logistic(y * q), -y * logistic(-y * q)


def kl_divergence(term: KLDivergence, q: Array, y: Array) -> tuple[Array, Array]:
    """Kullback and Leibler 1951, of the targets against the model."""
    if term.log_target:
        weight, log_y = np.exp(y), y
    else:
        weight = clipped(y, term.target_clip)
        log_y = np.log(np.where(weight > 0, weight, 1))
    # y (log y - log p);  d/dq = -y / p, or -y where q is log p
    if term.reads == "log_probabilities":
        return weight * (log_y - q), -weight * np.ones_like(q)
    p = clipped(q, term.clip)
    return weight * (log_y - np.log(p)), -weight / p * passes(q, term.clip)


# --- parts ------------------------------------------------------------------------------------------------------


def clipped(p: Array, clip: Clip) -> Array:
    return p if clip is None else np.clip(p, *clip)


def passes(p: Array, clip: Clip) -> Array | bool:
    """Where the derivative passes a clip: between the bounds and on them (tf.clip_by_value, torch.clamp)."""
    return True if clip is None else (p >= clip[0]) & (p <= clip[1])


def _probability(term: BinaryCrossEntropy, q: Array) -> tuple[Array, Array | int]:
    """p and dp/dq."""
    if term.reads == "probabilities":
        return q, 1
    # σ' = σ (1 - σ)
    return logistic(q), logistic(q) * logistic(-q)


def _log_logistic(z: Array) -> Array:
    # log σ(z) = -log(1 + exp(-z)) = min(z, 0) - log(1 + exp(-|z|))
    return np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))


def _signs(labels: Labels, y: Array) -> Array:
    are_bits = labels == "bits" or (labels == "bits_if_all" and bool(np.isin(y, (0, 1)).all()))
    return 2 * y - 1 if are_bits else y


BY_ELEMENT: Mapping[type, Formula] = {
    SquaredError: squared_error,
    AbsoluteError: absolute_error,
    Huber: huber,
    LogCosh: log_cosh,
    PercentageError: percentage_error,
    SquaredLogError: squared_log_error,
    Poisson: poisson,
    Output: output,
    BinaryCrossEntropy: binary_cross_entropy,
    BinaryFocal: binary_focal,
    Hinge: hinge,
    HingeEmbedding: hinge_embedding,
    SoftMargin: soft_margin,
    KLDivergence: kl_divergence,
}
