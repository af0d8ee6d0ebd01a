"""How a parameter of one side is seen in the other side's layout, there and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.recipe import Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A tensor seen in another layout: the fields act from top to bottom.

    part: slices of the leading axes; the whole tensor when empty. shape: reshaped to. axes: transposed by. flips: axes
    reversed. order: an axis and the index array that its entries are taken by. result: the final shape. said: what the
    order is, in words.
    """

    part: tuple[slice, ...] = ()
    shape: Shape | None = None
    axes: tuple[int, ...] | None = None
    flips: tuple[int, ...] = ()
    order: tuple[int, np.ndarray] | None = None
    result: Shape | None = None
    said: str = ""


def see(view: View, array: np.ndarray) -> np.ndarray:
    """The tensor in the view's layout: NumPy's view of the same memory unless there is an order."""
    seen = array[view.part] if view.part else array
    seen = seen if view.shape is None else seen.reshape(view.shape)
    seen = seen if view.axes is None else seen.transpose(view.axes)
    seen = np.flip(seen, view.flips) if view.flips else seen
    seen = seen if view.order is None else seen.take(view.order[1], view.order[0])
    return seen if view.result is None else seen.reshape(view.result)


def put(view: View, array: np.ndarray, canonical: np.ndarray) -> None:
    """Write back in place what `see` shows."""
    part = array[view.part] if view.part else array
    part[...] = _unseen(view, canonical, part.shape)


def placed(view: View, array: np.ndarray, canonical: np.ndarray) -> np.ndarray:
    """The array where `see` shows other values. It is left as it is: a view of the whole shares the memory of those
    values where it can, since a large model's parameters do not fit once more."""
    if not view.part:
        return _unseen(view, canonical, array.shape).astype(array.dtype, copy=False)
    array = array.copy()
    put(view, array, canonical)
    return array


def _unseen(view: View, canonical: np.ndarray, shape: Shape) -> np.ndarray:
    """What `see` shows so; shape: of the part."""
    inner = shape if view.shape is None else view.shape
    axes = tuple(range(len(inner))) if view.axes is None else view.axes
    written = np.asarray(canonical).reshape([inner[axis] for axis in axes])
    if view.order is not None:
        axis, index = view.order
        written = written.take(np.argsort(index), axis)
    written = np.flip(written, view.flips).copy() if view.flips else written  # torch takes none that runs backwards
    return written.transpose(np.argsort(axes)).reshape(shape)


def part_shape(part: tuple[slice, ...], shape: Shape) -> Shape:
    """The shape of a part of a tensor."""
    lengths = [len(range(*piece.indices(length))) for piece, length in zip(part, shape, strict=False)]
    return (*lengths, *shape[len(part) :])


def seen_shape(view: View, shape: Shape) -> Shape:
    """The shape that a tensor is seen in."""
    if view.result is not None:
        return view.result
    inner = part_shape(view.part, shape) if view.shape is None else view.shape
    return inner if view.axes is None else tuple(inner[axis] for axis in view.axes)


def meeting(reference: View, reference_shape: Shape, candidate: View, candidate_shape: Shape) -> tuple[View, View]:
    """Two views that show the same layout (by part, shape, axes and order), turned into views in the layout of the
    reference's part: the reference's own and the candidate's."""
    own = part_shape(reference.part, reference_shape)
    theirs = part_shape(candidate.part, candidate_shape)
    inner = own if reference.shape is None else reference.shape
    back = tuple(np.argsort(range(len(inner)) if reference.axes is None else reference.axes).tolist())
    axes = candidate.axes
    if axes is None:
        axes = tuple(range(len(theirs if candidate.shape is None else candidate.shape)))
    order = None
    if reference.order or candidate.order:
        axis, index = candidate.order or (0, None)
        if reference.order:
            axis, undo = reference.order[0], np.argsort(reference.order[1])
            index = undo if index is None else index[undo]
        assert index is not None
        order = None if np.array_equal(index, np.arange(len(index))) else (back.index(axis), index)
    view = View(
        part=candidate.part,
        shape=candidate.shape,
        axes=tuple(axes[axis] for axis in back),
        order=order,
        result=own,
        said=candidate.said or reference.said,
    )
    return View(part=reference.part), plain(view, theirs)


