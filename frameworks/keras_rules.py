"""Keras's optimizers, clipping and schedules in the reference's words.

Source: Keras 3.15, keras/src/optimizers/{sgd,adagrad,adadelta,rmsprop,adam,adamax,nadam,lion,base_optimizer}.py and
keras/src/optimizers/schedules/learning_rate_schedule.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras.optimizers import schedules

from frameworks.keras_copies import shortest
from harness.recipe import Recipe
from harness.rules import (
    SGD,
    Accumulation,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    Clipping,
    Lion,
    Nadam,
    Optimizer,
    RMSprop,
    Rule,
)
from harness.schedules import Constant, Cosine, Exponential, InverseTime, Piecewise, Polynomial, Schedule, Warmup

_EXCLUDED = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
_CLIPPING = {"clipnorm": "variable_norm", "global_clipnorm": "global_norm", "clipvalue": "value"}


def read_optimizer(optimizer: Any) -> Optimizer | None:
    """The update rule behind clipping, accumulation and schedule; None for another class, averages or loss scaling."""
    kind = type(optimizer).__name__
    if type(optimizer) is not getattr(keras.optimizers, kind, None) or kind not in _READERS:
        return None
    if optimizer.use_ema or optimizer.loss_scale_factor:
        return None
    scheduled = _scheduled(optimizer._learning_rate)
    if scheduled is None:
        return None
    decay = float(optimizer.weight_decay or 0.0)
    return _READERS[kind](optimizer, {"learning_rate": scheduled[0], "weight_decay": decay, "decay": "decoupled"})


def read_rule(optimizer: Any, recipe: Recipe, model: Any) -> Rule | None:
    """All that lies between a model's gradients and its updates, by the variables' paths; None where user code, or a
    constraint, lies there too."""
    rule = read_optimizer(optimizer)
    scheduled = _scheduled(getattr(optimizer, "_learning_rate", None))
    if rule is None or scheduled is None or recipe.schedule is not None or recipe.train_step:
        return None
    if any(variable.constraint is not None for variable in model.trainable_variables):
        return None
    own = optimizer.gradient_accumulation_steps or 1
    if own > 1 and recipe.accumulate > 1:
        return None
    decayed = [v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    return Rule(
        optimizer=rule,
        accumulation=Accumulation(
            every=max(own, recipe.accumulate), combine="mean" if own > 1 else "sum", cleared=recipe.zero_grad
        ),
        clipping=read_clipping(optimizer),
        maximize=False,
        schedule=scheduled[1],
        schedule_every="pass",
        first_position=0,
        decayed=tuple(decayed),
        trained=tuple(variable.path for variable in model.trainable_variables),
    )


def read_clipping(optimizer: Any) -> Clipping | None:
    for name, by in _CLIPPING.items():
        limit = getattr(optimizer, name, None)
        if limit:
            return Clipping(by=by, limit=float(limit), epsilon=0.0, order=2.0)  # type: ignore[arg-type]
    return None


# --- optimizers -------------------------------------------------------------------------------------------------


def _adam(o: Any, shared: dict[str, Any]) -> Adam:
    return Adam(
        **_betas(o),
        epsilon=o.epsilon,
        epsilon_placement="before_correction",
        bias_correction="both",
        amsgrad="uncorrected" if o.amsgrad else "no",
        **shared,
    )


def _betas(o: Any) -> dict[str, float]:
    return {"beta_1": o.beta_1, "beta_2": o.beta_2}


_READERS: Mapping[str, Callable[[Any, dict[str, Any]], Optimizer]] = {
    "SGD": lambda o, shared: SGD(
        momentum=o.momentum, dampening=0.0, first_velocity="zero", nesterov=bool(o.nesterov), velocity="step", **shared
    ),
    "Adagrad": lambda o, shared: Adagrad(
        rate_decay=0.0,
        initial_accumulator=float(o.initial_accumulator_value),
        epsilon=o.epsilon,
        epsilon_placement="inside_sqrt",
        **shared,
    ),
    "Adadelta": lambda o, shared: Adadelta(rho=o.rho, epsilon=o.epsilon, **shared),
    "RMSprop": lambda o, shared: RMSprop(
        rho=o.rho,
        momentum=float(o.momentum),
        epsilon=o.epsilon,
        epsilon_placement="inside_sqrt",
        centered=bool(o.centered),
        velocity="step",
        initial_mean_square=0.0,
        **shared,
    ),
    "Adam": _adam,
    "AdamW": _adam,
    "Adamax": lambda o, shared: Adamax(**_betas(o), epsilon=o.epsilon, epsilon_placement="on_norm", **shared),
    "Nadam": lambda o, shared: Nadam(
        **_betas(o), epsilon=o.epsilon, momentum_damping=0.5, momentum_decay=1.0, decay_base=0.96, **shared
    ),
    "Lion": lambda o, shared: Lion(**_betas(o), **shared),
}

# --- schedules --------------------------------------------------------------------------------------------------


def _scheduled(rate: Any) -> tuple[float, Schedule] | None:
    """The base rate and its schedule: one that stays for a variable."""
    if isinstance(rate, keras.Variable):
        return shortest(np.float32(rate.numpy())), Constant()
    return read_schedule(rate)


def read_schedule(schedule: Any) -> tuple[float, Schedule] | None:
    """A schedule's base rate and formula; None for one that is not known."""
    if type(schedule) not in vars(schedules).values():
        return None
    s: Any = schedule
    match schedule:
        case schedules.ExponentialDecay():
            found = Exponential(factor=s.decay_rate, every=float(s.decay_steps), staircase=s.staircase)
        case schedules.InverseTimeDecay():
            found = InverseTime(factor=s.decay_rate, every=float(s.decay_steps), staircase=s.staircase)
        case schedules.PiecewiseConstantDecay():
            boundaries, rates = tuple(map(float, s.boundaries)), tuple(map(float, s.values))
            return rates[0], Piecewise(boundaries=boundaries, rates=rates, at_boundary="last")
        case schedules.PolynomialDecay():
            found = Polynomial(
                length=float(s.decay_steps), end_rate=s.end_learning_rate, power=float(s.power), cycle=s.cycle
            )
        case schedules.CosineDecay(warmup_target=None):
            found = _cosine(s.decay_steps, s.alpha * s.initial_learning_rate, "stays", 1.0, 1.0)
        case schedules.CosineDecay():
            peak = float(s.warmup_target)
            then = _cosine(s.decay_steps, s.alpha * peak, "stays", 1.0, 1.0)
            if not s.warmup_steps:
                return peak, then
            return peak, Warmup(length=float(s.warmup_steps), start_rate=float(s.initial_learning_rate), then=then)
        case schedules.CosineDecayRestarts():
            end = s.alpha * s.initial_learning_rate
            found = _cosine(s.first_decay_steps, end, "restarts", float(s._t_mul), float(s._m_mul))
        case _:
            return None
    return float(s.initial_learning_rate), found


def _cosine(length: float, end: float, beyond: Any, stretch: float, shrink: float) -> Cosine:
    return Cosine(length=float(length), end_rate=float(end), beyond=beyond, stretch=stretch, shrink=shrink)
