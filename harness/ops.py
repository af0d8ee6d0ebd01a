"""Ops of a network beyond those in `harness.case`, as plain frozen data: a framework's layer is one or a few of them.

This file has the layers with parameters (and dropout), `harness.ops_sequences` those of sequences,
`harness.ops_activations` and `harness.ops_shapes` the others; all names are here. A node gives an op its inputs, then
its parameters, in the order that the docstring names; what a field says is absent is left out of that list. Where it is
given all the same (a bias, a scale or offset, a boolean mask, an initial state), it has no effect: its gradient is 0,
or None for a mask. So one changed field is another op.

Canonical layout: images (batch, channels, *spatial), sequences (batch, time, features); convolution kernels
(out, in/groups, *k), transposed ones (in, out/groups, *k); matrices (out, in). Axes count the batch as axis 0.
A reader brings a framework's arrays into it. `kernel_axes` says in which order a kernel's axes are then read:
(0, 1, ...) as they stand; anything else is a mistake of a port (transposed, height and width swapped), expressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from harness.ops_activations import (
    ELU,
    GELU,
    Absolute,
    ClippedLinear,
    Detach,
    Function,
    Gated,
    HardShrink,
    HardSwish,
    LogSigmoid,
    Mish,
    PReLU,
    Rectifier,
    Scale,
    Softplus,
    SoftShrink,
    Softsign,
    Swish,
    TanhShrink,
    Threshold,
)
from harness.ops_sequences import GRU, LSTM, Attention, MultiHeadAttention, SimpleRNN
from harness.ops_shapes import (
    AdaptivePool,
    AveragePool,
    Combine,
    Concat,
    CumulativeSum,
    Deviation,
    Expand,
    Extremum,
    Flatten,
    Gather,
    LogSumExp,
    LpPool,
    MaxPool,
    Norm,
    Pad,
    PaddingMode,
    Permute,
    Reduce,
    Repeat,
    Reshape,
    Resize,
    Select,
    Slice,
    SoftmaxOver,
    Stack,
    UnitNorm,
    Widths,
)

Axes = tuple[int, ...]
GroupOrder = Literal["blocks", "interleaved"]
"""Which of n channels is in group j of g: those of j n/g <= c < (j+1) n/g, or those with c mod g = j."""

# --- products ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """z = x Wᵀ + b over the last axis; x (..., in), parameters W (out, in), b (out,) if bias.

    `harness.case.Dense` is the same with its units written out and always a b.
    """

    bias: bool
    kernel_axes: Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Einsum:
    """One einsum over all inputs and parameters in order, by explicit letters, no repeated letter within a term.

    "bij,bjk->bik" is a batched matrix product, "abc,cd->abd" Keras's EinsumDense (its bias: a Combine "add"). "..." is
    allowed where all that carry it have the same leading axes.
    """

    equation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """y = W[indices]; input: integers of any shape, parameter W (entries, features).

    padding_index: this row of W takes no gradient; None for none.
    """

    padding_index: int | None


# --- convolutions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """z[n, o, i] = b[o] + Σ_{c, j} W[o, c, j] x[n, c, i stride + j dilation - low] in 1, 2 or 3 spatial axes.

    Input x (batch, in, *spatial); parameters W (out, in/groups, *k), b (out,) if bias. Depthwise: groups = in;
    separable: two of them.
    padding: (low, high) for each spatial axis; "same" is already computed into numbers. padding_value counts for
    "constant" (0 in every framework's own padding).
    group_order: which channels, of the input and of the output, make a group.
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: Annotated[int, Gt(0)]
    group_order: GroupOrder
    padding: Widths
    padding_mode: PaddingMode
    padding_value: float
    bias: bool
    kernel_axes: Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvTranspose:
    """z[n, o, i stride + j dilation - low] += x[n, c, i] W[c, o, j], + b[o]: the transpose of Conv.

    Input x (batch, in, *spatial); parameters W (in, out/groups, *k), b (out,) if bias.
    padding: (low, high) elements cut from the full result; output_padding: elements (b alone or what W still reaches)
    added at the high end, so that the length is (L - 1) stride + dilation (k - 1) + 1 - low - high + output_padding.
    flip: the kernel is read backwards along every spatial axis (torch and Keras: no; jax.lax.conv_transpose: yes).
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: Annotated[int, Gt(0)]
    group_order: GroupOrder
    padding: Widths
    output_padding: tuple[int, ...]
    flip: bool
    bias: bool
    kernel_axes: Axes


# --- normalisation ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm:
    """y = scale (x - m) / sqrt(v + epsilon) + offset, m and v for each index of `axis`.

    Input x, then the mask if masked; parameters: scale if scale, offset if offset, moving mean, moving variance (the
    last two always, they take no gradient).
    training: m, v are the batch's own (v over n), else the moving ones.
    momentum: moving := momentum moving + (1 - momentum) batch, as Keras says it (torch's is the complement); None: the
    plain average of all batches so far (torch). moving_variance: the batch variance that moves is over n ("biased",
    Keras) or n - 1 ("unbiased", torch).
    tracks: in training the moving statistics move.
    masked: only positions where the mask (of x's first axes) is true count in m, v; mask_epsilon is added to their
    number (Keras: 1e-7).
    """

    axis: int
    training: bool
    epsilon: float
    momentum: float | None
    moving_variance: Literal["biased", "unbiased"]
    tracks: bool
    scale: bool
    offset: bool
    masked: bool
    mask_epsilon: float


EpsilonPlacement = Literal["inside", "outside", "max"]
"""Where a normalisation has its epsilon: sqrt(v + eps), sqrt(v) + eps, or sqrt(max(v, eps))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm:
    """y = scale (x - m) / sqrt(v + epsilon) + offset, m and v of each example over axes; parameters (scale, offset).

    center: without it m is 0 and v the mean square: RMS normalisation. ddof: v = Σ (x - m)² / (n - ddof).
    scale, offset: whether there is one; shapes broadcast to x's from the right.
    """

    axes: Annotated[Axes, MinLen(1)]
    center: bool
    ddof: Literal[0, 1] | int
    epsilon: float
    epsilon_placement: EpsilonPlacement
    scale: bool
    offset: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNorm:
    """LayerNorm of each group of channels and all spatial axes, x (batch, channels, *spatial); groups = channels is
    instance normalisation. Parameters scale (channels,) if scale, offset (channels,) if offset."""

    groups: Annotated[int, Gt(0)]
    group_order: GroupOrder
    epsilon: float
    epsilon_placement: EpsilonPlacement
    scale: bool
    offset: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseNorm:
    """y_c = x_c / (k + alpha Σ x_d²)^beta, d over `below` channels before c, c itself and `above` after it.

    torch's LocalResponseNorm(size) has alpha/size, below = size // 2 and above = (size - 1) // 2; TensorFlow's lrn
    alpha itself and depth_radius on both sides.
    """

    below: int
    above: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """y = factor mask x; inputs (x, mask), the mask (broadcast) is true where x is kept. Not active: input x alone.

    scaling: "kept" factor 1/(1 - rate) when active (torch, Keras); "none" factor 1; "inference" factor 1 when active
    and 1 - rate when not (the paper).
    """

    rate: Annotated[float, Ge(0), Lt(1)]
    active: bool
    scaling: Literal["kept", "none", "inference"]


LayerOp = (
    Affine | Einsum | Embedding | Conv | ConvTranspose | BatchNorm | LayerNorm | GroupNorm | ResponseNorm | Dropout
    | SimpleRNN | LSTM | GRU | Attention | MultiHeadAttention | ELU | GELU | Absolute | ClippedLinear | Detach
    | Function | Gated | HardShrink | HardSwish | LogSigmoid | Mish | PReLU | Rectifier | Scale | SoftShrink
    | Softplus | Softsign | Swish | TanhShrink | Threshold | AdaptivePool | AveragePool | Combine | Concat | Deviation
    | Expand | Extremum | Flatten | Gather | LogSumExp | LpPool | MaxPool | Norm | Pad | Permute | Reduce | Repeat
    | Reshape | Resize | Select | Slice | SoftmaxOver | Stack | CumulativeSum | UnitNorm
)  # fmt: skip
