"""Ops without weights that move, join, reduce or resample: shapes, sums, pooling, resizing.

Images are (batch, channels, *spatial), sequences (batch, time, features). Axes count the batch: it is axis 0, and may
be negative. Padding is ((low, high), ...) in elements, one pair for each spatial axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, MinLen

Axes = tuple[int, ...]
Widths = tuple[tuple[int, int], ...]
PaddingMode = Literal["constant", "reflect", "replicate", "circular"]
Tie = Literal["first", "last", "split", "each"]
"""Which of several equal largest elements takes the gradient: one of them, equal shares, or the whole for each."""


# --- shapes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten:
    """All axes from `start` on become one.

    order: those axes in the order in which they are read, counted from `start`: (0, 1, 2) reads C, H, W as they stand;
    (1, 2, 0) reads H, W, C, which is what a channels-last framework does.
    """

    start: int
    order: Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """Each example takes this shape (batch not counted; one length may be -1), its elements in C order."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Permute:
    """y.shape[i] = x.shape[axes[i]]; the batch counts as axis 0."""

    axes: Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat:
    """All inputs one after the other along an axis."""

    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """All inputs side by side along a new axis of the result."""

    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """x[start:stop:step] along an axis, as Python reads it; step -1 flips. squeeze: drop the axis (of length 1)."""

    axis: int
    start: int | None
    stop: int | None
    step: int
    squeeze: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Copies along an axis: "elements" gives a a b b, "whole" gives a b a b."""

    axis: int
    times: Annotated[int, Gt(0)]
    order: Literal["elements", "whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand:
    """A new axis of length 1 at this place of the result."""

    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pad:
    """(low, high) more elements along every axis, the batch included; value counts for "constant" only.

    "reflect" leaves the border out (d c b | a b c d), "replicate" repeats it, "circular" goes on at the other end.
    """

    widths: Widths
    mode: PaddingMode
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """y = x taken at integer indices along an axis; inputs (x, indices), the axis becomes the indices' axes.

    Repeated indices add their gradients.
    """

    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """y = a where the condition is true, else b, broadcast; inputs (condition, a, b)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combine:
    """Inputs (and parameters) taken together element by element, broadcast, from left to right.

    tie: where the largest (smallest) occurs several times, who takes the gradient of "maximum" ("minimum").
    "average" is the sum over the number of inputs. "subtract", "divide" and "power" take two.
    """

    kind: Literal["add", "subtract", "multiply", "divide", "power", "average", "maximum", "minimum"]
    tie: Tie


# --- reductions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce:
    """Sum or mean over axes; keep: leave them as length 1.

    masked: inputs (x, mask); only elements where the mask (broadcast from the left: its axes are x's first) is true
    are summed, and counted in the mean.
    """

    kind: Literal["sum", "mean"]
    axes: Annotated[Axes, MinLen(1)]
    keep: bool
    masked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeSum:
    """y_i = Σ_{j <= i} x_j along an axis; from the other end if reverse."""

    axis: int
    reverse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremum:
    """Largest or smallest over axes."""

    kind: Literal["max", "min"]
    axes: Annotated[Axes, MinLen(1)]
    keep: bool
    tie: Tie


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Variance Σ (x - mean)² / (n - ddof) over axes, or its square root with epsilon added under it.

    slope_at_zero: what flows back where the root is 0: "zero" or "nan" (0/0).
    """

    kind: Literal["variance", "standard_deviation"]
    axes: Annotated[Axes, MinLen(1)]
    keep: bool
    ddof: Literal[0, 1] | int
    epsilon: float
    slope_at_zero: Literal["zero", "nan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """(Σ |x|^power + epsilon)^(1/power) over axes. slope_at_zero: gradient at a norm of 0, "zero" or "nan" (0/0)."""

    power: Annotated[float, Gt(0)]
    axes: Annotated[Axes, MinLen(1)]
    keep: bool
    epsilon: float
    slope_at_zero: Literal["zero", "nan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSumExp:
    """log Σ exp x over axes."""

    axes: Annotated[Axes, MinLen(1)]
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxOver:
    """exp(z_k) / Σ exp(z_j), the sum over these axes; log: its logarithm. Scale(-1) before it makes softmin."""

    axes: Annotated[Axes, MinLen(1)]
    log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitNorm:
    """x / length over axes, length = Euclidean norm n of x.

    epsilon_placement: "max" max(n, eps) (torch normalize), "max_square" sqrt(max(n², eps)) (TensorFlow l2_normalize),
    "inside" sqrt(n² + eps), "outside" n + eps.
    """

    axes: Annotated[Axes, MinLen(1)]
    epsilon: float
    epsilon_placement: Literal["max", "max_square", "inside", "outside"]


# --- pooling ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """The largest of each window of `size` elements, `dilation` apart, a new window every `stride`.

    padding_value: -inf, or the number of an explicit padding before the pooling.
    ceil_mode: an incomplete last window counts too, if it begins inside the image or its low padding.
    tie: who of equal largest elements takes the gradient.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Widths
    padding_value: float
    ceil_mode: bool
    tie: Tie


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool:
    """The mean of each window. count_include_pad: zeros of the padding count in the number divided by.

    divisor: that number itself, else None. ceil_mode as in MaxPool; what lies beyond the padding never counts.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Widths
    ceil_mode: bool
    count_include_pad: bool
    divisor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LpPool:
    """s^(1/power) of each window, s = number of its elements times the mean of x^power (torch.nn.LPPool1d, 2d, 3d).

    The number is always that of a whole window, the mean of ceil_mode's incomplete one over what it has.
    """

    power: float
    size: tuple[int, ...]
    stride: tuple[int, ...]
    ceil_mode: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePool:
    """`size` windows along each spatial axis; window i of n goes from floor(i L / n) to ceil((i + 1) L / n).

    kind "mean" or "max"; size None keeps that axis. tie as in MaxPool. Global pooling is Reduce or Extremum.
    """

    kind: Literal["mean", "max"]
    size: tuple[int | None, ...]
    tie: Tie


# --- resizing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Spatial axes resampled to `size`; each axis for itself, y = A x with A (out, in) of interpolation weights.

    Output i looks at input position u: "half_pixel" u = (i + 1/2) step - 1/2, "align_corners" u = i (in - 1)/(out - 1),
    "asymmetric" u = i step.
    step: of each axis, in/out as a number (torch takes 1/scale_factor where one is given).
    interpolation: "nearest", "linear", "cubic" (coefficient cubic_a: -0.75 torch, -0.5 TensorFlow).
    nearest_rounding: "floor" of u, or of u + 1/2 ("round"). ("half_pixel" with "round" is torch's nearest-exact.)
    antialias: where it shrinks, the weights' triangle (or cubic) is stretched by step.
    border: weights outside the image fall on its edge ("clamp") or are left out and the others
    scaled up ("renormalise").
    """

    size: tuple[int, ...]
    step: tuple[float, ...]
    grid: Literal["half_pixel", "align_corners", "asymmetric"]
    interpolation: Literal["nearest", "linear", "cubic"]
    cubic_a: float
    nearest_rounding: Literal["floor", "round"]
    antialias: bool
    border: Literal["clamp", "renormalise"]
