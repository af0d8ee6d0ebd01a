"""What values alone say about two tensors: whether they hold the same numbers, and through which map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import numpy as np

from harness.recipe import Shape
from harness.views import View, plain, see

CHUNK = 1 << 16
NEAR = 0.05
"""Values that differ by less, of the largest, are versions of one tensor; unrelated ones differ by its size."""


def rounded(array: np.ndarray) -> np.ndarray:
    """The values as float32, no copy where they are; -0 and 0 are one number to a comparison."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array).astype(np.float32, copy=False)


def informative(array: np.ndarray) -> bool:
    """Whether the values tell one tensor from another: all zeros or ones do not."""
    return array.size > 1 and bool((array != array.flat[0]).any())


def fingerprint(array: np.ndarray) -> int:
    """A hash of the multiset of float32 values, in any layout; that of a concatenation is the parts' sum."""
    flat = rounded(array).ravel(order="K")
    total = np.uint64(0)
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, CHUNK):
            total += _mixed(flat[start : start + CHUNK]).sum(dtype=np.uint64)
    return int(total)


def row_fingerprints(array: np.ndarray, axis: int) -> np.ndarray:
    """The fingerprint of each slice along an axis (length of the axis,)."""
    return np.concatenate([_mixed(rows).sum(axis=1, dtype=np.uint64) for rows in _rows(array, axis)])


def equal(reference: np.ndarray, candidate: np.ndarray) -> bool:
    """Whether two tensors hold the same float32 values; most that differ do so in the first few."""
    if reference.shape != candidate.shape:
        return False
    few = [rounded(side.flat[:8]) for side in (reference, candidate)]
    return _same(*few) and _same(rounded(reference), rounded(candidate))


def _same(reference: np.ndarray, candidate: np.ndarray) -> bool:
    same = reference == candidate
    return bool(same.all()) or bool((same | ((reference != reference) & (candidate != candidate))).all())


def distance(reference: np.ndarray, candidate: np.ndarray) -> tuple[float, float]:
    """The largest difference, and the largest size of the reference."""
    return float(np.max(np.abs(reference - candidate), initial=0)), float(np.max(np.abs(reference), initial=0))


def axis_views(reference: Shape, candidate: Shape) -> Iterator[View]:
    """Maps of a candidate's tensor to a reference's shape by an order of its axes and a reshape."""
    if math.prod(reference) != math.prod(candidate):
        return
    for axes in axis_orders(len(candidate)):
        yield View(axes=axes, result=reference)
    if reference != candidate:
        for back in axis_orders(len(reference)):
            yield View(shape=tuple(reference[axis] for axis in back), axes=tuple(np.argsort(back).tolist()))


def axis_orders(ndim: int) -> list[tuple[int, ...]]:
    """The orders of a tensor's axes, of more than five only as they are and reversed."""
    if ndim > 5:
        return [tuple(range(ndim)), tuple(reversed(range(ndim)))]
    return list(permutations(range(ndim)))


def find_map(reference: np.ndarray, candidate: np.ndarray) -> View | None:
    """The map that carries a candidate's values to a reference's of the same fingerprint, or None."""
    tried = list(axis_views(reference.shape, candidate.shape))
    for view in tried:
        if equal(reference, see(view, candidate)):
            return plain(view, candidate.shape)
    for view in tried:
        if found := find_order(reference, see(view, candidate)):
            by_axes = View(shape=view.shape, axes=view.axes)
            if see(by_axes, candidate).shape == reference.shape:
                return plain(replace(by_axes, order=found), candidate.shape)
    return None


def find_order(reference: np.ndarray, candidate: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The axis and the index by which a candidate's slices are to be taken to be the reference's.

    None where there is none, or where slices are repeated so that it cannot be told.
    """
    if reference.shape != candidate.shape:
        return None
    for axis in range(reference.ndim):
        if reference.shape[axis] < 2:
            continue
        keys = [_placed(side, axis) for side in (reference, candidate)]
        sorts = [np.argsort(key, kind="stable") for key in keys]
        ranked = [key[sort] for key, sort in zip(keys, sorts, strict=True)]
        if np.array_equal(ranked[0], ranked[1]) and (ranked[0][1:] != ranked[0][:-1]).all():
            index = np.empty_like(sorts[0])
            index[sorts[0]] = sorts[1]
            return axis, index
    return None


def find_block(whole: np.ndarray, sizes: dict[int, list[int]]) -> Iterator[tuple[tuple[slice, ...], int]]:
    """Contiguous parts along one axis whose fingerprint is among those asked for; sizes: {size: fingerprints}.

    Yields (part, fingerprint).
    """
    for axis in range(whole.ndim):
        length = whole.shape[axis]
        row = whole.size // max(length, 1)
        widths = {size // row: wanted for size, wanted in sizes.items() if row and size % row == 0}
        widths = {width: wanted for width, wanted in widths.items() if 0 < width < length}
        if not widths:
            continue
        with np.errstate(over="ignore"):
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(row_fingerprints(whole, axis), dtype=np.uint64)])
            for width, wanted in widths.items():
                windows = sums[width:] - sums[:-width]
                for mark in wanted:
                    for start in np.flatnonzero(windows == np.uint64(mark)).tolist():
                        yield (*([slice(None)] * axis), slice(start, start + width)), mark


def is_flattening(index: np.ndarray) -> bool:
    """Whether an order is that of a (p, q) array flattened by columns instead of rows: channels first against last."""
    step = int(index[1] - index[0]) if len(index) > 1 else 0
    if step < 2 or len(index) % step:
        return False
    return np.array_equal(index, np.arange(len(index)).reshape(-1, step).T.ravel())


def _mixed(values: np.ndarray) -> np.ndarray:
    """Each value's bits scattered over 64 (the finaliser of MurmurHash3, public domain)."""
    bits = (values + np.float32(0)).view(np.uint32).astype(np.uint64)
    bits += np.uint64(0x9E3779B97F4A7C15)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits ^= bits >> np.uint64(33)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(33)
    return bits


def _placed(array: np.ndarray, axis: int) -> np.ndarray:
    """A hash of each slice along an axis, places in the slice included."""
    width = array.size // array.shape[axis]
    weights = np.random.default_rng(0).integers(1, 1 << 63, width, np.uint64) | np.uint64(1)
    return np.concatenate([(_mixed(rows) * weights).sum(axis=1, dtype=np.uint64) for rows in _rows(array, axis)])


def _rows(array: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """The slices along an axis as rows, some at a time."""
    slices = np.moveaxis(array, axis, 0)
    many = max(1, CHUNK * len(slices) // max(array.size, 1))
    for start in range(0, len(slices), many):
        some = slices[start : start + many]
        yield rounded(some).reshape(len(some), -1)
