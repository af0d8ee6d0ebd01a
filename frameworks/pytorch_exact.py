"""Kernels of torch on CPU that round in float64, replaced for the float64 run, so that it shows the mathematics.

Found by running torch.nn.functional, torch.special and torch.optim (fused) in float64 against torch._decomp,
finite differences of order 8, and formulas in longdouble (torch 2.13); every other one of these is exact to rounding:

- hardsigmoid_backward multiplies by the float 1.0f / 6.0f, 3e-8 off (ATen/native/cpu/Activation.cpp);
- celu's derivative hands 1 / alpha.toFloat() to elu_backward, 4e-8 off (derivatives.yaml, "celu");
- polygamma(1), digamma's derivative, ends its series early, 5e-10 off (ATen/native/Math.h, trigamma).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def exact_kernels() -> Iterator[None]:
    """Within, torch's dispatcher calls these formulas in the kernels' place, also in backward passes and in scripts.

    CUDA's kernels stay; of those, hardsigmoid and hardswish round forward too (1.0f / 6.0f).
    """
    with torch.library._scoped_library("aten", "IMPL") as library:
        with warnings.catch_warnings(action="ignore"):  # torch warns of what is meant here
            for name, formula in _FORMULAS.items():
                library.impl(name, formula, "CPU")
        yield


def _hardsigmoid_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.where((x > -3) & (x < 3), grad / 6, 0.0)


def _elu_backward(grad: Tensor, alpha: float, scale: float, slope: float, is_result: bool, x: Tensor) -> Tensor:
    """x: the output where `is_result`. slope: of the exponent."""
    if slope == 1 / float(np.float32(alpha)):
        slope = 1 / alpha
    below = x + alpha * scale if is_result else alpha * scale * torch.exp(x * slope)
    return torch.where(x <= 0, grad * slope * below, grad * scale)


def _polygamma(n: int, x: Tensor) -> Tensor:
    if n == 0:
        return torch.digamma(x)
    return (-1) ** (n + 1) * math.factorial(n) * torch.special.zeta(n + 1.0, x)


_FORMULAS = {
    "hardsigmoid_backward": _hardsigmoid_backward,
    "elu_backward": _elu_backward,
    "polygamma": _polygamma,
}
