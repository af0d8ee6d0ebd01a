"""Readers of torch's functions with weights: products, convolutions, normalisation, dropout, embedding.

Each has the signature of the function it reads (torch 2.13: torch/nn/functional.py, ATen/native/native_functions.yaml),
so that a call's own arguments bind to it, with torch's defaults for those not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any

import torch
from torch import Tensor

from frameworks.pytorch_reading import Read, axes, each, in_order, one
from harness.ops import (
    Affine,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    Einsum,
    Embedding,
    GroupNorm,
    LayerNorm,
    ResponseNorm,
    UnitNorm,
)

# --- products ---------------------------------------------------------------------------------------------------


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Read:
    if weight.ndim != 2:
        return None
    return one(Affine(bias=bias is not None, kernel_axes=(0, 1)), input, parameters=(weight, bias))


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Read:
    return linear(mat1, mat2.T, input) if beta == alpha == 1 and input.ndim == 1 else None


def matmul(input: Tensor, other: Tensor) -> Read:
    """By a matrix that the model holds it is a dense layer."""
    if input.ndim >= 2 and other.ndim == 2 and (other.is_leaf or _is_view_of_leaf(other)):
        return linear(input, other.T)
    if input.ndim != other.ndim or input.ndim < 2 or input.shape[:-2] != other.shape[:-2]:
        return None
    *batch, i, j, k = ascii_lowercase[: input.ndim + 1]
    left, right, out = ("".join((*batch, *pair)) for pair in ((i, j), (j, k), (i, k)))
    return one(Einsum(equation=f"{left},{right}->{out}"), input, other)


def _is_view_of_leaf(tensor: Tensor) -> bool:
    """`self.weight.T`, `self.weight[0]`."""
    return tensor._base is not None and tensor._base.is_leaf


def einsum(equation: str, *operands: Any) -> Read:
    tensors = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    written = equation.replace(" ", "")
    terms, arrow, _ = written.partition("->")
    if not arrow or "." in written or not all(isinstance(t, Tensor) for t in tensors):
        return None
    if any(len(set(term)) != len(term) for term in terms.split(",")):
        return None
    return one(Einsum(equation=written), *tensors)


# --- convolutions -----------------------------------------------------------------------------------------------


def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Read:
    count = weight.ndim - 2
    if input.ndim != weight.ndim:  # without a batch
        return None
    dilations = each(dilation, count)
    if isinstance(padding, str):  # ATen/native/Convolution.cpp, _convolution_same: the odd one goes to the high end
        total = [d * (k - 1) * (padding == "same") for d, k in zip(dilations, weight.shape[2:], strict=True)]
        widths = tuple((t // 2, t - t // 2) for t in total)
    else:
        widths = tuple((p, p) for p in each(padding, count))
    op = Conv(
        stride=each(stride, count),
        dilation=dilations,
        groups=groups,
        group_order="blocks",
        padding=widths,
        padding_mode="constant",
        padding_value=0.0,
        bias=bias is not None,
        kernel_axes=in_order(weight.ndim),
    )
    return one(op, input, parameters=(weight, bias))


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Read:
    count = weight.ndim - 2
    if input.ndim != weight.ndim:
        return None
    op = ConvTranspose(
        stride=each(stride, count),
        dilation=each(dilation, count),
        groups=groups,
        group_order="blocks",
        padding=tuple((p, p) for p in each(padding, count)),
        output_padding=each(output_padding, count),
        flip=False,
        bias=bias is not None,
        kernel_axes=in_order(weight.ndim),
    )
    return one(op, input, parameters=(weight, bias))


# --- normalisation ----------------------------------------------------------------------------------------------


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Read:
    """torch's momentum is the part of the new; the batch variance that moves is over n - 1 (ATen Normalization.cpp)."""
    channels = input.shape[1]
    mean = input.new_zeros(channels) if running_mean is None else running_mean
    variance = input.new_ones(channels) if running_var is None else running_var
    op = BatchNorm(
        axis=1,
        training=bool(training),
        epsilon=float(eps),
        momentum=1 - momentum,
        moving_variance="unbiased",
        tracks=bool(training) and running_mean is not None,
        scale=weight is not None,
        offset=bias is not None,
        masked=False,
        mask_epsilon=0.0,
    )
    return one(op, input, parameters=(weight, bias, mean, variance))


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Read:
    return _layer_norm(input, normalized_shape, weight, bias, eps, center=True)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Read:
    own = torch.finfo(input.dtype).eps  # ATen/native/layer_norm.cpp, rms_norm: without eps that of the input's dtype
    return _layer_norm(input, normalized_shape, weight, None, own if eps is None else eps, center=False)


def _layer_norm(
    input: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float, center: bool
) -> Read:
    op = LayerNorm(
        axes=in_order(input.ndim)[input.ndim - len(each(shape, 1)) :],
        center=center,
        ddof=0,
        epsilon=float(eps),
        epsilon_placement="inside",
        scale=weight is not None,
        offset=bias is not None,
    )
    return one(op, input, parameters=(weight, bias))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Read:
    op = GroupNorm(
        groups=num_groups,
        group_order="blocks",
        epsilon=float(eps),
        epsilon_placement="inside",
        scale=weight is not None,
        offset=bias is not None,
    )
    return one(op, input, parameters=(weight, bias))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Read:
    if use_input_stats:
        return group_norm(input, input.shape[1], weight, bias, eps)
    return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Read:
    # torch/nn/functional.py, local_response_norm: alpha times a mean over `size` channels
    op = ResponseNorm(below=size // 2, above=(size - 1) // 2, alpha=alpha / size, beta=beta, k=k)
    return one(op, input)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Read:
    return one(UnitNorm(axes=axes(dim, input.ndim), epsilon=eps, epsilon_placement="max"), input) if p == 2 else None


# --- dropout, embedding -----------------------------------------------------------------------------------------


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool = True) -> Read:
    """Its mask, where active, is told by its output."""
    if p >= 1:
        return None
    return one(Dropout(rate=float(p), active=bool(training and train), scaling="kept"), input)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Read:
    if max_norm is not None or scale_grad_by_freq:
        return None
    index = None if padding_idx is None else padding_idx % len(weight)
    return one(Embedding(padding_index=index), input, parameters=(weight,))


ROWS: Mapping[str, Any] = {
    "linear": linear,
    "addmm": addmm,
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    "rmatmul": lambda input, other: matmul(other, input),
    "einsum": einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), conv_transpose),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "local_response_norm": local_response_norm,
    "normalize": normalize,
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), dropout),
    "embedding": embedding,
}
