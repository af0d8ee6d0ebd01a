"""What a reader of Keras calls is given and answers with, and how it brings images into the canonical layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from harness.ops import Permute

Array = np.ndarray
Weight = tuple[Array, str]
"""An op's parameter in the canonical layout, and the model's own name of it; "" for a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One call as it was made, with arrays in the place of tensors.

    made: the layer, operation or function. given: its arguments by name, the defaults and an operation's own attributes
    among them. x: the arrays given, in order, floats as float64. output, index: the result asked for, and its place.
    image: whether the first array given is an image or a signal (channels apart from space), None where nothing tells.
    value, name: of a variable, as it was before the forward pass. results: what inner layers put out, by the layer's
    id. masked: an input bears a Keras mask. kept: which elements a dropout kept.
    """

    made: Any
    given: Mapping[str, Any]
    x: tuple[Array, ...]
    output: Array
    index: int
    image: bool | None
    value: Callable[[Any], Array]
    name: Callable[[Any], str]
    results: Mapping[int, Array]
    masked: bool
    kept: Array | None

    def weight(self, variable: Any, *axes: int) -> Weight:
        """A variable as a parameter, its axes in this order."""
        value = self.value(variable)
        return (value.transpose(axes) if axes else value), self.name(variable)


def same(array: Array) -> Array:
    """A layout that is canonical already."""
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a call computes: `harness.calls.Call`, where image says what the result is, None: as its input.

    weights: for each op; () stands for none anywhere.
    """

    ops: tuple[Any, ...]
    inputs: tuple[Array, ...]
    weights: tuple[tuple[Weight, ...], ...] = ()
    canonical: Callable[[Array], Array] = field(default=same)
    image: bool | None = None


# --- layouts ----------------------------------------------------------------------------------------------------


def first(array: Array) -> Array:
    """Channels from the last axis to axis 1."""
    return np.moveaxis(array, -1, 1)


def moves(seen: Seen) -> bool:
    """Whether the call's channels are to be moved: images of four axes or more, unless told otherwise.

    Arrays of three axes are sequences unless a layer for signals made them.
    """
    rank, given = seen.x[0].ndim, seen.given.get("data_format") or keras.config.image_data_format()
    return given == "channels_last" and rank > 2 and (rank > 3 if seen.image is None else seen.image)


def mover(seen: Seen) -> Callable[[Array], Array]:
    """Brings arrays of the rank of the first one given into the canonical layout."""
    rank, moved = seen.x[0].ndim, moves(seen)
    return lambda array: first(array) if moved and array.ndim == rank else array


def axis_in(seen: Seen, axis: int, rank: int | None = None) -> int:
    """An axis of the side's own layout in the canonical one, never negative."""
    rank = seen.x[0].ndim if rank is None else rank
    axis %= rank
    if not moves(seen) or axis == 0:
        return axis
    return 1 if axis == rank - 1 else axis + 1


def axes_in(seen: Seen, axes: Any) -> tuple[int, ...]:
    """Some axes, sorted; None is all of them."""
    rank = seen.x[0].ndim
    listed = range(rank) if axes is None else axes if isinstance(axes, list | tuple) else (axes,)
    return tuple(sorted(axis_in(seen, int(axis)) for axis in listed))


def elementwise(seen: Seen, *chain: Any, weights: tuple[Weight, ...] = ()) -> Reading:
    """Ops that treat every element of their one input for itself; weights: the first one's."""
    move = mover(seen)
    own = (weights, *((),) * (len(chain) - 1)) if weights else ()
    return Reading(ops=chain, inputs=(move(seen.x[0]),), weights=own, canonical=move)


def to_native(seen: Seen) -> tuple[Permute, ...]:
    """The op before one that reads the side's own layout."""
    rank = seen.x[0].ndim
    return (Permute(axes=(0, *range(2, rank), 1)),) if moves(seen) else ()


def to_canonical(rank: int, moved: bool) -> tuple[Permute, ...]:
    """The op behind one whose result is in the side's own layout."""
    return (Permute(axes=(0, rank - 1, *range(1, rank - 1))),) if moved else ()
