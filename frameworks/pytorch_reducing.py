"""Readers of torch's functions that take many elements together: sums, extremes, norms, softmax, pooling, resizing.

Each has the signature of the function it reads (torch 2.13).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from frameworks.pytorch_reading import Read, Reading, axes, axis, each, in_order, one
from harness.ops import (
    AdaptivePool,
    AveragePool,
    Combine,
    Deviation,
    Extremum,
    LogSumExp,
    LpPool,
    MaxPool,
    Norm,
    Reduce,
    Resize,
    Scale,
    SoftmaxOver,
)

# --- over axes --------------------------------------------------------------------------------------------------


def _reduced(kind: Literal["sum", "mean"], input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None):
    if dtype is not None or not input.is_floating_point():
        return None
    return one(Reduce(kind=kind, axes=axes(dim, input.ndim), keep=keepdim, masked=False), input)


def _extreme(kind: Literal["max", "min"], input: Tensor, dim: Any = None, keepdim: bool = False) -> Read:
    """max(dim) gives the whole gradient to the element whose index it returns; max() shares it; or of two tensors."""
    if isinstance(dim, Tensor):
        return one(Combine(kind=f"{kind}imum", tie="split"), input, dim)  # type: ignore[arg-type]
    tie = "split" if dim is None else "first"
    return one(Extremum(kind=kind, axes=axes(dim, input.ndim), keep=keepdim, tie=tie), input)


def _extreme_of_two(kind: Literal["max", "min"], input: Tensor, *args: Any, other: Any = None, **kwargs: Any) -> Read:
    return _extreme(kind, input, other) if isinstance(other, Tensor) else _extreme(kind, input, *args, **kwargs)


def _shared_extreme(kind: Literal["max", "min"], input: Tensor, dim: Any = None, keepdim: bool = False) -> Read:
    return one(Extremum(kind=kind, axes=axes(dim, input.ndim), keep=keepdim, tie="split"), input)


def _deviation(
    kind: Literal["variance", "standard_deviation"],
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Read:
    if isinstance(dim, bool):  # std(unbiased)
        dim, unbiased = None, dim
    ddof = int(unbiased) if correction is None else correction
    if ddof != int(ddof):
        return None
    op = Deviation(
        kind=kind,
        axes=axes(dim, input.ndim),
        keep=keepdim,
        ddof=int(ddof),
        epsilon=0.0,
        slope_at_zero="zero",  # FunctionsManual.cpp, std_backward: masked where the result is 0
    )
    return one(op, input)


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None):
    power = 2 if p in ("fro", None) else p
    if dtype is not None or not isinstance(power, int | float) or not 0 < power < float("inf"):
        return None
    where = axes(dim, input.ndim)
    return one(Norm(power=float(power), axes=where, keep=keepdim, epsilon=0.0, slope_at_zero="zero"), input)


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Read:
    return norm(x, ord, dim, keepdim, dtype=dtype)


def linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Read:  # noqa: N803 (torch's name)
    """Of a vector; a matrix norm is something else but for the default."""
    if ord is not None and (dim is None or len(each(dim, 1)) != 1):
        return None
    return norm(A, ord, dim, keepdim, dtype=dtype)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Read:
    return one(LogSumExp(axes=axes(dim, input.ndim), keep=keepdim), input)


def softmax(input: Tensor, dim: int | None = None, *_: Any, dtype: Any = None, log: bool = False, **__: Any) -> Read:
    if dtype is not None:
        return None
    if dim is None:  # torch/nn/functional.py, _get_softmax_dim
        dim = 0 if input.ndim in (0, 1, 3) else 1
    return one(SoftmaxOver(axes=(axis(dim, input.ndim),), log=log), input)


def softmin(input: Tensor, dim: int | None = None, *_: Any, dtype: Any = None, **__: Any) -> Read:
    read = softmax(input, dim, dtype=dtype)
    return read and Reading(ops=(Scale(factor=-1.0, offset=0.0), *read.ops), inputs=(input,))  # type: ignore[union-attr]


# --- pooling ----------------------------------------------------------------------------------------------------


def _max_pool(
    count: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Read:
    if input.ndim != count + 2:
        return None
    size = each(kernel_size, count)
    op = MaxPool(
        size=size,
        stride=each(stride, count) if stride not in (None, [], ()) else size,
        dilation=each(dilation, count),
        padding=tuple((p, p) for p in each(padding, count)),
        padding_value=float("-inf"),
        ceil_mode=ceil_mode,
        tie="first",
    )
    return one(op, input)


def _average_pool(
    count: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Read:
    if input.ndim != count + 2:
        return None
    size = each(kernel_size, count)
    op = AveragePool(
        size=size,
        stride=each(stride, count) if stride not in (None, [], ()) else size,
        padding=tuple((p, p) for p in each(padding, count)),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor=divisor_override,
    )
    return one(op, input)


def _lp_pool(
    count: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Read:
    if input.ndim != count + 2 or norm_type == float("inf"):
        return None
    size = each(kernel_size, count)
    strides = each(stride, count) if stride is not None else size
    return one(LpPool(power=float(norm_type), size=size, stride=strides, ceil_mode=ceil_mode), input)


def _adaptive(
    count: int, kind: Literal["mean", "max"], input: Tensor, output_size: Any, return_indices: bool = False
) -> Read:
    """To one element it is global pooling; of equal elements torch takes the first."""
    if input.ndim != count + 2:
        return None
    size = each(output_size, count)
    if all(n == 1 for n in size):
        where = in_order(input.ndim)[2:]
        if kind == "mean":
            return one(Reduce(kind="mean", axes=where, keep=True, masked=False), input)
        return one(Extremum(kind="max", axes=where, keep=True, tie="first"), input)
    return one(AdaptivePool(kind=kind, size=size, tie="first"), input)


# --- resizing ---------------------------------------------------------------------------------------------------

_GRIDS = {"nearest": "asymmetric", "nearest-exact": "half_pixel"}


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Read:
    """ATen/native/UpSample.h: the grid's step is 1/scale_factor where one is given and kept, else in/out."""
    count, lengths = input.ndim - 2, tuple(input.shape[2:])
    factors = None if scale_factor is None else each(scale_factor, count)
    sizes = each(size, count) if factors is None else tuple(int(n * f) for n, f in zip(lengths, factors, strict=True))
    if mode == "area":
        return one(AdaptivePool(kind="mean", size=sizes, tie="first"), input)
    if mode == "lanczos":
        return None
    if factors is None or recompute_scale_factor:
        steps = tuple(n / m for n, m in zip(lengths, sizes, strict=True))
    else:
        steps = tuple(1 / f for f in factors)
    cubic = mode == "bicubic"
    op = Resize(
        size=sizes,
        step=steps,
        grid=_GRIDS.get(mode, "align_corners" if align_corners else "half_pixel"),  # type: ignore[arg-type]
        interpolation="nearest" if mode in _GRIDS else "cubic" if cubic else "linear",
        # antialiased as in Pillow, else as in OpenCV (ATen/native/cpu/UpSampleKernel.cpp)
        cubic_a=0.0 if not cubic else -0.5 if antialias else -0.75,
        nearest_rounding="round" if mode == "nearest-exact" else "floor",
        antialias=antialias,
        border="renormalise" if antialias else "clamp",
    )
    return one(op, input)


