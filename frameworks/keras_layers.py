"""Keras layers with weights (and dropout) in the words of the reference. Read in keras 3.15, src/layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from frameworks.keras_functions import activation_of
from frameworks.keras_pooling import same_widths
from frameworks.keras_reading import Reading, Seen, Weight, axis_in, elementwise, first, moves, same
from harness import ops

Reader = Callable[[Seen], Reading | None]
_AS_IS = (0, 1)


def _dense(seen: Seen) -> Reading:
    return _affine(seen, seen.made)


def _affine(seen: Seen, layer: Any) -> Reading:
    weights = [seen.weight(layer.kernel, 1, 0)]
    if layer.bias is not None:
        weights.append(seen.weight(layer.bias))
    op = ops.Affine(bias=layer.bias is not None, kernel_axes=_AS_IS)
    return Reading(ops=(op,), inputs=(seen.x[0],), weights=(tuple(weights),))


def _einsum_dense(seen: Seen) -> Reading | None:
    """One that takes the last axis through a matrix is a Dense; else the einsum, then the bias."""
    layer: Any = seen.made
    equation = layer.equation.replace(" ", "")
    before, after = equation.split("->")
    x, kernel = before.split(",")
    if len(kernel) == 2 and kernel[0] == x[-1] and after == x[:-1] + kernel[1] and np.ndim(layer.bias) <= 1:
        return _affine(seen, layer)
    if "..." in equation:
        return None
    product, weight = ops.Einsum(equation=equation), (seen.weight(layer.kernel),)
    if layer.bias is None:
        return Reading(ops=(product,), inputs=(seen.x[0],), weights=(weight,), image=False)
    add = ops.Combine(kind="add", tie="first")
    weights = (weight, (seen.weight(layer.bias),))
    return Reading(ops=(product, add), inputs=(seen.x[0],), weights=weights, image=False)


def _embedding(seen: Seen) -> Reading:
    indices = seen.x[0]
    indices = indices.astype(np.int32) if indices.dtype.kind == "f" else indices
    op = ops.Embedding(padding_index=None)
    return Reading(ops=(op,), inputs=(indices,), weights=((seen.weight(seen.made.embeddings),),), image=False)


# --- convolutions -----------------------------------------------------------------------------------------------


def _channels_first(seen: Seen) -> Callable[[np.ndarray], np.ndarray]:
    return same if seen.made.data_format == "channels_first" else first


def _conv_op(layer: Any, spatial: Any, groups: int, bias: bool) -> ops.Conv:
    stride = tuple(layer.strides)
    reach = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    padding = ((0, 0),) * len(stride)
    if layer.padding == "causal":
        padding = ((reach[0] - 1, 0),)
    elif layer.padding == "same":
        padding = same_widths(spatial, reach, stride)
    return ops.Conv(
        stride=stride,
        dilation=tuple(layer.dilation_rate),
        groups=groups,
        group_order="blocks",
        padding=padding,
        padding_mode="constant",
        padding_value=0.0,
        bias=bias,
        kernel_axes=tuple(range(len(stride) + 2)),
    )


def _bias(seen: Seen) -> tuple[Weight, ...]:
    return () if seen.made.bias is None else (seen.weight(seen.made.bias),)


def _conv(seen: Seen) -> Reading:
    """Kernels are (*k, in/groups, out)."""
    layer, move = seen.made, _channels_first(seen)
    x, n = move(seen.x[0]), len(layer.kernel_size)
    op = _conv_op(layer, x.shape[2:], layer.groups, layer.bias is not None)
    weights = (seen.weight(layer.kernel, n + 1, n, *range(n)), *_bias(seen))
    return Reading(ops=(op,), inputs=(x,), weights=(weights,), canonical=move, image=True)


def _depthwise(seen: Seen) -> Reading:
    """Kernels are (*k, in, multiplier): channel c feeds the results c multiplier, c multiplier + 1, ..."""
    layer, move = seen.made, _channels_first(seen)
    x = move(seen.x[0])
    op = _conv_op(layer, x.shape[2:], x.shape[1], layer.bias is not None)
    weights = (_by_channel(seen, layer.kernel), *_bias(seen))
    return Reading(ops=(op,), inputs=(x,), weights=(weights,), canonical=move, image=True)


def _by_channel(seen: Seen, kernel: Any) -> Weight:
    n = len(kernel.shape) - 2
    value, name = seen.weight(kernel, n, n + 1, *range(n))
    return value.reshape(-1, 1, *value.shape[2:]), name


def _separable(seen: Seen) -> Reading:
    layer, move = seen.made, _channels_first(seen)
    x, n = move(seen.x[0]), len(layer.kernel_size)
    depthwise = _conv_op(layer, x.shape[2:], x.shape[1], False)
    ones, none = (1,) * n, ((0, 0),) * n
    common: dict[str, Any] = {"group_order": "blocks", "padding_mode": "constant", "padding_value": 0.0}
    pointwise = ops.Conv(
        stride=ones, dilation=ones, groups=1, padding=none, bias=layer.bias is not None,
        kernel_axes=tuple(range(n + 2)), **common
    )  # fmt: skip
    mixing = (seen.weight(layer.pointwise_kernel, n + 1, n, *range(n)), *_bias(seen))
    weights = ((_by_channel(seen, layer.depthwise_kernel),), mixing)
    return Reading(ops=(depthwise, pointwise), inputs=(x,), weights=weights, canonical=move, image=True)


def _conv_transpose(seen: Seen) -> Reading:
    """The gradient of a convolution of the result with this padding; kernels are (*k, out, in).

    The result's length is Keras's choice (keras 3.15: backend/common/backend_utils.py); what the full result lacks is
    added behind it, what it has more is cut as the convolution pads.
    """
    layer, move = seen.made, _channels_first(seen)
    x, y, n = move(seen.x[0]), move(seen.output), len(layer.kernel_size)
    reach = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    lows = [0] * n if layer.padding == "valid" else [low for low, _ in same_widths(y.shape[2:], reach, layer.strides)]
    full = [(length - 1) * s + k for length, s, k in zip(x.shape[2:], layer.strides, reach, strict=True)]
    left = [f - low - length for f, low, length in zip(full, lows, y.shape[2:], strict=True)]
    op = ops.ConvTranspose(
        stride=tuple(layer.strides),
        dilation=tuple(layer.dilation_rate),
        groups=1,
        group_order="blocks",
        padding=tuple((low, max(more, 0)) for low, more in zip(lows, left, strict=True)),
        output_padding=tuple(max(-more, 0) for more in left),
        flip=False,
        bias=layer.bias is not None,
        kernel_axes=tuple(range(n + 2)),
    )
    weights = (seen.weight(layer.kernel, n + 1, n, *range(n)), *_bias(seen))
    return Reading(ops=(op,), inputs=(x,), weights=(weights,), canonical=move, image=True)


# --- normalisation ----------------------------------------------------------------------------------------------


def _scales(seen: Seen, *names: str) -> tuple[Weight, ...]:
    variables = (getattr(seen.made, name, None) for name in names)
    return tuple(seen.weight(variable) for variable in variables if variable is not None)


def _batch_norm(seen: Seen) -> Reading | None:
    layer: Any = seen.made
    training, mask = bool(seen.given["training"]) and layer.trainable, seen.given["mask"]
    mask = mask if training else None
    axis = layer.axis % seen.x[0].ndim
    if layer.renorm or layer.synchronized or (mask is not None and axis != seen.x[0].ndim - 1):
        return None
    move = same if mask is not None else lambda array: np.moveaxis(array, axis, 1)
    op = ops.BatchNorm(
        axis=1 if mask is None else axis,
        training=training,
        epsilon=layer.epsilon,
        momentum=layer.momentum,
        moving_variance="biased",
        tracks=training,
        scale=layer.scale,
        offset=layer.center,
        masked=mask is not None,
        mask_epsilon=0.0 if mask is None else keras.config.epsilon(),
    )
    weights = _scales(seen, "gamma", "beta", "moving_mean", "moving_variance")
    inputs = (move(seen.x[0]), *([] if mask is None else [mask.astype(bool)]))
    return Reading(ops=(op,), inputs=inputs, weights=(weights,), canonical=move)


def _layer_norm(seen: Seen) -> Reading | None:
    """Over the last axis alone as it stands; over channels and space in the canonical layout."""
    layer: Any = seen.made
    if getattr(layer, "rms_scaling", False):  # divides by the deviation, but subtracts no mean
        return None
    x, rms = seen.x[0], type(layer) is keras.layers.RMSNormalization
    axes = sorted(int(axis) % x.ndim for axis in np.atleast_1d(layer.axis))
    moved = moves(seen) and len(axes) == x.ndim - 1
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(axes[0], x.ndim)]
    scales = [(value.reshape(shape), name) for value, name in _scales(seen, *(["scale"] if rms else ["gamma", "beta"]))]
    op = ops.LayerNorm(
        axes=tuple(axes),  # all but the batch are the same ones, moved or not
        center=not rms,
        ddof=0,
        epsilon=float(layer.epsilon),
        epsilon_placement="inside",
        scale=rms or layer.gamma is not None,
        offset=not rms and layer.beta is not None,
    )
    weights = tuple((np.moveaxis(value, -1, 0) if moved else value, name) for value, name in scales)
    move = first if moved else same
    return Reading(ops=(op,), inputs=(move(x),), weights=(weights,), canonical=move)


def _group_norm(seen: Seen) -> Reading:
    layer: Any = seen.made
    move = lambda array: np.moveaxis(array, layer.axis, 1)  # noqa: E731
    op = ops.GroupNorm(
        groups=layer.groups,
        group_order="blocks",
        epsilon=float(layer.epsilon),
        epsilon_placement="inside",
        scale=layer.gamma is not None,
        offset=layer.beta is not None,
    )
    return Reading(ops=(op,), inputs=(move(seen.x[0]),), weights=(_scales(seen, "gamma", "beta"),), canonical=move)


# --- the rest ---------------------------------------------------------------------------------------------------


def _dropout(seen: Seen) -> Reading | None:
    layer: Any = seen.made
    if seen.kept is None or layer.rate >= 1:
        return None
    reading = elementwise(seen, ops.Dropout(rate=float(layer.rate), active=True, scaling="kept"))
    return Reading(ops=reading.ops, inputs=(*reading.inputs, reading.canonical(seen.kept)), canonical=reading.canonical)


def _prelu(seen: Seen) -> Reading:
    """alpha has an example's shape, with 1 along shared axes."""
    layer: Any = seen.made
    alpha, name = seen.weight(layer.alpha)
    shared = tuple(sorted(axis_in(seen, axis) for axis in layer.shared_axes or ()))
    op = ops.PReLU(shared_axes=shared, slope_at_zero="zero")
    return elementwise(seen, op, weights=((np.moveaxis(alpha, -1, 0) if moves(seen) else alpha, name),))


