"""The loss of a sequence of labels over all its alignments with longer sequences of classes, and its derivative.

Graves et al., ICML 2006. Compared by value with torch 2.13 (aten/src/ATen/native/LossCTC.cpp) and, in float32, Keras
3.15 (tf.nn.ctc_loss).
"""

from __future__ import annotations

import numpy as np

from harness.terms import CTC

Array = np.ndarray


def ctc(term: CTC, q: Array, y: Array) -> tuple[Array, Array]:
    """Values (batch,), slopes in q's shape: q (time, batch, classes) or (batch, time, classes), y (batch, labels)."""
    batches = np.moveaxis(q, term.time_axis, 1)
    values, slopes = np.zeros(len(batches), q.dtype), np.zeros_like(batches)
    for n, z in enumerate(batches):
        labels = y[n].astype(int)
        labels = labels[labels != term.padding]
        log_p = z - np.logaddexp.reduce(z, axis=-1, keepdims=True) if term.reads == "logits" else z
        log_likelihood, occupancy = _alignments(log_p, labels, term.blank)
        if np.isneginf(log_likelihood) and term.zero_infinity:
            continue
        share = 1 / max(len(labels), 1) if term.by_length else 1.0
        # L = -log Z: dL/d(log p_tk) = -(the chance of class k at step t, given the labels); by the logits p_tk more
        by_logits = term.reads == "logits" or term.through_softmax
        values[n] = -log_likelihood * share
        slopes[n] = ((np.exp(log_p) if by_logits else 0) - occupancy) * share
    return values, np.moveaxis(slopes, 1, term.time_axis)


def _alignments(log_p: Array, labels: Array, blank: int) -> tuple[float, Array]:
    """log Z, the chance of the labels, and the chance of each class at each step given them; log_p (time, classes)."""
    steps = len(log_p)
    # the labels with a blank before, between and after them
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    # a step stays, moves on by one, or by two over a blank between different labels
    may_skip = np.zeros(len(states), bool)
    may_skip[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    emitted = log_p[:, states]
    forward = np.full_like(emitted, -np.inf)
    forward[0, :2] = emitted[0, :2]
    for t in range(1, steps):
        # α_t(s) = (α_{t-1}(s) + α_{t-1}(s-1) + [skip] α_{t-1}(s-2)) p_t(s)
        before = forward[t - 1]
        skipped = np.where(may_skip, _moved(before, 2), -np.inf)
        forward[t] = np.logaddexp(np.logaddexp(before, _moved(before, 1)), skipped) + emitted[t]
    backward = np.full_like(emitted, -np.inf)
    backward[-1, -2:] = 0
    for t in range(steps - 2, -1, -1):
        # β_t(s) = Σ over the same moves of β_{t+1} p_{t+1}
        after = backward[t + 1] + emitted[t + 1]
        skipped = _moved(np.where(may_skip, after, -np.inf)[::-1], 2)[::-1]
        backward[t] = np.logaddexp(np.logaddexp(after, _moved(after[::-1], 1)[::-1]), skipped)
    log_likelihood = np.logaddexp.reduce(forward[-1, -2:])
    # the chance of being in state s at step t, added up over the states of each class
    return float(log_likelihood), np.exp(forward + backward - log_likelihood) @ (
        states[:, None] == np.arange(log_p.shape[1])
    )


def _moved(row: Array, by: int) -> Array:
    moved = np.full_like(row, -np.inf)
    moved[by:] = row[:-by]
    return moved
