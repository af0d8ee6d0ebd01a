"""Derivatives from function values alone, each with an estimate of its own error."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

Array = np.ndarray

SHRINK = 1.4
"""Each difference uses a step smaller by this factor than the one before (Numerical Recipes 3rd ed., section 5.7)."""


def gradient_by_differences(
    f: Callable[[Array], float], point: Array, directions: Array | None = None, step: float = 0.05
) -> tuple[Array, Array]:
    """Derivatives of f at a flat point (n,) along the rows of directions (k, n), default all coordinates.

    Returns values (k,) and estimates of their errors (k,). step: the widest half-width tried, the narrowest is a
    twentieth of it. A kink within the narrowest shows as a large error, but at the point itself it goes unseen: the
    value is then the mean of the one-sided derivatives.
    """
    along = np.eye(point.size) if directions is None else directions
    pairs = [derivative_by_differences(lambda t, d=d: f(point + t * d), step) for d in along]
    values, errors = zip(*pairs, strict=True)
    return np.array(values), np.array(errors)


def derivative_by_differences(f: Callable[[float], float], step: float) -> tuple[float, float]:
    """f'(0) and an estimate of its error: central differences extrapolated to step 0.

    Ridders, Advances in Engineering Software 4 (1982) 75-76. The estimate adds what rounding f itself can cause.
    """
    best, error = float("nan"), float("inf")
    coarse: list[float] = []
    h = step
    for _ in range(10):
        right, left = f(h), f(-h)
        # (f(h) - f(-h)) / 2h = f' + c1 h² + c2 h⁴ + ...
        row = [(right - left) / (2 * h)]
        rounding = sys.float_info.epsilon * max(abs(right), abs(left)) / h
        for k, wider in enumerate(coarse):
            # two steps h and 1.4 h: this combination removes the term in h^(2k+2)
            power = SHRINK ** (2 * k + 2)
            row.append((power * row[k] - wider) / (power - 1))
            change = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - wider)) + rounding
            if change < error:
                best, error = row[k + 1], change
        coarse = row
        h /= SHRINK
    return best, error
