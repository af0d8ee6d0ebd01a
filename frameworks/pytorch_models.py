"""PyTorch: users' own models, watched step by step (the protocol's `Models`).

The user's objects compute, holding a watcher's promoted values for the time of a call (`pytorch_lending`).
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn.parameter import UninitializedTensorMixin
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from frameworks.pytorch_describing import describe, named, slot_names, update_rule
from frameworks.pytorch_lending import Lending
from frameworks.pytorch_recording import Recording, array
from harness.case import HarnessError, Precision
from harness.recipe import Batch, Forced, Recipe, Record, State


def watch(recipe: Recipe, precision: Precision, inference: bool) -> Watch:
    """A model with its loss and optimizer at one precision. Raises HarnessError for what cannot be watched."""
    _check(recipe)
    return Watch(recipe, precision, inference)


def assign(recipe: Recipe, values: Mapping[str, np.ndarray]) -> None:
    """Write parameters and buffers by name into the user's own model. Raises HarnessError for a name or shape."""
    tensors = {name: of.tensor for name, of in named(recipe.model).items()}
    for name, value in values.items():
        if name not in tensors:
            raise HarnessError(f"the torch model has no parameter {name!r}; it has {', '.join(tensors)}")
        if tensors[name].shape != np.shape(value):
            raise HarnessError(f"{name} has shape {tuple(tensors[name].shape)}, the value {np.shape(value)}")
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(torch.as_tensor(np.array(value)))


class Before(NamedTuple):
    """What a step starts from besides a `State`: piled-up gradients, and what a schedule has made of the rates."""

    gradients: list[Tensor | None]
    settings: list[dict[str, Any]]
    schedules: list[dict[str, Any]]


