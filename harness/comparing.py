"""The numbers behind a verdict: differences of two sides in two precisions, and what rounding can explain of them.

All in the max norm per tensor and step. With S one side, R the reference and C the candidate:

    noise_S  = |q_S,float32 - q_S,float64|
    d32, d64 = |q_R - q_C| in either precision
    budget   = (noise_R + noise_C + smallest normal float32) * 2**-29 + eps64 * max|q|
    ratio    = d64 / budget
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.layout import Layout
from harness.running import Rows

EPS32 = float(np.finfo(np.float32).eps)
EPS64 = float(np.finfo(np.float64).eps)
BLOCK_NUMBERS = 2**16
"""Numbers of a row compared at a time: both sides' in both precisions, and a difference, fit a second-level cache."""
STRIP = 32
"""Entries of the last axis in a block of tensors whose memory is in another order."""
SHRINK = 2.0**-29  # eps64 / eps32: by how much going to float64 shrinks every rounding difference
UNDERFLOW = float(np.finfo(np.float32).tiny)  # noise below it is not seen: numbers are flushed to 0, or lose digits

SMALL = 2**14
"""A tensor of so many numbers at most costs less to copy beside others than to measure by itself."""
FLOATS = np.dtype("float32"), np.dtype("float64"), np.dtype("float32"), np.dtype("float64")

Parts = tuple[np.ndarray, ...]
"""A tensor, or two whose difference it is, so that a large one is never held."""

Largest = Callable[[np.ndarray], np.ndarray]
"""The largest magnitude of each quantity's entries, (steps, quantities); NaN wins."""