ROWS: Mapping[str, Any] = {
    "sum": partial(_reduced, "sum"),
    "mean": partial(_reduced, "mean"),
    "max": partial(_extreme_of_two, "max"),
    "min": partial(_extreme_of_two, "min"),
    "amax": partial(_shared_extreme, "max"),
    "amin": partial(_shared_extreme, "min"),
    "var": partial(_deviation, "variance"),
    "std": partial(_deviation, "standard_deviation"),
    "norm": norm,
    "linalg_vector_norm": vector_norm,
    "linalg_norm": linalg_norm,
    **dict.fromkeys(("logsumexp", "special_logsumexp"), logsumexp),
    **dict.fromkeys(("softmax", "special_softmax"), softmax),
    **dict.fromkeys(("log_softmax", "special_log_softmax"), partial(softmax, log=True)),
    "softmin": softmin,
    **{f"max_pool{n}d{rest}": partial(_max_pool, n) for n in (1, 2, 3) for rest in ("", "_with_indices")},
    **{f"avg_pool{n}d": partial(_average_pool, n) for n in (1, 2, 3)},
    **{f"lp_pool{n}d": partial(_lp_pool, n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": partial(_adaptive, n, "mean") for n in (1, 2, 3)},
    **{
        f"adaptive_max_pool{n}d{rest}": partial(_adaptive, n, "max")
        for n in (1, 2, 3)
        for rest in ("", "_with_indices")
    },
    **dict.fromkeys(("interpolate", "upsample"), interpolate),
}
