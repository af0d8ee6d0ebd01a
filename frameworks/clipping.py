"""Whether a user's own step only bounds its gradients before it hands them to the optimizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Gradients = Mapping[str, np.ndarray | None]

CLOSE = 1e-5
"""Relative to the largest entry: a factor is applied in the run's own precision."""


def only_bounded(computed: Gradients, given: Gradients) -> bool:
    """Some are smaller than the backward pass computed them, each by one factor (a norm's bound, a mean) or cut off at
    one size, and the others are as computed. Anything else (a decay that is added) makes other gradients of them."""
    changed = False
    for name, own in computed.items():
        other = given.get(name)
        if own is None or other is None:
            if own is not other:
                return False
            continue
        if own.shape != other.shape:
            return False
        if np.array_equal(own, other):
            continue
        limit, size = np.abs(other).max(), np.abs(own).max()
        by_factor = np.abs(other - own * (limit / size)).max() <= CLOSE * limit if size else False
        cut_off = np.abs(other - np.clip(own, -limit, limit)).max() <= CLOSE * limit
        if not (limit < size and (by_factor or cut_off)):
            return False
        changed = True
    return changed
