"""Learning rate schedules: the rate at position t = 0, 1, 2, ... from the base rate r, the optimizer's learning_rate.

Only standard library; `reference.rates` computes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from harness.case import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """r."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """r factor^(t / every); staircase: the exponent is rounded down (torch's StepLR)."""

    factor: Rate
    every: Annotated[float, Gt(0)]
    staircase: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseTime:
    """r / (1 + factor t / every); staircase: t / every is rounded down."""

    factor: Rate
    every: Annotated[float, Gt(0)]
    staircase: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Piecewise:
    """rates[i] between boundaries[i-1] and boundaries[i].

    at_boundary: "next" already has the next rate (torch's MultiStepLR, optax), "last" still the one before (Keras).
    """

    boundaries: tuple[float, ...]
    rates: tuple[float, ...]
    at_boundary: Literal["next", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """end_rate + (r - end_rate) (1 + cos(pi t / length)) / 2.

    beyond: "stays" at end_rate after `length` (Keras, optax), "returns" along the cosine (torch's CosineAnnealingLR),
    "restarts" from r (torch's CosineAnnealingWarmRestarts) with each period `stretch` times the one before, and r -
    end_rate `shrink` times.
    """

    length: Annotated[float, Gt(0)]
    end_rate: Rate
    beyond: Literal["stays", "returns", "restarts"]
    stretch: Annotated[float, Ge(1)]
    shrink: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """end_rate + (r - end_rate) (1 - t/length)^power, end_rate from `length` on; cycle: `length` is replaced by its
    smallest multiple not below t (Keras)."""

    length: Annotated[float, Gt(0)]
    end_rate: Rate
    power: Rate
    cycle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """start_rate + (r - start_rate) t / length before `length`, then `then` at t - length."""

    length: Annotated[float, Gt(0)]
    start_rate: Rate
    then: Schedule


Schedule = Constant | Exponential | InverseTime | Piecewise | Cosine | Polynomial | Warmup
