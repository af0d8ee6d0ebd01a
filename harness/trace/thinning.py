"""Fingerprints of large tensors: enough to see any change, and to say for certain when it is more than rounding.

Of a tensor in float32 and in float64 are kept the two XXH3-128 of its bytes, and for either precision these numbers:

    elements, noise, largest |q|, minimum, maximum, sum |q|, sum q², and 4 projections

noise = max |q32 - q64|, exactly. A projection is sum s_i q_i over the elements in C order, with random signs: + where
bit i % 64 of the (i // 64)-th raw output of numpy.random.Philox(key=k) is 1, for projection k = 0, 1, ...
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from harness.comparing import EPS64

PROJECTIONS = 4
NUMBERS = 7 + PROJECTIONS
BLOCK = 2**14
"""Elements taken at a time; a multiple of 64."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """numbers (2, NUMBERS) and digests (2, 16), of float32 and float64."""

    numbers: np.ndarray
    digests: np.ndarray

    @property
    def elements(self) -> int:
        return int(self.numbers[1, 0])

    @property
    def noise(self) -> float:
        return float(self.numbers[1, 1])

    @property
    def size(self) -> float:
        return float(self.numbers[1, 2])

    @property
    def projections(self) -> np.ndarray:
        """(2, PROJECTIONS)."""
        return self.numbers[:, 7:]


def fingerprint(float32: np.ndarray, float64: np.ndarray) -> Fingerprint:
    """What is kept of a tensor in both precisions."""
    both = [np.ascontiguousarray(values).ravel() for values in (float32, float64)]
    digests = [list(xxhash.xxh3_128_digest(values.view(np.uint8).data)) for values in both]
    return Fingerprint(_numbers(*both), np.array(digests, np.uint8))


def _numbers(float32: np.ndarray, float64: np.ndarray) -> np.ndarray:
    generators = [np.random.Philox(key=k) for k in range(PROJECTIONS)]
    sums, noise = np.zeros((2, 2 + PROJECTIONS)), 0.0
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for start in range(0, float64.size, BLOCK):
        parts = np.stack([of[start : start + BLOCK].astype(np.float64) for of in (float32, float64)])
        with np.errstate(invalid="ignore", over="ignore"):
            noise = np.fmax(noise, np.abs(parts[1] - parts[0]).max())
            signs = np.stack([_signs(generator, parts.shape[1]) for generator in generators], axis=1)
            sums += np.column_stack([np.abs(parts).sum(axis=1), (parts * parts).sum(axis=1), parts @ signs])
        low, high = np.minimum(low, parts.min(axis=1)), np.maximum(high, parts.max(axis=1))
    count = np.full(2, float(float64.size))
    return np.column_stack([count, np.full(2, noise), np.maximum(np.abs(low), np.abs(high)), low, high, sums])


def _signs(generator: np.random.Philox, count: int) -> np.ndarray:
    raw = generator.random_raw(-(-count // 64)).astype("<u8")
    return np.unpackbits(raw.view(np.uint8), bitorder="little")[:count] * 2.0 - 1.0


def least_difference(one: Fingerprint, other: Fingerprint, which: int) -> float:
    """What the largest difference of two tensors is at least, in float32 (which = 0) or float64 (1): no less than that
    of their extremes, and than those of their sums, shared by all elements, but for the rounding of the sums."""
    if np.array_equal(one.digests[which], other.digests[which]):
        return 0.0
    a, b = one.numbers[which], other.numbers[which]
    rounding = 2 * EPS64 * (BLOCK + a[0] / BLOCK) * max(a[5], b[5])
    with np.errstate(invalid="ignore"):
        sums = np.abs(a[[5, *range(7, NUMBERS)]] - b[[5, *range(7, NUMBERS)]]).max()
        return float(np.max([abs(a[3] - b[3]), abs(a[4] - b[4]), (sums - rounding) / a[0], 0.0]))