def plain(view: View, shape: Shape) -> View:
    """The same view without the fields that do nothing; shape: of the part."""
    inner = shape if view.shape is None else view.shape
    axes = tuple(range(len(inner))) if view.axes is None else view.axes
    shown = tuple(inner[axis] for axis in axes)
    return replace(
        view,
        shape=None if inner == shape else inner,
        axes=None if axes == tuple(range(len(axes))) else axes,
        result=None if view.result == shown else view.result,
    )


def ordered(view: View, shape: Shape, axis: int, index: np.ndarray, said: str = "") -> View | None:
    """The view with its entries along an axis of what it shows taken by index too; None where it has no such form.

    shape: of the whole tensor.
    """
    before = seen_shape(replace(view, result=None), shape)
    after = seen_shape(view, shape)
    # an axis survives the final reshape where as many entries stand before it, and behind it
    stands = [i for i, n in enumerate(before) if (n, math.prod(before[:i])) == (after[axis], math.prod(after[:axis]))]
    if not stands or (view.order and view.order[0] != stands[0]):
        return None
    return replace(view, order=(stands[0], view.order[1][index] if view.order else index), said=said)


def describe(view: View) -> str:
    """The view in a few words."""
    names = ("rows", "columns") if len(view.part) < 3 else ()
    words = [
        f"{names[i] if i < len(names) else f'axis {i} at'} {piece.start}:{piece.stop}"
        for i, piece in enumerate(view.part)
        if piece != slice(None)
    ]
    if view.shape is not None:
        words.append(f"as {'x'.join(map(str, view.shape)) or 'a scalar'}")
    if view.axes == (1, 0):
        words.append("transposed")
    elif view.axes is not None:
        words.append(f"axes {','.join(map(str, view.axes))}")
    if view.flips:
        words.append(f"axes {','.join(map(str, view.flips))} reversed")
    if view.order is not None:
        words.append(view.said or f"axis {view.order[0]} reordered")
    if view.result is not None:
        words.append(f"reshaped to {'x'.join(map(str, view.result)) or 'a scalar'}")
    return ", ".join(words) or "as it is"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """What one side contributes to a link: a parameter through a view, and others added to it (torch's two biases)."""

    parameter: str
    view: View
    added: tuple[Side, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """One quantity that both sides have, each seen in the layout of the reference's own piece.

    name: the reference's parameter, with [part] where it is a piece. how: what paired them. expected: the values agree
    through this very map.
    """

    name: str
    reference: Side
    candidate: Side
    how: Literal["value", "structure", "given"]
    expected: bool


def see_value(side: Side, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """A parameter's value (or update) in the canonical layout: the sum where several are added."""
    seen = see(side.view, values[side.parameter])
    for added in side.added:
        seen = seen + see(added.view, values[added.parameter])
    return seen


def put_value(side: Side, values: dict[str, np.ndarray], canonical: np.ndarray) -> None:
    """Put a value in its place: the first of several gets what the others leave (rounded, in their precision). The
    arrays that were there are left as they are."""
    for added in side.added:
        canonical = canonical - see(added.view, values[added.parameter])
    values[side.parameter] = placed(side.view, values[side.parameter], canonical)


def see_gradient(side: Side, gradients: Mapping[str, np.ndarray | None]) -> np.ndarray | None:
    """A gradient (or a slot) in the canonical layout: of several that are added each has the same; None where there is
    none."""
    own = gradients.get(side.parameter)
    if own is not None:
        return see(side.view, own)
    others = (see_gradient(added, gradients) for added in side.added)
    return next((other for other in others if other is not None), None)


def put_gradient(side: Side, gradients: dict[str, np.ndarray], canonical: np.ndarray) -> None:
    """Put a gradient (or a slot) in its place, the same for each of several that are added. The arrays that were there
    are left as they are."""
    gradients[side.parameter] = placed(side.view, gradients[side.parameter], canonical)
    for added in side.added:
        put_gradient(added, gradients, canonical)
