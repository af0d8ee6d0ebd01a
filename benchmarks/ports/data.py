"""Small random data: inputs, and targets of every usual kind. Seeds are the callers'."""

from __future__ import annotations

import numpy as np


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def integers(*shape: int, below: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[labels]


def coins(*shape: int, seed: int = 1) -> np.ndarray:
    return integers(*shape, below=2, seed=seed).astype(np.float32)


def simplex(*shape: int, seed: int = 1) -> np.ndarray:
    """Rows of probabilities, none of them small: multiples of 1/64, which add up to 1 exactly."""
    extra = 64 - 6 * shape[-1]
    return (
        (6 + np.random.default_rng(seed).multinomial(extra, np.full(shape[-1], 1 / shape[-1]), shape[:-1])) / 64
    ).astype(np.float32)
