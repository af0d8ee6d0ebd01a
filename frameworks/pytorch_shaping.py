"""Readers of torch's functions that move, join, pad and index.

Each has the signature of the function it reads (torch 2.13).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frameworks.pytorch_reading import Read, Reading, axes, axis, each, in_order, one
from harness.case import Linear
from harness.ops import Concat, Expand, Flatten, Gather, Pad, Permute, Repeat, Reshape, Slice

# --- shapes -----------------------------------------------------------------------------------------------------


def _chain(input: Tensor, ops: list[Any]) -> Read:
    return Reading(ops=tuple(ops) or (Linear(),), inputs=(input,))


def _shaped(input: Tensor, shape: tuple[int, ...]) -> Read:
    """`shape` in full. The batch stays as it is: the words for a layer have no other."""
    if input.ndim < 1 or not shape or shape[0] != input.shape[0]:
        return None
    if len(shape) == 2 and input.ndim >= 2:
        return one(Flatten(start=1, order=in_order(input.ndim - 1)), input)
    return one(Reshape(shape=shape[1:]), input)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Read:
    start, end = axis(start_dim, input.ndim), axis(end_dim, input.ndim)
    if end == input.ndim - 1 and start < end:
        return one(Flatten(start=start, order=in_order(end - start + 1)), input)
    shape = tuple(input.shape)
    return _shaped(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def reshape(input: Tensor, *shape: Any, size: Any = None) -> Read:
    given = size if size is not None else shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if not isinstance(given, tuple | list):  # view(dtype)
        return None
    known = math.prod(n for n in given if n != -1)
    return _shaped(input, tuple(input.numel() // known if n == -1 and known else n for n in given))


def reshape_as(input: Tensor, other: Tensor) -> Read:
    return _shaped(input, tuple(other.shape))


def unflatten(input: Tensor, dim: int, sizes: Any) -> Read:
    at, shape = axis(dim, input.ndim), tuple(input.shape)
    known = math.prod(n for n in sizes if n != -1)
    return _shaped(
        input, (*shape[:at], *(shape[at] // known if n == -1 and known else n for n in sizes), *shape[at + 1 :])
    )


def permute(input: Tensor, *dims: Any) -> Read:
    given = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return one(Permute(axes=tuple(axis(d, input.ndim) for d in given)), input)


def transpose(input: Tensor, dim0: int, dim1: int) -> Read:
    order = list(range(input.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return one(Permute(axes=tuple(axis(d, input.ndim) for d in order)), input)


def transposed(input: Tensor, *_: Any) -> Read:
    """`t()`, `T`, `mT` of what has two axes or more; `T` of more than two reverses them all (deprecated)."""
    return transpose(input, 0, 1) if input.ndim == 2 else None


def transposed_last(input: Tensor, *_: Any) -> Read:
    return transpose(input, -2, -1)


def squeeze(input: Tensor, dim: Any = None) -> Read:
    if axes(dim, input.ndim) == (0,) and len(input) == 1:
        return _only(input)
    gone = [i for i in axes(dim, input.ndim) if input.shape[i] == 1]
    return _chain(input, [Slice(axis=i, start=0, stop=1, step=1, squeeze=True) for i in reversed(gone)])


def unsqueeze(input: Tensor, dim: int) -> Read:
    return one(Expand(axis=axis(dim, input.ndim + 1)), input)


def expand(input: Tensor, *sizes: Any) -> Read:
    given = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    new = len(given) - input.ndim
    shape = (1,) * new + tuple(input.shape)
    ops: list[Any] = [Expand(axis=0)] * new
    ops += [
        Repeat(axis=i, times=n, order="whole")
        for i, (n, had) in enumerate(zip(given, shape, strict=True))
        if n not in (-1, had)
    ]
    return _chain(input, ops)


def repeat(input: Tensor, *repeats: Any) -> Read:
    given = tuple(repeats[0]) if len(repeats) == 1 and not isinstance(repeats[0], int) else repeats
    if len(given) < input.ndim:  # tile
        given = (1,) * (input.ndim - len(given)) + given
    ops: list[Any] = [Expand(axis=0)] * (len(given) - input.ndim)
    return _chain(input, ops + [Repeat(axis=i, times=n, order="whole") for i, n in enumerate(given) if n != 1])


def repeat_interleave(input: Tensor, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Read:
    if isinstance(repeats, Tensor) or dim is None:
        return None
    return one(Repeat(axis=axis(dim, input.ndim), times=repeats, order="elements"), input)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Read:
    if input.ndim != 4:
        return None
    (_, channels, height, width), r = input.shape, upscale_factor
    return _chain(
        input,
        [
            Reshape(shape=(channels // r**2, r, r, height, width)),
            Permute(axes=(0, 1, 4, 2, 5, 3)),
            Reshape(shape=(channels // r**2, height * r, width * r)),
        ],
    )


def channel_shuffle(input: Tensor, groups: int) -> Read:
    channels, *rest = input.shape[1:]
    return _chain(
        input,
        [
            Reshape(shape=(groups, channels // groups, *rest)),
            Permute(axes=(0, 2, 1, *range(3, input.ndim + 1))),
            Reshape(shape=(channels, *rest)),
        ],
    )


def movedim(input: Tensor, source: Any, destination: Any) -> Read:
    moved = {
        axis(d, input.ndim): axis(s, input.ndim) for s, d in zip(each(source, 1), each(destination, 1), strict=True)
    }
    rest = iter(a for a in range(input.ndim) if a not in moved.values())
    return one(Permute(axes=tuple(moved[a] if a in moved else next(rest) for a in range(input.ndim))), input)


# --- joining and taking -----------------------------------------------------------------------------------------


def cat(tensors: Any, dim: int = 0) -> Read:
    if any(tensor.ndim != tensors[0].ndim for tensor in tensors):  # torch skips empty ones of one axis
        return None
    return one(Concat(axis=axis(dim, tensors[0].ndim)), *tensors)


def stack(tensors: Any, dim: int = 0) -> Read:
    at = axis(dim, tensors[0].ndim + 1)
    return one(Concat(axis=at), *(tensor.unsqueeze(at) for tensor in tensors))


def _slice(at: int, start: int | None, stop: int | None, squeeze: bool = False) -> Slice:
    return Slice(axis=at, start=start, stop=stop, step=1, squeeze=squeeze)


def _index(at: int, i: int) -> Slice:
    return _slice(at, i, i + 1 if i != -1 else None, squeeze=True)


def _only(input: Tensor) -> Read:
    """Of a leading axis of length 1, before the batch: the layers' axis of a recurrent state."""
    return one(Linear(), input[0])


