"""Keras optimizers: their slots in canonical units, and the update rule as the reference knows it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from frameworks.keras_copies import seen, shortest
from harness.case import HarnessError
from harness.recipe import PILED, State

_MOMENTS = {"_momentums": "m", "_velocities": "v", "_velocity_hats": "v_max"}
_CANONICAL: Mapping[str, Mapping[str, str]] = {
    "SGD": {"momentums": "velocity"},
    "RMSprop": {"_velocities": "mean_square", "_average_gradients": "mean", "_momentums": "velocity"},
    "Adagrad": {"_accumulators": "accumulator"},
    "Adadelta": {"_accumulated_grads": "mean_square", "_accumulated_delta_vars": "mean_square_step"},
    "Lion": {"_momentums": "m"},
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "Lamb"), _MOMENTS),
}
# keras 3.15: SGD adds up -rate * gradient, RMSprop +rate * increment; torch keeps the rate outside.
_UNITS = {("SGD", "velocity"): -1.0, ("RMSprop", "velocity"): 1.0}


class Slots:
    """An optimizer's state, by canonical name and then by parameter; a slot that no parameter owns goes by ""."""

    def __init__(self, optimizer: Any, variables: Mapping[str, Any]) -> None:
        self._optimizer = optimizer
        names = {id(variable): name for name, variable in variables.items()}
        trained = [names.get(id(variable), "") for variable in optimizer._trainable_variables]
        kind = type(optimizer).__name__
        canonical = {"_accumulated_gradients": PILED, **_CANONICAL.get(kind, {})}
        self._slots: dict[str, dict[str, Any]] = {}
        for attribute, value in vars(optimizer).items():
            slot: str = canonical.get(attribute) or attribute.strip("_")
            if attribute in ("_variables", "_trainable_variables", "_iterations", "_learning_rate"):
                continue
            if isinstance(value, keras.Variable):
                self._slots[slot] = {"": value}
            elif isinstance(value, list) and len(value) == len(trained) and value and any(map(_is_variable, value)):
                self._slots[slot] = {name: v for name, v in zip(trained, value, strict=True) if _is_variable(v)}
        self._scale = {slot: sign for (owner, slot), sign in _UNITS.items() if owner == kind}
        self._raw: dict[int, tuple[weakref.ref[np.ndarray], np.ndarray]] = {}
        self._every = optimizer.gradient_accumulation_steps or 1
        self._first = int(optimizer._iterations.numpy())
        self._rates: dict[int, float] = {}

    def state(self) -> dict[str, Any]:
        """The fields `slots` and `count` of a State."""
        self._raw = {key: pair for key, pair in self._raw.items() if pair[0]() is not None}
        rate = self._rates[self._iterations()] = self._last_rate()
        slots = {
            slot: {name: self._canonical(slot, seen(variable), rate) for name, variable in owned.items()}
            for slot, owned in self._slots.items()
        }
        return {"slots": slots, "count": self._iterations() // self._every}

    def load(self, state: State) -> None:
        """Set what the state names. Raises HarnessError for a slot that the optimizer does not have."""
        self._optimizer._iterations.assign(state.count * self._every)
        rate = self._rates.get(state.count * self._every, self._last_rate())
        for slot, owned in state.slots.items():
            for name, value in owned.items():
                if name not in self._slots.get(slot, {}):
                    raise HarnessError(f"Keras's {self._optimizer.name} has no slot {slot} of {name}")
                self._slots[slot][name].assign(self._own(slot, value, rate))

    def begin(self, step: int) -> bool:
        """The pass of a step comes next: Keras's iterations count passes, a State updates. Whether it ends in one."""
        position = (self._first + step) % self._every
        self._optimizer._iterations.assign(self._iterations() // self._every * self._every + position)
        return position == self._every - 1

    def _iterations(self) -> int:
        return int(self._optimizer._iterations.numpy())

    def _last_rate(self) -> float:
        """The rate of the update before; at the start, that of the first."""
        rate = self._optimizer._learning_rate
        return float(rate if isinstance(rate, keras.Variable) else rate(max(self._iterations() - 1, 0)))

    def _canonical(self, slot: str, raw: np.ndarray, rate: float) -> np.ndarray:
        if slot not in self._scale:
            return raw
        value = np.asarray(raw / np.asarray(self._scale[slot] * (rate or 1.0), raw.dtype))
        self._raw[id(value)] = weakref.ref(value), raw  # a division does not round-trip
        return value

    def _own(self, slot: str, value: np.ndarray, rate: float) -> np.ndarray:
        known, raw = self._raw.get(id(value), (None, None))
        if known is not None and raw is not None and known() is value:
            return raw
        return value * np.asarray(self._scale[slot] * rate, value.dtype) if slot in self._scale else value


def piled(optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """The gradients with those of earlier passes, taken out of an optimizer that holds them back for its next update:
    given the sum, it computes the same (keras 3.15, optimizers/base_optimizer.py, _backend_apply_gradients)."""
    if not optimizer.gradient_accumulation_steps:
        return list(gradients)
    sums = []
    for gradient, variable in zip(gradients, variables, strict=True):
        held = optimizer._accumulated_gradients[optimizer._get_variable_index(variable)]
        sums.append(gradient if gradient is None or held is None else tf.convert_to_tensor(gradient) + held.value)
        if held is not None:
            held.assign(tf.zeros_like(held.value))
    return sums


def typed_rate(optimizer: Any) -> None:
    """The learning rate as typed: its variable made 0.0010000000475 of 0.001 while it was float32."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        value = rate.numpy()
        if value == np.float32(value):
            rate.assign(shortest(np.float32(value)))


def _is_variable(value: Any) -> bool:
    return isinstance(value, keras.Variable)
