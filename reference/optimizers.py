"""A case's optimizers, on flat vectors: the updates of `reference.updates` with a case's numbers and leaks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from harness import case, rules
from harness.case import Optimizer, fields_of, slot_names
from reference import updates
from reference.constants import constant, rounded

Array = np.ndarray

_RULES: Mapping[type, tuple[Any, dict[str, Any]]] = {
    case.SGD: (rules.SGD, {"dampening": 0.0, "first_velocity": "zero"}),
    case.Adagrad: (rules.Adagrad, {"rate_decay": 0.0, "weight_decay": 0.0, "decay": "coupled"}),
    case.RMSprop: (
        rules.RMSprop,
        {"centered": False, "initial_mean_square": 0.0, "weight_decay": 0.0, "decay": "coupled"},
    ),
    case.Adam: (rules.Adam, {"bias_correction": "both", "amsgrad": "no"}),
}
"""What a case's optimizers are among all, and the conventions that a case does not choose."""


def update_rule(optimizer: Optimizer, dtype: np.dtype, leaked: tuple[str, ...]) -> updates.Update:
    """update(t, W, g, *slots) for a run at dtype, in place: W all parameters, g all gradients; t counts from 1.

    leaked: the constants rounded through float32. Raises HarnessError for a field that is still `native`.
    """
    kind, others = _RULES[type(optimizer)]
    acting = kind(**fields_of(rounded(optimizer, dtype, leaked)), **others)
    if isinstance(optimizer, case.Adam):
        corrections = partial(bias_corrections, optimizer, dtype, "bias_correction" in leaked)
        return partial(updates.adam, acting, corrections)
    return updates.update_rule(acting)


def initial_slots(optimizer: Optimizer, parameter_count: int) -> Array:
    """All slots before the first step, slot by slot, flat (slots * parameter_count,), in float64."""
    first = float(optimizer.initial_accumulator) if isinstance(optimizer, case.Adagrad) else 0.0
    return np.full(len(slot_names(optimizer)) * parameter_count, first)


def bias_corrections(optimizer: case.Adam, dtype: np.dtype, leaks: bool, t: int) -> tuple[float, float]:
    """c1 = 1 - β1ᵗ and c2 = 1 - β2ᵗ, in Python's double whatever the run's precision, as torch's.

    A leak is what Keras 3.15 does (keras/src/optimizers/adam.py, `ops.cast(self.beta_1, dtype)` by way of float32):
    β is rounded through float32, power and difference are formed in the run's precision.
    """
    if leaks:
        real = dtype.type
        return tuple(1 - real(np.float32(beta)) ** real(t) for beta in (optimizer.beta_1, optimizer.beta_2))  # type: ignore[return-value]
    return tuple(1 - constant(beta, dtype, False) ** t for beta in (optimizer.beta_1, optimizer.beta_2))  # type: ignore[return-value]
