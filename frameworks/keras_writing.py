"""How a user of Keras writes an op of the reference. The arguments are those of keras 3.15."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from frameworks import keras_words_losses, keras_words_training
from frameworks.writing import Entry, Rows, given, named, source, written_by
from harness import case, ops


def written(op: Any, fields: Sequence[str]) -> str:
    """`layers.BatchNormalization(epsilon=1e-05, momentum=0.9)`; "" for what Keras has no words for."""
    return written_by({**ROWS, **keras_words_losses.ROWS, **keras_words_training.ROWS}, op, fields)


# --- names ------------------------------------------------------------------------------------------------------


def _layer(kind: str, field: str) -> Callable[[Any], str]:
    """layers.Conv2D where the field has two numbers."""
    return lambda op: f"layers.{kind.format(len(getattr(op, field)))}"


def _rectifier(op: Any) -> str:
    plain = op.threshold == 0 and op.maximum == math.inf
    return "layers.LeakyReLU" if plain and op.negative_slope else "layers.ReLU"


def _clipped(op: Any) -> str:
    numbers = (op.slope, op.offset, op.minimum, op.maximum)
    if numbers == (1 / 6, 0.5, 0.0, 1.0):
        return 'layers.Activation("hard_sigmoid")'
    line = "x" if numbers[:2] == (1, 0) else f"{op.slope} * x + {op.offset}"
    return f"ops.clip({line}, {source(op.minimum)}, {source(op.maximum)})"


def _elu(op: Any) -> str:
    if op.scale != 1:
        return 'layers.Activation("selu")'
    return f"layers.ELU(alpha={op.alpha})" if op.divisor == 1 else f"ops.celu(x, alpha={op.alpha})"


def _swish(op: Any) -> str:
    return 'layers.Activation("silu")' if op.beta == 1 else f"x * ops.sigmoid({op.beta} * x)"


def _softplus(op: Any) -> str:
    return 'layers.Activation("softplus")' if op.beta == 1 and op.threshold == math.inf else ""


def _activation(op: Any) -> str:
    """The name of an activation in a recurrent layer."""
    known = {case.Tanh: "tanh", case.Sigmoid: "sigmoid", case.Linear: "linear"}
    if type(op) is ops.Rectifier and op.maximum == math.inf and not op.negative_slope and not op.threshold:
        return '"relu"'
    if type(op) is ops.ClippedLinear and (op.slope, op.offset, op.minimum, op.maximum) == (1 / 6, 0.5, 0.0, 1.0):
        return '"hard_sigmoid"'
    return source(known[type(op)]) if type(op) in known else written(op, ())


# --- layouts: Keras has channels last -------------------------------------------------------------------------------


def _flatten(op: Any) -> str:
    """Of an image (channels, *space) the axes as they lie in (*space, channels), counted from 1."""
    count = len(op.order)
    dims = tuple(axis or count for axis in op.order) if count > 2 else tuple(axis + 1 for axis in op.order)
    moved = "" if dims == tuple(sorted(dims)) else f"layers.Permute({dims}) then "
    return f"{moved}layers.Flatten()"


def _padding(op: Any) -> str:
    """What valid has not, a layer adds."""
    if all(pair == (0, 0) for pair in op.padding):
        return 'padding="valid"'
    pairs = op.padding[0] if len(op.padding) == 1 else op.padding
    return f"layers.ZeroPadding{len(op.padding)}D({pairs}) then"


def _cut(op: Any) -> str:
    """What valid leaves, a layer behind it cuts."""
    pairs = op.padding[0] if len(op.padding) == 1 else op.padding
    cut = any(pair != (0, 0) for pair in op.padding)
    return f"(...), layers.Cropping{len(op.padding)}D({pairs})" if cut else 'padding="valid"'


def _pool_padding(op: Any) -> str:
    """Keras's own counts for nothing; another value is padded before."""
    if getattr(op, "padding_value", -math.inf) == -math.inf and any(pair != (0, 0) for pair in op.padding):
        return 'padding="same"'
    return _padding(op)


def _interpolation(op: Any) -> str:
    return source({"linear": "bilinear", "cubic": "bicubic"}.get(op.interpolation, op.interpolation))


def _trains(op: Any) -> str:
    return f"(x, training={op.active if isinstance(op, ops.Dropout) else op.training})"


