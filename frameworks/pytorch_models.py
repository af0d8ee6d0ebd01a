"""PyTorch: users' own models, watched step by step (the protocol's `Models`).

The user's objects compute, holding a watcher's own values for the time of a call (`pytorch_lending`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frameworks.clipping import only_bounded
from frameworks.pytorch_calls import Reader
from frameworks.pytorch_checking import check, naming
from frameworks.pytorch_describing import describe, named
from frameworks.pytorch_exact import WideCasts
from frameworks.pytorch_lending import Lending
from frameworks.pytorch_losses import evaluate, single
from frameworks.pytorch_objectives import read_recipe_loss
from frameworks.pytorch_recording import Recording
from frameworks.pytorch_rules import read_rule
from frameworks.pytorch_tensors import array, like
from frameworks.pytorch_updating import Rates, counts, load_slots, moved, slots
from frameworks.pytorch_writing import written as written
from harness.calls import Call
from harness.case import HarnessError, Precision
from harness.objectives import Loss
from harness.recipe import Batch, Forced, Parameter, Recipe, Record, State
from harness.rules import Rule
from harness.widening import Widen, typed


def watch(recipe: Recipe, precision: Precision, inference: bool, widen: Widen = typed) -> Watch:
    """A model with its loss and optimizer at one precision. Raises HarnessError for what cannot be watched."""
    check(recipe, inference)
    return Watch(recipe, precision, inference, widen)


def assign(recipe: Recipe, values: Mapping[str, np.ndarray]) -> None:
    """Write parameters and buffers by name into the user's own model. Raises HarnessError for a name or a shape."""
    tensors = named_tensors(recipe.model)
    for name, value in values.items():
        if name not in tensors:
            raise HarnessError(f"the torch model has no parameter {name!r}; it has {', '.join(tensors)}")
        if tuple(tensors[name].shape) != np.shape(value):
            raise HarnessError(f"{name} has shape {tuple(tensors[name].shape)}, the value given {np.shape(value)}")
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(torch.as_tensor(np.array(value)))


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: of.tensor for name, of in named(model).items()}


