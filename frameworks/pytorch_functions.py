"""A user's torch function as NumPy sees it: values, vector-Jacobian products, and Jacobian-vector products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from frameworks.protocol import Arrays, Pullback
from harness.case import HarnessError


def owns(value: Any) -> bool:
    """Whether it is a torch tensor."""
    return isinstance(value, Tensor)


def plain(value: Any) -> np.ndarray:
    """A tensor's values; bfloat16, which NumPy lacks, as float32."""
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def array(value: np.ndarray) -> Tensor:
    """A tensor of these values."""
    return torch.from_numpy(np.asarray(value))


def differentiable(f: Callable[..., Any], inputs: Sequence[Any]) -> TorchFunction:
    """f on the device of its inputs."""
    devices = [value.device for value in inputs if owns(value)]
    return TorchFunction(f, devices[0] if devices else torch.device("cpu"))


class TorchFunction:
    """Satisfies `frameworks.protocol.Differentiable`."""

    strided = True

    def __init__(self, f: Callable[..., Any], device: torch.device, forward: bool = True) -> None:
        self.f = f
        self.device = device
        self.forward = forward

    def value(self, xs: Arrays) -> Arrays:
        return tuple(plain(y) for y in _flat(self.f(*map(self._tensor, xs))))

    def apply(self, other: Callable[..., Any], arrays: Arrays) -> tuple[np.ndarray | None, ...]:
        result = other(*map(self._tensor, arrays))
        results = result if isinstance(result, tuple | list) else (result,)
        return tuple(None if r is None else plain(r) if owns(r) else np.asarray(r) for r in results)

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        leaves = [self._leaf(x) for x in xs]
        # a clone is no leaf: f may write into it; but it would lose another layout
        ys = _flat(self.f(*(leaf.clone() if leaf.is_contiguous() else leaf for leaf in leaves)))

        def pullback(vs: Arrays) -> tuple[np.ndarray | None, ...]:
            pairs = [(y, self._tensor(v)) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            if not pairs or not wanted:
                return (None,) * len(leaves)
            outputs, cotangents = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(outputs, wanted, cotangents, retain_graph=True, allow_unused=True))
            grads = [next(found) if leaf.requires_grad else None for leaf in leaves]
            return tuple(None if grad is None else plain(grad.to_dense()) for grad in grads)

        return tuple(plain(y) for y in ys), pullback

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        if not self.forward:
            return None
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(self._tensor(x.copy()), self._tensor(d))
                if x.dtype.kind in "fc"
                else self._tensor(x)
                for x, d in zip(xs, ds, strict=True)
            ]
            try:
                pairs = [forward_ad.unpack_dual(y) for y in _flat(self.f(*duals))]
            except (RuntimeError, NotImplementedError):  # torch's words for a Function without jvp
                return None
            return tuple(plain(torch.zeros_like(p) if t is None else t) for p, t in pairs)

    def gradient(self, count: int) -> TorchFunction:
        def gradient(*args: Tensor) -> list[Tensor]:
            xs, vs = args[:count], args[count:]
            xs = [x if x.requires_grad or not _differentiable(x) else x.detach().clone().requires_grad_() for x in xs]
            wanted = [x for x in xs if x.requires_grad]
            pairs = [(y, v) for y, v in zip(_flat(self.f(*xs)), vs, strict=True) if y.requires_grad]
            outputs, cotangents = zip(*pairs, strict=True)
            found = torch.autograd.grad(outputs, wanted, cotangents, create_graph=True, allow_unused=True)
            return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]

        return TorchFunction(gradient, self.device, forward=False)

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(x)).to(self.device)

    def _leaf(self, x: np.ndarray) -> Tensor:
        return self._tensor(x).requires_grad_(x.dtype.kind in "fc")


def _differentiable(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _flat(outputs: Any) -> list[Tensor]:
    found = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    for y in found:
        if not isinstance(y, Tensor):
            raise HarnessError(
                f"the torch function returned a {type(y).__name__}; it must be a tensor or a tuple of them"
            )
    return found
