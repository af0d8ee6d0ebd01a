"""What a torch function computes, read from its arguments: the words that the readers of all functions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

Canonical = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One output of a function, as `harness.calls.Call` has it, in tensors.

    parameters: for each op; fewer than ops where the last ones have none. canonical: None where the output is in
    canonical layout as it stands. ways: of a recurrence in both directions, each by itself; the op puts together what
    they put out, along an axis that it joins or makes.
    """

    ops: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    parameters: tuple[tuple[Tensor, ...], ...] = ()
    canonical: Canonical | None = None
    ways: tuple[Reading, ...] = ()


Read = Reading | tuple[Reading | None, ...] | None
"""A tuple has a reading for each floating-point output in order; None stands for what the reference does not know."""


def one(op: Any, *inputs: Tensor, parameters: Sequence[Tensor | None] = ()) -> Reading:
    """A single op; parameters that are None are absent."""
    return Reading(ops=(op,), inputs=inputs, parameters=(tuple(p for p in parameters if p is not None),))


def each(value: Any, count: int) -> tuple[Any, ...]:
    """A setting for each of `count` axes: torch takes one for all, or as many as there are."""
    given = tuple(value) if isinstance(value, tuple | list) else (value,)
    return given * count if len(given) == 1 else given


def axis(dim: int, ndim: int) -> int:
    return dim + ndim if dim < 0 else dim


def axes(dim: Any, ndim: int) -> tuple[int, ...]:
    """Ascending and not negative; all for none given."""
    if dim is None or dim in ((), []):
        return tuple(range(ndim))
    return tuple(sorted(axis(int(d), ndim) for d in each(dim, 1)))


def in_order(ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim))
