"""A user's function at a point: its values, and the gradients that its own backward gives for some cotangents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from frameworks.protocol import Arrays, Differentiable, Pullback
from harness.gradients.directions import cotangents, norm, product_norm, projected
from harness.gradients.patience import limited
from harness.gradients.telling import floating

EPS = float(np.finfo(np.float64).eps)


class Counted:
    """A function whose evaluations are counted, and, where patience is set, stopped after so many seconds."""

    def __init__(self, function: Differentiable) -> None:
        self.function = function
        self.count = 0
        self.patience = 0.0

    def value(self, xs: Arrays) -> Arrays:
        self.count += 1
        with self._limited():
            return self.function.value(xs)

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        self.count += 1
        with self._limited():
            ys, pullback = self.function.pull(xs)

        def limited_pullback(vs: Arrays) -> tuple[np.ndarray | None, ...]:
            with self._limited():
                return pullback(vs)

        return ys, limited_pullback

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        tangents = self.function.push(xs, ds)
        self.count += tangents is not None
        return tangents

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Within, a call that takes longer raises EndlessError."""
        kept, self.patience = self.patience, seconds
        try:
            yield
        finally:
            self.patience = kept

    def _limited(self) -> AbstractContextManager[None]:
        return limited(self.patience) if self.patience else nullcontext()


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point, the outputs there, cotangents, and the gradients that the function's own backward gives for them; eps:
    the unit of rounding of each output."""

    function: Counted
    xs: Arrays
    ys: Arrays
    vs: tuple[Arrays, ...]
    grads: tuple[Arrays, ...]
    eps: tuple[float, ...]
    seed: int

    @cached_property
    def base(self) -> np.ndarray:
        """The projections of the outputs, for each cotangent."""
        return np.array([projected(v, self.ys) for v in self.vs])

    @cached_property
    def natural(self) -> np.ndarray:
        """The size of such projections, signs apart."""
        return np.array([product_norm(v, self.ys) for v in self.vs])

    @cached_property
    def rounding(self) -> np.ndarray:
        """What rounding the inputs and the outputs adds to the projections."""
        unit = max(self.eps, default=EPS)
        inputs = unit * np.array([product_norm(g, self.xs) for g in self.grads])
        outputs = np.array(
            [
                norm([np.array([e * product_norm([a], [y]) for e, a, y in zip(self.eps, v, self.ys, strict=True)])])
                for v in self.vs
            ]
        )
        return np.hypot(inputs, outputs)


def point_at(
    function: Counted, xs: Arrays, seed: int, count: int = 2, eps: Sequence[float] = ()
) -> tuple[Point, Pullback]:
    """The point with its gradients; raises what the function raises. Gradients of None count as zero."""
    ys, pullback = function.pull(own(xs))
    single = sum(y.size for y in ys if floating(y)) == 1
    vs = tuple(cotangents(ys, k, seed, relative=k == 1) for k in range(1 if single else count))
    grads = tuple(filled(pullback(own(v)), xs) for v in vs)
    return (
        Point(function=function, xs=xs, ys=ys, vs=vs, grads=grads, eps=tuple(eps) or (EPS,) * len(ys), seed=seed),
        pullback,
    )


def filled(grads: Sequence[np.ndarray | None], xs: Arrays) -> Arrays:
    """Zeros for None, and for integer inputs."""
    return tuple(np.zeros(x.shape) if g is None or not floating(x) else g for g, x in zip(grads, xs, strict=True))


def own(arrays: Sequence[np.ndarray]) -> Arrays:
    """Copies, for a function that may write into what it is given."""
    return tuple(a.copy() for a in arrays)


def narrowed(x: np.ndarray) -> np.ndarray:
    """The same in float32."""
    return np.asarray(x).astype({"f": np.float32, "c": np.complex64}.get(x.dtype.kind, x.dtype))
