"""A user's loss as a number with its gradient, and penalties: targets made ready, terms, weights, reduction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.objectives import Loss, Penalty, Scope, Targets
from reference.row_terms import BY_ROW, row_axes
from reference.terms import BY_ELEMENT

Array = np.ndarray


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # an infinity is a result; where nothing counts, NaN too
def value_and_gradient(
    loss: Loss, q: Array, y: Array | None, weights: Array | None = None, mask: Array | None = None
) -> tuple[Array, Array]:
    """L, a scalar or with reduction "none" all terms, and dL/dq in q's shape (of their sum where L is no scalar).

    weights, mask: one for each term (behind `Loss.inner`), or for each place along the first axes of the terms; what
    the mask has False counts nothing. y is None for a loss without targets.
    """
    given, axes = q, row_axes(loss.term, q.ndim)
    q, y, chosen, valid = _ready(loss.targets, q, y, axes)
    axes = row_axes(loss.term, q.ndim)  # a last axis of 1 may be gone
    per_class = np.asarray(loss.class_weights, q.dtype)
    by_place = per_class.size > 0 and loss.class_weighting == "classes"
    if axes and by_place:
        y = y * _along(per_class, q.ndim, axes[0])
    values, slopes = (BY_ROW if axes else BY_ELEMENT)[type(loss.term)](loss.term, q, y)
    if not axes and by_place:
        values, slopes = values * per_class, slopes * per_class

    terms, share = values, 1.0
    if loss.inner != "none":
        share = 1 / values.shape[-1] if loss.inner == "mean" else 1.0
        terms = values.sum(axis=-1) * share
    counted = _product(terms, mask, valid)
    w = own = counted * _product(terms, weights)
    if per_class.size and (axes or not by_place):
        own = w * _leading(per_class[chosen], terms)  # the weight of each term's own class
        w = w if by_place else own
    # L = f Σ_i w_i t_i / n + c, so dL/dt_i = f w_i / n, of which each of the K behind an inner mean gets a K-th
    factors = loss.factor * w / _divisor(loss, counted, own)
    L = factors * terms if loss.reduction == "none" else (factors * terms).sum()
    d = factors if loss.inner == "none" else (factors * share)[..., None]
    dq = _summed_to(np.expand_dims(d, axes) * slopes, q.shape)
    return np.asarray(L + loss.offset, given.dtype), dq.reshape(given.shape).astype(given.dtype, copy=False)


def _divisor(loss: Loss, counted: Array, own: Array) -> float:
    match loss.reduction:
        case "none" | "sum":
            return 1
        case "mean":
            return counted.size
        case "batchmean":
            return len(counted)
        case "valid_mean":
            return counted.sum()
        case "weighted_mean":
            return own.sum()


def _product(terms: Array, *factors: Array | None) -> Array:
    product = np.ones_like(terms)
    for factor in factors:
        if factor is not None:
            product = product * _leading(np.asarray(factor), terms)
    return product.astype(terms.dtype, copy=False)


def _leading(factor: Array, terms: Array) -> Array:
    """Axes of length 1 behind what has fewer axes than the terms, gone where it has one more (Keras does both)."""
    if factor.ndim == terms.ndim + 1 and factor.shape[-1] == 1:
        return factor[..., 0]
    return factor.reshape(factor.shape + (1,) * (terms.ndim - factor.ndim))


def _summed_to(d: Array, shape: tuple[int, ...]) -> Array:
    """A derivative on a broadcast shape, summed over what was repeated."""
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    return d.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1 < d.shape[i]), keepdims=True)


# --- targets ----------------------------------------------------------------------------------------------------


def _ready(
    targets: Targets, q: Array, y: Array | None, axes: tuple[int, ...]
) -> tuple[Array, Array, Array, Array | None]:
    """q and y in shapes that fit, the class of each term's target, and which terms are not ignored (None for all)."""
    if y is None:
        return q, np.zeros((), q.dtype), np.zeros((), int), None
    if targets.form == "indices":
        return q, *_one_hot(targets, q, np.asarray(y), axes[0])
    y = np.asarray(y, q.dtype)
    if targets.alignment == "same":
        q, y = _aligned(q, y)
    if targets.labels and axes:
        # index k stands for output labels[k]
        y = np.take(y, np.argsort(targets.labels), axis=axes[0])
    elif targets.labels:
        zero, one = targets.labels
        y = zero + (one - zero) * y
    if axes:
        chosen = y.argmax(axis=axes[0])
    else:
        chosen = y.argmax(axis=-1) if y.ndim > 1 and y.shape[-1] > 1 else np.rint(y).astype(int)
    return q, _smoothed(targets, y, y.shape[axes[0]] if axes else 2), chosen, None


def _one_hot(targets: Targets, q: Array, y: Array, axis: int) -> tuple[Array, Array, Array | None]:
    if y.ndim == q.ndim and y.shape[axis] == 1:
        y = y.squeeze(axis)
    index = y.astype(int)
    valid = None if targets.ignore_index is None else index != targets.ignore_index
    if valid is not None:
        index = np.where(valid, index, 0)
    if targets.labels:
        index = np.asarray(targets.labels, int)[index]
    classes = q.shape[axis]
    one_hot = np.expand_dims(index, axis) == _along(np.arange(classes), q.ndim, axis)
    return _smoothed(targets, one_hot.astype(q.dtype), classes) if targets.smoothing else one_hot, index, valid


def _smoothed(targets: Targets, y: Array, classes: int) -> Array:
    """Szegedy et al., arXiv:1512.00567, section 7: s/K to each; or s/(K - 1) to each other class."""
    s = targets.smoothing
    if not s:
        return y
    return y * (1 - s) + (s / classes if targets.spread == "all" else (1 - y) * s / (classes - 1))


def _aligned(q: Array, y: Array) -> tuple[Array, Array]:
    """Keras 3.15, keras/src/losses/loss.py, squeeze_or_expand_to_same_rank."""
    if q.ndim == y.ndim + 1 and q.shape[-1] == 1:
        return (q, y[..., None]) if y.ndim == 1 else (q[..., 0], y)
    if y.ndim == q.ndim + 1 and y.shape[-1] == 1:
        return (q[..., None], y) if q.ndim == 1 else (q, y[..., 0])
    return q, y


def _along(values: Array, ndim: int, axis: int) -> Array:
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


# --- penalties --------------------------------------------------------------------------------------------------


def penalty_and_gradients(penalty: Penalty, parameters: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """The penalty of parameters by name, and its gradient by each of them in scope."""
    total, gradients = 0.0, {}
    l1, l2 = penalty.l1, penalty.l2 / 2 if penalty.half else penalty.l2
    for name, W in parameters.items():
        if not in_scope(penalty.scope, name, W):
            continue
        # λ₁ Σ|W|, and λ₂ Σ W² with derivative 2 λ₂ W, or λ₂ |W| with derivative λ₂ W / |W|
        squares = float((W * W).sum())
        norm = squares**0.5
        total += l1 * float(np.abs(W).sum()) + l2 * (norm if penalty.rooted else squares)
        slope = 2 * l2 if not penalty.rooted else l2 / norm if norm else 0.0
        gradients[name] = l1 * np.sign(W) + slope * W
    return total, gradients


def in_scope(scope: Scope, name: str, W: Array) -> bool:
    if isinstance(scope, tuple):
        return name in scope
    return scope == "all" or W.ndim > 1
