"""Every loss with its derivative, derived by hand.

A loss function reads q (the last node's output, or the logits behind it) and the targets y, and writes the number L
and the gradient dL/dq, written `dq` (`dz` for logits, `dp` for probabilities). n is what the reduction divides by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from harness.case import BinaryCrossEntropy, CategoricalCrossEntropy, Loss, MeanSquaredError, Objective, Reduction
from reference.layers import logistic

Array = np.ndarray
Formula = Callable[..., None]


def formula(loss: Loss, fused: bool) -> Formula:
    """The function that computes a loss: on logits where they are read, as such or from behind a fused activation."""
    match loss:
        case BinaryCrossEntropy(reads=reads):
            return binary_on_logits if fused or reads == "logits" else binary_on_probabilities
        case CategoricalCrossEntropy(reads=reads):
            return categorical_on_logits if fused or reads == "logits" else categorical_on_probabilities
        case MeanSquaredError():
            return mean_squared_error
        case Objective():
            return objective


def target_shape(loss: Loss, output: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of the targets that belong to an output's shape; None where there are none."""
    if isinstance(loss, Objective):
        return None
    return output[:-1] if isinstance(loss, CategoricalCrossEntropy) and loss.sparse else output


# --- binary cross-entropy ---------------------------------------------------------------------------------------


def binary_on_logits(loss: BinaryCrossEntropy, L: Array, dz: Array, z: Array, y: Array) -> None:
    """z, y (batch, 1)."""
    n = _divisor(loss.reduction, z.size)
    match loss.logits_form:
        case "max":
            # -y log σ(z) - (1-y) log(1-σ(z)) = log(1 + exp(z)) - y z = max(z, 0) - y z + log(1 + exp(-|z|))
            terms = np.maximum(z, 0) - y * z + _log_1_exp(z)
        case "log_sigmoid":
            # ... = (1-y) z - log σ(z), as 1-σ(z) = σ(z) exp(-z)
            terms = (1 - y) * z - _log_logistic(z)
        case _:
            # ... = -y log σ(z) - (1-y) log σ(-z), as 1-σ(z) = σ(-z)
            terms = -y * _log_logistic(z) - (1 - y) * _log_logistic(-z)
    L[...] = terms.sum() / n
    if loss.logits_form == "log_sigmoids":
        # d/dz of the last: -y (1-σ(z)) + (1-y) σ(z), which keeps its digits where σ(z) is all but y
        np.subtract((1 - y) * logistic(z), y * logistic(-z), out=dz)
    else:
        # d/dz [log(1 + exp(z)) - y z] = σ(z) - y
        np.subtract(logistic(z), y, out=dz)
    dz /= n


def binary_on_probabilities(loss: BinaryCrossEntropy, L: Array, dp: Array, p: Array, y: Array) -> None:
    """p, y (batch, 1); q is p after the clip."""
    n, c, eps = _divisor(loss.reduction, p.size), cast(float, loss.clip_probability), cast(float, loss.log_epsilon)
    q = np.clip(p, c, 1 - c) if c else p
    # torch 2.13 bounds both logarithms below (aten/src/ATen/native/Loss.cpp, binary_cross_entropy), others do not
    log_q = np.maximum(np.log(q + eps), loss.log_floor)
    log_1_q = np.maximum(np.log1p(eps - q) if loss.log_complement == "log1p" else np.log(1 - q + eps), loss.log_floor)
    # L = -(y log(q + ε) + (1-y) log(1 - q + ε))
    L[...] = -(y * log_q + (1 - y) * log_1_q).sum() / n
    if eps:
        # dL/dq = -y/(q + ε) + (1-y)/(1 - q + ε), the last sum in the order in which its logarithm has it
        complement = 1 + (eps - q) if loss.log_complement == "log1p" else 1 - q + eps
        np.subtract((1 - y) / complement, y / (q + eps), out=dp)
    else:
        # dL/dq = -y/q + (1-y)/(1-q) = (q - y) / (q (1-q)); torch bounds the denominator, and lets no log_floor in here
        np.divide(q - y, np.maximum(q * (1 - q), loss.denominator_floor), out=dp)
    if c:
        # q = c or 1 - c is constant outside; at the bound the gradient passes (tf.clip_by_value, TensorFlow 2.21)
        dp *= (p >= c) & (p <= 1 - c)
    dp /= n


