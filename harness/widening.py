"""Float32 constants in a float64 run: from the decimals that were typed, or moved within what float32 cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Widen = Callable[[np.ndarray], np.ndarray]
"""From an array of float32 to one of float64 that rounds to it."""

DIGITS = 6
"""Decimals of so many digits that name a float32 are taken for typed: one in thirty float32 numbers has such a name."""

EXACT = 22
"""Largest power of 10 that float64 holds exactly: an integer over it is the decimal as Python reads it."""


def typed(values: np.ndarray) -> np.ndarray:
    """The decimals that were typed, in float64: a single number's shortest; those of an array where each number has one
    of at most six digits; else the numbers as they are."""
    if values.ndim == 0:
        return np.asarray(float(str(values[()])))
    decimals = _decimals(values)
    return values.astype(np.float64) if decimals is None else decimals


def moved(seed: int, *, of_largest: bool = False) -> Widen:
    """Numbers that were not typed, each half a unit of float32's last place off, up or down by chance.

    of_largest: of the largest number's last place.
    """
    rng = np.random.default_rng(seed)

    def move(values: np.ndarray) -> np.ndarray:
        exact = values.astype(np.float64)
        decimals = _decimals(values)
        if decimals is not None:
            return decimals
        finite = np.isfinite(values)
        sizes = np.where(finite, np.abs(values), 0)
        half = np.spacing(sizes.max() if of_largest else sizes).astype(np.float64) / 2
        return np.where(finite, exact + half * rng.choice((-1.0, 1.0), values.shape), exact)

    return move


def _decimals(values: np.ndarray) -> np.ndarray | None:
    """The decimals of few digits that round to these numbers; None where one of them has none."""
    exact = values.astype(np.float64)
    told = np.isfinite(exact) & (exact != 0)
    with np.errstate(all="ignore"):
        places = DIGITS - 1 - np.floor(np.log10(np.abs(exact, where=told, out=np.ones_like(exact))))
        if (np.abs(places) > EXACT).any():
            return None
        power = 10.0 ** np.abs(places)
        decimals = np.where(places < 0, np.rint(exact / power) * power, np.rint(exact * power) / power)
        decimals = np.where(told, decimals, exact)
        same = (decimals.astype(np.float32) == values) | np.isnan(values)
    return decimals if same.all() else None
