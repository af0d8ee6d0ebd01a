"""Special functions, spectra, matrix functions and algorithms in NumPy as research code differentiates them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import linalg, special

from benchmarks.gradients import fixed
from benchmarks.gradients.data import apart, normal, uniform

Array = np.ndarray
Pair = tuple[Callable[..., Any], Callable[..., Any]]
X = normal(3, 4)
POSITIVE = uniform(3, 4, low=0.5, high=3.0)
SIGNAL, SPD = normal(8), 3 * np.eye(3) + 0.3 * (normal(3, 3) + normal(3, 3).T)
COST = uniform(4, 5, low=0.1, high=1.0)


def of_each(f: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Pair:
    return f, lambda v, x: v * slope(x)


def matrix_exponential_vjp(v: Array, a: Array) -> Any:
    """The Fréchet derivative at the transposed matrix."""
    return linalg.expm_frechet(a.T, v, compute_expm=False)


def power_spectrum(x: Array) -> Array:
    return np.abs(np.fft.rfft(x)) ** 2


def power_spectrum_vjp(v: Array, x: Array, halved: bool = True) -> Array:
    """A real signal's inner frequencies stand for two each; irfft counts them so."""
    weights = np.where(np.isin(np.arange(5), (0, 4)) | (not halved), 1.0, 0.5)
    return 2 * len(x) * np.fft.irfft(weights * v * np.fft.rfft(x), len(x))


def alignment(cost: Array) -> Array:
    """Dynamic time warping with a soft minimum, gamma 1 (Cuturi and Blondel, 2017, arXiv:1703.01541)."""
    return np.array(_tables(cost)[-1, -1])


