"""Activations beyond those in `harness.case`: every element for itself, every constant and every slope at a kink given.

One input, one output of its shape, no parameters, except where said. z is the input, y the output.
A slope at a kink is a number because frameworks differ in it; it is the derivative used exactly there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectifier:
    """y = z between threshold and maximum, maximum above it, negative_slope (z - threshold) below the threshold.

    relu6 has maximum 6; without a maximum it is inf. Keras: layers.ReLU(max_value, negative_slope, threshold).
    """

    negative_slope: float
    threshold: float
    maximum: float
    slope_at_threshold: float
    slope_at_maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedLinear:
    """y = slope z + offset, clipped to [minimum, maximum]: hard tanh (1, 0, -1, 1); hard sigmoid (1/6, 1/2, 0, 1).

    Bounds may be infinite. derivative: y' between them; it is `slope`, or what a framework's backward has in its place
    (torch 2.13 hard sigmoid: 1/6 rounded to float32). The slopes at the bounds are fractions of it: 0, 1/2 or 1 times.
    """

    slope: float
    offset: float
    minimum: float
    maximum: float
    derivative: float
    slope_at_minimum: float
    slope_at_maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSwish:
    """y = z h with h = slope z + offset clipped to [0, 1] (1/6 and 1/2); at its bounds its slope is these fractions."""

    slope: float
    offset: float
    slope_at_minimum: float
    slope_at_maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ELU:
    """y = scale z where z > 0, else scale alpha (exp(z / divisor) - 1).

    ELU: scale 1, divisor 1. SELU: alpha 1.6733, scale 1.0507. CELU: divisor = alpha. slope_at_zero: y' at 0.
    """

    alpha: float
    scale: float
    divisor: Positive
    slope_at_zero: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GELU:
    """ "erf": y = z/2 (1 + erf(scale z)), scale 1/sqrt 2; "tanh": y = z/2 (1 + tanh(scale (z + cubic z³))), scale
    sqrt(2/pi), cubic 0.044715. (cubic is 0 with "erf".) Quick GELU is Swish(beta=1.702)."""

    form: Literal["erf", "tanh"]
    scale: float
    cubic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Swish:
    """y = z sigmoid(beta z); SiLU has beta 1."""

    beta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mish:
    """y = z tanh(log(1 + exp z)); from z > threshold on the logarithm is z (inf: never; torch: 20)."""

    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Softplus:
    """y = log(1 + exp(beta z)) / beta, and z where beta z > threshold (inf: never; torch: 20)."""

    beta: Positive
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Softsign:
    """y = z / (1 + |z|)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSigmoid:
    """y = log sigmoid(z)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TanhShrink:
    """y = z - tanh z."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftShrink:
    """y = z - bound where z > bound, z + bound where z < -bound, else 0; the slope at ±bound is slope_at_bound."""

    bound: float
    slope_at_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HardShrink:
    """y = z where |z| > bound, else 0; at |z| = bound y is 0 and its slope slope_at_bound."""

    bound: float
    slope_at_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """y = z where z > threshold, else value (torch.nn.Threshold); slope 0 at the threshold."""

    threshold: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PReLU:
    """y = z where z > 0, else alpha z. Parameter: alpha, of an example's shape or 1 along axes where it is shared.

    shared_axes: axes of z (batch, ...), never 0, along which one alpha serves all elements: its gradient is the sum
    over them. Where alpha has equal copies along such an axis, each copy gets that sum.
    slope_at_zero: derivative at 0: alpha, 1, or 0 (Keras: relu(z) - alpha relu(-z)).
    """

    shared_axes: tuple[int, ...]
    slope_at_zero: Literal["alpha", "one", "zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """The input splits in two halves a, b along an axis; y = a activation(b), or b activation(a) (GLU, SwiGLU, GEGLU).

    activation: an elementwise op. gate: which half passes through it ("second" in torch's and Keras's GLU).
    """

    axis: int
    activation: Any
    gate: Literal["first", "second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """y = f(z) of user code. "power" is z^exponent; for the others exponent is 1. "round" takes a half to even; steps
    have slope 0."""

    name: Literal[
        "power", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "square", "erf",
        "sin", "cos", "tan", "atan", "sinh", "cosh", "sign", "floor", "ceil", "round",
    ]  # fmt: skip
    exponent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Absolute:
    """y = |z|, with this derivative at 0 (0 in torch and TensorFlow, 1 in JAX)."""

    slope_at_zero: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """y = factor z + offset, two constants (rescaling layers, attention scales, x / 255)."""

    factor: float
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Detach:
    """y = z; nothing flows back (detach, stop_gradient)."""
