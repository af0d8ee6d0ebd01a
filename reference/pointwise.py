"""Functions of each element by itself: y = f(z), dz = f'(z) dy, and f' derived by hand.

    forward(op, z) -> y        backward(op, dy, y, z) -> (dz,)

Where f' is 0 nothing flows, even of an infinite dy: a choice and no product, which would be NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.ops import (
    ELU,
    GELU,
    Absolute,
    ClippedLinear,
    Detach,
    Function,
    HardShrink,
    HardSwish,
    LogSigmoid,
    Mish,
    Rectifier,
    Scale,
    Softplus,
    SoftShrink,
    Softsign,
    Swish,
    TanhShrink,
    Threshold,
)
from reference.functions import FUNCTIONS, erf
from reference.layers import BACKWARD, FORWARD, logistic

Array = np.ndarray
Derivative = Callable[[Any, Array, Array], Array]

# --- piecewise linear -------------------------------------------------------------------------------------------


def rectifier(op: Rectifier, z: Array) -> Array:
    below = op.negative_slope * (z - op.threshold)
    return np.where(z >= op.threshold, np.minimum(z, op.maximum), below).astype(z.dtype, copy=False)


def rectifier_slope(op: Rectifier, y: Array, z: Array) -> Array:
    slope = np.where(z > op.threshold, np.ones_like(z), op.negative_slope)
    slope[z == op.threshold] = op.slope_at_threshold
    slope[z > op.maximum] = 0
    slope[z == op.maximum] = op.slope_at_maximum
    return slope


def clipped_linear(op: ClippedLinear, z: Array) -> Array:
    return np.clip(op.slope * z + op.offset, op.minimum, op.maximum)


def clipped_linear_slope(op: ClippedLinear, y: Array, z: Array) -> Array:
    # y' = slope between the bounds, 0 beyond
    u = op.slope * z + op.offset
    inside = np.where((u > op.minimum) & (u < op.maximum), np.ones_like(z), 0)
    inside[u == op.minimum] = op.slope_at_minimum
    inside[u == op.maximum] = op.slope_at_maximum
    return op.derivative * inside


def hard_swish(op: HardSwish, z: Array) -> Array:
    return z * clipped_linear(_gate(op), z)


def hard_swish_slope(op: HardSwish, y: Array, z: Array) -> Array:
    # y = z h(z), so y' = h + z h'
    return clipped_linear(_gate(op), z) + z * clipped_linear_slope(_gate(op), y, z)


def _gate(op: HardSwish) -> ClippedLinear:
    return ClippedLinear(
        slope=op.slope,
        offset=op.offset,
        minimum=0.0,
        maximum=1.0,
        derivative=op.slope,
        slope_at_minimum=op.slope_at_minimum,
        slope_at_maximum=op.slope_at_maximum,
    )


def soft_shrink(op: SoftShrink, z: Array) -> Array:
    return np.where(z > op.bound, z - op.bound, np.where(z < -op.bound, z + op.bound, np.zeros_like(z)))


def hard_shrink(op: HardShrink, z: Array) -> Array:
    return np.where(np.abs(z) > op.bound, z, np.zeros_like(z))


def shrink_slope(op: SoftShrink | HardShrink, y: Array, z: Array) -> Array:
    slope = np.where(np.abs(z) > op.bound, np.ones_like(z), 0)
    slope[np.abs(z) == op.bound] = op.slope_at_bound
    return slope


def threshold(op: Threshold, z: Array) -> Array:
    return np.where(z > op.threshold, z, np.full_like(z, op.value))


def threshold_slope(op: Threshold, y: Array, z: Array) -> Array:
    return np.where(z > op.threshold, np.ones_like(z), 0)


def absolute(op: Absolute, z: Array) -> Array:
    return np.abs(z)


def absolute_slope(op: Absolute, y: Array, z: Array) -> Array:
    slope = np.sign(z)
    slope[z == 0] = op.slope_at_zero
    return slope


def scale(op: Scale, z: Array) -> Array:
    return op.factor * z + op.offset


def scale_slope(op: Scale, y: Array, z: Array) -> Array:
    return np.full_like(z, op.factor)


def identity(op: Detach, z: Array) -> Array:
    return z.copy()


def nothing(op: Detach, y: Array, z: Array) -> Array:
    return np.zeros_like(z)


# --- exponential families ---------------------------------------------------------------------------------------


def elu(op: ELU, z: Array) -> Array:
    # the exponential only sees what is not positive, so it cannot overflow
    return op.scale * np.where(z > 0, z, op.alpha * np.expm1(np.minimum(z, 0) / op.divisor))


def elu_slope(op: ELU, y: Array, z: Array) -> Array:
    # d/dz scale alpha (exp(z/τ) - 1) = scale alpha/τ exp(z/τ)
    below = op.scale * op.alpha / op.divisor * np.exp(np.minimum(z, 0) / op.divisor)
    slope = np.where(z > 0, np.full_like(z, op.scale), below)
    slope[z == 0] = op.slope_at_zero
    return slope


def tanh_shrink(op: TanhShrink, z: Array) -> Array:
    return z - np.tanh(z)


def tanh_shrink_slope(op: TanhShrink, y: Array, z: Array) -> Array:
    # y' = 1 - (1 - tanh² z)
    return np.tanh(z) ** 2


def swish(op: Swish, z: Array) -> Array:
    return z * logistic(op.beta * z)


def swish_slope(op: Swish, y: Array, z: Array) -> Array:
    # y = z σ(βz), so y' = σ + z β σ (1 - σ) = σ (1 + β z (1 - σ))
    s = logistic(op.beta * z)
    return s * (1 + op.beta * z * (1 - s))


def softplus(op: Softplus, z: Array) -> Array:
    # log(1 + exp u) = max(u, 0) + log(1 + exp(-|u|)) without overflow
    u = op.beta * z
    return np.where(u > op.threshold, z, (np.maximum(u, 0) + np.log1p(np.exp(-np.abs(u)))) / op.beta)


def softplus_slope(op: Softplus, y: Array, z: Array) -> Array:
    # y' = β exp(βz) / (1 + exp(βz)) / β = σ(βz)
    return np.where(op.beta * z > op.threshold, np.ones_like(z), logistic(op.beta * z))


def log_sigmoid(op: LogSigmoid, z: Array) -> Array:
    # log σ(z) = -log(1 + exp(-z))
    return np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))


def log_sigmoid_slope(op: LogSigmoid, y: Array, z: Array) -> Array:
    # d/dz log σ(z) = σ(1 - σ)/σ = 1 - σ(z) = σ(-z)
    return logistic(-z)


def mish(op: Mish, z: Array) -> Array:
    return z * np.tanh(softplus(_rising(op), z))


def mish_slope(op: Mish, y: Array, z: Array) -> Array:
    # y = z t, t = tanh s, s = softplus z: y' = t + z (1 - t²) s'
    t = np.tanh(softplus(_rising(op), z))
    return t + z * (1 - t * t) * softplus_slope(_rising(op), y, z)


def _rising(op: Mish) -> Softplus:
    return Softplus(beta=1.0, threshold=op.threshold)


def softsign(op: Softsign, z: Array) -> Array:
    return z / (1 + np.abs(z))


def softsign_slope(op: Softsign, y: Array, z: Array) -> Array:
    # y' = ((1 + |z|) - z sign z) / (1 + |z|)² = 1 / (1 + |z|)²
    return 1 / (1 + np.abs(z)) ** 2


def gelu(op: GELU, z: Array) -> Array:
    if op.form == "erf":
        return z / 2 * (1 + erf(op.scale * z))
    return z / 2 * (1 + np.tanh(op.scale * (z + op.cubic * z**3)))


def gelu_slope(op: GELU, y: Array, z: Array) -> Array:
    # y = z/2 (1 + g(u)), so y' = (1 + g(u))/2 + z/2 g'(u) u'
    if op.form == "erf":
        # u = s z, erf' u = 2/√π exp(-u²)
        u = op.scale * z
        return (1 + erf(u)) / 2 + z * op.scale / math.sqrt(math.pi) * np.exp(-u * u)
    # u = s (z + c z³), u' = s (1 + 3 c z²), tanh' = 1 - tanh²
    g = np.tanh(op.scale * (z + op.cubic * z**3))
    return (1 + g) / 2 + z / 2 * (1 - g * g) * op.scale * (1 + 3 * op.cubic * z * z)


def function(op: Function, z: Array) -> Array:
    return FUNCTIONS[op.name][0](z, op.exponent)


def function_slope(op: Function, y: Array, z: Array) -> Array:
    return FUNCTIONS[op.name][1](z, y, op.exponent)


# --- the table --------------------------------------------------------------------------------------------------

ELEMENTWISE: Mapping[type, tuple[Callable[[Any, Array], Array], Derivative]] = {
    Rectifier: (rectifier, rectifier_slope),
    ClippedLinear: (clipped_linear, clipped_linear_slope),
    HardSwish: (hard_swish, hard_swish_slope),
    SoftShrink: (soft_shrink, shrink_slope),
    HardShrink: (hard_shrink, shrink_slope),
    Threshold: (threshold, threshold_slope),
    Absolute: (absolute, absolute_slope),
    Scale: (scale, scale_slope),
    Detach: (identity, nothing),
    ELU: (elu, elu_slope),
    TanhShrink: (tanh_shrink, tanh_shrink_slope),
    Swish: (swish, swish_slope),
    Softplus: (softplus, softplus_slope),
    LogSigmoid: (log_sigmoid, log_sigmoid_slope),
    Mish: (mish, mish_slope),
    Softsign: (softsign, softsign_slope),
    GELU: (gelu, gelu_slope),
    Function: (function, function_slope),
}


def value(op: Any, z: Array) -> Array:
    """f(z) of an elementwise op, of these or of `reference.layers` (which write into buffers)."""
    if type(op) in ELEMENTWISE:
        return ELEMENTWISE[type(op)][0](op, z)
    y = np.empty_like(z)
    FORWARD[type(op)](op, y, z)
    return y


def pulled(op: Any, dy: Array, y: Array, z: Array) -> Array:
    """dz = f'(z) dy of such an op with y = f(z)."""
    dz = np.zeros_like(dy)
    if type(op) in ELEMENTWISE:
        slope = ELEMENTWISE[type(op)][1](op, y, z)
        return np.multiply(dy, slope, out=dz, where=slope != 0)
    BACKWARD[type(op)](op, dy, y, z, dz)
    return dz


def backward(op: Any, dy: Array, y: Array, z: Array) -> tuple[Array]:
    return (pulled(op, dy, y, z),)


LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Array | None, ...]]]] = {
    op: (forward, backward) for op, (forward, _) in ELEMENTWISE.items()
}
