"""How a case's numbers enter a run: as their shortest decimal in the run's precision, or leaked through float32."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from harness.case import NATIVE, Adam, Case, HarnessError, fields_of, reads_fused_logits

Part = TypeVar("Part")

FLOAT32_CONSTANTS = (
    *("learning_rate", "momentum", "beta_1", "beta_2", "bias_correction", "epsilon", "rho", "weight_decay"),
    *("negative_slope", "clip_probability", "log_epsilon", "denominator_floor"),
)
"""What `Case.float32_constants` may name: fields, and `bias_correction`, the betas in Adam's 1 - beta^t alone.

torch 2.13 keeps denominator_floor in a float (measured: BCELoss at p = 0 in float64 has derivative -1/float32(1e-12)).
"""


def rounded(part: Part, dtype: np.dtype, leaked: tuple[str, ...]) -> Part:
    """An op, loss or optimizer with its numbers as they act in a run at dtype.

    They stay Python floats, which NumPy rounds to the array they meet, so that 1 - beta is still formed in float64 (as
    in torch 2.13, Keras 3.15 and optax 0.2.8); long double reads their shortest decimal.
    Raises HarnessError for a field that is still `native`.
    """
    native = [name for name, value in fields_of(part).items() if value == NATIVE]
    if native:
        raise HarnessError(f"{type(part).__name__}.{native[0]} is 'native'; resolve the case for a framework first")
    numbers = {name: value for name, value in fields_of(part).items() if isinstance(value, float)}
    return dataclasses.replace(part, **{k: constant(v, dtype, k in leaked) for k, v in numbers.items()})  # type: ignore[type-var]


def constant(value: float, dtype: np.dtype, leaks: bool) -> float:
    if leaks:
        return _through_float32(value)
    return value if dtype.itemsize <= 8 else np.longdouble(repr(value))  # type: ignore[return-value]


def constants_of(case: Case) -> tuple[str, ...]:
    """The constants of a resolved case that a passage through float32 would change, hence possible leaks."""
    reads_logits = getattr(case.loss, "reads", "") == "logits" or reads_fused_logits(case)
    parts = [case.optimizer, *(node.op for node in case.nodes), *(() if reads_logits else (case.loss,))]
    numbers = [item for part in parts for item in fields_of(part).items() if isinstance(item[1], float)]
    inexact = {name for name, value in numbers if _through_float32(value) != value}
    if isinstance(case.optimizer, Adam) and inexact & {"beta_1", "beta_2"}:
        inexact.add("bias_correction")
    return tuple(name for name in FLOAT32_CONSTANTS if name in inexact)


def _through_float32(value: float) -> float:
    return float(np.float32(value))