def _mask(op: Any) -> str:
    """True is what may be attended to."""
    return {"none": "", "attend": "(..., attention_mask=mask)"}.get(op.mask, "(..., attention_mask=~mask)")


def _axis(op: Any) -> Any:
    return op.axes[0] if len(op.axes) == 1 else op.axes


_CONVOLUTION: Mapping[str, Entry] = {
    "stride": "strides",
    "dilation": "dilation_rate",
    "bias": "use_bias",
}
_RECURRENCE: Mapping[str, Entry] = {
    "activation": lambda op: f"activation={_activation(op.activation)}",
    "biases": given("use_bias", lambda op: op.biases > 0),
    "reverse": "go_backwards",
    "returns": given("return_sequences", lambda op: op.returns == "all"),
    "masked_output": given("zero_output_for_mask", lambda op: op.masked_output == "zero"),
    "masked": lambda op: "(x, mask=mask)" if op.masked else "",
    "initial": lambda op: "(x, initial_state=state)" if op.initial else "",
}
_GATES: Mapping[str, Entry] = {
    "recurrent_activation": lambda op: f"recurrent_activation={_activation(op.recurrent_activation)}"
}
_REDUCTION: Mapping[str, Entry] = {"axes": given("axis", _axis), "keep": "keepdims"}
_POOL: Mapping[str, Entry] = {"size": "pool_size", "stride": "strides", "padding": _pool_padding}
_NORM: Mapping[str, Entry] = {"epsilon": "epsilon", "scale": "scale", "offset": "center"}


_MERGES = ("add", "subtract", "multiply", "average", "maximum", "minimum")


def _is(name: str) -> tuple[str, Mapping[str, Entry]]:
    return f'layers.Activation("{name}")', {}


