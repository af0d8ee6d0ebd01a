"""The models' outputs as they are returned: a layout in which they would agree is no matter to a caller who reads them.

Between two models an activation is compared in whatever layout it agrees. An output is compared as it is, but for what
is usual: examples of another shape with the same numbers in the same order, and channels first against channels last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.activations import EQUAL, Aligned, matching_view
from harness.recipe import Record, Shape
from harness.views import View, see

Arrays = Sequence[tuple[np.ndarray, np.ndarray]]
"""What both models are fed, pair by pair."""


def as_returned(alignment: Sequence[Aligned], reference: Record, candidate: Record, fed: Arrays) -> tuple[Aligned, ...]:
    """The pairs of outputs of one size, in order, that the alignment does not show as they are returned.

    fed: whose layouts tell how the two models' data lie.
    """
    moves = {view.axes for pair in fed if (view := _layout(*pair)) is not None and view.axes is not None}
    channels = any(axes in _channel_moves(len(axes)) for axes in moves)
    found = []
    for one, other in zip(reference.outputs, candidate.outputs, strict=False):
        wanted, own = reference.activations[one], candidate.activations[other]
        if wanted.size != own.size:
            continue
        views = [*_views(wanted.shape, own.shape, moves, channels)]
        known = [pair.view for pair in alignment if (pair.reference, pair.candidate) == (one, other)]
        if not views or any(_alike(view, allowed, own.shape) for view in known for allowed in views):
            continue
        closest = min(views, key=lambda view: _gap(wanted, see(view, own)))
        found.append(Aligned(reference=one, candidate=other, view=closest, by="output"))
    return tuple(found)


def unlike_outputs(names: Sequence[str], reference: Record, candidate: Record) -> list[str]:
    """Outputs that cannot be compared, in words."""
    counts = len(reference.outputs), len(candidate.outputs)
    if counts[0] != counts[1]:
        said = " and ".join(f"{name} returns {count}" for name, count in zip(names, counts, strict=True))
        return [f"{said} of floats: the outputs that only one of them has are not compared"]
    if not counts[0]:
        return ["neither model returns floats: what they return is not compared, only what they compute on the way"]
    shapes = [
        (reference.activations[one].shape, candidate.activations[other].shape)
        for one, other in zip(reference.outputs, candidate.outputs, strict=True)
    ]
    notes = []
    for i, (one, other) in enumerate(shapes):
        said = f"output {i} has shape {one} in {names[0]} and {other} in {names[1]}"
        if np.prod(one) != np.prod(other):
            notes.append(f"{said}: it is not compared")
        elif not any(True for _ in _views(one, other, set(), True)):
            notes.append(f"{said}: compared in the layout in which they agree")
    return notes


def _layout(one: np.ndarray, other: np.ndarray) -> View | None:
    found = matching_view(one, other) if one.size == other.size and one.dtype.kind == other.dtype.kind == "f" else None
    return found[1] if found and found[0] <= EQUAL else None


def _channel_moves(rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """From channels last to channels first, and back."""
    inner = tuple(range(1, rank))
    return (0, *inner[-1:], *inner[:-1]), (0, *inner[1:], *inner[:1])


def _views(wanted: Shape, own: Shape, moves: set[tuple[int, ...]], channels: bool) -> Iterator[View]:
    """How an output may be seen; none where nothing tells."""
    is_plain = _without_ones(wanted) == _without_ones(own)
    if is_plain:
        yield View(result=None if wanted == own else (-1, *wanted[1:]))
    allowed = {axes for axes in moves if len(axes) == len(own)}
    if len(own) > 1 and (channels or not is_plain):
        allowed |= set(_channel_moves(len(own)))
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
