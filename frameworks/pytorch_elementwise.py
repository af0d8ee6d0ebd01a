"""Readers of torch's elementwise functions: activations and arithmetic.

Each has the signature of the function it reads. The slopes at kinks are torch's (ATen/native/cpu/Activation.cpp,
tools/autograd/derivatives.yaml, torch 2.13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from frameworks.pytorch_reading import Read, Reading, axis, one
from harness.case import Linear, Sigmoid, Tanh
from harness.ops import (
    ELU,
    GELU,
    Absolute,
    ClippedLinear,
    Combine,
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
    Select,
    Softplus,
    SoftShrink,
    Softsign,
    Swish,
    TanhShrink,
    Threshold,
)

# --- activations ------------------------------------------------------------------------------------------------


def _always(op: Any) -> Callable[..., Read]:
    """A function without settings that change numbers."""

    def read(input: Tensor, inplace: bool = False) -> Read:
        return one(op, input)

    return read


def _rectifier(
    slope: float = 0.0, maximum: float = math.inf, at_threshold: float = 0.0, at_maximum: float = 0.0
) -> Any:
    return Rectifier(
        negative_slope=slope,
        threshold=0.0,
        maximum=maximum,
        slope_at_threshold=at_threshold,
        slope_at_maximum=at_maximum,
    )


def _clipped(low: float, high: float, at_bounds: float) -> Any:
    return ClippedLinear(
        slope=1.0,
        offset=0.0,
        minimum=low,
        maximum=high,
        derivative=1.0,
        slope_at_minimum=at_bounds,
        slope_at_maximum=at_bounds,
    )


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Read:
    return one(_rectifier(float(negative_slope), at_threshold=float(negative_slope)), input)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Read:
    return None if training else leaky_relu(input, (lower + upper) / 2)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Read:
    """nn.ReLU6 is one from 0 to 6, a rectifier elsewhere."""
    low, high = float(min_val), float(max_val)
    return one(_rectifier(0.0, high) if low == 0 else _clipped(low, high, 0.0), input)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Read:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    low, high = -math.inf if min is None else float(min), math.inf if max is None else float(max)
    return one(_clipped(low, high, 1.0), input)


def _elu(alpha: float, scale: float, divisor: float) -> Any:
    # elu_backward takes the exponential's branch at 0
    return ELU(alpha=alpha, scale=scale, divisor=divisor, slope_at_zero=scale * alpha / divisor)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Read:
    return one(_elu(float(alpha), 1.0, 1.0), input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Read:
    return one(_elu(float(alpha), 1.0, float(alpha)), input) if alpha > 0 else None


def gelu(input: Tensor, approximate: str = "none") -> Read:
    if approximate == "tanh":
        return one(GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715), input)
    return one(GELU(form="erf", scale=math.sqrt(0.5), cubic=0.0), input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Read:
    return one(Softplus(beta=float(beta), threshold=float(threshold)), input) if beta > 0 else None


def softshrink(input: Tensor, lambd: float = 0.5) -> Read:
    return one(SoftShrink(bound=float(lambd), slope_at_bound=0.0), input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Read:
    return one(HardShrink(bound=float(lambd), slope_at_bound=0.0), input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Read:
    return one(Threshold(threshold=float(threshold), value=float(value)), input)


def prelu(input: Tensor, weight: Tensor) -> Read:
    """One slope, or one for each index of axis 1."""
    if input.ndim < 2:
        return None
    is_one = weight.numel() == 1
    alpha = weight.reshape([1] * (input.ndim - 1) if is_one else [-1] + [1] * (input.ndim - 2))
    shared = tuple(range(1 if is_one else 2, input.ndim))
    return one(PReLU(shared_axes=shared, slope_at_zero="alpha"), input, parameters=(alpha,))


def glu(input: Tensor, dim: int = -1) -> Read:
    return one(Gated(axis=axis(dim, input.ndim), activation=Sigmoid(), gate="second"), input)


# --- arithmetic -------------------------------------------------------------------------------------------------


def _combined(kind: Any, *operands: Any, tie: Literal["first", "split"] = "first") -> Read:
    if not all(isinstance(operand, Tensor) for operand in operands):
        return None
    return one(Combine(kind=kind, tie=tie), *operands)


def _scaled(tensor: Any, factor: Any, offset: Any) -> Read:
    if not isinstance(tensor, Tensor) or not all(isinstance(n, int | float) for n in (factor, offset)):
        return None
    return one(Scale(factor=float(factor), offset=float(offset)), tensor)


def add(input: Any, other: Any, *, alpha: float = 1) -> Read:
    if alpha != 1:
        return None
    if isinstance(other, Tensor) and isinstance(input, Tensor):
        return _combined("add", input, other)
    return _scaled(input, 1, other) if isinstance(input, Tensor) else _scaled(other, 1, input)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Read:
    if alpha != 1:
        return None
    if not isinstance(other, Tensor):
        return _scaled(input, 1, -other)
    return _combined("subtract", input, other) if isinstance(input, Tensor) else _scaled(other, -1, input)


def mul(input: Any, other: Any) -> Read:
    if isinstance(other, Tensor) and isinstance(input, Tensor):
        return _combined("multiply", input, other)
    return _scaled(input, other, 0) if isinstance(input, Tensor) else _scaled(other, input, 0)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Read:
    if rounding_mode is not None:
        return None
    if not isinstance(other, Tensor):
        return _scaled(input, 1 / other, 0) if other else None
    if isinstance(input, Tensor):
        return _combined("divide", input, other)
    inverse = _function("reciprocal")
    return Reading(ops=(inverse, Scale(factor=float(input), offset=0.0)), inputs=(other,))


def pow(input: Any, exponent: Any) -> Read:
    if isinstance(exponent, Tensor) or not isinstance(input, Tensor):
        return _combined("power", input, exponent)
    named = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(exponent)
    return one(_function(named) if named else Function(name="power", exponent=float(exponent)), input)


def _function(name: Any) -> Any:
    return Function(name=name, exponent=1.0)


def same(input: Tensor, *_: Any, **__: Any) -> Read:
    """A copy, of another type at most."""
    return one(Linear(), input) if input.is_floating_point() else None


def neg(input: Tensor) -> Read:
    return _scaled(input, -1, 0)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Read:
    known = [operand for operand in (input, other) if isinstance(operand, Tensor)]
    if not known:
        return None
    return one(Select(), condition, *(_tensor(operand, known[0]) for operand in (input, other)))


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Read:
    return one(Select(), mask, _tensor(value, input), input)


def _tensor(value: Any, example: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=example.dtype)


_SELU = _elu(1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0)
_HARD_SIGMOID = ClippedLinear(
    slope=1 / 6,
    offset=0.5,
    minimum=0.0,
    maximum=1.0,
    derivative=1 / 6,  # the kernel has it rounded to float32, but not in a float64 run here (pytorch_exact)
    slope_at_minimum=0.0,
    slope_at_maximum=0.0,
)
_FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "sin", "cos", "erf")

ROWS: Mapping[str, Any] = {
    "relu": _always(_rectifier()),
    "relu6": _always(_rectifier(0.0, 6.0)),
    "leaky_relu": leaky_relu,
    "rrelu": rrelu,
    "hardtanh": hardtanh,
    **dict.fromkeys(("clamp", "clip"), clamp),
    "clamp_min": lambda input, min: clamp(input, min),
    "clamp_max": lambda input, max: clamp(input, None, max),
    "elu": elu,
    "selu": _always(_SELU),
    "celu": celu,
    "gelu": gelu,
    "silu": _always(Swish(beta=1.0)),
    "mish": _always(Mish(threshold=math.inf)),
    "softplus": softplus,
    "softsign": _always(Softsign()),
    "tanh": _always(Tanh()),
    **dict.fromkeys(("sigmoid", "special_expit", "expit"), _always(Sigmoid())),
    **dict.fromkeys(("logsigmoid", "log_sigmoid"), _always(LogSigmoid())),
    "hardsigmoid": _always(_HARD_SIGMOID),
    "hardswish": _always(HardSwish(slope=1 / 6, offset=0.5, slope_at_minimum=0.0, slope_at_maximum=0.0)),
    "tanhshrink": _always(TanhShrink()),
    "softshrink": softshrink,
    "hardshrink": hardshrink,
    "threshold": threshold,
    "prelu": prelu,
    "glu": glu,
    **{name: _always(_function(name)) for name in _FUNCTIONS},
    **dict.fromkeys(("abs", "absolute"), _always(Absolute(slope_at_zero=0.0))),
    "detach": _always(Detach()),
    **dict.fromkeys(("clone", "contiguous", "to", "float", "double", "type_as"), same),
    **dict.fromkeys(("add", "radd", "iadd"), add),
    **dict.fromkeys(("sub", "subtract", "isub"), sub),
    "rsub": lambda input, other: sub(other, input),
    **dict.fromkeys(("mul", "multiply", "rmul", "imul"), mul),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv", "itruediv", "idiv"), div),
    **dict.fromkeys(("rdiv", "rtruediv"), lambda input, other: div(other, input)),
    **dict.fromkeys(("pow", "ipow"), pow),
    **dict.fromkeys(("neg", "negative"), neg),
    "maximum": lambda input, other: _combined("maximum", input, other, tie="split"),
    "minimum": lambda input, other: _combined("minimum", input, other, tie="split"),
    "where": where,
    "masked_fill": masked_fill,
}
