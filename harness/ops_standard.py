"""The activations that a layer may have in the place of another, as the frameworks write them."""

from __future__ import annotations

import math

from harness.case import Linear, Sigmoid, Tanh
from harness.ops import (
    ELU,
    GELU,
    ClippedLinear,
    Function,
    HardSwish,
    LogSigmoid,
    Mish,
    Rectifier,
    Softplus,
    Softsign,
    Swish,
    TanhShrink,
)

ACTIVATIONS = (
    Linear(),
    Sigmoid(),
    Tanh(),
    *(
        Rectifier(negative_slope=slope, threshold=0.0, maximum=maximum, slope_at_threshold=slope, slope_at_maximum=0.0)
        for slope, maximum in ((0.0, math.inf), (0.01, math.inf), (0.0, 6.0))
    ),
    GELU(form="erf", scale=math.sqrt(0.5), cubic=0.0),
    GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715),
    Swish(beta=1.0),
    ELU(alpha=1.0, scale=1.0, divisor=1.0, slope_at_zero=1.0),
    ELU(alpha=1.6732632423543772, scale=1.0507009873554805, divisor=1.0, slope_at_zero=1.0507009873554805),
    Softplus(beta=1.0, threshold=math.inf),
    Softplus(beta=1.0, threshold=20.0),
    Mish(threshold=math.inf),
    Softsign(),
    LogSigmoid(),
    TanhShrink(),
    *(
        ClippedLinear(
            slope=slope,
            offset=offset,
            minimum=minimum,
            maximum=1.0,
            derivative=slope,
            slope_at_minimum=0.0,
            slope_at_maximum=0.0,
        )
        for slope, offset, minimum in ((1 / 6, 0.5, 0.0), (0.2, 0.5, 0.0), (1.0, 0.0, -1.0))
    ),
    HardSwish(slope=1 / 6, offset=0.5, slope_at_minimum=0.0, slope_at_maximum=0.0),
    *(Function(name=name, exponent=1.0) for name in ("exp", "square", "sqrt", "log")),
)
