"""Points to look at gradients from: float64, seeded, away from kinks unless said otherwise."""

from __future__ import annotations

import numpy as np


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


def uniform(*shape: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def integers(*shape: int, below: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape)


def simplex(*shape: int, seed: int = 1) -> np.ndarray:
    """Rows of probabilities."""
    rows = np.random.default_rng(seed).uniform(0.5, 2.0, shape)
    return rows / rows.sum(axis=-1, keepdims=True)


def apart(*shape: int, seed: int = 0) -> np.ndarray:
    """Distinct values, at least 0.1 from each other and from 0: nothing ties and no kink is near."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size) - size // 2 + 0.5).reshape(shape) * 0.1
