"""Several numbers at once, as they would have to be: nonlinear least squares from where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import least_squares

Compute = Callable[[Sequence[float]], Sequence[np.ndarray]]

SEEN = 64
"""Elements of each array that the fit looks at, spread evenly."""

EVALUATIONS = 100
"""After so many a fit that has not come to an end is given up."""

DIGITS = 6
"""Of the numbers that are found: what people type has few, what only happens to fit has all."""


def fitted(compute: Compute, wanted: Sequence[np.ndarray], start: Sequence[float]) -> list[tuple[float, ...]]:
    """Where what is computed comes closest to what is wanted, rounded to 1, 2, ... digits; nothing where the search
    fails. compute may raise ValueError where numbers do not fit."""
    places = [np.unique(np.linspace(0, max(array.size - 1, 0), min(SEEN, array.size)).astype(int)) for array in wanted]
    sizes = [float(np.abs(array).max(initial=0.0)) or 1.0 for array in wanted]

    def seen(arrays: Sequence[np.ndarray]) -> np.ndarray:
        parts = zip(arrays, places, sizes, strict=True)
        return np.concatenate([array.ravel()[at] / size for array, at, size in parts])

    meant = seen(wanted)

    def miss(numbers: Sequence[float]) -> np.ndarray:
        return seen(compute(numbers)) - meant

    # MINPACK's Levenberg-Marquardt: a residual that can vanish is met to the last digits
    options = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": EVALUATIONS}
    try:
        with np.errstate(all="ignore"):
            found = least_squares(miss, start, method="lm", x_scale="jac", **options).x
    except (ValueError, IndexError, np.linalg.LinAlgError):  # NaN at the start, too few elements, another shape
        return []
    return [tuple(float(f"{number:.{digits}g}") for number in found) for digits in range(1, DIGITS + 1)]