def _time_distributed(seen: Seen) -> Reading | None:
    """A Dense for every step is a Dense."""
    inner: Any = seen.made.layer
    if type(inner) is not keras.layers.Dense or not ordinary(inner):
        return None
    reading = _affine(seen, inner)
    if inner.activation in (None, keras.activations.linear):
        return reading
    op = activation_of(inner.activation)
    return op and Reading(ops=(*reading.ops, op), inputs=reading.inputs, weights=(*reading.weights, ()))


def ordinary(made: Any) -> bool:
    """Whether a layer computes what its class says: not quantized, no low-rank addition, no call of its own."""
    quantized = getattr(made, "quantization_mode", None) is not None
    return not quantized and not getattr(made, "lora_enabled", False) and "call" not in getattr(made, "__dict__", {})


def _masking(seen: Seen) -> Reading:
    """Steps where all features are the mask's value become 0."""
    steps = (seen.x[0] != seen.made.mask_value).any(axis=-1, keepdims=True).astype(seen.x[0].dtype)
    op = ops.Combine(kind="multiply", tie="first")
    return Reading(ops=(op,), inputs=(seen.x[0],), weights=(((steps, ""),),))


LAYERS: Mapping[type, Reader] = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum_dense,
    keras.layers.Embedding: _embedding,
    keras.layers.Conv1D: _conv,
    keras.layers.Conv2D: _conv,
    keras.layers.Conv3D: _conv,
    keras.layers.DepthwiseConv1D: _depthwise,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv1D: _separable,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.Conv1DTranspose: _conv_transpose,
    keras.layers.Conv2DTranspose: _conv_transpose,
    keras.layers.Conv3DTranspose: _conv_transpose,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.LayerNormalization: _layer_norm,
    keras.layers.RMSNormalization: _layer_norm,
    keras.layers.GroupNormalization: _group_norm,
    keras.layers.Dropout: _dropout,
    keras.layers.SpatialDropout1D: _dropout,
    keras.layers.SpatialDropout2D: _dropout,
    keras.layers.SpatialDropout3D: _dropout,
    keras.layers.PReLU: _prelu,
    keras.layers.Masking: _masking,
    keras.layers.TimeDistributed: _time_distributed,
}
"""Readers by class; a user's subclass is unknown."""
