"""Kinds of numbers: float32 inside, float32 and float16 inputs, integers and booleans, complex numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gradients.data import integers, normal
from benchmarks.gradients.rules import rule, wrong

X = normal(3, 4)
SINGLE = X.astype(np.float32)
Z = normal(4) + 1j * normal(4, seed=1)
LENGTHS = integers(3, 1, below=4)
KEEP = np.array([True, False, True, True])


def single(xp: Any, x: Any) -> Any:
    return xp.asarray(x, dtype=xp.float32)


def back(xp: Any, x: Any, like: Any) -> Any:
    return xp.asarray(x, dtype=like.dtype)


ITEMS = [
    *rule(
        "dtypes/sine through float32",
        [X],
        lambda xp, x: xp.sin(x),
        None,
        wrong("in the backward only", "float32", lambda xp, x, v: back(xp, single(xp, v * xp.cos(x)), x)),
        wrong("of the cosine", "float32", lambda xp, x, v: v * back(xp, xp.cos(single(xp, x)), x)),
    ),
    *rule(
        "dtypes/product through float32",
        [normal(4, 4), normal(4, 4, seed=1)],
        lambda xp, x, y: xp.matmul(x, y),
        None,
        wrong(
            "one gradient of two",
            "float32",
            lambda xp, x, y, v: (
                back(xp, xp.matmul(single(xp, v), xp.swapaxes(single(xp, y), 0, 1)), x),
                xp.matmul(xp.swapaxes(x, 0, 1), v),
            ),
        ),
    ),
    *rule(
        "dtypes/float32 inside",
        [X],
        lambda xp, x: back(xp, xp.tanh(single(xp, x)), x),
        lambda xp, x, v: v * (1 - xp.tanh(x) ** 2),
        wrong("sign", "sign", lambda xp, x, v: -v * (1 - xp.tanh(x) ** 2)),
        wrong("a hundredth too large", "factor", lambda xp, x, v: 1.01 * v * (1 - xp.tanh(x) ** 2)),
        kind="awkward",
    ),
    *rule(
        "dtypes/float32 inside, both ways",
        [X],
        lambda xp, x: back(xp, single(xp, x) ** 3, x),
        lambda xp, x, v: back(xp, 3 * single(xp, v) * single(xp, x) ** 2, x),
        kind="awkward",
    ),
    *rule(
        "dtypes/float32 inputs",
        [SINGLE],
        lambda xp, x: xp.exp(xp.sin(x)),
        lambda xp, x, v: v * xp.cos(x) * xp.exp(xp.sin(x)),
        wrong("1e-3 too large", "factor", lambda xp, x, v: 1.001 * v * xp.cos(x) * xp.exp(xp.sin(x))),
        wrong("1e-6 too large", "factor", lambda xp, x, v: (1 + 1e-6) * v * xp.cos(x) * xp.exp(xp.sin(x))),
    ),
    *rule(
        "dtypes/mask of booleans",
        [normal(3, 4), KEEP],
        lambda xp, x, keep: xp.where(keep, xp.sin(x), 0 * x),
        lambda xp, x, keep, v: (xp.where(keep, v * xp.cos(x), 0 * x), None),
        wrong("mask missing", "region element missing-term unknown", lambda xp, x, keep, v: (v * xp.cos(x), None)),
        wrong(
            "mask turned round",
            "unknown region element",
            lambda xp, x, keep, v: (xp.where(keep, 0 * x, v * xp.cos(x)), None),
        ),
        kind="awkward",
    ),
    *rule(
        "dtypes/integer exponents",
        [np.abs(normal(3, 4)) + 0.5, LENGTHS],
        lambda xp, x, n: x ** back(xp, n, x),
        lambda xp, x, n, v: (v * back(xp, n, x) * x ** (back(xp, n, x) - 1), None),
        wrong("exponent missing", "element factor unknown", lambda xp, x, n, v: (v * x ** (back(xp, n, x) - 1), None)),
        kind="awkward",
    ),
    *rule(
        "dtypes/squared modulus",
        [Z],
        lambda xp, z: xp.real(z) ** 2 + xp.imag(z) ** 2,
        lambda xp, z, v: 2 * v * z,
        kind="awkward",
        frameworks=("torch", "numpy"),
    ),
    *rule(
        "dtypes/complex square",
        [Z],
        lambda xp, z: z**2,
        lambda xp, z, v: 2 * v * xp.conj(z),
        wrong("not conjugated", "unknown", lambda xp, z, v: 2 * v * z),
        wrong("half", "factor", lambda xp, z, v: v * xp.conj(z)),
        wrong("sign", "sign", lambda xp, z, v: -2 * v * xp.conj(z)),
        kind="awkward",
        frameworks=("torch", "numpy"),
    ),
    *rule(
        "dtypes/complex product",
        [Z, normal(4, seed=2) + 1j * normal(4, seed=3)],
        lambda xp, z, w: z * w,
        lambda xp, z, w, v: (v * xp.conj(w), v * xp.conj(z)),
        wrong("one not conjugated", "unknown", lambda xp, z, w, v: (v * w, v * xp.conj(z))),
        kind="awkward",
        frameworks=("torch", "numpy"),
    ),
    *rule(
        "dtypes/complex conjugate",
        [Z],
        lambda xp, z: xp.conj(z) * 2,
        lambda xp, z, v: 2 * xp.conj(v),
        wrong("not conjugated", "unknown", lambda xp, z, v: 2 * v),
        kind="awkward",
        frameworks=("torch", "numpy"),
    ),
]
