"""Fingerprints of large tensors: enough to see any change, and to say for certain when it is more than rounding.

A tensor in both precisions becomes its SHA-256 in each, and these numbers, of its float64 values but for the noise:

    count, noise, largest |q|, minimum, maximum, sum |q|, sum q², and 8 projections

noise = max |q32 - q64|, exactly. A projection is sum s_i q_i over the elements in C order, with random signs: + where
bit i % 64 of the (i // 64)-th raw output of numpy.random.Philox(key=k) is 1, for projection k = 0, 1, ...
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from harness.comparing import EPS64

PROJECTIONS = 8
BLOCK = 2**16
"""Numbers whose signs are drawn at a time; a multiple of 64."""


class Fingerprint(NamedTuple):
    """What is kept of a tensor: its digests in float32 and float64 (2, 32), and its numbers."""

    digests: np.ndarray
    elements: float
    noise: float
    size: float
    minimum: float
    maximum: float
    absolute: float
    squares: float
    projections: np.ndarray


def fingerprints(float32: np.ndarray, float64: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (steps, 7 + 8) and the digests (steps, 2, 32) of a tensor at consecutive steps, axis 0."""
    pairs = [
        (np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel())
        for a, b in zip(float32, float64, strict=True)
    ]
    digests = [[list(hashlib.sha256(of.tobytes()).digest()) for of in pair] for pair in pairs]
    return np.array([_numbers(*pair) for pair in pairs]), np.array(digests, np.uint8)


def fingerprint(numbers: np.ndarray, digests: np.ndarray) -> Fingerprint:
    """One step's, as it was recorded."""
    return Fingerprint(digests, *numbers[:7].tolist(), projections=numbers[7:])


def _numbers(low: np.ndarray, q: np.ndarray) -> np.ndarray:
    projections, absolute, squares, noise = np.zeros(PROJECTIONS), 0.0, 0.0, 0.0
    generators = [np.random.Philox(key=k) for k in range(PROJECTIONS)]
    for start in range(0, q.size, BLOCK):
        part = q[start : start + BLOCK]
        size = np.abs(part)
        absolute, squares = absolute + size.sum(), squares + float(part @ part)
        noise = max(noise, float(np.abs(part - low[start : start + BLOCK]).max()))
        for k, generator in enumerate(generators):
            projections[k] += np.where(_bits(generator, part.size), part, -part).sum()
    largest = max(abs(float(q.min())), abs(float(q.max())))
    return np.array([q.size, noise, largest, q.min(), q.max(), absolute, squares, *projections])


def _bits(generator: np.random.Philox, count: int) -> np.ndarray:
    raw = generator.random_raw(-(-count // 64)).astype("<u8")
    return np.unpackbits(raw.view(np.uint8), bitorder="little")[:count].astype(bool)


def least_difference(one: Fingerprint, other: Fingerprint) -> float:
    """What the largest difference of two tensors is at least: no less than that of their extremes, and than those of
    their sums, over as many elements, but for the rounding of the sums themselves."""
    count = one.elements
    rounding = 4 * EPS64 * (np.log2(count + 2) + BLOCK.bit_length()) * max(one.absolute, other.absolute)
    sums = [abs(one.absolute - other.absolute), *np.abs(one.projections - other.projections).tolist()]
    extremes = [abs(one.minimum - other.minimum), abs(one.maximum - other.maximum)]
    return max(*extremes, (max(sums) - rounding) / count, 0.0)
