"""A torch optimizer in the harness's words: its update rule, its slots, and the rates that a schedule gives it.

Source: torch 2.13, torch/optim/{sgd,adagrad,adadelta,rmsprop,adam,adamax,nadam,lr_scheduler}.py.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, optim
from torch.optim.lr_scheduler import LRScheduler

from frameworks.pytorch_tensors import array
from harness.recipe import Recipe, State

_MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "v_max"}
_SLOTS: dict[type[optim.Optimizer], Mapping[str, str]] = {
    optim.SGD: {"momentum_buffer": "velocity"},
    optim.Adagrad: {"sum": "accumulator"},
    optim.Adadelta: {"square_avg": "mean_square", "acc_delta": "mean_square_step"},
    optim.RMSprop: {"square_avg": "mean_square", "grad_avg": "mean", "momentum_buffer": "velocity"},
    optim.Adamax: {"exp_avg": "m", "exp_inf": "u"},
    **{kind: _MOMENTS for kind in (optim.Adam, optim.NAdam, optim.RAdam)},
}


def moved(optimizer: optim.Optimizer | None) -> list[Tensor]:
    """The tensors that an optimizer updates."""
    return [tensor for group in (optimizer.param_groups if optimizer else ()) for tensor in group["params"]]


# --- slots ------------------------------------------------------------------------------------------------------


def counts(optimizer: optim.Optimizer | None, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Updates made, by parameter, where torch counts them."""
    return {name: int(entry["step"]) for name, entry in _entries(optimizer, tensors).items() if "step" in entry}


def slots(optimizer: optim.Optimizer | None, tensors: Mapping[str, Tensor], count: int) -> dict[str, Any]:
    """The optimizer's state by canonical name, then by parameter; `step` only where a parameter's lags behind."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, entry in _entries(optimizer, tensors).items():
        for slot, value in entry.items():
            if isinstance(value, Tensor | float | int) and (slot != "step" or int(value) != count):
                shown = array(value) if isinstance(value, Tensor) else np.asarray(value)
                found.setdefault(_canonical(optimizer, slot), {})[name] = shown
    return found


def load_slots(optimizer: optim.Optimizer, tensors: Mapping[str, Tensor], state: State, is_fresh: bool) -> None:
    """Set the optimizer's state; what torch has not yet created is created as torch does.

    A fresh optimizer at count 0 stays fresh: torch's first step is not always a step from zero (SGD with dampening).
    """
    if state.count == 0 and is_fresh:
        optimizer.state.clear()
    wanted: dict[str, dict[str, np.ndarray]] = {}
    for slot, values in state.slots.items():
        for name, value in values.items():
            if name in tensors and (state.count or np.any(value) or optimizer.state.get(tensors[name])):
                wanted.setdefault(name, {})[slot] = value
    _create(optimizer, [tensors[name] for name in wanted if not optimizer.state.get(tensors[name])])
    for name, values in wanted.items():
        entry = optimizer.state[tensors[name]]
        for slot, held in entry.items():
            value = values.get(_canonical(optimizer, slot), state.count if slot == "step" else None)
            if value is None:
                continue
            if isinstance(held, Tensor):
                held.data.copy_(torch.as_tensor(np.array(value)).reshape(held.shape))
            else:
                entry[slot] = type(held)(value)


def _entries(optimizer: optim.Optimizer | None, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    kept = optimizer.state if optimizer else {}
    return {name: kept[tensor] for name, tensor in tensors.items() if tensor in kept}


def _canonical(optimizer: optim.Optimizer | None, slot: str) -> str:
    names = next((names for kind, names in _SLOTS.items() if isinstance(optimizer, kind)), {})
    return names.get(slot, slot)


def _create(optimizer: optim.Optimizer, parameters: Sequence[Tensor]) -> None:
    """What torch creates at a first step: by one without gradient, undone on the parameters."""
    if not parameters:
        return
    gradients = [(tensor, tensor.grad) for tensor in moved(optimizer)]
    values = [tensor.detach().clone() for tensor in parameters]
    for tensor, _ in gradients:
        tensor.grad = None
    for tensor in parameters:
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    for tensor, value in zip(parameters, values, strict=True):
        tensor.data.copy_(value)
    for tensor, gradient in gradients:
        tensor.grad = gradient


# --- rates ------------------------------------------------------------------------------------------------------


class Rates:
    """A recipe's schedule as a function of its position, so that a step can be taken again, or out of a run's middle.

    `schedules`: all that the recipe's objects reach, those that the user's own step advances among them.
    """

    def __init__(self, recipe: Recipe, schedules: Sequence[LRScheduler]) -> None:
        self.schedule, self.schedules = recipe.schedule, schedules
        self.groups = recipe.optimizer.param_groups if recipe.optimizer else []
        self.position, self.start = 0, self.read()

    def read(self) -> Any:
        settings = [{name: value for name, value in group.items() if name != "params"} for group in self.groups]
        return copy.deepcopy(([schedule.state_dict() for schedule in self.schedules], settings))

    def write(self, kept: Any) -> None:
        states, settings = copy.deepcopy(kept)
        for schedule, state in zip(self.schedules, states, strict=True):
            schedule.load_state_dict(state)
        for group, of in zip(self.groups, settings, strict=True):
            group.update(of)

    def move(self, position: int) -> None:
        """Set the rates for a position: the updates made, or the epoch."""
        if not isinstance(self.schedule, LRScheduler):
            for group in self.groups:
                group["lr"] = self.schedule(position)
            return
        if position < self.position:
            self.write(self.start)
            self.position = 0
        with warnings.catch_warnings(action="ignore"):  # a position may be reached without the updates before it
            for _ in range(position - self.position):
                self.schedule.step()
        self.position = position