@dataclass(slots=True, kw_only=True)
class Measures:
    """One chunk's numbers, each (steps, quantities) in the report order of the layout.

    size_*: max norm of the finite entries in float64. spread: what confirmation found beyond the noise (0 until it
    ran), part of the budget.
    same: bit for bit equal in both precisions.
    void: some entry has overflown on both sides in float64, to NaN or +inf; the others are measured, that one cannot
    be. (-inf on both is a mask.)
    """

    layout: Layout
    size_reference: np.ndarray
    size_candidate: np.ndarray
    d32: np.ndarray
    d64: np.ndarray
    noise_reference: np.ndarray
    noise_candidate: np.ndarray
    grain: np.ndarray
    spread: np.ndarray
    same: np.ndarray
    void: np.ndarray

    def part(self, steps: slice) -> Measures:
        """Views of some of the steps."""
        arrays = {name: getattr(self, name)[steps] for name in self.__slots__ if name != "layout"}
        return Measures(layout=self.layout, **arrays)

    @property
    def size(self) -> np.ndarray:
        return np.maximum(self.size_reference, self.size_candidate)

    @property
    def noise(self) -> np.ndarray:
        return self.noise_reference + self.noise_candidate + UNDERFLOW

    @property
    def budget(self) -> np.ndarray:
        return self.noise * SHRINK + EPS64 * self.grain + self.spread

    @property
    def ratio(self) -> np.ndarray:
        """d64 / budget; 0 where both are 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.d64 == 0, 0.0, self.d64 / self.budget)


def compare(layout: Layout, reference: Rows, candidate: Rows) -> Measures:
    """Measure a chunk: rows of both sides in both precisions, (steps, layout.size) each."""
    steps = max(1, BLOCK_NUMBERS // layout.size)
    blocks = []
    for first in range(0, len(reference["float64"]), steps):
        block = slice(first, first + steps)
        sides: list[Rows] = [{p: values[block] for p, values in rows.items()} for rows in (reference, candidate)]
        blocks.append(_compare(layout, *sides))
    arrays = [name for name in Measures.__slots__ if name != "layout"]
    return Measures(layout=layout, **{name: np.concatenate([getattr(b, name) for b in blocks]) for name in arrays})


def compare_tensors(tensors: Iterable[Sequence[Parts]]) -> Iterator[dict[str, np.ndarray]]:
    """Tensors of one step, each as the reference's float32 and float64 and the candidate's, measured in order as
    `together` takes them; the four are of one shape, in any order of memory. Small ones are measured in one go.

    Of a tensor in two parts their difference is measured, and then the first.
    """
    small: list[Sequence[np.ndarray]] = []
    for tensor in tensors:
        size = tensor[0][0].size
        if 0 < size <= SMALL and tuple(parts[0].dtype for parts in tensor) == FLOATS:
            small += _measurable(tensor)
            if sum(four[0].size for four in small) < BLOCK_NUMBERS:
                continue
            tensor = None
        if small:
            yield _compare_row(small)
            small = []
        if tensor is not None:
            yield compare_tensor(tensor)
    if small:
        yield _compare_row(small)


def compare_tensor(tensor: Sequence[Parts]) -> dict[str, np.ndarray]:
    """One of `compare_tensors`, cut into blocks that fit a cache, each brought into the order of its axes."""
    numbers = BLOCK_NUMBERS // max(map(len, tensor))
    if all(array.flags.c_contiguous for parts in tensor for array in parts):
        tensor = [tuple(array.reshape(-1) for array in parts) for parts in tensor]
        blocks = _blocks(tensor[0][0].shape, numbers)
    else:  # strips: what lies the other way round is then read along memory, from few places at a time
        blocks = _blocks(tensor[0][0].shape, numbers, STRIP)
    measured = []
    for block in blocks:
        cut = [tuple(np.ascontiguousarray(array[block]) for array in parts) for parts in tensor]
        measured.append([_measured(_largest_of_all, *four) for four in _measurable(cut)])
    of_blocks = {
        name: np.array([[of[name] for of in block] for block in measured])[..., 0, 0] for name in measured[0][0]
    }
    return {name: (of.min if name == "same" else of.max)(axis=0, keepdims=True) for name, of in of_blocks.items()}


def _measurable(tensor: Sequence[Parts]) -> list[list[np.ndarray]]:
    """The fours of arrays that are measured of a tensor."""
    fours = [[whole(parts) for parts in tensor]]
    return fours if len(tensor[0]) == 1 else [*fours, [parts[0] for parts in tensor]]


def _compare_row(fours: Sequence[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    starts = np.cumsum([0, *(four[0].size for four in fours[:-1])])
    rows = [np.concatenate([four[i].ravel() for four in fours])[None] for i in range(4)]
    return _measured(partial(_largest_from, starts), *rows)


def whole(parts: Parts) -> np.ndarray:
    """The tensor."""
    return parts[0] if len(parts) == 1 else np.asarray(parts[0] - parts[1])


def _blocks(shape: tuple[int, ...], numbers: int, strip: int | None = None) -> Iterator[tuple[slice, ...]]:
    """Cuts of a tensor of so many numbers at most, along its first axes; strip: entries of the last axis at most."""
    lengths = [max(1, length) for length in shape]
    lengths[-1] = min(lengths[-1], strip or numbers)
    for axis, length in enumerate(lengths):
        lengths[axis] = max(1, min(length, numbers // math.prod(lengths[axis + 1 :])))
    starts = (range(0, max(1, length), cut) for length, cut in zip(shape, lengths, strict=True))
    for at in itertools.product(*starts):
        yield tuple(slice(start, start + cut) for start, cut in zip(at, lengths, strict=True))


def together(
    layout: Layout, columns: Sequence[Mapping[str, np.ndarray]], order: np.ndarray | slice = slice(None)
) -> Measures:
    """The measures of one step from those of its tensors; order: which of them each quantity of the layout has."""
    arrays = {name: np.concatenate([column[name] for column in columns], axis=1)[:, order] for name in columns[0]}
    grain = _grain(layout, np.maximum(arrays["size_reference"], arrays["size_candidate"]))
    return Measures(layout=layout, grain=grain, **arrays)


def _compare(layout: Layout, reference: Rows, candidate: Rows) -> Measures:
    rows = reference["float32"], reference["float64"], candidate["float32"], candidate["float64"]
    arrays = _measured(partial(_largest, layout), *rows)
    grain = _grain(layout, np.maximum(arrays["size_reference"], arrays["size_candidate"]))
    return Measures(layout=layout, grain=grain, **arrays)


def _measured(
    largest: Largest,
    reference32: np.ndarray,
    reference64: np.ndarray,
    candidate32: np.ndarray,
    candidate64: np.ndarray,
) -> dict[str, np.ndarray]:
    """All of a `Measures` but its grain."""
    size_reference, size_candidate = largest(reference64), largest(candidate64)
    void = np.zeros(size_reference.shape, bool)
    if not np.isfinite(size_reference + size_candidate).all():
        void = _void(largest, reference64, candidate64)
        size_reference, size_candidate = _finite(largest, reference64), _finite(largest, candidate64)
    d32, d64 = _difference(largest, reference32, candidate32), _difference(largest, reference64, candidate64)
    return {
        "size_reference": size_reference,
        "size_candidate": size_candidate,
        "d32": d32,
        "d64": d64,
        "noise_reference": _difference(largest, reference32, reference64),
        "noise_candidate": _difference(largest, candidate32, candidate64),
        "spread": np.zeros_like(d64),
        "same": (d32 == 0) & (d64 == 0),
        "void": void,
    }


def per_quantity(layout: Layout, reference64: np.ndarray, candidate64: np.ndarray) -> np.ndarray:
    """Largest difference by quantity of two float64 blocks of rows, (steps, quantities)."""
    return _difference(partial(_largest, layout), reference64, candidate64)


def worst_index(layout: Layout, quantity: int, reference64: np.ndarray, candidate64: np.ndarray) -> tuple[int, ...]:
    """Where in a tensor two float64 rows differ most (the first NaN, if any)."""
    of = layout.quantities[quantity]
    with np.errstate(invalid="ignore"):
        gap = np.abs(reference64[of.columns] - candidate64[of.columns])
    flat = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
    return tuple(int(i) for i in np.unravel_index(flat, of.shape))


def _difference(largest_of: Largest, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Largest difference by quantity, in the wider of the two precisions."""
    with np.errstate(invalid="ignore", over="ignore"):
        if one.dtype == other.dtype:
            gap = np.asarray(one - other)
        else:
            gap = one.astype(np.result_type(one, other))  # half the time of subtracting mixed precisions
            gap -= other
    largest = largest_of(gap)
    if np.isnan(largest).any():  # equal infinities (masks) are no difference
        gap[(one == other) | _nothing_to_say(one, other)] = 0.0
        largest = largest_of(gap)
    return largest


