"""Layers that are one product: affine maps, einsum, embedding.

forward(op, *inputs, *parameters) -> y        backward(op, dy, y, *inputs, *parameters) -> gradients in that order
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.ops import Affine, Einsum, Embedding

Array = np.ndarray

# --- affine -----------------------------------------------------------------------------------------------------


def affine(op: Affine, x: Array, W: Array, *b: Array) -> Array:
    # z = x Wᵀ + b
    z = x @ W.transpose(op.kernel_axes).T
    return z + b[0] if op.bias else z


def affine_backward(op: Affine, dz: Array, z: Array, x: Array, W: Array, *b: Array) -> tuple[Array, ...]:
    rows, dz_rows = x.reshape(-1, x.shape[-1]), dz.reshape(-1, dz.shape[-1])
    # z_nk = Σ_j x_nj W_kj + b_k, so dx = dz W, dW = dzᵀ x, db = Σ_n dz_n
    dx = dz @ W.transpose(op.kernel_axes)
    dW = (dz_rows.T @ rows).transpose(np.argsort(op.kernel_axes))
    return (dx, dW, *(dz_rows.sum(axis=0) * op.bias for _ in b))


# --- einsum -----------------------------------------------------------------------------------------------------


def einsum(op: Einsum, *operands: Array) -> Array:
    terms, result = _letters(op.equation, operands)
    return np.einsum(f"{','.join(terms)}->{result}", *operands, optimize=True)


def einsum_backward(op: Einsum, dy: Array, y: Array, *operands: Array) -> tuple[Array, ...]:
    terms, result = _letters(op.equation, operands)
    gradients = []
    for k, (term, x) in enumerate(zip(terms, operands, strict=True)):
        # y_r = Σ Π_j x_j, linear in x_k: dx_k = Σ dy_r Π_{j≠k} x_j over all letters that x_k does not have
        factors = [dy, *operands[:k], *operands[k + 1 :]]
        names = [result, *terms[:k], *terms[k + 1 :]]
        # a letter that only x_k has was summed away alone: each of its elements receives the same
        shared = "".join(letter for letter in term if any(letter in name for name in names))
        dx = np.einsum(f"{','.join(names)}->{shared}", *factors, optimize=True)
        wide = dx.reshape([x.shape[i] if letter in shared else 1 for i, letter in enumerate(term)])
        gradients.append(np.broadcast_to(wide, x.shape).copy())
    return tuple(gradients)


def _letters(equation: str, operands: Sequence[Array]) -> tuple[list[str], str]:
    """The terms and the result with letters for every axis, those of "..." included."""
    terms, result = equation.replace(" ", "").split("->")
    parts = terms.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    lengths = [x.ndim - len(part.replace("...", "")) for part, x in zip(parts, operands, strict=True) if "..." in part]
    leading = "".join(free[: max(lengths, default=0)])
    return [part.replace("...", leading) for part in parts], result.replace("...", leading)


# --- embedding --------------------------------------------------------------------------------------------------


def embedding(op: Embedding, indices: Array, W: Array) -> Array:
    return W[indices]


def embedding_backward(op: Embedding, dy: Array, y: Array, indices: Array, W: Array) -> tuple[None, Array]:
    # y_i = W_{k_i}, so dW_k = Σ dy_i over all i with k_i = k
    dW = np.zeros_like(W)
    np.add.at(dW, indices.ravel(), dy.reshape(math.prod(indices.shape), *W.shape[1:]))
    if op.padding_index is not None:
        dW[op.padding_index] = 0
    return None, dW


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Any, ...]]]] = {
    Affine: (affine, affine_backward),
    Einsum: (einsum, einsum_backward),
    Embedding: (embedding, embedding_backward),
}
