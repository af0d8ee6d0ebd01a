"""torch.autograd.Function for layers of several inputs or outputs: what is asked for, integers, indices, None."""

# pyright: reportIncompatibleMethodOverride=false
from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.gradients import fixed
from benchmarks.gradients.data import apart, integers, normal

X, Y = normal(3, 4), normal(3, 4, seed=1)
TABLE, WORDS = normal(5, 3), integers(2, 4, below=5)


class NeedsInputGrad(torch.autograd.Function):
    """A linear layer that computes what is asked for."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, w = ctx.saved_tensors
        dx = v @ w if ctx.needs_input_grad[0] else None
        dw = v.T @ x if ctx.needs_input_grad[1] else None
        return dx, dw


class NeedsInputGradMixedUp(NeedsInputGrad):
    """Asks for the second input when it computes the first: wrong as soon as only one of them is trained."""

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, w = ctx.saved_tensors
        dx = v @ w if ctx.needs_input_grad[0] else None
        dw = v.T @ x if ctx.needs_input_grad[1] and dx is None else None
        return dx, dw


class InPlaceRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clone().clamp_(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        dx = v.clone()
        dx[y <= 0] = 0
        return dx


class Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(words)
        ctx.rows = table.shape[0]
        return table[words]

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor, None]:
        (words,) = ctx.saved_tensors
        dtable = v.new_zeros(ctx.rows, v.shape[-1])
        return dtable.index_add_(0, words.reshape(-1), v.reshape(-1, v.shape[-1])), None


class EmbeddingOverwritten(Embedding):
    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor, None]:
        (words,) = ctx.saved_tensors
        dtable = v.new_zeros(ctx.rows, v.shape[-1])
        dtable[words] = v
        return dtable, None


class Top(torch.autograd.Function):
    """The two largest of each row and their indices, which have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, indices = x.topk(2, dim=-1)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(indices)
        ctx.shape = x.shape
        return values, indices

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        (indices,) = ctx.saved_tensors
        return v.new_zeros(ctx.shape).scatter_(-1, indices, v)


class TopOneOff(Top):
    @staticmethod
    def backward(ctx: Any, v: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        (indices,) = ctx.saved_tensors
        return v.new_zeros(ctx.shape).scatter_(-1, (indices + 1) % ctx.shape[-1], v)


class UnmaterialisedOutputs(torch.autograd.Function):
    """Gets None for outputs nobody uses."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.sin(), x**2

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor | None, w: torch.Tensor | None) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.zeros_like(x)
        if v is not None:
            dx += v * x.cos()
        if w is not None:
            dx += 2 * w * x
        return dx


class UnmaterialisedWrong(UnmaterialisedOutputs):
    """The second output's cotangent is never looked at."""

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor | None, w: torch.Tensor | None) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.zeros_like(x) if v is None else v * x.cos()


class TooFew(NeedsInputGrad):
    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> Any:
        return v @ ctx.saved_tensors[1]


_torch = partial(fixed, "torch_layers", "torch")
ITEMS = [
    _torch("needs_input_grad", "ordinary", NeedsInputGrad.apply, (X, Y)),
    _torch("needs_input_grad mixed up", "wrong", NeedsInputGradMixedUp.apply, (X, Y), "zero"),
    _torch("relu in place on its copy", "ordinary", InPlaceRelu.apply, (apart(3, 4),)),
    _torch("embedding", "ordinary", Embedding.apply, (TABLE, WORDS)),
    _torch(
        "embedding, overwritten", "wrong", EmbeddingOverwritten.apply, (TABLE, WORDS), "element missing-term unknown"
    ),
    _torch("top two and their indices", "awkward", Top.apply, (apart(3, 4),)),
    _torch("top two, index off by one", "wrong", TopOneOff.apply, (apart(3, 4),), "unknown"),
    _torch("unmaterialised outputs", "awkward", UnmaterialisedOutputs.apply, (X,)),
    _torch("unmaterialised outputs, second lost", "wrong", UnmaterialisedWrong.apply, (X,), "zero missing-term"),
    _torch("too few gradients", "wrong", TooFew.apply, (X, Y), "raises shape"),
]
