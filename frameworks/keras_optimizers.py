"""Keras optimizers: their slots in canonical units, and the update rule as the reference knows it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from frameworks.keras_copies import plain, shortest
from harness.case import SGD, Adagrad, Adam, HarnessError, Optimizer, RMSprop
from harness.conventions import KERAS
from harness.recipe import Recipe, State

_MOMENTS = {"_momentums": "m", "_velocities": "v", "_velocity_hats": "v_max"}
_CANONICAL: Mapping[str, Mapping[str, str]] = {
    "SGD": {"momentums": "velocity"},
    "RMSprop": {"_velocities": "mean_square", "_momentums": "velocity"},
    "Adagrad": {"_accumulators": "accumulator"},
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "Lamb"), _MOMENTS),
}
# keras 3.15: SGD adds up -rate * gradient, RMSprop +rate * increment; torch keeps the rate outside.
_UNITS = {("SGD", "velocity"): -1.0, ("RMSprop", "velocity"): 1.0}
_BEYOND = (
    *("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "gradient_accumulation_steps"),
    *("use_ema", "amsgrad", "centered", "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"),
)
_KNOWN = ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")


class Slots:
    """An optimizer's state, by canonical name and then by parameter; a slot that no parameter owns goes by ""."""

    def __init__(self, optimizer: Any, variables: Mapping[str, Any]) -> None:
        self._optimizer = optimizer
        names = {id(variable): name for name, variable in variables.items()}
        trained = [names.get(id(variable), "") for variable in optimizer._trainable_variables]
        kind = type(optimizer).__name__
        self._slots: dict[str, dict[str, Any]] = {}
        for attribute, value in vars(optimizer).items():
            slot = _CANONICAL.get(kind, {}).get(attribute, attribute.strip("_"))
            if attribute in ("_variables", "_trainable_variables", "_iterations", "_learning_rate"):
                continue
            if isinstance(value, keras.Variable):
                self._slots[slot] = {"": value}
            elif isinstance(value, list) and len(value) == len(trained) and value and any(map(_is_variable, value)):
                self._slots[slot] = {name: v for name, v in zip(trained, value, strict=True) if _is_variable(v)}
        self._scale = {slot: sign for (owner, slot), sign in _UNITS.items() if owner == kind}
        self._raw: dict[int, tuple[weakref.ref[np.ndarray], np.ndarray]] = {}

    def state(self) -> dict[str, Any]:
        """The fields `slots` and `count` of a State."""
        self._raw = {key: pair for key, pair in self._raw.items() if pair[0]() is not None}
        slots = {
            slot: {name: self._canonical(slot, plain(variable.numpy())) for name, variable in owned.items()}
            for slot, owned in self._slots.items()
        }
        return {"slots": slots, "count": int(self._optimizer._iterations.numpy())}

    def load(self, state: State) -> None:
        """Set what the state names. Raises HarnessError for a slot that the optimizer does not have."""
        self._optimizer._iterations.assign(state.count)
        for slot, owned in state.slots.items():
            for name, value in owned.items():
                if name not in self._slots.get(slot, {}):
                    raise HarnessError(f"Keras's {self._optimizer.name} has no slot {slot} of {name}")
                self._slots[slot][name].assign(self._own(slot, value))

    def _canonical(self, slot: str, raw: np.ndarray) -> np.ndarray:
        if slot not in self._scale:
            return raw
        value = np.asarray(raw / np.asarray(self._unit(slot), raw.dtype))
        self._raw[id(value)] = weakref.ref(value), raw  # a division does not round-trip
        return value

    def _own(self, slot: str, value: np.ndarray) -> np.ndarray:
        known, raw = self._raw.get(id(value), (None, None))
        if known is not None and raw is not None and known() is value:
            return raw
        return value * np.asarray(self._unit(slot), value.dtype) if slot in self._scale else value

    def _unit(self, slot: str) -> float:
        return self._scale[slot] * (float(self._optimizer.learning_rate) or 1.0)


def typed_rate(optimizer: Any) -> None:
    """The learning rate as typed: its variable made 0.0010000000475 of 0.001 while it was float32."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        value = rate.numpy()
        if value == np.float32(value):
            rate.assign(shortest(np.float32(value)))


def rule_of(optimizer: Any, recipe: Recipe, model: keras.Model) -> Optimizer | None:
    """The update rule in the reference's terms, or None where it has none.

    Clipping, AMSGrad, centering, averages, schedules, accumulation, exclusions from weight decay and constraints have
    none, nor has any other class.
    """
    kind = type(optimizer).__name__
    if optimizer is None or type(optimizer) is not getattr(keras.optimizers, kind, None) or kind not in _KNOWN:
        return None
    switched = (
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "use_ema",
        "loss_scale_factor",
        "gradient_accumulation_steps",
    )
    excluded = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
    plain = not any(getattr(optimizer, name, None) for name in (*switched, *excluded, "amsgrad", "centered"))
    plain = plain and isinstance(optimizer._learning_rate, keras.Variable)
    plain = plain and recipe.schedule is None and recipe.accumulate == 1 and recipe.zero_grad
    if not plain or recipe.train_step or any(v.constraint is not None for v in model.trainable_variables):
        return None
    rate = shortest(np.float32(optimizer._learning_rate.numpy()))
    decay, momentum = float(optimizer.weight_decay or 0.0), float(getattr(optimizer, "momentum", 0.0))
    if kind == "SGD":
        nesterov = bool(optimizer.nesterov)
        return SGD(learning_rate=rate, momentum=momentum, nesterov=nesterov, weight_decay=decay, **_of("SGD"))
    if kind in ("Adagrad", "RMSprop") and decay:
        return None
    epsilon: dict[str, Any] = {"epsilon": float(optimizer.epsilon)}
    if kind == "Adagrad":
        start = float(optimizer.initial_accumulator_value)
        return Adagrad(learning_rate=rate, **{**_of("Adagrad"), **epsilon, "initial_accumulator": start})
    if kind == "RMSprop":
        rho = float(optimizer.rho)
        return RMSprop(learning_rate=rate, rho=rho, momentum=momentum, **{**_of("RMSprop"), **epsilon})
    betas: dict[str, Any] = {"beta_1": float(optimizer.beta_1), "beta_2": float(optimizer.beta_2)}
    return Adam(learning_rate=rate, weight_decay=decay, **{**_of("Adam"), **epsilon, **betas})


def _of(kind: str) -> dict[str, Any]:
    return dict(KERAS[kind])


def _is_variable(value: Any) -> bool:
    return isinstance(value, keras.Variable)
