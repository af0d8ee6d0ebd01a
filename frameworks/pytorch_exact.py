"""What would round in torch's float64 run: floating dtypes that code names, and kernels on CPU, replaced.

The kernels were found by running torch.nn.functional, torch.special and torch.optim (fused) in float64 against
torch._decomp, finite differences of order 8, and formulas in longdouble (torch 2.13); every other one of these is exact
to rounding:

- hardsigmoid_backward multiplies by the float 1.0f / 6.0f, 3e-8 off (ATen/native/cpu/Activation.cpp);
- celu's derivative hands 1 / alpha.toFloat() to elu_backward, 4e-8 off (derivatives.yaml, "celu");
- polygamma(1), digamma's derivative, ends its series early, 5e-10 off (ATen/native/Math.h, trigamma).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)
_WIDE = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.FloatTensor, torch.HalfTensor, torch.BFloat16Tensor), torch.DoubleTensor),
    **dict.fromkeys(("torch.FloatTensor", "torch.HalfTensor", "torch.BFloat16Tensor"), "torch.DoubleTensor"),
    torch.complex64: torch.complex128,
}


class WideCasts(TorchFunctionMode):
    """Where code names a floating dtype (`x.float()`, `x.to(torch.bfloat16)`, `dtype=torch.float32`), it gets float64.

    applies: asked at each call, with its arguments.
    """

    def __init__(self, applies: Callable[[Sequence[Any]], bool]) -> None:
        super().__init__()
        self.applies = applies

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.applies(args):
            return func(*args, **(kwargs or {}))
        if func in _CASTS:
            return args[0].double()
        return func(*map(_widened, args), **{name: _widened(value) for name, value in (kwargs or {}).items()})


def _widened(value: Any) -> Any:
    return _WIDE.get(value, value) if isinstance(value, str | torch.dtype | type(torch.FloatTensor)) else value


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
