"""The loss of one row, of classes or of a vector, and its derivative by hand.

Values have the row's axes removed (`row_axes`), slopes = d(value)/dq have the shape of q.
Sources: as in reference/terms.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.terms import CTC, CategoricalHinge, CosineSimilarity, CrossEntropy, Focal, Overlap, Term, Triplet
from reference.alignments import ctc
from reference.terms import Formula, clipped, passes

Array = np.ndarray
PullBack = Callable[[Array], Array]

# --- classes ----------------------------------------------------------------------------------------------------


def cross_entropy(term: CrossEntropy, q: Array, y: Array) -> tuple[Array, Array]:
    """y: one-hot booleans, which pick (an infinity elsewhere does not matter), or numbers, which multiply."""
    log_p, pull_back = _log_probabilities(term, q)
    # L = -Σ_k y_k log p_k, so dL/d(log p_k) = -y_k
    return -_times(y, log_p).sum(axis=term.axis), pull_back(-y.astype(q.dtype))


def focal(term: Focal, q: Array, y: Array) -> tuple[Array, Array]:
    axis, gamma = term.entropy.axis, term.gamma
    log_p, pull_back = _log_probabilities(term.entropy, q)
    p = np.exp(log_p)
    # F = -α Σ_k y_k (1 - p_k)^γ log p_k;  dF/d(log p_k) = -α y_k ((1 - p_k)^γ - γ (1 - p_k)^(γ-1) p_k log p_k)
    missing = -np.expm1(log_p)
    factor = missing**gamma
    shrunk = gamma * missing ** (gamma - 1) * p * log_p if gamma else 0
    values = -term.alpha * _times(y, factor * log_p).sum(axis=axis)
    return values, pull_back(-term.alpha * _times(y, factor - shrunk))


def _log_probabilities(term: CrossEntropy, q: Array) -> tuple[Array, PullBack]:
    """log p of the same shape as q, and the function from dL/d(log p) to dL/dq."""
    axis = term.axis
    if term.reads == "log_probabilities":
        return q, lambda d: d
    if term.reads == "logits":
        return _log_softmax(q, axis)
    steps: list[PullBack] = []
    p = q
    if term.reads == "activated_logits":
        log_p, _ = _log_softmax(q, axis)
        p = np.exp(log_p)
        # p_k = exp z_k / Σ exp z: dz_j = p_j (dp_j - Σ_k dp_k p_k)
        steps.append(lambda d, p=p: p * (d - (d * p).sum(axis=axis, keepdims=True)))
    if term.renormalize == "sum":
        S = p.sum(axis=axis, keepdims=True)
        p = p / S
        # r = p / Σp: dp_j = (dr_j - Σ_k dr_k r_k) / S
        steps.append(lambda d, r=p, S=S: (d - (d * r).sum(axis=axis, keepdims=True)) / S)
    inside = passes(p, term.clip)
    shifted = clipped(p, term.clip) + term.log_epsilon
    steps.append(lambda d: d / shifted * inside)
    log_p = np.log(shifted)
    if term.renormalize == "softmax":
        log_p, pull_back = _log_softmax(log_p, axis)
        steps.append(pull_back)

    def pull_back_all(d: Array) -> Array:
        for step in reversed(steps):
            d = step(d)
        return d

    return log_p, pull_back_all


def _log_softmax(z: Array, axis: int) -> tuple[Array, PullBack]:
    shifted = z - z.max(axis=axis, keepdims=True)
    # log p_k = z_k - log Σ_j exp z_j, the largest z taken out of both
    log_p = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    # ∂(log p_k)/∂z_j = δ_kj - p_j: dz_j = d_j - p_j Σ_k d_k
    return log_p, lambda d: d - np.exp(log_p) * d.sum(axis=axis, keepdims=True)


def _times(y: Array, values: Array) -> Array:
    return np.where(y, values, 0) if y.dtype == bool else y * values


def categorical_hinge(term: CategoricalHinge, q: Array, y: Array) -> tuple[Array, Array]:
    """Crammer and Singer 2001, Weston and Watkins 1999."""
    y = y.astype(q.dtype)
    own = (y * q).sum(axis=-1, keepdims=True)
    others = q * (1 - y) if term.zero_at_target else np.where(y == 1, -np.inf, q)
    short = term.margin + others - own
    active = np.where(short == 0, term.slope_at_margin, short > 0)
    short = np.maximum(short, 0)
    if term.over == "worst":
        greatest = others == others.max(axis=-1, keepdims=True)
        if term.ties == "first":
            greatest &= greatest.cumsum(axis=-1) == 1
        counted = greatest / greatest.sum(axis=-1, keepdims=True)
    else:
        counted = np.full_like(q, 1 / q.shape[-1] if term.over == "mean" else 1)
    # Σ_k c_k s_k^p with s_k = max(0, m + q_k - q_t): each s_k > 0 pulls q_k up and the target's q_t down
    values = (counted * short**term.power).sum(axis=-1)
    pull = counted * active * (1 if term.power == 1 else 2 * short)
    return values, ((1 - y) * pull - y * pull.sum(axis=-1, keepdims=True)).astype(q.dtype)


# --- vectors ----------------------------------------------------------------------------------------------------


def cosine_similarity(term: CosineSimilarity, q: Array, y: Array) -> tuple[Array, Array]:
    (Q, moves), (Y, _) = _norm(term, q), _norm(term, y)
    product = (q * y).sum(axis=-1, keepdims=True)
    # c = q·y / (Q Y);  dc/dq = y / (Q Y) - c q / Q², as dQ/dq = q / Q; the second vanishes where the floor holds Q
    cosine = product / (Q * Y)
    slopes = y / (Q * Y) - np.where(moves, cosine * q / (Q * Q), 0)
    return (1 if term.from_one else 0) - cosine[..., 0], -slopes


def _norm(term: CosineSimilarity, q: Array) -> tuple[Array, Array]:
    """The norm (..., 1) and whether it moves with q."""
    squares = (q * q).sum(axis=-1, keepdims=True)
    if term.epsilon_placement == "added":
        return np.sqrt(squares + term.epsilon), np.ones_like(squares, bool)
    norm = np.sqrt(squares)
    return np.maximum(norm, term.epsilon), norm > term.epsilon


def triplet(term: Triplet, q: Array, y: Array) -> tuple[Array, Array]:
    """q (3, ..., features): anchors, positives, negatives; no targets."""
    a, p, n = q
    (far_p, slope_p), (far_n, slope_n), (swapped, slope_s) = (
        _distance(term, *pair) for pair in ((a, p), (a, n), (p, n))
    )
    swaps = (swapped < far_n) & term.swap
    short = term.margin + far_p - np.where(swaps, swapped, far_n)
    # L = max(0, m + |a-p| - |a-n|): d|u-v|/du = -d|u-v|/dv
    s = swaps[..., None]
    slope_n, slope_s = np.where(s, 0, slope_n), np.where(s, slope_s, 0)
    slopes = np.stack([slope_p - slope_n, -slope_p - slope_s, slope_n + slope_s])
    return np.maximum(short, 0), slopes * (short > 0)[..., None]


def _distance(term: Triplet, u: Array, v: Array) -> tuple[Array, Array]:
    """|u - v| (...), and its derivative by u (..., features)."""
    order = term.norm
    inner, outer = (term.epsilon, 0.0) if term.epsilon_placement == "difference" else (0.0, term.epsilon)
    e = u - v + inner
    power = (np.abs(e) ** order).sum(axis=-1, keepdims=True) + outer
    # D = (Σ|e|^o)^(1/o);  dD/de = sign e |e|^(o-1) D^(1-o), 0 where D is
    D = power ** (1 / order)
    slopes = np.sign(e) * np.abs(e) ** (order - 1) * np.where(D > 0, D, 1) ** (1 - order)
    return D[..., 0], slopes


# --- regions ----------------------------------------------------------------------------------------------------


def overlap(term: Overlap, q: Array, y: Array) -> tuple[Array, Array]:
    """Salehi et al., arXiv:1706.05721, eq. 2; Milletari et al., arXiv:1606.04797, for alpha = beta = 1/2."""
    axes, a, b = row_axes(term, q.ndim), term.alpha, term.beta
    common = (y * q).sum(axis=axes, keepdims=True)
    missed, wrong = (y * (1 - q)).sum(axis=axes, keepdims=True), (q * (1 - y)).sum(axis=axes, keepdims=True)
    top, bottom = common + term.added, common + a * missed + b * wrong + term.epsilon
    # T / B with dT/dq = y and dB/dq = y - a y + b (1 - y)
    slopes = (top / bottom * (y - a * y + b * (1 - y)) - y) / bottom
    return (1 - top / bottom).squeeze(axes), slopes


BY_ROW: Mapping[type, Formula] = {
    CrossEntropy: cross_entropy,
    Focal: focal,
    CategoricalHinge: categorical_hinge,
    CosineSimilarity: cosine_similarity,
    Triplet: triplet,
    Overlap: overlap,
    CTC: ctc,
}


def row_axes(term: Term, ndim: int) -> tuple[int, ...]:
    """The axes of q, of which there are ndim, that its values do not have."""
    match term:
        case CrossEntropy(axis=axis) | Focal(entropy=CrossEntropy(axis=axis)):
            return (axis,)
        case CategoricalHinge() | CosineSimilarity():
            return (-1,)
        case Triplet():
            return (0, -1)
        case CTC(time_axis=time):
            return (time, -1)
        case Overlap(axes=axes):
            return axes or tuple(range(ndim))
    return ()