def _void(largest: Largest, reference64: np.ndarray, candidate64: np.ndarray) -> np.ndarray:
    overflown = (reference64 == np.inf) & (candidate64 == np.inf)
    return largest((overflown | _nothing_to_say(reference64, candidate64)).astype(np.float64)) > 0


def _nothing_to_say(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """NaN against NaN, or against an infinity: which of them an overflow ends in depends on the order of summation."""
    return (np.isnan(one) | np.isnan(other)) & ~np.isfinite(one) & ~np.isfinite(other)


def _finite(largest: Largest, values: np.ndarray) -> np.ndarray:
    """Largest finite entry of each quantity: beside an infinity, which may be a mask, the others still count."""
    return largest(np.where(np.isfinite(values), values, 0.0))


def _largest(layout: Layout, values: np.ndarray) -> np.ndarray:
    starts = np.array([quantity.start for quantity in layout.quantities])
    storage = np.argsort(starts)
    largest = np.empty((len(values), len(starts)))
    largest[:, storage] = _largest_from(starts[storage], values)
    return largest


def _largest_from(starts: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(np.abs(values), starts, axis=1)


def _largest_of_all(values: np.ndarray) -> np.ndarray:
    """Of one tensor, as a row and column of `Measures`."""
    return np.array([[np.maximum(values.max(initial=0), -values.min(initial=0))]], np.float64)


def _grain(layout: Layout, size: np.ndarray) -> np.ndarray:
    """What one ulp is relative to: the tensor's size; for an update, a difference of parameters, the parameter's."""
    parameter = {q.tensor: i for i, q in enumerate(layout.quantities) if q.kind == "parameter"}
    grain = size.copy()
    for i, quantity in enumerate(layout.quantities):
        if quantity.kind == "update":
            grain[:, i] = 2 * size[:, parameter[quantity.tensor]] + size[:, i]
    return grain
