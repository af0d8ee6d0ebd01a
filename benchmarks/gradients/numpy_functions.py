"""Pairs (f, vjp) on arrays as teaching code and research code has them: buffers, caches, strides, loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import special

from benchmarks.gradients import Item, Kind, Subject, fixed, item
from benchmarks.gradients.data import apart, integers, normal, uniform

Array = np.ndarray
X, Y = normal(3, 4), normal(3, 4, seed=1)
TABLE, WORDS = normal(5, 3), integers(2, 4, below=5)
IMAGE, KERNEL = normal(5, 5), normal(3, 3, seed=1)
FORTRAN = np.asfortranarray(normal(3, 4))


def convolve(x: Array, k: Array) -> Array:
    return np.array([[np.sum(x[i : i + 3, j : j + 3] * k) for j in range(3)] for i in range(3)])


def convolve_vjp(v: Array, x: Array, k: Array, offset: int = 0, turned: bool = False) -> tuple[Array, Array]:
    dx, dk = np.zeros_like(x), np.zeros_like(k)
    for i in range(3):
        for j in range(3):
            a, b = min(i + offset, 2), min(j + offset, 2)
            dx[a : a + 3, b : b + 3] += v[i, j] * (k.T if turned else k)
            dk += v[i, j] * x[i : i + 3, j : j + 3]
    return dx, dk


def convolve_vjp_assigned(v: Array, x: Array, k: Array) -> tuple[Array, Array]:
    """= for +=: windows overlap."""
    dx = np.zeros_like(x)
    for i in range(3):
        for j in range(3):
            dx[i : i + 3, j : j + 3] = v[i, j] * k
    return dx, convolve_vjp(v, x, k)[1]


def gathered_vjp(v: Array, table: Array, words: Array) -> tuple[Array, None]:
    dtable = np.zeros_like(table)
    np.add.at(dtable, words, v)
    return dtable, None


def gathered_vjp_buffered(v: Array, table: Array, words: Array) -> tuple[Array, None]:
    """+= with repeated indices adds the last one only."""
    dtable = np.zeros_like(table)
    dtable[words] += v
    return dtable, None


def changes_its_input() -> tuple[Callable[..., Any], Callable[..., Any]]:
    def f(x: Array) -> Array:
        return np.sin(x)

    def vjp(v: Array, x: Array) -> Array:
        np.cos(x, out=x)
        return v * x

    return f, vjp


def changes_the_cotangent() -> tuple[Callable[..., Any], Callable[..., Any]]:
    def vjp(v: Array, x: Array) -> Array:
        v *= np.cos(x)
        return v

    return np.sin, vjp


def cached_forward() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The backward uses what the forward met last: right only if nobody calls f in between."""
    last: dict[str, Array] = {}

    def f(x: Array) -> Array:
        last["x"] = x.copy()
        return np.exp(x)

    def vjp(v: Array, x: Array) -> Array:
        return v * np.exp(last["x"])

    return f, vjp


def cached_first() -> tuple[Callable[..., Any], Callable[..., Any]]:
    first: list[Array] = []

    def vjp(v: Array, x: Array) -> Array:
        if not first:
            first.append(np.cos(x))
        return v * first[0]

    return np.sin, vjp