class Watch:
    """Satisfies `Watched`. A step taken again, by `Batch.step`, starts from the gradients that it found before."""

    def __init__(self, recipe: Recipe, precision: Precision, inference: bool, widen: Widen) -> None:
        self.recipe, self.model, self.inference = recipe, recipe.model, inference
        held = (*recipe.model.parameters(), *recipe.model.buffers())
        self.device = held[0].device if held else torch.device("cpu")
        parts = (recipe.loss, recipe.optimizer, recipe.schedule, recipe.penalty, recipe.after_backward)
        self.lending = Lending([recipe.model, *held, *parts, recipe.train_step], held, precision, widen)
        self.taken: dict[int, int] = {}
        self.parameters = describe(recipe.model, recipe.optimizer)
        self.dtype = torch.float64 if precision == "float64" else _dtype_of_data(self.parameters)
        self.is_fresh = recipe.optimizer is None or not recipe.optimizer.state
        self.count = self.first = max(counts(recipe.optimizer, named_tensors(recipe.model)).values(), default=0)
        self.rates = Rates(recipe, self.lending.schedules)
        self.found: dict[int, tuple[list[Tensor | None], Any]] = {}
        self.bounded: dict[int, bool] = {}

    def rule(self) -> Rule | None:
        with self.lending.lent():
            names = {tensor: name for name, tensor in named_tensors(self.model).items()}
            bare = replace(self.recipe, after_backward=None, train_step=None)  # what the user's own code adds is asked
            return read_rule(bare, names) or read_rule(replace(bare, schedule=None), names)

    def losses(self, batch: Batch) -> tuple[Loss | None, ...]:
        if self.recipe.loss is None or self.inference:
            return ()
        with self.lending.lent():
            targets = self._targets(batch)
            return (read_recipe_loss(self.recipe, targets[0] if targets else None, batch.weights is not None),)

    def penalty(self) -> None:
        """A function of the user's own."""

    def state(self) -> State:
        with self.lending.lent():
            return self._state()

    def load(self, state: State) -> None:
        with self.lending.lent():
            tensors = named_tensors(self.model)
            for name, value in state.values.items():
                tensors[name].data.copy_(torch.as_tensor(np.array(value)))
            self.count = state.count
            if self.recipe.optimizer is not None:
                load_slots(self.recipe.optimizer, tensors, state, self.is_fresh)

    def step(self, batch: Batch, forced: Forced | None = None) -> Record:
        with self.lending.lent():
            self._set_mode()
            self._draw_anew(batch.step)
            scale = self.lending.loss_scale() if self.recipe.train_step else 1.0
            recording = Recording(self.model, forced or Forced(), scale)
            if self.inference or not self._trains():
                self._forward(recording, batch)
                return recording.finish()
            self._resume(batch.step)
            return (self._user_step if self.recipe.train_step else self._step)(batch, recording)

    def _draw_anew(self, step: int) -> None:
        """A step taken again draws other random numbers, so that a random layer is seen to be one."""
        self.taken[step] = self.taken.get(step, -1) + 1
        if self.taken[step]:
            _ = torch.manual_seed(self.taken[step])

    def pull_back(self, batch: Batch, cotangents: Mapping[str, np.ndarray], forced: Forced | None = None) -> Record:
        with self.lending.lent(), self._buffers_kept():
            self._set_mode()
            recording = Recording(self.model, forced or Forced())
            piled = self._swap_gradients(None)
            try:
                self._forward(recording, batch)
                tensors = recording.tensors()
                unknown = sorted(set(cotangents) - set(tensors))
                if unknown:
                    raise HarnessError(f"the torch model has no activation {unknown[0]!r}; it has {', '.join(tensors)}")
                reached = [name for name in cotangents if tensors[name].requires_grad]
                if reached:
                    with recording.backward(), naming("the backward pass of the torch model"):
                        given = [like(cotangents[name], tensors[name]) for name in reached]
                        torch.autograd.backward([tensors[name] for name in reached], given)
                return recording.finish(gradients=self._gradients())
            finally:
                _ = self._swap_gradients(piled)

    def calls(self, batch: Batch, names: Sequence[str], forced: Forced | None = None) -> dict[str, Call]:
        with self.lending.lent(), self._buffers_kept():
            self._set_mode()
            reader = Reader(self.model, names)
            recording = Recording(self.model, forced or Forced(), observe=reader.look)
            self._forward(recording, batch)
            entries = recording.entries()
            read = [reader.calls(name, entries[name]) for name in names if name in entries]
            found = {name: call for calls in read for name, call in calls.items()}
            recording.finish()
            return found

    # --- one step -----------------------------------------------------------------------------------------------

    def _step(self, batch: Batch, recording: Recording) -> Record:
        recipe, optimizer = self.recipe, self.recipe.optimizer
        if recipe.zero_grad and batch.step % recipe.accumulate == 0:
            _ = self._swap_gradients(None)
        output = self._forward(recording, batch)
        weights = None if batch.weights is None else self._tensors([np.asarray(batch.weights, float)])[0]
        with self._wide(recording), naming("the torch loss"):
            loss = evaluate(recipe, output, self._targets(batch), weights)
        if loss.requires_grad:
            with recording.backward(), naming("the backward pass of the torch model"):
                loss.backward()
        gradients = self._gradients()
        self._force_gradients(recording.forced)
        if recipe.after_backward:
            with naming("after_backward of the torch model"):
                recipe.after_backward(self.model)
        if optimizer is None or (batch.step + 1) % recipe.accumulate:
            return recording.finish(loss, gradients)
        if recipe.schedule is not None:
            self.rates.move(batch.epoch if recipe.schedule_every == "epoch" else self.count - self.first)
        with naming(f"the torch optimizer {type(optimizer).__name__}"):
            optimizer.step()
        self.count += 1
        if recipe.zero_grad and (batch.step + 1) % recipe.accumulate == 0:
            _ = self._swap_gradients(None)  # the next step would; until then they only take room
        return recording.finish(loss, gradients, self._state())

    def _user_step(self, batch: Batch, recording: Recording) -> Record:
        """The user's own loop body; gradients as its optimizer finds them at its first step, but for clipping, which
        belongs to the update: then as the backward passes before it leave them (where no scale is on the loss)."""
        optimizer, computed, seen = self.recipe.optimizer, [], []
        bounded = self.bounded.get(batch.step, False)
        found = {name: gradient for name, gradient in self._gradients().items() if gradient is not None}

        def after_backward() -> None:
            if not seen and recording.loss_scale == 1:
                computed[:] = [self._gradients()]
                if bounded:
                    self._force_gradients(recording.forced)

        def before_update(*_: Any) -> None:
            nonlocal bounded
            if not seen:
                given = self._gradients()
                if computed and not recording.forced.gradients:
                    bounded = self.bounded[batch.step] = only_bounded(computed[0], given)
                seen.append(computed[0] if computed and bounded else given)
                if not bounded:
                    self._force_gradients(recording.forced)
            self.count += 1

        recording.after_backward = after_backward

        handle = optimizer.register_step_pre_hook(before_update) if optimizer else None
        inputs, targets = self._tensors(batch.inputs), self._targets(batch)
        try:
            said = naming(lambda: f"train_step, torch model at {recording.place()}")
            with self._wide(recording), recording.forward(inputs), said:
                loss = self.recipe.train_step(single(inputs), single(targets))  # type: ignore[misc]
        finally:
            if handle:
                handle.remove()
        if loss is None and recording.losses:
            loss = recording.losses[-1] / recording.loss_scale
        if not isinstance(loss, Tensor | float | int):
            raise HarnessError(f"train_step returned {type(loss).__name__}, no loss; return the loss as a tensor")
        gradients = seen[0] if seen else self._gradients()
        skipped = any(g is not None and not np.isfinite(g).all() for g in gradients.values())  # by a loss scale
        after = self._state() if seen or skipped or optimizer is None else None
        return replace(recording.finish(torch.as_tensor(loss), gradients, after), found=found)

    def _trains(self) -> bool:
        return self.recipe.loss is not None or self.recipe.train_step is not None

    @contextmanager
    def _buffers_kept(self) -> Iterator[None]:
        buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.data.copy_(value)

    def _set_mode(self) -> None:
        """A model in training mode keeps its parts' own flags: the user may have frozen some."""
        wanted = self._trains() and not self.inference if self.recipe.training is None else self.recipe.training
        if not (wanted and self.model.training):
            self.model.train(wanted)

    def _resume(self, step: int) -> None:
        """What a step finds besides the state: gradients that piled up, rates that the user's own step has set."""
        if step in self.found:
            gradients, rates = self.found[step]
            _ = self._swap_gradients(gradients)
            if self.recipe.train_step:
                self.rates.write(rates)
        elif self.recipe.train_step or self.recipe.accumulate > 1 or not self.recipe.zero_grad:
            gradients = [None if leaf.grad is None else leaf.grad.clone() for leaf in self._leaves()]
            self.found[step] = gradients, self.rates.read()

    def _state(self) -> State:
        tensors = named_tensors(self.model)
        values = {name: array(tensor) for name, tensor in tensors.items()}
        return State(values=values, slots=slots(self.recipe.optimizer, tensors, self.count), count=self.count)

    # --- forward and loss ---------------------------------------------------------------------------------------

    def _forward(self, recording: Recording, batch: Batch) -> Any:
        inputs = self._tensors(batch.inputs)
        said = naming(lambda: f"the torch model at {recording.place()}", inputs)
        with self._wide(recording), recording.forward(inputs), said:
            output = self.model(*inputs)
        return recording.whole(output) if recording.is_whole else output

    def _wide(self, recording: Recording) -> AbstractContextManager[Any]:
        if self.lending.precision != "float64" or recording.is_whole:  # a compiler would trace the mode
            return nullcontext()
        plain = not self.lending.scalers

        def applies(args: Sequence[Any]) -> bool:
            """A loss scale must be float32, and is made, and cast, outside the model."""
            own = args[0] if args else None
            return plain or recording.in_model or (isinstance(own, Tensor) and (own.requires_grad or own.numel() > 1))

        return WideCasts(applies)

    def _tensors(self, arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        return tuple(
            torch.tensor(a, dtype=self.dtype if np.issubdtype(a.dtype, np.floating) else None, device=self.device)
            for a in map(np.asarray, arrays)
        )

    def _targets(self, batch: Batch) -> tuple[Tensor, ...]:
        small = (torch.uint8, torch.int8, torch.int16, torch.int32)
        return tuple(target.long() if target.dtype in small else target for target in self._tensors(batch.targets))

    # --- gradients ----------------------------------------------------------------------------------------------

    def _leaves(self) -> list[Tensor]:
        held = (*self.model.parameters(), *moved(self.recipe.optimizer))
        return list({id(tensor): tensor for tensor in held}.values())

    def _swap_gradients(self, gradients: list[Tensor | None] | None) -> list[Tensor | None]:
        leaves = self._leaves()
        before = [leaf.grad for leaf in leaves]
        for leaf, gradient in zip(leaves, gradients or [None] * len(leaves), strict=True):
            leaf.grad = None if gradient is None else gradient.clone()
        return before

    def _gradients(self) -> dict[str, np.ndarray | None]:
        found = {name: of.tensor.grad for name, of in named(self.model).items() if not of.buffer}
        return {name: None if gradient is None else array(gradient) for name, gradient in found.items()}

    def _force_gradients(self, forced: Forced) -> None:
        tensors = named_tensors(self.model)
        for name, value in forced.gradients.items():
            tensors[name].grad = like(value, tensors[name])


def _dtype_of_data(parameters: Sequence[Parameter]) -> torch.dtype:
    """float32, unless all that is trained has one lower dtype: torch multiplies no bfloat16 by float32."""
    floats = [p for p in parameters if not p.buffer and getattr(torch, p.dtype).is_floating_point]
    stored = {p.dtype for p in floats if p.trainable} or {p.dtype for p in floats}
    return getattr(torch, stored.pop()) if len(stored) == 1 and stored <= {"bfloat16", "float16"} else torch.float32