def select(input: Tensor, dim: int, index: int) -> Read:
    return one(_index(axis(dim, input.ndim), index), input)


def narrow(input: Tensor, dim: int, start: int, length: int) -> Read:
    return one(_slice(axis(dim, input.ndim), start, start + length), input)


def take_item(input: Tensor, index: Any) -> Read:
    """`x[...]`: slices, numbers, None, one ellipsis, one array of integers."""
    if type(index) is int and len(input) == 1:
        return _only(input)
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(
        part is None or part is ... or type(part) is int or _is_slice(part) or _is_indices(part) for part in parts
    ):
        return None
    arrays = [part for part in parts if isinstance(part, Tensor)]
    if len(arrays) > 1 or (arrays and any(type(part) is int for part in parts)):
        return None
    named = sum(part is not None and part is not ... for part in parts)
    if ... in [part for part in parts if not isinstance(part, Tensor)]:
        at = next(i for i, part in enumerate(parts) if part is ...)
        parts[at : at + 1] = [slice(None)] * (input.ndim - named)
    ops, at = [], 0
    for part in parts:
        if part is None:
            ops.append(Expand(axis=at))
        elif isinstance(part, Tensor):
            ops.append(Gather(axis=at))
            at += part.ndim - 1
        elif isinstance(part, slice):
            if part != slice(None):
                ops.append(Slice(axis=at, start=part.start, stop=part.stop, step=part.step or 1, squeeze=False))
        else:
            ops.append(_index(at, part))
            continue
        at += 1
    if arrays:
        return one(ops[0], input, arrays[0]) if len(ops) == 1 else None
    return _chain(input, ops)


def _is_slice(part: Any) -> bool:
    return isinstance(part, slice) and all(type(end) in (int, type(None)) for end in (part.start, part.stop, part.step))


def _is_indices(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype in (torch.int32, torch.int64) and part.ndim > 0


def index_select(input: Tensor, dim: int, index: Tensor) -> Read:
    return one(Gather(axis=axis(dim, input.ndim)), input, index)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> Read:
    return split(input, -(-input.shape[dim] // chunks), dim)


def split(input: Tensor, split_size: Any, dim: int = 0) -> Read:
    at, length = axis(dim, input.ndim), input.shape[dim]
    sizes = [split_size] * -(-length // split_size) if isinstance(split_size, int) else split_size
    edges = [0, *np.cumsum(sizes).tolist()]
    return tuple(one(_slice(at, low, min(high, length)), input) for low, high in pairwise(edges))


def unbind(input: Tensor, dim: int = 0) -> Read:
    at = axis(dim, input.ndim)
    return tuple(one(_index(at, i), input) for i in range(input.shape[at]))


def flip(input: Tensor, *dims: Any) -> Read:
    given = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return _chain(
        input, [Slice(axis=i, start=None, stop=None, step=-1, squeeze=False) for i in axes(tuple(given), input.ndim)]
    )


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Read:
    """torch's widths begin with the last axis."""
    widths = tuple((pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2))[::-1]
    if any(number < 0 for pair in widths for number in pair):
        return None
    full = ((0, 0),) * (input.ndim - len(widths)) + widths
    return one(Pad(widths=full, mode=mode, value=float(value or 0)), input)  # type: ignore[arg-type]


ROWS: Mapping[str, Any] = {
    "flatten": flatten,
    **dict.fromkeys(("view", "reshape"), reshape),
    **dict.fromkeys(("view_as", "reshape_as"), reshape_as),
    "unflatten": unflatten,
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), transpose),
    **dict.fromkeys(("t", "T"), transposed),
    "mT": transposed_last,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    **dict.fromkeys(("expand", "broadcast_to"), expand),
    "expand_as": lambda input, other: expand(input, tuple(other.shape)),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    "pixel_shuffle": pixel_shuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    **dict.fromkeys(("movedim", "moveaxis"), movedim),
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    "select": select,
    "narrow": narrow,
    "getitem": take_item,
    "index_select": index_select,
    "chunk": chunk,
    "split": split,
    "unbind": unbind,
    "flip": flip,
    "pad": pad,
}
