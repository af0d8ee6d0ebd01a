"""Directions in which to step, cotangents on which to project, and points moved along them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.telling import floating

_SPAN = 4096


def spread(shape: tuple[int, ...], number: int, seed: int) -> np.ndarray:
    """Numbers of random sign between 1/2 and 3/2 in size, for each number others; read-only.

    No two sizes are equal, so that errors which cancel in a sum do not cancel here; none is small, so that no element
    goes unseen. Slices of one pool: drawing anew would cost more than a cheap function's evaluation.
    """
    size = math.prod(shape)
    first = number * 389 % _SPAN
    return _pool(1 << max(size - 1, 1).bit_length(), seed)[first : first + size].reshape(shape)


@functools.lru_cache(maxsize=2)
def _pool(size: int, seed: int) -> np.ndarray:
    pool = np.random.default_rng(seed).random(size + _SPAN) * 2 - 1
    pool += np.copysign(0.5, pool)
    pool.flags.writeable = False
    return pool


def directions(xs: Arrays, number: int, seed: int, relative: bool) -> Arrays:
    """A direction for each floating input: each element in proportion to itself, or all alike, at least of size 1."""
    return tuple(
        _direction(x, 17 * number + 3 * i, seed, relative) if floating(x) else np.zeros(x.shape)
        for i, x in enumerate(xs)
    )


def together(xs: Arrays) -> Arrays:
    """The direction in which all elements move alike, so that equal ones stay equal."""
    return tuple(np.full(x.shape, 1.0) if floating(x) else np.zeros(x.shape) for x in xs)


def balanced(xs: Arrays, grads: Arrays, number: int, seed: int) -> Arrays:
    """A direction along which no element's derivative drowns the others: steps are the smaller the larger it is."""
    sizes = np.concatenate([np.abs(g).reshape(-1)[:10000] for g, x in zip(grads, xs, strict=True) if floating(x)])
    if not sizes.any() or not np.isfinite(sizes).all():
        return directions(xs, number, seed, relative=False)
    typical = 1e-6 * (float(np.median(sizes)) or float(np.max(sizes, initial=0)))
    smallest = max(typical, float(np.min(sizes, initial=np.inf, where=sizes > 0)))
    return tuple(
        d / np.maximum(np.abs(g) / smallest, 1.0)
        for d, g in zip(directions(xs, number, seed, relative=False), grads, strict=True)
    )


def _direction(x: np.ndarray, number: int, seed: int, relative: bool) -> np.ndarray:
    draw = spread(x.shape, number, seed)
    if x.dtype.kind == "c":
        draw = draw + 1j * spread(x.shape, number + 1, seed)
    if relative:
        return draw * np.abs(x)
    scale = norm((x,)) / max(x.size, 1) ** 0.5
    return draw * scale if scale > 1 else draw


def cotangents(ys: Arrays, number: int, seed: int, relative: bool) -> Arrays:
    """A cotangent for each output, zero for integers and where an output is not finite.

    relative: such that each element of the outputs weighs the same, whatever its size.
    """
    return tuple(_cotangent(y, 29 * number + 5 * j + 1, seed, relative) for j, y in enumerate(ys))


def _cotangent(y: np.ndarray, number: int, seed: int, relative: bool) -> np.ndarray:
    if not floating(y):
        return np.zeros(y.shape)
    draw = np.array(spread(y.shape, number, seed), dtype=y.dtype)
    if y.dtype.kind == "c":
        draw = draw + 1j * spread(y.shape, number + 1, seed)
    size = np.abs(y)
    finite = np.isfinite(size)
    if not finite.all():
        draw = np.where(finite, draw, 0)
    if relative:
        scale = np.max(size, initial=0, where=finite & (size > 0)) or 1.0
        draw = draw / np.clip(np.where(finite & (size > 0), size / scale, 1), 1e-12, None)
    return draw


def moved(xs: Arrays, ds: Sequence[np.ndarray], h: float) -> Arrays:
    """x + h d for each floating input; new arrays."""
    found = []
    for x, d in zip(xs, ds, strict=True):
        if floating(x):
            step = np.multiply(d, h, dtype=x.dtype)
            x = np.asarray(np.add(step, x, out=step if step.ndim else None))
        found.append(x)
    return tuple(found)


def projected(vs: Arrays, ys: Arrays) -> float:
    """Re(sum(conj(v) y)) over all floating outputs; elements whose cotangent is 0 may be infinite."""
    total = 0.0
    for v, y in zip(vs, ys, strict=True):
        if floating(y):
            product = np.vdot(v, y).real
            total += product if math.isfinite(product) else np.sum(np.real(v.conj() * y)[v != 0])
    return float(total)


def norm(arrays: Sequence[np.ndarray]) -> float:
    """The Euclidean norm of all elements together."""
    total = sum(np.vdot(a, a).real for a in arrays if floating(a))
    if 1e-280 < total < 1e300 or (total == 0 and not any(a.any() for a in arrays)):
        return math.sqrt(total)
    # squares overflow, or vanish
    largest = max((float(np.max(np.abs(a), initial=0)) for a in arrays if floating(a)), default=0.0)
    if not 0 < largest < math.inf:
        return largest
    return largest * math.sqrt(sum(float(np.sum(np.abs(a / largest) ** 2)) for a in arrays if floating(a)))


def product_norm(arrays: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The Euclidean norm of the elementwise products; an infinite element counts for nothing beside a zero."""
    products = [a * b for a, b in zip(arrays, others, strict=True) if floating(a) and floating(b)]
    found = norm(products)
    return found if math.isfinite(found) else norm([np.where(p == p, p, 0) for p in products])
