"""torch.autograd.Function as its users write it: saved tensors, memory and strides, work in place, forward mode."""

# pyright: reportIncompatibleMethodOverride=false
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from benchmarks.gradients import Subject, fixed, item
from benchmarks.gradients.data import apart, normal

X = normal(3, 4)


class SavedOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return v * y


class SavedInputForOutput(SavedOutput):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.exp()


def cached(slope: Callable[[torch.Tensor], torch.Tensor], forward: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The slope of the first call is kept for all later ones of that shape."""
    kept: dict[tuple[int, ...], torch.Tensor] = {}

    class Cached(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.key = tuple(x.shape)
            if ctx.key not in kept:
                kept[ctx.key] = slope(x.detach())
            return forward(x)

        @staticmethod
        def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
            return v * kept[ctx.key].to(v.dtype)

    return Cached.apply


class Strided(torch.autograd.Function):
    """Reads x's memory in the order of a contiguous tensor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        rows, columns = x.shape
        flat = x.as_strided((rows, columns), (columns, 1))
        return 3 * flat**2 * v


class Contiguous(Strided):
    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        x = x.contiguous()
        return 3 * x.as_strided(x.shape, (x.shape[1], 1)) ** 2 * v


class StridedCotangent(Strided):
    """Takes the cotangent's memory for granted: wrong where the next layer hands back an expanded or turned one."""

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * torch.as_strided(v, v.shape, (v.shape[1], 1))


class ChangesItsInput(torch.autograd.Function):
    """Normalises the caller's tensor in place and never says so."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x.clone())
        y = x.sin()
        x.detach().mul_(0.5)
        return y

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return v * x.cos()


class ChangesTheCotangent(torch.autograd.Function):
    """Masks the cotangent in place: whoever else holds it sees the change."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        v[x <= 0] = 0
        return v


class Noisy(torch.autograd.Function):
    """Dropout in the backward alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return v * (1 - x.tanh() ** 2) * (torch.rand_like(x) > 0.1) / 0.9


class Once(SavedOutput):
    """Correct, and differentiable once: its second order cannot be had, and nobody asks for it."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        return v * ctx.saved_tensors[0]


class OnceThroughNumPy(torch.autograd.Function):
    """The slope is computed outside of autograd: the second order misses it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return v * torch.from_numpy(np.cos(x.detach().numpy()))


class ForwardAndReverse(torch.autograd.Function):
    """The newer style: setup_context, and a jvp beside the vjp."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        return v * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        return tangent * ctx.saved_tensors[0].cos()


class ForwardWrong(ForwardAndReverse):
    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        return -tangent * ctx.saved_tensors[0].cos()


class RaisesInBackward(SavedOutput):
    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return v @ y.reshape(-1)


_torch = partial(fixed, "torch_functions", "torch")
TURNED = torch.from_numpy(normal(4, 3)).T
ITEMS = [
    _torch("saved output", "ordinary", SavedOutput.apply, (X,)),
    _torch("saved input for the output", "wrong", SavedInputForOutput.apply, (X,), "unknown"),
    item(
        "torch_functions/first call's slope",
        "torch",
        "wrong",
        lambda: Subject(function=cached(torch.cos, torch.sin), inputs=(X,)),
        "stale",
    ),
    _torch("strides, contiguous input", "awkward", Contiguous.apply, (TURNED,)),
    _torch("strides of a turned input", "wrong", Strided.apply, (TURNED,), "non-contiguous unknown"),
    _torch("strides of an input given straight", "wrong", Strided.apply, (X,), "non-contiguous"),
    _torch("strides of the cotangent", "wrong", StridedCotangent.apply, (X,), "non-contiguous"),
    _torch("changes its input", "wrong", ChangesItsInput.apply, (X,), "mutates"),
    _torch("changes the cotangent", "wrong", ChangesTheCotangent.apply, (apart(3, 4),), "mutates"),
    _torch("noise in the backward", "wrong", Noisy.apply, (X,), "nondeterministic"),
    _torch("once differentiable", "awkward", Once.apply, (X,)),
    _torch("second order through NumPy", "wrong", OnceThroughNumPy.apply, (X,), "second-order", order=2),
    _torch("jvp and vjp", "ordinary", ForwardAndReverse.apply, (X,)),
    _torch("jvp's sign", "wrong", ForwardWrong.apply, (X,), "jvp"),
    _torch("raises in the backward", "wrong", RaisesInBackward.apply, (X,), "raises"),
]
