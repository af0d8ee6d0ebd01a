"""torch's words for the reference's layers: the module or function, and its argument for each field.

Rows as in `writing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from frameworks.writing import Entry, Rows, given, named, source
from harness import case, ops

# --- names ------------------------------------------------------------------------------------------------------


def _by_axes(name: str, field: str) -> Callable[[Any], str]:
    """nn.Conv2d where the field has two numbers."""
    return lambda op: f"nn.{name}{len(getattr(op, field))}d"


def _rectifier(op: Any) -> str:
    if op.threshold != 0:
        return ""
    if op.maximum < math.inf:
        return "" if op.negative_slope else "nn.ReLU6()" if op.maximum == 6 else f"nn.Hardtanh(0.0, {op.maximum})"
    return f"nn.LeakyReLU(negative_slope={op.negative_slope})" if op.negative_slope else "nn.ReLU()"


def _clipped(op: Any) -> str:
    if (op.slope, op.offset, op.minimum, op.maximum) == (1 / 6, 0.5, 0.0, 1.0):
        return "nn.Hardsigmoid()"
    line = "x" if (op.slope, op.offset) == (1, 0) else f"{op.slope} * x + {op.offset}"
    return f"torch.clamp({line}, {source(op.minimum)}, {source(op.maximum)})"


def _elu(op: Any) -> str:
    if op.scale != 1:
        return "nn.SELU()"
    return f"nn.ELU(alpha={op.alpha})" if op.divisor == 1 else f"nn.CELU(alpha={op.alpha})"


def _flatten(op: Any) -> str:
    axes = (*range(op.start), *(op.start + axis for axis in op.order))
    moved = "" if axes == tuple(sorted(axes)) else f".permute({', '.join(map(str, axes))})"
    return f"torch.flatten(x{moved}, {op.start})"


def _deviation(op: Any) -> str:
    return "torch.var" if op.kind == "variance" else "torch.std"


# --- arguments --------------------------------------------------------------------------------------------------


def _padding(op: Any) -> str:
    """torch's own is the same at both ends; F.pad's list begins with the last axis."""
    if all(low == high for low, high in op.padding):
        return f"padding={source(tuple(low for low, _ in op.padding))}"
    return f"F.pad(x, ({', '.join(f'{low}, {high}' for low, high in reversed(op.padding))})) then"


def _pool_padding(op: Any) -> str:
    if op.padding_value == -math.inf:
        return _padding(op)
    widths = ", ".join(f"{low}, {high}" for low, high in reversed(op.padding))
    return f"F.pad(x, ({widths}), value={op.padding_value}) then"


def _mode(op: Any) -> str:
    if op.interpolation == "nearest":
        return 'mode="nearest-exact"' if op.grid == "half_pixel" else 'mode="nearest"'
    kind = "bicubic" if op.interpolation == "cubic" else ("linear", "bilinear", "trilinear")[len(op.size) - 1]
    return f'mode="{kind}", align_corners={op.grid == "align_corners"}'


def _mask(argument: str, true_means: str) -> Callable[[Any], str]:
    """torch's two attentions mean the opposite by a boolean mask."""

    def said(op: Any) -> str:
        inverted = op.mask in ("attend", "ignore") and op.mask != true_means
        return f"{argument}={'None' if op.mask == 'none' else '~mask' if inverted else 'mask'}"

    return said


def _returned(op: Any) -> str:
    state = "[1][0][-1]" if isinstance(op, ops.LSTM) else "[1][-1]"
    return {"all": "[0]", "last": "[0][:, -1]", "final": state, "state": state, "cell": "[1][1][-1]"}[op.returns]


def _trains(op: Any) -> str:
    return ".train()" if (op.active if isinstance(op, ops.Dropout) else op.training) else ".eval()"