def shared_buffer() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Adds into a buffer that is never cleared."""
    buffer = np.zeros_like(X)

    def vjp(v: Array, x: Array) -> Array:
        nonlocal buffer
        buffer = buffer + v * np.cos(x)
        return buffer

    return np.sin, vjp


def noisy() -> tuple[Callable[..., Any], Callable[..., Any]]:
    rng = np.random.default_rng(0)

    def vjp(v: Array, x: Array) -> Array:
        return v * np.cos(x) * (1 + 1e-3 * rng.standard_normal(x.shape))

    return np.sin, vjp


def in_memory_order(v: Array, x: Array) -> Array:
    """Ravelled as it lies in memory, reshaped as if by rows."""
    return v * (3 * x.ravel(order="K") ** 2).reshape(x.shape)


def sorted_rows(x: Array) -> Array:
    return np.sort(x, axis=1)


def sorted_rows_vjp(v: Array, x: Array) -> Array:
    dx = np.empty_like(v)
    np.put_along_axis(dx, np.argsort(x, axis=1, kind="stable"), v, axis=1)
    return dx


def digamma_pair(scale: float) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return special.gammaln, lambda v, x: scale * v * special.digamma(x)


def cholesky_vjp(v: Array, a: Array) -> Array:
    """Of the symmetrised matrix (Murray, 2016, arXiv:1602.07527, equation 9)."""
    lower = np.linalg.cholesky(0.5 * (a + a.T))
    p = np.tril(lower.T @ np.tril(v))
    p[np.diag_indices_from(p)] *= 0.5
    inverse = np.linalg.inv(lower)
    s = inverse.T @ p @ inverse
    return 0.5 * (s + s.T)


def cholesky_vjp_one_sided(v: Array, a: Array) -> Array:
    return np.tril(2 * cholesky_vjp(v, a))


def eigenvalues_vjp(v: Array, a: Array) -> Array:
    _, vectors = np.linalg.eigh(0.5 * (a + a.T))
    return vectors @ np.diag(v) @ vectors.T


def interpolated(x: Array) -> Array:
    return np.interp(x, np.arange(5.0), np.array([0.0, 1.0, 0.5, 2.0, 2.5]))


def interpolated_vjp(v: Array, x: Array, shift: int = 0) -> Array:
    slopes = np.array([1.0, -0.5, 1.5, 0.5])
    inside = (x >= 0) & (x < 4)  # constant outside
    return v * inside * slopes[np.clip(np.floor(x).astype(int) + shift, 0, 3)]


SPD = 3 * np.eye(3) + 0.3 * (normal(3, 3) + normal(3, 3).T)
POSITIVE = uniform(3, 4, low=0.5, high=4.0)
INSIDE = np.array([0.3, 1.4, 2.6, 3.5])


_np = partial(fixed, "numpy_functions", "numpy")


def _made(name: str, kind: Kind, make: Callable[[], Any], inputs: tuple[Any, ...], patterns: str = "") -> Item:
    """The pair has a memory: a fresh one each time."""
    return item(f"numpy_functions/{name}", "numpy", kind, lambda: Subject(function=make(), inputs=inputs), patterns)


ITEMS = [
    _np("convolution", "ordinary", (convolve, convolve_vjp), (IMAGE, KERNEL)),
    _np("convolution, offset", "wrong", (convolve, lambda *g: convolve_vjp(*g, offset=1)), (IMAGE, KERNEL), "unknown"),
    _np(
        "convolution, kernel turned",
        "wrong",
        (convolve, lambda *g: convolve_vjp(*g, turned=True)),
        (IMAGE, KERNEL),
        "unknown",
    ),
    _np("convolution, assigned", "wrong", (convolve, convolve_vjp_assigned), (IMAGE, KERNEL), "unknown missing-term"),
    _np("gathered rows", "ordinary", (lambda t, w: t[w], gathered_vjp), (TABLE, WORDS)),
    _np(
        "gathered rows, += once",
        "wrong",
        (lambda t, w: t[w], gathered_vjp_buffered),
        (TABLE, WORDS),
        "element missing-term unknown",
    ),
    _made("changes its input", "wrong", changes_its_input, (X,), "mutates"),
    _made("changes the cotangent", "wrong", changes_the_cotangent, (X,), "mutates"),
    _made("last call's input", "wrong", cached_forward, (X,), "stale"),
    _made("first call's slope", "wrong", cached_first, (X,), "stale"),
    _made("buffer never cleared", "wrong", shared_buffer, (X,), "stale nondeterministic"),
    _made("noise in the backward", "wrong", noisy, (X,), "nondeterministic"),
    _np("order of the memory", "wrong", (lambda x: x**3, in_memory_order), (FORTRAN,), "non-contiguous unknown"),
    _np("Fortran order", "awkward", (lambda x: x**3, lambda v, x: 3 * v * x**2), (FORTRAN,)),
    _np("every second row", "awkward", (lambda x: x**3, lambda v, x: 3 * v * x**2), (normal(6, 4)[::2],)),
    _np("sorted rows", "ordinary", (sorted_rows, sorted_rows_vjp), (apart(3, 4),)),
    _np("sorted rows, not put back", "wrong", (sorted_rows, lambda v, x: v), (apart(3, 4),), "unknown surrogate"),
    _np("logarithm of the gamma function", "ordinary", digamma_pair(1.0), (POSITIVE,)),
    _np("logarithm of the gamma function, 1e-4", "wrong", digamma_pair(1 + 1e-4), (POSITIVE,), "factor"),
    _np("error function", "ordinary", (special.erf, lambda v, x: v * 2 / np.sqrt(np.pi) * np.exp(-(x**2))), (X,)),
    _np(
        "error function, 2 missing",
        "wrong",
        (special.erf, lambda v, x: v / np.sqrt(np.pi) * np.exp(-(x**2))),
        (X,),
        "factor",
    ),
    _np("Bessel function", "ordinary", (special.j0, lambda v, x: -v * special.j1(x)), (3 * X,)),
    _np("Bessel function, sign", "wrong", (special.j0, lambda v, x: v * special.j1(x)), (3 * X,), "sign"),
    _np("Cholesky", "awkward", (lambda a: np.linalg.cholesky(0.5 * (a + a.T)), cholesky_vjp), (SPD,)),
    _np(
        "Cholesky, one-sided",
        "wrong",
        (lambda a: np.linalg.cholesky(0.5 * (a + a.T)), cholesky_vjp_one_sided),
        (SPD,),
        "unknown",
    ),
    _np("eigenvalues", "awkward", (lambda a: np.linalg.eigvalsh(0.5 * (a + a.T)), eigenvalues_vjp), (SPD,)),
    _np("table", "ordinary", (interpolated, interpolated_vjp), (INSIDE,)),
    _np(
        "table, next segment",
        "wrong",
        (interpolated, lambda v, x: interpolated_vjp(v, x, 1)),
        (INSIDE,),
        "unknown region element",
    ),
    _np("table at its points", "awkward", (interpolated, interpolated_vjp), (np.array([0.5, 1.0, 3.0]),)),
    _np("product", "ordinary", (lambda x, y: x * y, lambda v, x, y: (v * y, v * x)), (X, Y)),
    _np("one gradient for two inputs", "wrong", (lambda x, y: x * y, lambda v, x, y: v * y), (X, Y), "shape raises"),
    _np("float32 gradient", "wrong", (np.sin, lambda v, x: (v * np.cos(x)).astype(np.float32)), (X,), "float32 shape"),
]
