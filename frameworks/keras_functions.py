"""Keras's and TensorFlow's functions, operations and layers without weights, in the words of the reference.

Read in keras 3.15 (src/backend/tensorflow/nn.py, src/activations/activations.py) and, for the slopes at kinks, in
tensorflow 2.21 (python/ops/nn_grad.py, math_grad.py).
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from frameworks.keras_reading import Reading, Seen, axes_in, axis_in, elementwise
from harness import ops
from harness.case import Linear, Sigmoid, Tanh

Options = Mapping[str, Any]
Reader = Callable[[Seen], Reading | None]

# --- activations ------------------------------------------------------------------------------------------------


def _clipped(slope: float, offset: float, low: float, high: float, at_bounds: float) -> ops.ClippedLinear:
    return ops.ClippedLinear(
        slope=slope,
        offset=offset,
        minimum=low,
        maximum=high,
        derivative=slope,
        slope_at_minimum=at_bounds,
        slope_at_maximum=at_bounds,
    )


def _rectifier(given: Options) -> ops.Rectifier:
    """A plain leaky relu has its slope at 0 too, other forms are two relus; relu6 stops at its bound, clip does not."""
    slope, threshold = float(given.get("negative_slope") or 0.0), float(given.get("threshold") or 0.0)
    maximum = given.get("max_value")
    leaky = maximum is None and threshold == 0
    return ops.Rectifier(
        negative_slope=slope,
        threshold=threshold,
        maximum=math.inf if maximum is None else float(maximum),
        slope_at_threshold=slope if leaky else 0.0,
        slope_at_maximum=0.0 if maximum is None or (maximum == 6 and threshold == 0) else 1.0,
    )


def _leaky(given: Options) -> ops.Rectifier:
    slope = given["negative_slope"] if "negative_slope" in given else given["alpha"]
    return _rectifier({"negative_slope": slope})


def _elu(given: Options) -> ops.ELU:
    alpha = float(given.get("alpha", 1.0))
    return ops.ELU(alpha=alpha, scale=1.0, divisor=1.0, slope_at_zero=alpha)


def _gelu(given: Options) -> ops.GELU:
    if given["approximate"]:
        return ops.GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715)
    return ops.GELU(form="erf", scale=math.sqrt(0.5), cubic=0.0)


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _named(name: str) -> Callable[[Options], Any]:
    op = ops.Function(name=name, exponent=1.0)  # type: ignore[arg-type]
    return lambda given: op


ACTIVATIONS: Mapping[str, Callable[[Options], Any]] = {
    "linear": lambda given: Linear(),
    "relu": _rectifier,
    "leaky_relu": _leaky,
    "relu6": lambda given: _rectifier({"max_value": 6}),
    "sigmoid": lambda given: Sigmoid(),
    "tanh": lambda given: Tanh(),
    "elu": _elu,
    "selu": lambda given: ops.ELU(alpha=_SELU_ALPHA, scale=_SELU_SCALE, divisor=1.0, slope_at_zero=_SELU_SCALE),
    # max(x, 0) and min(x, 0) both hand on the whole gradient at 0
    "celu": lambda given: ops.ELU(alpha=given["alpha"], scale=1.0, divisor=given["alpha"], slope_at_zero=2.0),
    "gelu": _gelu,
    "silu": lambda given: ops.Swish(beta=float(given.get("beta", 1.0))),
    "mish": lambda given: ops.Mish(threshold=math.inf),
    "softplus": lambda given: ops.Softplus(beta=1.0, threshold=math.inf),
    "softsign": lambda given: ops.Softsign(),
    "log_sigmoid": lambda given: ops.LogSigmoid(),
    "hard_sigmoid": lambda given: _clipped(1 / 6, 0.5, 0.0, 1.0, 0.0),
    "hard_silu": lambda given: ops.HardSwish(slope=1 / 6, offset=0.5, slope_at_minimum=0.0, slope_at_maximum=0.0),
    "hard_tanh": lambda given: _clipped(1.0, 0.0, -1.0, 1.0, 1.0),
    "sparse_sigmoid": lambda given: _clipped(0.5, 0.5, 0.0, 1.0, 0.0),
    "tanh_shrink": lambda given: ops.TanhShrink(),
    "soft_shrink": lambda given: ops.SoftShrink(bound=float(given["threshold"]), slope_at_bound=0.0),
    "hard_shrink": lambda given: ops.HardShrink(bound=float(given["threshold"]), slope_at_bound=0.0),
    "threshold": lambda given: ops.Threshold(threshold=float(given["threshold"]), value=float(given["default_value"])),
    "absolute": lambda given: ops.Absolute(slope_at_zero=0.0),
    "stop_gradient": lambda given: ops.Detach(),
    **{name: _named(name) for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square")},
    **{name: _named(name) for name in ("sin", "cos", "erf")},
    "negative": lambda given: ops.Scale(factor=-1.0, offset=0.0),
}
"""Functions of one array, each element for itself, by Keras's name, from their options."""

