"""Attention, alone and in heads between projections (Vaswani et al., arXiv:1706.03762, section 3.2).

forward(op, q, k, v, mask, *parameters) -> y
backward(op, dy, y, ...the same) -> gradients in that order, None for a boolean mask
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.ops import Attention, MultiHeadAttention
from reference.shaping import sum_to

Array = np.ndarray
Op = Attention | MultiHeadAttention

# --- scores, weights, sum ---------------------------------------------------------------------------------------


def attention(op: Attention, q: Array, k: Array, v: Array, *rest: Array) -> Array:
    mask, w = _mask_and_weight(op, rest)
    return _weights(op, _scores(op, q, k, w), mask) @ v


def attention_backward(
    op: Attention, dy: Array, y: Array, q: Array, k: Array, v: Array, *rest: Array
) -> tuple[Array | None, ...]:
    mask, w = _mask_and_weight(op, rest)
    P = _weights(op, _scores(op, q, k, w), mask)
    dS, dv, dmask = _back_to_scores(op, dy, P, v, mask)
    if op.score == "dot":
        # S = scale q kᵀ
        dq, dk = op.scale * (dS @ k), op.scale * (dS.swapaxes(-1, -2) @ q)
        dw = None
    else:
        # S_ij = scale Σ_d w_d t_ijd, t = tanh(q_i + k_j)
        t = np.tanh(q[..., :, None, :] + k[..., None, :, :])
        du = op.scale * dS[..., None] * (1 - t * t) * (1.0 if w is None else w)
        dq, dk = du.sum(axis=-2), du.sum(axis=-3)
        dw = op.scale * (dS[..., None] * t).reshape(-1, t.shape[-1]).sum(axis=0)
    masks = () if mask is None else (dmask,)
    return (sum_to(dq, q.shape), sum_to(dk, k.shape), dv, *masks, *((dw,) if op.weighted else ()))


def _mask_and_weight(op: Attention, rest: tuple[Array, ...]) -> tuple[Array | None, Array | None]:
    masks = rest[:-1] if op.weighted else rest
    return masks[0] if masks else None, rest[-1] if op.weighted else None


def _scores(op: Attention, q: Array, k: Array, w: Array | None) -> Array:
    if op.score == "dot":
        return op.scale * (q @ k.swapaxes(-1, -2))
    t = np.tanh(q[..., :, None, :] + k[..., None, :, :])
    return op.scale * (t if w is None else t * w).sum(axis=-1)


def _weights(op: Op, S: Array, mask: Array | None) -> Array:
    """The softmax P (..., queries, keys) of the masked scores."""
    forbidden = _forbidden(op, S, mask)
    if op.mask == "additive":
        S = S + mask
    if forbidden is not None:
        S = np.where(forbidden, op.masked_value if op.masking == "fill" else S + op.masked_value, S)
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    P = P / P.sum(axis=-1, keepdims=True)
    if op.empty_row == "formula":
        return P
    # a row is empty where every score is forbidden, or -inf
    empty = np.isneginf(S) if forbidden is None else forbidden | np.isneginf(S)
    return np.where(empty.all(axis=-1, keepdims=True), np.zeros_like(P), P)


def _forbidden(op: Op, S: Array, mask: Array | None) -> Array | None:
    """Where a query may not see a key; None where there is no such rule."""
    forbidden = None
    if op.mask in ("attend", "ignore") and mask is not None:
        forbidden = np.broadcast_to(
            mask.astype(bool) == (op.mask == "ignore"), np.broadcast_shapes(mask.shape, S.shape)
        )
    if op.causal:
        queries, keys = S.shape[-2:]
        later = np.arange(keys) > np.arange(queries)[:, None] + op.causal_offset
        forbidden = np.broadcast_to(later, S.shape) if forbidden is None else forbidden | later
    return forbidden


def _back_to_scores(op: Op, dy: Array, P: Array, v: Array, mask: Array | None) -> tuple[Array, Array, Array | None]:
    """dS, dv, and the gradient of an additive mask."""
    # y = P v
    dP, dv = dy @ v.swapaxes(-1, -2), P.swapaxes(-1, -2) @ dy
    # P_k = exp S_k / Σ exp S: dS = P (dP - Σ dP P)
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
    forbidden = _forbidden(op, P, mask)
    if forbidden is not None and op.masking == "fill":
        dS = np.where(forbidden, np.zeros_like(dS), dS)  # a filled score is a constant
    dmask = sum_to(dS, mask.shape) if op.mask == "additive" and mask is not None else None
    return dS, sum_to(dv, v.shape), dmask


# --- heads ------------------------------------------------------------------------------------------------------


def multi_head(op: MultiHeadAttention, q: Array, k: Array, v: Array, *rest: Array) -> Array:
    mask, W, b = _projections(op, rest)
    Q, K, V = _heads(op, (q, k, v), W, b)
    joined = _side_by_side(_weights(op, op.scale * (Q @ K.swapaxes(-1, -2)), mask) @ V)
    return joined @ W[3].T + b[3]


def multi_head_backward(
    op: MultiHeadAttention, dy: Array, y: Array, q: Array, k: Array, v: Array, *rest: Array
) -> tuple[Array | None, ...]:
    mask, W, b = _projections(op, rest)
    Q, K, V = _heads(op, (q, k, v), W, b)
    P = _weights(op, op.scale * (Q @ K.swapaxes(-1, -2)), mask)
    joined = _side_by_side(P @ V)
    # y = W_o joined + b_o, as in every projection: dx = dz W, dW = dzᵀ x, db = Σ dz
    dheads = _split(dy @ W[3], op.heads)
    dS, dV, dmask = _back_to_scores(op, dheads, P, V, mask)
    dQ, dK = op.scale * (dS @ K), op.scale * (dS.swapaxes(-1, -2) @ Q)
    dz = [_side_by_side(dQ), _side_by_side(_shared(op, dK)), _side_by_side(_shared(op, dV)), dy]
    dinputs = [d @ w for d, w in zip(dz[:3], W, strict=False)]
    dW = [_rows(d).T @ _rows(x) for d, x in zip(dz, (q, k, v, joined), strict=True)]
    db = [_rows(d).sum(axis=0) for d in dz]
    # biases are given all, but for the output's, or that alone
    given = {0: [], 1: db[3:], 3: db[:3], 4: db}[len(_parts(rest)[1])]
    used = {id(d): op.out_bias if d is db[3] else op.bias for d in db}
    return (*dinputs, *(() if mask is None else (dmask,)), *dW, *(d * used[id(d)] for d in given))


def _projections(op: MultiHeadAttention, rest: tuple[Array, ...]) -> tuple[Array | None, list[Array], list[Any]]:
    """The mask, the four kernels and the four biases (0 where none is given or used)."""
    matrices, biases = _parts(rest)
    first = biases[:3] if op.bias else [0.0] * 3
    return matrices[0] if len(matrices) == 5 else None, matrices[-4:], [*first, biases[-1] if op.out_bias else 0.0]


def _parts(rest: tuple[Array, ...]) -> tuple[list[Array], list[Array]]:
    """What comes before the biases (the mask and the four kernels), and the biases."""
    return [a for a in rest if a.ndim > 1], [a for a in rest if a.ndim == 1]


def _heads(op: MultiHeadAttention, inputs: tuple[Array, ...], W: list[Array], b: list[Any]) -> list[Array]:
    """Q, K, V (batch, heads, time, d); heads of K and V that serve several of Q are repeated."""
    counts = (op.heads, op.key_heads, op.key_heads)
    split = [_split(x @ w.T + c, n) for x, w, c, n in zip(inputs, W[:3], b[:3], counts, strict=True)]
    return [np.repeat(x, op.heads // x.shape[1], axis=1) for x in split]


def _split(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _side_by_side(x: Array) -> Array:
    batch, heads, time, d = x.shape
    return x.swapaxes(1, 2).reshape(batch, time, heads * d)


def _shared(op: MultiHeadAttention, d: Array) -> Array:
    """The gradient of heads that serve several: their copies' gradients add."""
    return d.reshape(len(d), op.key_heads, -1, *d.shape[2:]).sum(axis=2)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Any, ...]]]] = {
    Attention: (attention, attention_backward),
    MultiHeadAttention: (multi_head, multi_head_backward),
}
