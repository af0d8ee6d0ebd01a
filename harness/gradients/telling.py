"""Which kind of function it is, and its inputs as NumPy arrays in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from frameworks import FRAMEWORKS, functions
from frameworks.protocol import Arrays, Differentiable, Pullback
from harness.case import HarnessError

Function = Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]]


def told(f: Function, inputs: Sequence[Any]) -> tuple[Differentiable, Arrays, str]:
    """f as NumPy sees it, its inputs in float64, and the name of its framework.

    A pair is NumPy's (f, f_vjp); a function is of the framework of its inputs, or, given NumPy arrays, of the first
    framework imported so far in which it answers with that framework's arrays.
    """
    loaded = {
        name: functions(name)
        for name, registered in FRAMEWORKS.items()
        if registered.functions and registered.packages[0] in sys.modules
    }
    owners = [(name, adapter) for name, adapter in loaded.items() if any(map(adapter.owns, inputs))]
    if len(owners) > 1:
        raise HarnessError(f"the inputs are arrays of {' and '.join(name for name, _ in owners)}; give one kind")
    xs = tuple(_promoted(_plain(x, owners[0][1] if owners else None)) for x in inputs)
    if isinstance(f, tuple | list):
        if len(f) != 2 or not all(map(callable, f)):
            raise HarnessError("a NumPy function is a pair (f, f_vjp) of callables, f_vjp(cotangent, *inputs)")
        return PairFunction(*f), xs, "numpy"
    if not callable(f):
        raise HarnessError(f"a {type(f).__name__} cannot be called; give a function, or a pair (f, f_vjp) for NumPy")
    if owners:
        name, adapter = owners[0]
        return adapter.differentiable(f, inputs), xs, name
    for name, adapter in loaded.items() if not answers_numpy(f, xs) else ():
        candidate = adapter.differentiable(f, ())
        try:
            _ = candidate.value(tuple(x.copy() for x in xs))
        except Exception:  # whatever a function says to arrays of another framework
            continue
        return candidate, xs, name
    raise HarnessError(
        "f answers with the arrays of no framework imported so far; give inputs of its framework, or a pair (f, f_vjp) "
        "for NumPy, f_vjp(cotangent, *inputs)"
    )


def answers_numpy(f: Callable[..., Any], xs: Arrays) -> bool:
    """Whether a function of NumPy arrays answers with such, or numbers, as only a NumPy function does."""
    try:
        result = f(*(x.copy() for x in xs))
    except Exception:  # whatever a function of another framework says to NumPy arrays
        return False
    return all(isinstance(part, np.ndarray | np.generic | float | int) for part in _parts(result))


def _parts(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple | list) else (result,)


class PairFunction:
    """A NumPy function and its f_vjp(cotangent, *inputs). Satisfies `frameworks.protocol.Differentiable`."""

    def __init__(self, f: Callable[..., Any], vjp: Callable[..., Any]) -> None:
        self.f = f
        self.vjp = vjp

    strided = True

    def value(self, xs: Arrays) -> Arrays:
        return flat(self.f(*xs))

    def apply(self, other: Callable[..., Any], arrays: Arrays) -> tuple[np.ndarray | None, ...]:
        return tuple(None if part is None else np.asarray(part) for part in _parts(other(*arrays)))

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        result = self.f(*xs)

        def pullback(vs: Arrays) -> tuple[np.ndarray | None, ...]:
            grads = self.vjp(vs if isinstance(result, tuple | list) else vs[0], *xs)
            return spaced(_parts(grads), xs)

        return flat(result), pullback

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        return None

    def gradient(self, count: int) -> Differentiable | None:
        return None


def spaced(grads: Sequence[Any], xs: Arrays) -> tuple[np.ndarray | None, ...]:
    """A gradient for each input, where there may be one for each floating input only."""
    if len(grads) != len(xs) and len(grads) == sum(map(floating, xs)):
        given = iter(grads)
        grads = [next(given) if floating(x) else None for x in xs]
    return tuple(None if grad is None else np.asarray(grad) for grad in grads)


def flat(result: Any) -> Arrays:
    return tuple(map(np.asarray, _parts(result)))


def floating(x: np.ndarray) -> bool:
    return x.dtype.kind in "fc"


def _plain(x: Any, adapter: Any) -> np.ndarray:
    array = np.array(adapter.plain(x) if adapter and adapter.owns(x) else x)
    if array.dtype.kind not in "biufc":
        raise HarnessError(f"an input of type {type(x).__name__} is no array of numbers; give arrays")
    return array


def _promoted(x: np.ndarray) -> np.ndarray:
    kinds = {"f": np.float64, "c": np.complex128}
    return np.array(x, dtype=kinds.get(x.dtype.kind, x.dtype), order="C")
