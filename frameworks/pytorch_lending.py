"""Lending: a user's own torch objects hold a watcher's own values for the time of a call, then get theirs back.

A copy of a model would miss what functions reach by themselves: a loss that adds the model's own weights, clipping
that names the model, a class weight in a closure. Lent values reach all of them, and nothing needs to be copyable.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from frameworks.holding import Holders, contents_of
from frameworks.pytorch_exact import exact_kernels
from harness.case import Precision
from harness.widening import Widen

_FOREIGN = sys.stdlib_module_names | {"_pytest", "jax", "keras", "numpy", "pandas", "pytest", "tensorflow"}


class Held(NamedTuple):
    """What a tensor holds: another may hold it for a while."""

    data: Tensor
    grad: Tensor | None
    requires_grad: bool


class Lending:
    """The tensors and the Python state that the roots reach, and one watcher's own values for them.

    Tensors (parameters, buffers, constants, optimizer state) keep their identity and swap their data. Attributes,
    dicts, lists and closure cells keep their identity and swap their contents. Scripts keep `training` in C++.
    """

    def __init__(self, roots: Sequence[Any], stored: Collection[Tensor], precision: Precision, widen: Widen) -> None:
        """stored: the parameters and buffers, which are widened as they are; all else by `widen`."""
        self.precision: Precision = precision
        as_is = {id(tensor) for tensor in stored}
        self.tensors, holders, self.schedules, self.scalers = _reached(roots)
        self.holders = Holders(holders)
        modules = [module for root in roots if isinstance(root, nn.Module) for module in root.modules()]
        self.scripts = [module for module in modules if isinstance(module, torch.jit.ScriptModule)]
        kept = {id(scaler._scale) for scaler in self.scalers}  # torch takes no other type than float32 there
        self.held = [
            Held(
                _own(tensor, "float32" if id(tensor) in kept else precision, None if id(tensor) in as_is else widen),
                None,
                tensor.requires_grad,
            )
            for tensor in self.tensors
        ]
        self.contents = self.holders.read()

    def loss_scale(self) -> float:
        """What the user's own step multiplies its loss by, so that float16 can hold the cotangents."""
        return self.scalers[0].get_scale() if len(self.scalers) == 1 else 1.0

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within, the user's objects are the watcher's; behind, they are the user's again, bit for bit."""
        contents = self.holders.read()
        held = [Held(tensor.data, tensor.grad, tensor.requires_grad) for tensor in self.tensors]
        training = [script.training for script in self.scripts]
        # a graph that the user built before the call must not find its tensors changed in place
        with _unsafe_preserve_version_counter(tuple(self.tensors)), _settings(self.precision):
            try:
                self._hand(self.held)
                self.holders.write(self.contents, contents)
                yield
            finally:
                for tensor in self.tensors:
                    if tensor.grad_fn is not None:  # changed in place by what has a gradient
                        tensor.detach_()
                self.contents = self.holders.read()
                self.held = [Held(tensor.data, tensor.grad, tensor.requires_grad) for tensor in self.tensors]
                self._hand(held)
                self.holders.write(contents, self.contents)
                for script, mode in zip(self.scripts, training, strict=True):
                    script.training = mode

    def _hand(self, held: list[Held]) -> None:
        for tensor, (data, grad, requires_grad) in zip(self.tensors, held, strict=True):
            tensor.grad = None  # torch compares its type with the data's
            tensor.data = data
            tensor.grad = grad
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)


@contextmanager
def _settings(precision: Precision) -> Iterator[None]:
    """Default dtype, kernels, gradients on, and every random state, put back afterwards."""
    default, of_python, of_numpy = torch.get_default_dtype(), random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    exact = exact_kernels() if precision == "float64" else nullcontext()
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad(), exact:
        try:
            torch.set_default_dtype(_at(precision, default))
            yield
        finally:
            torch.set_default_dtype(default)
            random.setstate(of_python)
            np.random.set_state(of_numpy)


def _own(tensor: Tensor, precision: Precision, widen: Widen | None) -> Tensor:
    own = tensor.detach().clone()
    if widen and precision == "float64" and tensor.dtype == torch.float32 and tensor.layout == torch.strided:
        return torch.from_numpy(widen(own.cpu().numpy())).to(own.device)
    return own.to(_at(precision, tensor.dtype))


def _at(precision: Precision, dtype: torch.dtype) -> torch.dtype:
    """What a dtype of the user's is at a precision: in float32 itself, unless it is wider."""
    if precision == "float32":
        return {torch.float64: torch.float32, torch.complex128: torch.complex64}.get(dtype, dtype)
    return torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else dtype


# --- what can be reached ----------------------------------------------------------------------------------------


def _reached(roots: Iterable[Any]) -> tuple[list[Tensor], list[Any], list[LRScheduler], list[GradScaler]]:
    """Leaf tensors; the dicts, lists and cells that hold state; schedules; loss scales: each once."""
    seen: dict[int, Any] = {}
    queue = [part for root in roots for part in (root, _state(root))]
    while queue:
        thing = queue.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        queue += _parts(thing)
    found = list(seen.values())
    return (
        [thing for thing in found if isinstance(thing, Tensor) and thing.grad_fn is None],
        [thing for thing in found if isinstance(thing, dict | list | CellType)],
        [thing for thing in found if isinstance(thing, LRScheduler)],
        [thing for thing in found if isinstance(thing, GradScaler) and thing.is_enabled()],
    )


def _parts(thing: Any) -> list[Any]:
    match thing:
        case dict():
            return list(thing.values())
        case list() | tuple() | set() | frozenset():
            return list(thing)
        case CellType():
            return [part for content in contents_of(thing)[1] for part in (content, _state(content))]
        case FunctionType():
            named = [thing.__globals__.get(name) for name in thing.__code__.co_names]
            shared = [
                part
                for value in named
                if not isinstance(value, FunctionType) or value.__globals__ is thing.__globals__
                for part in (value, _state(value))
            ]
            return [*(thing.__closure__ or ()), *(thing.__defaults__ or ()), *shared]
        case MethodType():
            return [_state(thing.__self__), thing.__func__]
        case partial():
            return [thing.func, thing.args, thing.keywords]
        case nn.Module():
            return [vars(thing), *thing.parameters(False), *thing.buffers(False), getattr(type(thing), "forward", None)]
        case Optimizer() | LRScheduler():
            return [vars(thing)]
    return [_state(thing), vars(type(thing)).get("__call__")] if callable(thing) else []


def _state(thing: Any) -> dict[str, Any] | None:
    """The attributes of an object of the user's, None for another's: their state is not the model's."""
    if isinstance(thing, type | ModuleType | FunctionType | MethodType | Tensor):
        return None
    if type(thing).__module__.partition(".")[0] in _FOREIGN:
        return None
    return getattr(thing, "__dict__", None)
