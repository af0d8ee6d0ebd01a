"""Functions that user code applies to each element, each with its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray

_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(z: Array) -> Array:
    return _erf(z).astype(z.dtype) if z.size else z.copy()  # NumPy has none, the standard library has


# name: (f(z, exponent), f'(z, y, exponent))
FUNCTIONS: Mapping[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "power": (lambda z, n: z**n, lambda z, y, n: n * z ** (n - 1)),
    "exp": (lambda z, _: np.exp(z), lambda z, y, _: y),
    "expm1": (lambda z, _: np.expm1(z), lambda z, y, _: y + 1),
    "log": (lambda z, _: np.log(z), lambda z, y, _: 1 / z),
    "log1p": (lambda z, _: np.log1p(z), lambda z, y, _: 1 / (1 + z)),
    "log2": (lambda z, _: np.log2(z), lambda z, y, _: 1 / (z * math.log(2))),
    "log10": (lambda z, _: np.log10(z), lambda z, y, _: 1 / (z * math.log(10))),
    "sqrt": (lambda z, _: np.sqrt(z), lambda z, y, _: 0.5 / y),
    "rsqrt": (lambda z, _: 1 / np.sqrt(z), lambda z, y, _: -0.5 * y**3),
    "reciprocal": (lambda z, _: 1 / z, lambda z, y, _: -y * y),
    "square": (lambda z, _: z * z, lambda z, y, _: 2 * z),
    "sin": (lambda z, _: np.sin(z), lambda z, y, _: np.cos(z)),
    "cos": (lambda z, _: np.cos(z), lambda z, y, _: -np.sin(z)),
    "tan": (lambda z, _: np.tan(z), lambda z, y, _: 1 + y * y),
    "atan": (lambda z, _: np.arctan(z), lambda z, y, _: 1 / (1 + z * z)),
    "sinh": (lambda z, _: np.sinh(z), lambda z, y, _: np.cosh(z)),
    "cosh": (lambda z, _: np.cosh(z), lambda z, y, _: np.sinh(z)),
    "sign": (lambda z, _: np.sign(z), lambda z, y, _: np.zeros_like(z)),
    "floor": (lambda z, _: np.floor(z), lambda z, y, _: np.zeros_like(z)),
    "ceil": (lambda z, _: np.ceil(z), lambda z, y, _: np.zeros_like(z)),
    "round": (lambda z, _: np.rint(z), lambda z, y, _: np.zeros_like(z)),
    "erf": (lambda z, _: erf(z), lambda z, y, _: 2 / math.sqrt(math.pi) * np.exp(-z * z)),
}
