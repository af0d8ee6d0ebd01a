"""A user's JAX function as NumPy sees it: values, vector-Jacobian products, and Jacobian-vector products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frameworks.protocol import Arrays, Pullback
from harness.case import HarnessError


def owns(value: Any) -> bool:
    """Whether it is a JAX array."""
    return isinstance(value, jax.Array)


def plain(value: Any) -> np.ndarray:
    """An array's values; bfloat16, which NumPy lacks, as float32."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def array(value: np.ndarray) -> jax.Array:
    """A tensor of these values."""
    with jax.enable_x64(True):
        return jnp.array(value)


def differentiable(f: Callable[..., Any], inputs: Sequence[Any]) -> JaxFunction:
    """f, wherever JAX puts it."""
    return JaxFunction(f)


class JaxFunction:
    """Satisfies `frameworks.protocol.Differentiable`. JAX pairs cotangents without a conjugate: it is added here."""

    strided = False

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f

    def value(self, xs: Arrays) -> Arrays:
        with jax.enable_x64(True):
            return tuple(plain(y) for y in _flat(self.f(*map(jnp.array, xs))))

    def apply(self, other: Callable[..., Any], arrays: Arrays) -> tuple[np.ndarray | None, ...]:
        with jax.enable_x64(True):
            result = other(*map(jnp.array, arrays))
        results = result if isinstance(result, tuple | list) else (result,)
        return tuple(None if r is None else plain(r) if owns(r) else np.asarray(r) for r in results)

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        with jax.enable_x64(True):
            ys, transposed = jax.vjp(self._of_floating(xs), *(jnp.array(x) for x in xs if _floating(x)))

        def pullback(vs: Arrays) -> tuple[np.ndarray | None, ...]:
            with jax.enable_x64(True):
                cotangents = [
                    jnp.array(v.conj()) if _floating(y) else np.zeros(y.shape, jax.dtypes.float0)
                    for y, v in zip(ys, vs, strict=True)
                ]
                found = iter(transposed(cotangents))
            return tuple(plain(next(found)).conj() if _floating(x) else None for x in xs)

        return tuple(plain(y) for y in ys), pullback

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        with jax.enable_x64(True):
            points = [jnp.array(x) for x in xs if _floating(x)]
            tangents = [jnp.array(d) for x, d in zip(xs, ds, strict=True) if _floating(x)]
            try:
                ys, found = jax.jvp(self._of_floating(xs), points, tangents)
            except TypeError:  # a custom_vjp has no forward mode (jax/_src/custom_derivatives.py, 0.10)
                return None
            return tuple(plain(t) if _floating(y) else np.zeros(y.shape) for y, t in zip(ys, found, strict=True))

    def gradient(self, count: int) -> JaxFunction:
        def gradient(*args: jax.Array) -> list[jax.Array]:
            xs, vs = args[:count], args[count:]
            ys, transposed = jax.vjp(self._of_floating(xs), *(x for x in xs if _floating(x)))
            cotangents = [
                v.conj() if _floating(y) else np.zeros(y.shape, jax.dtypes.float0) for y, v in zip(ys, vs, strict=True)
            ]
            return [grad.conj() for grad in transposed(cotangents)]

        return JaxFunction(gradient)

    def _of_floating(self, xs: Sequence[Any]) -> Callable[..., list[jax.Array]]:
        """f of its floating inputs alone."""
        others = [None if _floating(x) else jnp.array(x) for x in xs]

        def of_floating(*points: jax.Array) -> list[jax.Array]:
            given = iter(points)
            return _flat(self.f(*(next(given) if other is None else other for other in others)))

        return of_floating


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _flat(outputs: Any) -> list[jax.Array]:
    found = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    for y in found:
        if not isinstance(y, jax.Array):
            raise HarnessError(
                f"the JAX function returned a {type(y).__name__}; it must be an array or a tuple of them"
            )
    return found
