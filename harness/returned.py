"""The models' outputs as they are returned: a layout in which they would agree is no matter to a caller who reads them.

Between two models an activation is compared in whatever layout it agrees. An output is compared as it is, but for what
is usual: examples of another shape with the same numbers in the same order, and channels first against channels last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.activations import EQUAL, Aligned, channel_moves, matching_view
from harness.recipe import Record, Shape
from harness.views import View, see

Arrays = Sequence[tuple[np.ndarray, np.ndarray]]
"""What both models are fed, pair by pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlike:
    """Outputs that cannot be compared: their names ("" for none), why in one line, and whether that alone is a
    difference; else it is not known whether they would agree."""

    reference: str
    candidate: str
    text: str
    differs: bool


def as_returned(
    alignment: Sequence[Aligned], reference: Record, candidate: Record, fed: Arrays, alike: bool
) -> tuple[Aligned, ...]:
    """The pairs of outputs of one size, in order, that the alignment does not show as they are returned.

    fed: whose layouts tell how the two models' data lie. alike: both are models of one framework, to which channels
    first and last are not the same by custom.
    """
    moves = {view.axes for pair in fed if (view := _layout(*pair)) is not None and view.axes is not None}
    channels = any(axes in channel_moves(len(axes)) for axes in moves)
    found = []
    for one, other in zip(reference.outputs, candidate.outputs, strict=False):
        wanted, own = reference.activations[one], candidate.activations[other]
        if wanted.size != own.size:
            continue
        views = [*_views(wanted.shape, own.shape, moves, channels, alike)]
        known = [pair.view for pair in alignment if (pair.reference, pair.candidate) == (one, other)]
        if not views or any(_alike(view, allowed, own.shape) for view in known for allowed in views):
            continue
        closest = min(views, key=lambda view: _gap(wanted, see(view, own)))
        found.append(Aligned(reference=one, candidate=other, view=closest, by="output"))
    return tuple(found)


def unlike_outputs(names: Sequence[str], reference: Record, candidate: Record) -> list[Unlike]:
    """The outputs of two models that cannot be compared."""
    one, other = reference.outputs, candidate.outputs
    if not (one or other or reference.integers or candidate.integers):
        text = "neither model returns numbers: only what they compute on the way is compared"
        return [Unlike(reference="", candidate="", text=text, differs=False)]
    found = []
    for i, (mine, theirs) in enumerate(itertools.zip_longest(one, other, fillvalue="")):
        if not (mine and theirs):
            has, lacks = names if mine else reversed(names)
            text = f"output {i} of {has} has no counterpart: {lacks} returns {min(len(one), len(other))} of floats"
            found.append(Unlike(reference=mine, candidate=theirs, text=text, differs=False))
        elif reference.activations[mine].size != candidate.activations[theirs].size:
            text = f"output {i} has shape {_shapes(names, reference.activations[mine], candidate.activations[theirs])}"
            found.append(Unlike(reference=mine, candidate=theirs, text=text, differs=True))
    return found


def unlike_integers(names: Sequence[str], reference: Record, candidate: Record) -> list[Unlike]:
    """The outputs of integers and booleans that are not equal, as they must be."""
    found = []
    for i, (one, other) in enumerate(itertools.zip_longest(reference.integers, candidate.integers)):
        if one is None or other is None:
            has, lacks = names if other is None else reversed(names)
            said, differs = f"of {has} has no counterpart in {lacks}", False
        elif one.shape != other.shape:
            said, differs = f"has shape {_shapes(names, one, other)}", True
        elif (apart := one != other).any():
            at = tuple(int(k) for k in np.argwhere(apart)[0])
            where = f"the first at {at}: {one[at]} in {names[0]}, {other[at]} in {names[1]}"
            said, differs = f"differs in {np.count_nonzero(apart)} of {one.size}, {where}", True
        else:
            continue
        name = f"integers {i}"
        found.append(Unlike(reference=name, candidate=name, text=f"output of integers {i} {said}", differs=differs))
    return found


def otherwise_shaped(names: Sequence[str], reference: Record, candidate: Record) -> list[str]:
    """In words, the outputs of one size and another shape."""
    notes = []
    for i, pair in enumerate(zip(reference.outputs, candidate.outputs, strict=False)):
        one, other = reference.activations[pair[0]], candidate.activations[pair[1]]
        if one.size == other.size and one.shape != other.shape:
            notes.append(f"output {i} has shape {_shapes(names, one, other)}")
    return notes


def _shapes(names: Sequence[str], one: np.ndarray, other: np.ndarray) -> str:
    return f"{one.shape} in {names[0]} and {other.shape} in {names[1]}"


def _layout(one: np.ndarray, other: np.ndarray) -> View | None:
    found = matching_view(one, other) if one.size == other.size and one.dtype.kind == other.dtype.kind == "f" else None
    return found[1] if found and found[0] <= EQUAL else None


def _views(wanted: Shape, own: Shape, moves: set[tuple[int, ...]], channels: bool, alike: bool) -> Iterator[View]:
    """How an output may be seen; none where nothing tells."""
    is_plain = _without_ones(wanted) == _without_ones(own)
    alike &= not moves
    if is_plain or (alike and len(wanted) == len(own)):
        yield View(result=None if wanted == own else (-1, *wanted[1:]))
    allowed = {axes for axes in moves if len(axes) == len(own)}
    if len(own) > 1 and not alike and (channels or not is_plain):
        allowed |= set(channel_moves(len(own)))
    for axes in sorted(allowed):
        if tuple(own[axis] for axis in axes) == wanted:
            yield View(axes=axes)


def _without_ones(shape: Shape) -> Shape:
    return tuple(length for length in shape[1:] if length != 1)


def _alike(one: View, other: View, shape: Shape) -> bool:
    places = np.arange(np.prod(shape)).reshape(shape)
    return np.array_equal(see(one, places).ravel(), see(other, places).ravel())


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    gap = np.abs(one - other).max(initial=0.0)
    return float(gap) if np.isfinite(gap) else np.inf