_KERNEL_AXES = {"kernel_axes": lambda op: f".weight.permute{op.kernel_axes}"}
_CONVOLUTION: Mapping[str, Entry] = {
    "stride": "stride",
    "padding": _padding,
    "dilation": "dilation",
    "groups": "groups",
    "bias": "bias",
    **_KERNEL_AXES,
}
_RECURRENCE: Mapping[str, Entry] = {
    "biases": given("bias", lambda op: op.biases > 0),
    "time_axis": given("batch_first", lambda op: op.time_axis == 1),
    "returns": _returned,
}
_REDUCTION: Mapping[str, Entry] = {"axes": "dim", "keep": "keepdim"}

ROWS: Rows = {
    case.Linear: ("nn.Identity()", {}),
    case.Sigmoid: ("nn.Sigmoid()", {}),
    case.Tanh: ("nn.Tanh()", {}),
    ops.Affine: ("nn.Linear", {"bias": "bias", **_KERNEL_AXES}),
    ops.Einsum: ("torch.einsum", {"equation": lambda op: repr(op.equation)}),
    ops.Embedding: ("nn.Embedding", {"padding_index": "padding_idx"}),
    ops.Conv: (
        _by_axes("Conv", "stride"),
        _CONVOLUTION
        | {
            "padding_mode": given(
                "padding_mode", lambda op: {"constant": "zeros"}.get(op.padding_mode, op.padding_mode)
            )
        },
    ),
    ops.ConvTranspose: (
        _by_axes("ConvTranspose", "stride"),
        _CONVOLUTION
        | {
            "output_padding": "output_padding",
            "flip": lambda op: f".weight.flip{tuple(range(2, 2 + len(op.stride)))}" if op.flip else "",
        },
    ),
    ops.BatchNorm: (
        "nn.BatchNorm2d",
        {
            "epsilon": "eps",
            "momentum": given("momentum", lambda op: None if op.momentum is None else round(1 - op.momentum, 15)),
            "scale": "affine",
            "offset": "affine",
            "tracks": "track_running_stats",
            "training": _trains,
        },
    ),
    ops.LayerNorm: (
        lambda op: "nn.LayerNorm" if op.center else "nn.RMSNorm",
        {
            "epsilon": "eps",
            "axes": lambda op: f"normalized_shape=x.shape[{op.axes[0]}:]",
            **named("center"),
            "scale": "elementwise_affine",
            "offset": "bias",
        },
    ),
    ops.GroupNorm: ("nn.GroupNorm", {"groups": "num_groups", "epsilon": "eps", "scale": "affine", "offset": "affine"}),
    ops.ResponseNorm: (
        "nn.LocalResponseNorm",
        {
            **dict.fromkeys(("below", "above"), given("size", lambda op: op.below + op.above + 1)),
            "alpha": given("alpha", lambda op: op.alpha * (op.below + op.above + 1)),
            "beta": "beta",
            "k": "k",
        },
    ),
    ops.UnitNorm: ("F.normalize", {"axes": "dim", "epsilon": "eps"}),
    ops.Dropout: ("nn.Dropout", {"rate": "p", "active": _trains}),
    ops.SimpleRNN: (
        "nn.RNN",
        _RECURRENCE
        | {"activation": given("nonlinearity", lambda op: "tanh" if isinstance(op.activation, case.Tanh) else "relu")},
    ),
    ops.LSTM: ("nn.LSTM", _RECURRENCE),
    ops.GRU: ("nn.GRU", _RECURRENCE),
    ops.Attention: (
        "F.scaled_dot_product_attention",
        {"scale": "scale", "mask": _mask("attn_mask", "attend"), "causal": "is_causal"},
    ),
    ops.MultiHeadAttention: (
        "nn.MultiheadAttention",
        {"heads": "num_heads", "bias": "bias", "mask": _mask("attn_mask", "ignore"), "causal": "is_causal"},
    ),
    ops.Rectifier: (_rectifier, named("negative_slope", "threshold", "maximum")),
    ops.ClippedLinear: (_clipped, named("slope", "offset", "minimum", "maximum")),
    ops.HardSwish: ("nn.Hardswish()", {}),
    ops.ELU: (_elu, named("alpha", "scale", "divisor")),
    ops.GELU: ("nn.GELU", {"form": given("approximate", lambda op: "tanh" if op.form == "tanh" else "none")}),
    ops.Swish: (
        lambda op: "nn.SiLU()" if op.beta == 1 else f"x * torch.sigmoid({op.beta} * x)",
        named("beta"),
    ),
    ops.Mish: ("nn.Mish()", {}),
    ops.Softplus: ("nn.Softplus", {"beta": "beta", "threshold": "threshold"}),
    ops.Softsign: ("nn.Softsign()", {}),
    ops.LogSigmoid: ("nn.LogSigmoid()", {}),
    ops.TanhShrink: ("nn.Tanhshrink()", {}),
    ops.SoftShrink: ("nn.Softshrink", {"bound": "lambd"}),
    ops.HardShrink: ("nn.Hardshrink", {"bound": "lambd"}),
    ops.Threshold: ("nn.Threshold", {"threshold": "threshold", "value": "value"}),
    ops.PReLU: (
        "nn.PReLU",
        {"shared_axes": lambda op: "num_parameters=1" if 1 in op.shared_axes else "num_parameters=channels"},
    ),
    ops.Gated: ("nn.GLU", {"axis": "dim"}),
    ops.Function: (
        lambda op: f"torch.pow(x, {op.exponent})" if op.name == "power" else f"torch.{op.name}(x)",
        named("name", "exponent"),
    ),
    ops.Absolute: ("torch.abs(x)", {}),
    ops.Scale: (lambda op: f"({op.factor} * x + {op.offset})", named("factor", "offset")),
    ops.Detach: ("x.detach()", {}),
    ops.Flatten: (_flatten, named("start", "order")),
    ops.Permute: (lambda op: f"x.permute{op.axes}", named("axes")),
    ops.Concat: ("torch.cat", {"axis": "dim"}),
    ops.Pad: (
        "F.pad",
        {
            "widths": given("pad", lambda op: tuple(n for pair in reversed(op.widths) for n in pair)),
            "mode": "mode",
            "value": "value",
        },
    ),
    ops.Reduce: (lambda op: f"torch.{op.kind}", _REDUCTION | named("kind")),
    ops.Extremum: (lambda op: f"torch.a{op.kind}", _REDUCTION | named("kind")),
    ops.Deviation: (_deviation, _REDUCTION | {**named("kind"), "ddof": "correction"}),
    ops.Norm: ("torch.linalg.vector_norm", _REDUCTION | {"power": "ord"}),
    ops.LogSumExp: ("torch.logsumexp", _REDUCTION),
    ops.SoftmaxOver: (
        lambda op: "nn.LogSoftmax" if op.log else "nn.Softmax",
        {"axes": given("dim", lambda op: op.axes[0]), **named("log")},
    ),
    ops.MaxPool: (
        _by_axes("MaxPool", "size"),
        {
            "size": "kernel_size",
            "stride": "stride",
            "dilation": "dilation",
            "padding": _pool_padding,
            "padding_value": _pool_padding,
            "ceil_mode": "ceil_mode",
        },
    ),
    ops.AveragePool: (
        _by_axes("AvgPool", "size"),
        {
            "size": "kernel_size",
            "stride": "stride",
            "padding": _padding,
            "ceil_mode": "ceil_mode",
            "count_include_pad": "count_include_pad",
            "divisor": "divisor_override",
        },
    ),
    ops.LpPool: (
        _by_axes("LPPool", "size"),
        {"power": "norm_type", "size": "kernel_size", "stride": "stride", "ceil_mode": "ceil_mode"},
    ),
    ops.AdaptivePool: (
        lambda op: f"nn.Adaptive{'Avg' if op.kind == 'mean' else 'Max'}Pool{len(op.size)}d",
        {**named("kind"), "size": "output_size"},
    ),
    ops.Resize: (
        "F.interpolate",
        {"size": "size", "grid": _mode, "interpolation": _mode, "antialias": "antialias"},
    ),
}
