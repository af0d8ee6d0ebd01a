"""Keras's pooling and resizing, functions and layers, in the words of the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from frameworks.keras_functions import name_of
from frameworks.keras_reading import Array, Reading, Seen, first, moves, same
from harness import ops

Reader = Callable[[Seen], Reading | None]

# --- pooling ----------------------------------------------------------------------------------------------------


def same_widths(lengths: Sequence[int], reach: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """TensorFlow's SAME in numbers: ceil(length / stride) results, the odd element at the end.

    reach: of the kernel, dilation included (tensorflow 2.21: python/ops/nn_ops.py, "Notes on padding").
    """
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(lengths, reach, stride, strict=True)]
    return tuple((t // 2, t - t // 2) for t in total)


def _pool(seen: Seen) -> Reading | None:
    """Ties go to the first in TensorFlow; padding counts in no mean."""
    given, spatial = seen.given, seen.x[0].ndim - 2
    size, stride = (_tuple(given[name] or given["pool_size"], spatial) for name in ("pool_size", "strides"))
    move = _signal(seen)
    x = move(seen.x[0])
    valid = given["padding"].lower() == "valid"
    padding = ((0, 0),) * spatial if valid else same_widths(x.shape[2:], size, stride)
    common: dict[str, Any] = {"size": size, "stride": stride, "padding": padding, "ceil_mode": False}
    if "max" in name_of(seen.made):
        op: Any = ops.MaxPool(dilation=(1,) * spatial, padding_value=-math.inf, tie="first", **common)
    else:
        op = ops.AveragePool(count_include_pad=False, divisor=None, **common)
    return Reading(ops=(op,), inputs=(x,), canonical=move, image=True)


def _adaptive(kind: Any) -> Reader:
    def read(seen: Seen) -> Reading:
        move = _signal(seen)
        op = ops.AdaptivePool(kind=kind, size=_tuple(seen.given["output_size"], seen.x[0].ndim - 2), tie="first")
        return Reading(ops=(op,), inputs=(move(seen.x[0]),), canonical=move, image=True)

    return read


def _signal(seen: Seen) -> Callable[[Array], Array]:
    """The layout of a layer for signals and images: of three axes too."""
    return same if seen.given.get("data_format") == "channels_first" else first


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    return (int(value),) * count if isinstance(value, int) else tuple(int(one) for one in value)


def _global(build: Callable[..., Any]) -> Reader:
    """Global pooling: over the spatial axes; of a sequence (nothing says it is a signal) over time as it stands."""

    def read(seen: Seen) -> Reading:
        (x, *_), mask, keep = seen.x, seen.given.get("mask"), bool(seen.given["keepdims"])
        moved = moves(seen)
        last = seen.given["data_format"] == "channels_last"
        axes = tuple(range(1, x.ndim - 1)) if last and not moved else tuple(range(2, x.ndim))
        inputs = [first(x) if moved else x]
        if mask is not None:
            inputs.append(mask if axes == (1,) else mask[:, None])
        op = build(axes=axes, keep=keep, masked=mask is not None)
        return Reading(ops=(op,), inputs=tuple(inputs), canonical=first if moved and keep else same)

    return read


def _extremum_over(axes: Any, keep: bool, masked: bool) -> Any:
    return ops.Extremum(kind="max", axes=axes, keep=keep, tie="split")


# --- resizing ---------------------------------------------------------------------------------------------------


def _resize(seen: Seen) -> Reading | None:
    """tf.image.resize: half-pixel centres; where it stretches the weights, and in bicubic, those outside are left out.

    (tensorflow 2.21: python/ops/image_ops_impl.py; keras 3.15 computes float32 in bilinear and bicubic.)
    """
    given = seen.given
    method = str(given.get("interpolation", given.get("method"))).lower().rpartition(".")[2]
    kind = {"nearest": "nearest", "nearest_neighbor": "nearest", "bilinear": "linear", "bicubic": "cubic"}.get(method)
    aspects = ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "preserve_aspect_ratio")
    if kind is None or any(given.get(name) for name in aspects) or seen.x[0].ndim != 4:
        return None
    antialias = bool(given.get("antialias")) and kind != "nearest"
    return _resampled(
        seen,
        grid="half_pixel",
        interpolation=kind,
        cubic_a=-0.5 if kind == "cubic" else 0.0,
        nearest_rounding="round" if kind == "nearest" else "floor",
        antialias=antialias,
        border="renormalise" if antialias or kind == "cubic" else "clamp",
    )


def _up_sampling(seen: Seen) -> Reading | None:
    """Copies of every element, which is what torch calls nearest; or tf.image.resize."""
    if seen.given.get("interpolation", "nearest") != "nearest":
        return _resize(seen)
    how: dict[str, Any] = {"grid": "asymmetric", "interpolation": "nearest", "nearest_rounding": "floor"}
    return _resampled(seen, cubic_a=0.0, antialias=False, border="clamp", **how)


def _resampled(seen: Seen, **how: Any) -> Reading:
    move = _signal(seen)
    x, y = move(seen.x[0]), move(seen.output)
    step = tuple(n / m for n, m in zip(x.shape[2:], y.shape[2:], strict=True))
    return Reading(ops=(ops.Resize(size=y.shape[2:], step=step, **how),), inputs=(x,), canonical=move, image=True)


# --- the table --------------------------------------------------------------------------------------------------

POOLING: Mapping[str, Reader] = {
    **{f"global_average_pooling{n}_d": _global(lambda **at: ops.Reduce(kind="mean", **at)) for n in (1, 2, 3)},
    **{f"global_max_pooling{n}_d": _global(_extremum_over) for n in (1, 2, 3)},
    **dict.fromkeys(("max_pool", "average_pool"), _pool),
    **{f"{kind}_pooling{n}_d": _pool for kind in ("max", "average") for n in (1, 2, 3)},
    **{
        f"adaptive_{kind}_pooling{n}_d": _adaptive(op)
        for kind, op in (("average", "mean"), ("max", "max"))
        for n in (1, 2, 3)
    },
    **{f"up_sampling{n}_d": _up_sampling for n in (1, 2, 3)},
    "resize": _resize,
    "resizing": _resize,
}
"""Readers by Keras's name of the function, operation or layer."""