ROWS: Rows = {
    case.Linear: _is("linear"),
    case.Sigmoid: _is("sigmoid"),
    case.Tanh: _is("tanh"),
    ops.Affine: ("layers.Dense", {"bias": "use_bias"}),
    ops.Einsum: (lambda op: f"ops.einsum({source(op.equation)}, ...)", named("equation")),
    ops.Embedding: (lambda op: "" if op.padding_index is not None else "layers.Embedding(...)", named("padding_index")),
    ops.Conv: (_layer("Conv{}D", "stride"), {**_CONVOLUTION, "groups": "groups", "padding": _padding}),
    ops.ConvTranspose: (
        _layer("Conv{}DTranspose", "stride"),
        {**_CONVOLUTION, "padding": _cut, "output_padding": "output_padding"},
    ),
    ops.BatchNorm: (
        "layers.BatchNormalization",
        {
            **_NORM,
            "momentum": "momentum",
            "axis": given("axis", lambda op: -1 if op.axis == 1 else op.axis),
            "training": _trains,
            "masked": lambda op: "(x, mask=mask)" if op.masked else "",
        },
    ),
    ops.LayerNorm: (
        lambda op: "layers.LayerNormalization" if op.center else "layers.RMSNormalization",
        {"epsilon": "epsilon", "axes": given("axis", _axis), "scale": _NORM["scale"], "offset": _NORM["offset"]}
        | named("center"),
    ),
    ops.GroupNorm: ("layers.GroupNormalization", {**_NORM, "groups": "groups"}),
    ops.UnitNorm: ("layers.UnitNormalization", {"axes": given("axis", _axis)}),
    ops.Dropout: ("layers.Dropout", {"rate": "rate", "active": _trains}),
    ops.SimpleRNN: ("layers.SimpleRNN", _RECURRENCE),
    ops.LSTM: ("layers.LSTM", {**_RECURRENCE, **_GATES}),
    ops.GRU: ("layers.GRU", {**_RECURRENCE, **_GATES, "reset_after": "reset_after"}),
    ops.Attention: (
        lambda op: "layers.AdditiveAttention" if op.score == "additive" else "layers.Attention",
        {"causal": lambda op: f"(..., use_causal_mask={op.causal})", "weighted": "use_scale"} | named("score"),
    ),
    ops.MultiHeadAttention: (
        "layers.MultiHeadAttention",
        {
            "heads": "num_heads",
            "bias": "use_bias",
            "causal": lambda op: f"(..., use_causal_mask={op.causal})",
            "mask": _mask,
        },
    ),
    ops.Rectifier: (
        _rectifier,
        {
            "negative_slope": "negative_slope",
            "threshold": "threshold",
            "maximum": given("max_value", lambda op: None if op.maximum == math.inf else op.maximum),
        },
    ),
    ops.ClippedLinear: (_clipped, named("slope", "offset", "minimum", "maximum")),
    ops.HardSwish: _is("hard_silu"),
    ops.ELU: (_elu, named("alpha", "scale", "divisor")),
    ops.GELU: (lambda op: f"ops.gelu(x, approximate={op.form == 'tanh'})", named("form")),
    ops.Swish: (_swish, named("beta")),
    ops.Mish: (lambda op: 'layers.Activation("mish")' if op.threshold == math.inf else "", named("threshold")),
    ops.Softplus: (_softplus, named("beta", "threshold")),
    ops.Softsign: _is("softsign"),
    ops.LogSigmoid: _is("log_sigmoid"),
    ops.TanhShrink: _is("tanh_shrink"),
    ops.SoftShrink: (lambda op: f"ops.soft_shrink(x, threshold={op.bound})", named("bound")),
    ops.HardShrink: (lambda op: f"ops.hard_shrink(x, threshold={op.bound})", named("bound")),
    ops.Threshold: (lambda op: f"ops.threshold(x, {op.threshold}, {op.value})", named("threshold", "value")),
    ops.PReLU: (
        "layers.PReLU",
        {"shared_axes": given("shared_axes", lambda op: list(op.shared_axes) or None)},
    ),
    ops.Gated: (lambda op: f"ops.glu(x, axis={op.axis})" if op.gate == "second" else "", named("axis", "gate")),
    ops.Function: (
        lambda op: f"ops.power(x, {op.exponent})" if op.name == "power" else f"ops.{op.name}(x)",
        named("name", "exponent"),
    ),
    ops.Absolute: ("ops.absolute(x)", {}),
    ops.Scale: ("layers.Rescaling", {"factor": "scale", "offset": "offset"}),
    ops.Detach: ("ops.stop_gradient(x)", {}),
    ops.Flatten: (_flatten, named("start", "order")),
    ops.Reshape: ("layers.Reshape", {"shape": lambda op: repr(op.shape)}),
    ops.Permute: (lambda op: f"ops.transpose(x, {op.axes})", named("axes")),
    ops.Concat: ("layers.Concatenate", {"axis": "axis"}),
    ops.Repeat: ("ops.repeat", {"times": "repeats", "axis": "axis"}),
    ops.Expand: ("ops.expand_dims", {"axis": "axis"}),
    ops.Gather: ("ops.take", {"axis": "axis"}),
    ops.Combine: (
        lambda op: f"layers.{op.kind.capitalize()}()" if op.kind in _MERGES else f"ops.{op.kind}(x, y)",
        named("kind"),
    ),
    ops.Pad: ("ops.pad", {"widths": lambda op: f"pad_width={op.widths}", "mode": "mode", "value": "constant_values"}),
    ops.Reduce: (lambda op: f"ops.{op.kind}", {**_REDUCTION, **named("kind")}),
    ops.Extremum: (lambda op: f"ops.{op.kind}", {**_REDUCTION, **named("kind")}),
    ops.Deviation: (
        lambda op: "" if op.ddof else "ops.var" if op.kind == "variance" else "ops.std",
        {**_REDUCTION, **named("kind", "ddof")},
    ),
    ops.Norm: ("ops.norm", {**_REDUCTION, "power": "ord"}),
    ops.LogSumExp: ("ops.logsumexp", _REDUCTION),
    ops.SoftmaxOver: (
        lambda op: "ops.log_softmax" if op.log else "layers.Softmax",
        {"axes": given("axis", _axis), **named("log")},
    ),
    ops.MaxPool: (_layer("MaxPooling{}D", "size"), {**_POOL, "padding_value": _pool_padding}),
    ops.AveragePool: (_layer("AveragePooling{}D", "size"), _POOL),
    ops.AdaptivePool: (
        lambda op: f"layers.Adaptive{'Average' if op.kind == 'mean' else 'Max'}Pooling{len(op.size)}D",
        {"size": "output_size", **named("kind")},
    ),
    ops.Resize: (
        "ops.image.resize",
        {
            "size": "size",
            "interpolation": lambda op: f"interpolation={_interpolation(op)}",
            "antialias": "antialias",
        },
    ),
}
