"""Keras's changes of shape, functions and layers, in the words of the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from frameworks.keras_reading import (
    Reading,
    Seen,
    axis_in,
    elementwise,
    first,
    mover,
    moves,
    same,
    to_canonical,
    to_native,
)
from harness import ops

Reader = Callable[[Seen], Reading | None]


def _split(seen: Seen) -> Reading | None:
    """The part at this place of several that are equally long."""
    axis, parts = seen.given["axis"], list(seen.given.values())[1]
    if not isinstance(axis, int) or not isinstance(parts, int):
        return None
    length, at = seen.output.shape[axis], seen.index
    cut = ops.Slice(axis=axis_in(seen, axis), start=at * length, stop=(at + 1) * length, step=1, squeeze=False)
    return elementwise(seen, cut)


def _flatten(seen: Seen) -> Reading | None:
    x = seen.x[0]
    order = tuple(range(x.ndim - 1))
    if x.ndim < 2:
        return None
    if moves(seen):
        return Reading(ops=(ops.Flatten(start=1, order=(*order[1:], 0)),), inputs=(first(x),), image=False)
    if seen.given["data_format"] == "channels_first" and x.ndim > 2:
        order = (*order[1:], 0)
    return Reading(ops=(ops.Flatten(start=1, order=order),), inputs=(x,), image=False)


def _native(seen: Seen, *built: Any, image: bool | None = False) -> Reading:
    """Ops that read the side's own layout, between the permutations that they need."""
    moved = bool(image) and keras.config.image_data_format() == "channels_last"
    chain = (*to_native(seen), *built, *to_canonical(seen.output.ndim, moved))
    return Reading(ops=chain, inputs=(mover(seen)(seen.x[0]),), canonical=first if moved else same, image=image)


def _reshape(seen: Seen) -> Reading | None:
    """A vector made an image is an image; a sequence cut into heads is none."""
    x, y = seen.x[0], seen.output
    if not y.ndim or y.shape[0] != x.shape[0]:
        return None
    return _native(seen, ops.Reshape(shape=y.shape[1:]), image=y.ndim > 3 and (x.ndim == 2 or moves(seen)))


def _transpose(seen: Seen) -> Reading:
    rank = seen.x[0].ndim
    axes = (0, *seen.given["dims"]) if "dims" in seen.given else seen.given.get("axes", seen.given.get("perm"))
    axes = tuple(reversed(range(rank))) if axes is None else tuple(int(axis) % rank for axis in axes)
    return _native(seen, ops.Permute(axes=axes))


def _expand(seen: Seen) -> Reading | None:
    axis = seen.given["axis"]
    return _native(seen, ops.Expand(axis=axis % seen.output.ndim)) if isinstance(axis, int) else None


def _squeeze(seen: Seen) -> Reading | None:
    axis = seen.given["axis"]
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if not isinstance(axis, int):
        return None
    return _native(seen, ops.Slice(axis=axis % seen.x[0].ndim, start=0, stop=None, step=1, squeeze=True))


def _flip(seen: Seen) -> Reading | None:
    axis = seen.given["axis"]
    if not isinstance(axis, int):
        return None
    return elementwise(seen, ops.Slice(axis=axis_in(seen, axis), start=None, stop=None, step=-1, squeeze=False))


def _item(seen: Seen) -> Reading | None:
    """x[:, -1], x[..., 2:], with numbers and slices only."""
    key = seen.given.get("key", seen.given.get("b"))
    keys = key if isinstance(key, tuple) else (key,)
    if any(not isinstance(one, int | slice) and one is not ... for one in keys) or keys.count(...) > 1:
        return None
    if ... in keys:
        at = keys.index(...)
        keys = (*keys[:at], *[slice(None)] * (seen.x[0].ndim - len(keys) + 1), *keys[at + 1 :])
    cuts, gone = [], 0
    for axis, one in enumerate(keys):
        if isinstance(one, int):
            stop = one + 1 or None
            cuts.append(ops.Slice(axis=axis - gone, start=one, stop=stop, step=1, squeeze=True))
            gone += 1
        elif one != slice(None):
            step = 1 if one.step is None else one.step
            cuts.append(ops.Slice(axis=axis - gone, start=one.start, stop=one.stop, step=step, squeeze=False))
    return _native(seen, *cuts, image=seen.image)


def _repeat(seen: Seen) -> Reading | None:
    times, axis = seen.given["repeats"], seen.given["axis"]
    if not isinstance(times, int) or axis is None:
        return None
    return elementwise(seen, ops.Repeat(axis=axis_in(seen, axis), times=times, order="elements"))


def _repeat_vector(seen: Seen) -> Reading:
    repeat = ops.Repeat(axis=1, times=int(seen.given["n"]), order="elements")
    return Reading(ops=(ops.Expand(axis=1), repeat), inputs=seen.x, image=False)


def _pad(seen: Seen) -> Reading | None:
    mode, value = str(seen.given.get("mode", "constant")).lower(), seen.given.get("constant_values")
    widths = seen.given.get("pad_width", seen.given.get("paddings"))
    if mode not in ("constant", "reflect") or np.ndim(widths) != 2:
        return None
    return _padded(seen, [(int(low), int(high)) for low, high in np.asarray(widths)], mode, float(value or 0.0))


def _zero_padding(seen: Seen) -> Reading:
    pairs = seen.given["padding"]
    pairs = [pairs] if isinstance(pairs[0], int) else list(pairs)
    last = seen.given["data_format"] == "channels_last"
    return _padded(seen, [(0, 0), *pairs, (0, 0)] if last else [(0, 0), (0, 0), *pairs], "constant", 0.0)


def _padded(seen: Seen, widths: list[Any], mode: Any, value: float) -> Reading:
    if moves(seen):
        widths = [widths[0], widths[-1], *widths[1:-1]]
    return elementwise(seen, ops.Pad(widths=tuple(tuple(pair) for pair in widths), mode=mode, value=value))


def _cropping(seen: Seen) -> Reading:
    pairs = seen.given["cropping"]
    pairs = [pairs] if isinstance(pairs[0], int) else list(pairs)
    start = 1 if seen.given.get("data_format", "channels_last") == "channels_last" and not moves(seen) else 2
    cuts = [
        ops.Slice(axis=axis, start=low, stop=-high if high else None, step=1, squeeze=False)
        for axis, (low, high) in enumerate(pairs, start)
    ]
    move = mover(seen)
    return Reading(ops=tuple(cuts), inputs=(move(seen.x[0]),), canonical=move)


SHAPES: Mapping[str, Reader] = {
    "split": _split,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": _transpose,
    "permute": _transpose,
    "expand_dims": _expand,
    "squeeze": _squeeze,
    "flip": _flip,
    "getitem": _item,
    "repeat": _repeat,
    "repeat_vector": _repeat_vector,
    "pad": _pad,
    **{f"zero_padding{n}_d": _zero_padding for n in (1, 2, 3)},
    **{f"cropping{n}_d": _cropping for n in (1, 2, 3)},
}
"""Readers by Keras's name of the function, operation or layer."""