class Watch:
    """Satisfies `Watched`. A step taken again (by `Batch.step`) starts from the gradients that it found before."""

    def __init__(self, recipe: Recipe, precision: Precision, inference: bool) -> None:
        self.recipe, self.inference, self.model = recipe, inference, recipe.model
        self.dtype: torch.dtype = getattr(torch, precision)
        held = (*recipe.model.parameters(), *recipe.model.buffers())
        self.device = held[0].device if held else torch.device("cpu")
        parts = (recipe.loss, recipe.optimizer, recipe.schedule, recipe.penalty, recipe.after_backward)
        self.lending = Lending([recipe.model, *held, *parts, recipe.train_step], self.dtype)
        self.parameters = describe(recipe.model, recipe.optimizer)
        self.optimizer = update_rule(recipe)
        self.befores: dict[int, Before] = {}
        self.position = 0
        with self.lending.lent():
            self.is_fresh = recipe.optimizer is None or not recipe.optimizer.state
            self.count = self.first = max(self._counts().values(), default=0)
            self.start = self._before()

    # --- state --------------------------------------------------------------------------------------------------

    def state(self) -> State:
        with self.lending.lent():
            return self._state()

    def load(self, state: State) -> None:
        with self.lending.lent():
            tensors = {name: of.tensor for name, of in named(self.model).items()}
            for name, value in state.values.items():
                tensors[name].data.copy_(torch.as_tensor(np.array(value)))
            self.count = state.count
            if self.recipe.optimizer is not None:
                self._load_slots(state, tensors)

    def _state(self) -> State:
        values = {name: array(of.tensor) for name, of in named(self.model).items()}
        slots: dict[str, dict[str, np.ndarray]] = {}
        for name, entry in self._entries().items():
            for slot, value in entry.items():
                if slot != "step" and isinstance(value, Tensor | int | float):
                    canonical = slot_names(self.recipe.optimizer).get(slot, slot)
                    slots.setdefault(canonical, {})[name] = _array(value)
        lagging = {name: np.asarray(count) for name, count in self._counts().items() if count != self.count}
        return State(values=values, slots=slots | ({"step": lagging} if lagging else {}), count=self.count)

    def _entries(self) -> dict[str, dict[str, Any]]:
        """The optimizer's state by the parameter's name."""
        kept = self.recipe.optimizer.state if self.recipe.optimizer else {}
        return {name: kept[of.tensor] for name, of in named(self.model).items() if of.tensor in kept}

    def _counts(self) -> dict[str, int]:
        return {name: int(entry["step"]) for name, entry in self._entries().items() if "step" in entry}

    def _load_slots(self, state: State, tensors: Mapping[str, Tensor]) -> None:
        optimizer = self.recipe.optimizer
        if state.count == 0 and self.is_fresh:
            optimizer.state.clear()  # torch's first step is not always a step from zero (SGD with dampening)
        canonical = slot_names(optimizer)
        wanted: dict[str, dict[str, np.ndarray]] = {}
        for slot, values in state.slots.items():
            for name, value in values.items():
                if state.count or np.any(value):
                    wanted.setdefault(name, {})[slot] = value
        absent = [tensors[name] for name in wanted if not optimizer.state.get(tensors[name])]
        if absent:
            self._create_slots(absent)
        for name, values in wanted.items():
            entry = optimizer.state[tensors[name]]
            for slot, value in entry.items():
                key = canonical.get(slot, slot)
                if slot == "step" or key in values:
                    entry[slot] = _written(value, values.get(key, np.asarray(state.count)))

    def _create_slots(self, parameters: Sequence[Tensor]) -> None:
        """What torch itself would create: by a step without gradient, undone on the parameters."""
        held = [(tensor, tensor.grad) for tensor in named_tensors(self.recipe.optimizer)]
        before = [tensor.detach().clone() for tensor in parameters]
        for tensor, _ in held:
            tensor.grad = None
        for tensor in parameters:
            tensor.grad = torch.zeros_like(tensor)
        self.recipe.optimizer.step()
        for tensor, value in zip(parameters, before, strict=True):
            tensor.data.copy_(value)
        for tensor, gradient in held:
            tensor.grad = gradient

    # --- steps --------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, forced: Forced | None = None) -> Record:
        with self.lending.lent():
            self._set_mode()
            recording = Recording(self.model, forced or Forced())
            if self.inference or not (self.recipe.loss or self.recipe.train_step):
                self._forward(recording, self._tensors(batch.inputs))
                return Record(activations=recording.activations(), outputs=tuple(recording.outputs))
            self._resume(batch.step)
            return (self._closure if self.recipe.train_step else self._step)(batch, recording)

    def _step(self, batch: Batch, recording: Recording) -> Record:
        recipe, optimizer = self.recipe, self.recipe.optimizer
        if recipe.zero_grad and batch.step % recipe.accumulate == 0:
            self._zero()
        output = self._forward(recording, self._tensors(batch.inputs))
        loss = self._loss(output, batch)
        if loss.requires_grad:
            with recording.backward(), _named("the torch loss's backward pass"):
                loss.backward()
        gradients = self._gradients()
        self._force_gradients(recording.forced)
        if recipe.after_backward:
            recipe.after_backward(self.model)
        updates = optimizer is not None and (batch.step + 1) % recipe.accumulate == 0
        if updates:
            self._set_rate(batch.epoch)
            optimizer.step()
            self.count += 1
        return self._record(recording, loss, gradients, self._state() if updates else None)

    def _closure(self, batch: Batch, recording: Recording) -> Record:
        """The user's own loop body: gradients are seen where its optimizer steps, the loss where it is returned."""
        optimizer, seen = self.recipe.optimizer, []

        def before_update(*_: Any) -> None:
            if not seen:
                seen.append(self._gradients())
                self._force_gradients(recording.forced)
            self.count += 1

        handle = optimizer.register_step_pre_hook(before_update) if optimizer else None
        inputs, targets = self._tensors(batch.inputs), self._targets(batch)
        try:
            with recording.forward(inputs), self._locating(recording):
                loss = self.recipe.train_step(_single(inputs), _single(targets))  # type: ignore[misc]
        finally:
            if handle:
                handle.remove()
        if not isinstance(loss, Tensor | int | float):
            if not recording.losses:
                raise HarnessError("train_step neither returned a loss nor called backward(); return the loss")
            loss = recording.losses[-1]
        after = self._state() if seen or optimizer is None else None
        return self._record(recording, torch.as_tensor(loss), seen[0] if seen else self._gradients(), after)

    def pull_back(self, batch: Batch, cotangents: Mapping[str, np.ndarray], forced: Forced | None = None) -> Record:
        with self.lending.lent():
            self._set_mode()
            recording = Recording(self.model, forced or Forced())
            kept = [(tensor, tensor.detach().clone()) for tensor in self.model.buffers()]
            before = self._before()
            self._zero()
            self._forward(recording, self._tensors(batch.inputs))
            outputs = recording.tensors()
            unknown = sorted(set(cotangents) - set(outputs))
            if unknown:
                raise HarnessError(f"the torch model has no activation {unknown[0]!r}; it has {', '.join(outputs)}")
            reached = {outputs[name]: value for name, value in cotangents.items() if outputs[name].requires_grad}
            if reached:
                with recording.backward():
                    torch.autograd.backward(
                        list(reached), [torch.tensor(v, dtype=t.dtype, device=t.device) for t, v in reached.items()]
                    )
            record = self._record(recording, None, self._gradients(), None)
            self._restore(before)
            for tensor, value in kept:
                tensor.data.copy_(value)
            return record

    def _record(
        self,
        recording: Recording,
        loss: Tensor | None,
        gradients: Mapping[str, np.ndarray | None],
        after: State | None,
    ) -> Record:
        return Record(
            activations=recording.activations(),
            outputs=tuple(recording.outputs),
            loss=None if loss is None else array(loss.reshape(()).to(self.dtype)),
            cotangents=recording.cotangents(),
            gradients=gradients,
            after=after,
        )

    # --- forward and loss ---------------------------------------------------------------------------------------

    def _set_mode(self) -> None:
        """The user's flags of single modules hold while the whole model is in training mode."""
        wanted = self.recipe.training
        if wanted is None:
            wanted = not self.inference and bool(self.recipe.loss or self.recipe.train_step)
        if not (wanted and self.model.training):
            self.model.train(wanted)

    def _forward(self, recording: Recording, inputs: tuple[Tensor, ...]) -> Any:
        with recording.forward(inputs), self._locating(recording):
            return self.model(*inputs)

    @contextmanager
    def _locating(self, recording: Recording) -> Iterator[None]:
        with _named(lambda: f"torch model: {recording.place()}"):
            yield

    def _tensors(self, arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        return tuple(
            torch.tensor(a, dtype=self.dtype if np.issubdtype(a.dtype, np.floating) else None, device=self.device)
            for a in arrays
        )

    def _targets(self, batch: Batch) -> tuple[Tensor, ...]:
        integer = {torch.uint8, torch.int8, torch.int16, torch.int32}
        return tuple(t.long() if t.dtype in integer else t for t in self._tensors(batch.targets))

    def _loss(self, output: Any, batch: Batch) -> Tensor:
        """The user's loss with its penalty. With weights, of each example's elements: mean divides by their number."""
        targets = self._targets(batch)
        arguments = (output, _single(targets)) if targets else (output,)
        with _named("the torch loss"):
            if batch.weights is None and not self.recipe.class_weight:
                loss = self.recipe.loss(*arguments)
            else:
                loss = _weighted(self.recipe.loss, arguments, self._weights(batch, targets))
            if self.recipe.penalty:
                loss = loss + self.recipe.penalty(self.model)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shown = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise HarnessError(f"the torch loss is {shown}, it must be one number; reduce it, by mean() or sum()")
        return loss

    def _weights(self, batch: Batch, targets: tuple[Tensor, ...]) -> Tensor:
        """Each example's factor (batch,), or each element's where targets are classes of elements."""
        weights = torch.ones(len(batch.inputs[0]), dtype=self.dtype, device=self.device)
        if batch.weights is not None:
            weights = weights * torch.tensor(batch.weights, dtype=self.dtype, device=self.device)
        if not self.recipe.class_weight:
            return weights
        classes = targets[0]
        if classes.is_floating_point():
            classes = classes.argmax(-1) if classes.ndim > 1 and classes.shape[-1] > 1 else classes.round().long()
        factors = torch.ones(classes.shape, dtype=self.dtype, device=self.device)
        for label, factor in self.recipe.class_weight.items():
            factors[classes == label] = factor
        return factors * weights.reshape(-1, *[1] * (factors.ndim - 1))

    # --- gradients and rates ------------------------------------------------------------------------------------

    def _zero(self) -> None:
        for tensor in self._leaves():
            tensor.grad = None

    def _leaves(self) -> list[Tensor]:
        held = [*self.model.parameters(), *(named_tensors(self.recipe.optimizer) if self.recipe.optimizer else ())]
        return list({id(tensor): tensor for tensor in held}.values())

    def _gradients(self) -> dict[str, np.ndarray | None]:
        return {
            name: None if of.tensor.grad is None else array(of.tensor.grad)
            for name, of in named(self.model).items()
            if not of.buffer
        }

    def _force_gradients(self, forced: Forced) -> None:
        tensors = {name: of.tensor for name, of in named(self.model).items()}
        for name, value in forced.gradients.items():
            tensor = tensors[name]
            tensor.grad = torch.tensor(value, dtype=tensor.dtype, device=tensor.device).reshape(tensor.shape)

    def _before(self) -> Before:
        optimizer = self.recipe.optimizer
        groups = optimizer.param_groups if optimizer else []
        return Before(
            [None if tensor.grad is None else tensor.grad.clone() for tensor in self._leaves()],
            [{name: copy.copy(value) for name, value in group.items() if name != "params"} for group in groups],
            [copy.deepcopy(schedule.state_dict()) for schedule in self.lending.schedules],
        )

    def _restore(self, before: Before) -> None:
        for tensor, gradient in zip(self._leaves(), before.gradients, strict=True):
            tensor.grad = None if gradient is None else gradient.clone()
        for schedule, state in zip(self.lending.schedules, before.schedules, strict=True):
            schedule.load_state_dict(copy.deepcopy(state))
        for group, settings in zip(self._groups(), before.settings, strict=True):
            group.update(settings)

    def _groups(self) -> list[dict[str, Any]]:
        return self.recipe.optimizer.param_groups if self.recipe.optimizer else []

    def _resume(self, step: int) -> None:
        if step in self.befores:
            self._restore(self.befores[step])
        elif self.recipe.train_step or self.recipe.accumulate > 1 or not self.recipe.zero_grad:
            self.befores[step] = self._before()

    def _set_rate(self, epoch: int) -> None:
        """Bring the schedule to this update: it is a function of the updates made, or of the epoch."""
        schedule, by_epoch = self.recipe.schedule, self.recipe.schedule_every == "epoch"
        if schedule is None:
            return
        if not isinstance(schedule, LRScheduler):
            for group in self._groups():
                group["lr"] = schedule(epoch if by_epoch else self.count)
            return
        position = epoch if by_epoch else self.count - self.first
        if position < self.position:
            self.position = 0
            ...
