"""Forward and backward of every kind of node, derived by hand.

A forward function writes the node's output; a backward function takes dL/d(output), written `dy`, and writes
dL/d(input) and dL/d(parameter) by the chain rule. The arguments always come in the same order,

    forward(op, y, *inputs, *parameters)
    backward(op, dy, y, *inputs, *parameters, *input_gradients, *parameter_gradients)

so that a network is a list of such calls. An input gradient is None where nobody needs it (the data).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from harness.case import Add, Dense, LeakyReLU, Linear, Polynomial, ReLU, Sigmoid, Softmax, Tanh

Array = np.ndarray
Terms = tuple[tuple[float, int, int], ...]

# --- dense ------------------------------------------------------------------------------------------------------


def dense(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
    """z (batch, units) from x (batch, in), W (units, in), b (units,). Axes before the last all count as batch."""
    # z = x Wᵀ + b
    np.dot(x, W.T, out=z)  # a third less overhead than matmul's, which is most of a small net's time
    z += b


def dense_backward(
    op: Dense, dz: Array, z: Array, x: Array, W: Array, b: Array, dx: Array | None, dW: Array, db: Array
) -> None:
    """dx (batch, in), dW (units, in), db (units,): sums over the batch."""
    dz_rows, x_rows = dz.reshape(-1, dz.shape[-1]), x.reshape(-1, x.shape[-1])
    # z_nk = Σ_j x_nj W_kj + b_k, so dL/dW_kj = Σ_n dL/dz_nk x_nj: dW = dzᵀ x
    np.dot(dz_rows.T, x_rows, out=dW)
    # ∂z_nk/∂b_k = 1: db = Σ_n dz_n
    np.add.reduce(dz_rows, axis=0, out=db)
    # ∂z_nk/∂x_nj = W_kj: dx = dz W
    if dx is not None:
        np.dot(dz, W, out=dx)


# --- activations ------------------------------------------------------------------------------------------------


def relu(op: ReLU, a: Array, z: Array) -> None:
    # a = max(z, 0)
    np.maximum(z, 0, out=a)


def relu_backward(op: ReLU, da: Array, a: Array, z: Array, dz: Array | None, slopes: Array | None = None) -> None:
    """slopes: another derivative for the elements where it is not NaN (the convention here is 0 at 0)."""
    if dz is not None:
        # a' = 1 where z > 0, else 0: a choice and no product, for 0 times an infinite da would be NaN
        dz.fill(0)
        np.copyto(dz, da, where=z > 0)
        _replace(dz, da, slopes)


def leaky_relu(op: LeakyReLU, a: Array, z: Array) -> None:
    # a = z where z > 0, else αz, which is max(z, αz) as 0 <= α < 1
    np.maximum(z, op.negative_slope * z, out=a)


def leaky_relu_backward(
    op: LeakyReLU, da: Array, a: Array, z: Array, dz: Array | None, slopes: Array | None = None
) -> None:
    """slopes: another derivative for the elements where it is not NaN."""
    if dz is not None:
        # a' = 1 where z > 0, else α; at 0 it is a convention: α in torch and TensorFlow, 1 in JAX
        np.multiply(da, op.negative_slope, out=dz)
        np.copyto(dz, da, where=z >= 0 if op.slope_at_zero == "one" else z > 0)
        _replace(dz, da, slopes)


def _replace(dz: Array, da: Array, slopes: Array | None) -> None:
    if slopes is not None:
        np.multiply(slopes, da, out=dz, where=~np.isnan(slopes))


def sigmoid(op: Sigmoid, a: Array, z: Array) -> None:
    a[...] = logistic(z)


def logistic(z: Array) -> Array:
    """σ(z) without overflow: of the two forms the one whose exponents are not positive."""
    # σ(z) = 1 / (1 + exp(-z)) = exp(z) / (1 + exp(z))
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))


def sigmoid_backward(op: Sigmoid, da: Array, a: Array, z: Array, dz: Array | None) -> None:
    if dz is not None:
        # a = 1 / (1 + exp(-z)), so a' = exp(-z) / (1 + exp(-z))² = a (1 - a)
        np.multiply(da, a * (1 - a), out=dz)


def tanh(op: Tanh, a: Array, z: Array) -> None:
    np.tanh(z, out=a)


def tanh_backward(op: Tanh, da: Array, a: Array, z: Array, dz: Array | None) -> None:
    if dz is not None:
        # a = sinh z / cosh z, so a' = (cosh² z - sinh² z) / cosh² z = 1 - a²
        np.multiply(da, 1 - a * a, out=dz)


def softmax(op: Softmax, p: Array, z: Array) -> None:
    """p and z (batch, classes); subtracting the largest z changes nothing but the overflow."""
    # p_k = exp(z_k) / Σ_j exp(z_j)
    np.exp(z - z.max(axis=-1, keepdims=True), out=p)
    p /= p.sum(axis=-1, keepdims=True)


def softmax_backward(op: Softmax, dp: Array, p: Array, z: Array, dz: Array | None) -> None:
    if dz is not None:
        # ∂p_k/∂z_j = p_k (δ_kj - p_j), so dz_j = p_j (dp_j - Σ_k dp_k p_k)
        np.multiply(p, dp - (dp * p).sum(axis=-1, keepdims=True), out=dz)


def linear(op: Linear, a: Array, z: Array) -> None:
    # a = z
    a[...] = z


def linear_backward(op: Linear, da: Array, a: Array, z: Array, dz: Array | None) -> None:
    if dz is not None:
        # a' = 1
        dz[...] = da


# --- sums -------------------------------------------------------------------------------------------------------


def add(op: Add, s: Array, *terms: Array) -> None:
    # s = x_1 + x_2 + ..., broadcast
    s[...] = terms[0]
    for term in terms[1:]:
        s += term


def add_backward(op: Add, ds: Array, s: Array, *terms_and_gradients: Array | None) -> None:
    """Each term's gradient is ds summed over the axes along which the term was broadcast."""
    for dx in terms_and_gradients[len(terms_and_gradients) // 2 :]:
        if dx is not None:
            # one x feeds every s it was copied to and ∂s/∂x = 1 for each: dx = Σ ds over the copies
            dx[...] = _sum_to(ds, dx.shape)


def _sum_to(ds: Array, shape: tuple[int, ...]) -> Array:
    wide = (1,) * (ds.ndim - len(shape)) + shape
    copied = tuple(axis for axis in range(ds.ndim) if wide[axis] != ds.shape[axis])
    return ds.sum(axis=copied, keepdims=True).reshape(shape) if copied else ds


# --- landscapes -------------------------------------------------------------------------------------------------


def polynomial(op: Polynomial, f: Array, W: Array) -> None:
    """f (points,) at W (points, 2), whose rows are (u, v)."""
    f[...] = polynomial_value(op.terms, W)


def polynomial_backward(op: Polynomial, df: Array, f: Array, W: Array, dW: Array) -> None:
    # dL/du = dL/df ∂f/∂u, and so for v
    for axis in (0, 1):
        np.multiply(df, polynomial_value(derivative(op.terms, axis), W), out=dW[:, axis])


def polynomial_hessian(terms: Terms, W: Array) -> Array:
    """All second derivatives (points, 2, 2) at W (points, 2)."""
    H = np.empty((len(W), 2, 2), W.dtype)
    for i in (0, 1):
        for j in (0, 1):
            H[:, i, j] = polynomial_value(derivative(derivative(terms, i), j), W)
    return H


def polynomial_value(terms: Terms, W: Array) -> Array:
    u, v = W[:, 0], W[:, 1]
    f = np.zeros_like(u)
    # f(u, v) = Σ c uⁱ vʲ
    for c, i, j in terms:
        f += c * u**i * v**j
    return f


@lru_cache(maxsize=256)
def derivative(terms: Terms, axis: int) -> Terms:
    """The terms of ∂f/∂u (axis 0) or ∂f/∂v (axis 1)."""
    # ∂/∂u c uⁱ vʲ = c i uⁱ⁻¹ vʲ
    if axis == 0:
        return tuple((c * i, i - 1, j) for c, i, j in terms if i > 0)
    # ∂/∂v c uⁱ vʲ = c j uⁱ vʲ⁻¹
    return tuple((c * j, i, j - 1) for c, i, j in terms if j > 0)


# --- the table --------------------------------------------------------------------------------------------------

FORWARD: Mapping[type, Callable[..., None]] = {
    Dense: dense,
    ReLU: relu,
    LeakyReLU: leaky_relu,
    Sigmoid: sigmoid,
    Tanh: tanh,
    Softmax: softmax,
    Linear: linear,
    Add: add,
    Polynomial: polynomial,
}
BACKWARD: Mapping[type, Callable[..., Any]] = {
    Dense: dense_backward,
    ReLU: relu_backward,
    LeakyReLU: leaky_relu_backward,
    Sigmoid: sigmoid_backward,
    Tanh: tanh_backward,
    Softmax: softmax_backward,
    Linear: linear_backward,
    Add: add_backward,
    Polynomial: polynomial_backward,
}