SAME = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "exponential": "exp",
    "abs": "absolute",
    "neg": "negative",
    "reduce_mean": "mean",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_variance": "var",
    "reduce_std": "std",
    "reduce_logsumexp": "logsumexp",
    "amax": "max",
    "amin": "min",
    "sub": "subtract",
    "mul": "multiply",
    "get_item": "getitem",
    "true_divide": "divide",
    "truediv": "divide",
    "pow": "power",
    "concat": "concatenate",
    "clip_by_value": "clip",
}
"""Other names of the same functions: TensorFlow's, and older ones."""


def activation_of(function: Any) -> Any:
    """The op of an activation function called with its defaults; None where it is not known."""
    build = ACTIVATIONS.get(name_of(function)) if inspect.isfunction(function) else None
    if build is None:
        return None
    options = inspect.signature(function).parameters.values()
    return build({option.name: option.default for option in options if option.default is not option.empty})


def name_of(function: Any) -> str:
    """Keras's name of a function, operation or layer of its own or TensorFlow's; "" for anybody else's.

    An operator between tensors is one of Python's `operator`.
    """
    kind = function if hasattr(function, "__name__") else type(function)
    if str(kind.__module__).partition(".")[0] not in _OWNERS:
        return ""
    name = kind.__name__.strip("_") if kind is function else _snake(kind.__name__)
    name = name.removesuffix("_v2")
    return SAME.get(name, name)


_OWNERS = ("keras", "tensorflow", "_operator", "frameworks")  # the last: what keras_exact puts in TensorFlow's place


def _snake(name: str) -> str:
    """LeakyReLU and LeakyRelu, HardSilu, ExpandDims, ELU as Keras writes them in functions."""
    if name.isupper():
        return name.lower()
    name = name.replace("ReLU", "Relu").replace("GELU", "Gelu")
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _activation(seen: Seen) -> Reading | None:
    return elementwise(seen, ACTIVATIONS[name_of(seen.made)](seen.given)) if len(seen.x) == 1 else None


# --- softmax, clipping, gating ----------------------------------------------------------------------------------


def _softmax(log: bool) -> Reader:
    def read(seen: Seen) -> Reading | None:
        axis = seen.given["axis"]
        axis = -1 if axis is None and "logits" in seen.given else axis  # tf.nn.softmax's default
        if axis is None or seen.given.get("mask") is not None:
            return None
        return elementwise(seen, ops.SoftmaxOver(axes=axes_in(seen, axis), log=log))

    return read


def between(low: float, high: float, at_low: float, at_high: float) -> Any:
    """The identity up to these bounds, with these slopes there; from 0 on it is a rectifier."""
    if low == 0:
        return ops.Rectifier(
            negative_slope=0.0, threshold=0.0, maximum=high, slope_at_threshold=at_low, slope_at_maximum=at_high
        )
    return dataclasses.replace(_clipped(1.0, 0.0, low, high, at_low), slope_at_maximum=at_high)


def _clip(seen: Seen) -> Reading | None:
    low, high = list(seen.given.values())[1:3]
    if np.ndim(low) or np.ndim(high) or low is None or high is None:
        return None
    return elementwise(seen, between(float(low), float(high), 1.0, 1.0))


def _glu(seen: Seen) -> Reading:
    return elementwise(seen, ops.Gated(axis=axis_in(seen, seen.given["axis"]), activation=Sigmoid(), gate="second"))


def _rescaling(seen: Seen) -> Reading | None:
    factor, offset = seen.given["scale"], seen.given["offset"]
    if np.ndim(factor) or np.ndim(offset):
        return None
    return elementwise(seen, ops.Scale(factor=float(factor), offset=float(offset)))


def _unit(placement: Any, epsilon: float | None) -> Reader:
    def read(seen: Seen) -> Reading | None:
        axis, given = seen.given.get("axis"), seen.given.get("epsilon")
        if axis is None or seen.given.get("order", 2) != 2:
            return None
        bound = next((one for one in (given, epsilon) if one is not None), keras.config.epsilon())
        return elementwise(
            seen, ops.UnitNorm(axes=axes_in(seen, axis), epsilon=float(bound), epsilon_placement=placement)
        )

    return read


FUNCTIONS: Mapping[str, Reader] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    "softmax": _softmax(False),
    "log_softmax": _softmax(True),
    "clip": _clip,
    "glu": _glu,
    "normalize": _unit("max", None),
    "unit_normalization": _unit("max", 1e-12),  # keras 3.15: unit_normalization.py
    "l2_normalize": _unit("max_square", None),
    "rescaling": _rescaling,
}
"""Readers of what treats every element for itself, or every row, by Keras's name."""