def _tables(cost: Array) -> Array:
    rows, columns = cost.shape
    r = np.full((rows + 1, columns + 1), np.inf)
    r[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            r[i + 1, j + 1] = cost[i, j] - special.logsumexp([-r[i, j + 1], -r[i + 1, j], -r[i, j]])
    return r


def alignment_vjp(v: Array, cost: Array, diagonal: bool = True) -> Array:
    rows, columns = cost.shape
    r = _tables(cost)
    e = np.zeros((rows + 1, columns + 1))
    e[-1, -1] = 1
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            soft = r[i + 1, j + 1] - cost[i, j]
            for a, b in ((i, j + 1), (i + 1, j), (i, j)) if diagonal else ((i, j + 1), (i + 1, j)):
                e[a, b] += e[i + 1, j + 1] * np.exp(soft - r[a, b])
    return v * e[1:, 1:]


def sinkhorn(cost: Array) -> Array:
    """Transport cost of uniform masses, entropy 0.5, after 500 rounds."""
    return np.array(np.sum(_plan(cost) * (cost + 0.5 * (np.log(_plan(cost)) - 1))))


def _plan(cost: Array) -> Array:
    kernel, u, v = np.exp(-cost / 0.5), np.ones(cost.shape[0]), np.ones(cost.shape[1])
    for _ in range(500):
        u = 1 / cost.shape[0] / (kernel @ v)
        v = 1 / cost.shape[1] / (kernel.T @ u)
    return u[:, None] * kernel * v[None, :]


def trapezoid(y: Array, x: Array) -> Array:
    return np.array(np.sum(0.5 * (y[1:] + y[:-1]) * np.diff(x)))


def trapezoid_vjp(v: Array, y: Array, x: Array, ends: bool = True) -> tuple[Array, Array]:
    dy, dx, mean = np.zeros_like(y), np.zeros_like(x), 0.5 * (y[1:] + y[:-1])
    dy[1:] += 0.5 * np.diff(x)
    dy[:-1] += 0.5 * np.diff(x)
    dx[1:] += mean
    dx[:-1] -= mean
    if not ends:
        dx[[0, -1]] = 0
    return v * dy, v * dx


def high_polynomial(x: Array) -> Array:
    return np.cos(30 * np.arccos(x))


def cummax_vjp(v: Array, x: Array) -> Array:
    at = np.array([int(np.argmax(x[: i + 1])) for i in range(len(x))])
    return np.bincount(at, v, len(x))


_pair = partial(fixed, "special", "numpy")
ITEMS = [
    _pair(
        "error function's complement",
        "ordinary",
        of_each(special.erfc, lambda x: -2 / np.sqrt(np.pi) * np.exp(-(x**2))),
        (X,),
    ),
    _pair(
        "error function's complement far out",
        "awkward",
        of_each(special.erfc, lambda x: -2 / np.sqrt(np.pi) * np.exp(-(x**2))),
        (np.array([3.0, 6.0, 9.0]),),
    ),
    _pair("digamma", "ordinary", of_each(special.digamma, lambda x: special.polygamma(1, x)), (POSITIVE,)),
    _pair(
        "digamma, order off by one",
        "wrong",
        of_each(special.digamma, lambda x: special.polygamma(2, x)),
        (POSITIVE,),
        "unknown",
    ),
    _pair(
        "gamma near its pole",
        "awkward",
        of_each(special.gamma, lambda x: special.gamma(x) * special.digamma(x)),
        (np.array([1e-4, -0.999, 0.3]),),
    ),
    _pair(
        "normal quantile",
        "ordinary",
        of_each(special.ndtri, lambda p: np.sqrt(2 * np.pi) * np.exp(0.5 * special.ndtri(p) ** 2)),
        (uniform(5, low=0.1, high=0.9),),
    ),
    _pair(
        "normal quantile, root missing",
        "wrong",
        of_each(special.ndtri, lambda p: 2 * np.pi * np.exp(0.5 * special.ndtri(p) ** 2)),
        (uniform(5, low=0.1, high=0.9),),
        "factor",
    ),
    _pair(
        "normal quantile in the tail",
        "awkward",
        of_each(special.ndtri, lambda p: np.sqrt(2 * np.pi) * np.exp(0.5 * special.ndtri(p) ** 2)),
        (np.array([1e-8, 1e-3, 1 - 1e-6]),),
    ),
    _pair(
        "Lambert's function",
        "ordinary",
        of_each(lambda x: special.lambertw(x).real, lambda x: np.exp(-(w := special.lambertw(x).real)) / (1 + w)),
        (POSITIVE,),
    ),
    _pair("Bessel's second kind", "ordinary", of_each(special.y0, lambda x: -special.y1(x)), (POSITIVE,)),
    _pair("dilogarithm's slope", "ordinary", of_each(special.spence, lambda x: np.log(x) / (1 - x)), (POSITIVE,)),
    _pair(
        "dilogarithm's slope, sign",
        "wrong",
        of_each(special.spence, lambda x: -np.log(x) / (1 - x)),
        (POSITIVE,),
        "sign",
    ),
    _pair("matrix exponential", "ordinary", (linalg.expm, matrix_exponential_vjp), (0.5 * normal(3, 3),)),
    _pair(
        "matrix exponential, not transposed",
        "wrong",
        (linalg.expm, lambda v, a: linalg.expm_frechet(a, v, compute_expm=False)),
        (0.5 * normal(3, 3),),
        "transposed unknown",
    ),
    _pair(
        "matrix exponential as if it commuted",
        "wrong",
        (linalg.expm, lambda v, a: linalg.expm(a).T @ v),
        (0.5 * normal(3, 3),),
        "unknown",
    ),
    _pair(
        "logarithm of a determinant",
        "awkward",
        (lambda a: np.array(np.linalg.slogdet(a)[1]), lambda v, a: v * np.linalg.inv(a).T),
        (SPD,),
    ),
    _pair("power spectrum", "ordinary", (power_spectrum, power_spectrum_vjp), (SIGNAL,)),
    _pair(
        "power spectrum, not scaled by n",
        "wrong",
        (power_spectrum, lambda v, x: power_spectrum_vjp(v, x) / 8),
        (SIGNAL,),
        "factor",
    ),
    _pair(
        "power spectrum, both halves",
        "wrong",
        (power_spectrum, partial(power_spectrum_vjp, halved=False)),
        (SIGNAL,),
        "unknown factor",
    ),
    _pair("soft alignment", "ordinary", (alignment, alignment_vjp), (COST,)),
    _pair(
        "soft alignment, no diagonal",
        "wrong",
        (alignment, partial(alignment_vjp, diagonal=False)),
        (COST,),
        "missing-term",
    ),
    _pair("regularised transport", "awkward", (sinkhorn, lambda v, c: v * _plan(c)), (COST,)),
    _pair(
        "regularised transport, transposed masses",
        "wrong",
        (sinkhorn, lambda v, c: v * _plan(c.T).T * 1.01),
        (COST,),
        "factor",
    ),
    _pair(
        "trapezoid rule", "ordinary", (trapezoid, trapezoid_vjp), (normal(5), np.cumsum(uniform(5, low=0.1, high=1.0)))
    ),
    _pair(
        "trapezoid rule, ends fixed",
        "wrong",
        (trapezoid, partial(trapezoid_vjp, ends=False)),
        (normal(5), np.cumsum(uniform(5, low=0.1, high=1.0))),
        "element",
    ),
    _pair(
        "Chebyshev polynomial 30",
        "awkward",
        of_each(high_polynomial, lambda x: 30 * np.sin(30 * np.arccos(x)) / np.sqrt(1 - x**2)),
        (np.array([0.1, -0.7, 0.95]),),
    ),
    _pair("running maximum", "awkward", (np.maximum.accumulate, cummax_vjp), (apart(8),)),
    _pair(
        "x^2 sin(1/x) at 0",
        "awkward",
        of_each(
            lambda x: np.where(x == 0, 0, x**2 * np.sin(1 / np.where(x == 0, 1, x))),
            lambda x: np.where(
                x == 0, 0, 2 * x * np.sin(1 / np.where(x == 0, 1, x)) - np.cos(1 / np.where(x == 0, 1, x))
            ),
        ),
        (np.array([0.0, 0.3]),),
    ),
    _pair(
        "three halves of |x| at 0",
        "awkward",
        of_each(lambda x: np.abs(x) ** 1.5, lambda x: 1.5 * np.sign(x) * np.sqrt(np.abs(x))),
        (np.array([0.0, -0.3, 2.0]),),
    ),
    _pair(
        "cube root near 0",
        "awkward",
        of_each(np.cbrt, lambda x: 1 / (3 * np.cbrt(x) ** 2)),
        (np.array([1e-9, -1e-4, 8.0]),),
    ),
    _pair(
        "angle at its cut",
        "awkward",
        (lambda y, x: np.arctan2(y, x), lambda v, y, x: (v * x / (x**2 + y**2), -v * y / (x**2 + y**2))),
        (np.array([0.0, 1.0]), np.array([-1.0, 2.0])),
    ),
    _pair("remainder", "awkward", of_each(lambda x: np.mod(x, 0.7), lambda x: np.ones_like(x)), (X,)),
    _pair(
        "noise of a fixed seed",
        "ordinary",
        (
            lambda x: x * np.random.default_rng(3).standard_normal(x.shape),
            lambda v, x: v * np.random.default_rng(3).standard_normal(x.shape),
        ),
        (X,),
    ),
    _pair(
        "noise of a fixed seed, another in the backward",
        "wrong",
        (
            lambda x: x * np.random.default_rng(3).standard_normal(x.shape),
            lambda v, x: v * np.random.default_rng(4).standard_normal(x.shape),
        ),
        (X,),
        "unknown",
    ),
]