def _log_1_exp(z: Array) -> Array:
    return np.log1p(np.exp(-np.abs(z)))


def _log_logistic(z: Array) -> Array:
    # log σ(z) = min(z, 0) - log(1 + exp(-|z|))
    return np.minimum(z, 0) - _log_1_exp(z)


# --- categorical cross-entropy ----------------------------------------------------------------------------------


def categorical_on_logits(loss: CategoricalCrossEntropy, L: Array, dz: Array, z: Array, y: Array) -> None:
    """z (batch, classes), y (batch,) or one-hot (batch, classes)."""
    n = _divisor(loss.reduction, z[..., 0].size)
    chosen = _one_hot(loss, y, z.shape[-1])
    shifted = z - z.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    S = e.sum(axis=-1, keepdims=True)
    # log p_k = z_k - log Σ_j exp(z_j), the largest z taken out of both; L = -Σ_k y_k log p_k
    L[...] = -_sum_where(chosen, shifted - np.log(S)) / n
    # dL/dz_k = Σ_j y_j ∂(log Σ exp z - z_j)/∂z_k = p_k - y_k, as Σ y = 1
    np.subtract(e / S, chosen, out=dz)
    dz /= n


def categorical_on_probabilities(loss: CategoricalCrossEntropy, L: Array, dp: Array, p: Array, y: Array) -> None:
    """p (batch, classes), y (batch,) or one-hot (batch, classes); q is p after dividing by its sum and clipping."""
    n, c = _divisor(loss.reduction, p[..., 0].size), cast(float, loss.clip_probability)
    chosen = _one_hot(loss, y, p.shape[-1])
    S = p.sum(axis=-1, keepdims=True) if loss.renormalize == "sum" else 1
    r = p / S
    q = np.clip(r, c, 1 - c) if c else r
    # L = -Σ_k y_k log q_k;  dL/dq_k = -y_k / q_k
    L[...] = -_sum_where(chosen, np.log(q)) / n
    np.divide(chosen, -q, out=dp)
    if loss.renormalize == "softmax":
        # softmax(log q)_k = q_k / Σ q, so L gains log Σ q and dL/dq_k gains 1 / Σ q, as Σ y = 1
        Q = q.sum(axis=-1, keepdims=True)
        L += np.log(Q).sum() / n
        dp += 1 / Q
    if c:
        dp *= (r >= c) & (r <= 1 - c)
    if loss.renormalize == "sum":
        # r = p / Σp: ∂r_k/∂p_j = (δ_kj - r_k) / S, so dp_j = (dr_j - Σ_k dr_k r_k) / S
        dp -= (dp * r).sum(axis=-1, keepdims=True)
        dp /= S
    dp /= n


def _one_hot(loss: CategoricalCrossEntropy, y: Array, classes: int) -> Array:
    return y[..., None] == np.arange(classes) if loss.sparse else y


def _sum_where(chosen: Array, values: Array) -> Array:
    """Indices pick (an infinity elsewhere does not matter), one-hot rows multiply, as the frameworks do."""
    return (values[chosen] if chosen.dtype == bool else chosen * values).sum()


# --- the others -------------------------------------------------------------------------------------------------


def mean_squared_error(loss: MeanSquaredError, L: Array, dp: Array, p: Array, y: Array) -> None:
    """p, y (batch, outputs), reduced over all elements."""
    n = _divisor(loss.reduction, p.size)
    error = p - y
    # L = Σ (p - y)²;  dL/dp = 2 (p - y)
    L[...] = (error * error).sum() / n
    np.multiply(2, error, out=dp)
    dp /= n


def objective(loss: Objective, L: Array, df: Array, f: Array, y: Array) -> None:
    # L = Σ f;  dL/df = 1
    L[...] = f.sum()
    df[...] = 1


def _divisor(reduction: Reduction, count: int) -> int:
    return count if reduction == "mean" else 1
