"""Keras's words for the reference's optimizers, clippings and schedules; rows as in `writing`.

Arguments: Keras 3.15, keras/src/optimizers/{base_optimizer,sgd,adagrad,adadelta,rmsprop,adam,adamw,adamax,nadam,
lion}.py, keras/src/optimizers/schedules/learning_rate_schedule.py. `optimizer`, `schedule` and `learning_rate` stand
for the user's own, which a part does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from frameworks.writing import Entry, Rows, given, named, only
from harness import case, rules, schedules

# --- optimizers -------------------------------------------------------------------------------------------------


def _adam(op: Any) -> str:
    return f"keras.optimizers.Adam{'W' if op.decay == 'decoupled' and op.weight_decay else ''}"


def _decay(op: Any) -> str | None:
    """Keras's weight_decay is decoupled; the coupled one is the gradient of half its sum of squares."""
    if op.decay == "coupled" and op.weight_decay:
        return f"keras.regularizers.L2({op.weight_decay / 2}) then"
    return f"weight_decay={op.weight_decay}" if op.decay == "decoupled" or not op.weight_decay else None


_RATES: Mapping[str, Entry] = {"learning_rate": "learning_rate", "weight_decay": _decay, "decay": _decay}
_EPSILON: Mapping[str, Entry] = _RATES | {"epsilon": "epsilon"}
_BETAS: Mapping[str, Entry] = {"beta_1": "beta_1", "beta_2": "beta_2"}
_AMSGRAD: Mapping[str, Entry] = {
    "amsgrad": lambda op: None if op.amsgrad == "corrected" else f"amsgrad={op.amsgrad == 'uncorrected'}"
}

_OPTIMIZERS: Rows = {
    kind: row
    for package in (case, rules)
    for kind, row in {
        package.SGD: ("keras.optimizers.SGD", {**_RATES, "momentum": "momentum", "nesterov": "nesterov"}),
        package.Adagrad: (
            "keras.optimizers.Adagrad",
            {**_EPSILON, "initial_accumulator": "initial_accumulator_value"},
        ),
        package.RMSprop: (
            "keras.optimizers.RMSprop",
            {**_EPSILON, "rho": "rho", "momentum": "momentum", "centered": "centered"},
        ),
        package.Adam: (_adam, {**_EPSILON, **_BETAS, **_AMSGRAD}),
    }.items()
} | {
    rules.Adadelta: ("keras.optimizers.Adadelta", {**_EPSILON, "rho": "rho"}),
    rules.Adamax: ("keras.optimizers.Adamax", {**_EPSILON, **_BETAS}),
    rules.Nadam: ("keras.optimizers.Nadam", {**_EPSILON, **_BETAS}),
    rules.Lion: ("keras.optimizers.Lion", {**_RATES, **_BETAS}),
}

# --- around the optimizer ---------------------------------------------------------------------------------------

_CLIPPINGS = {"variable_norm": "clipnorm", "global_norm": "global_clipnorm", "value": "clipvalue"}


def _clipping(op: Any) -> str:
    return f"optimizer({_CLIPPINGS[op.by]}={op.limit})" if op.by == "value" or op.order == 2 else ""


def _stepping(op: Any) -> str:
    """A schedule given to an optimizer counts backward passes."""
    if op.schedule_every == "epoch":
        return "keras.callbacks.LearningRateScheduler(lambda epoch: float(schedule(epoch)))"
    each = op.accumulation is None or op.accumulation.every == 1
    counts_passes = op.schedule_every == "pass" or each
    return "optimizer(learning_rate=schedule)" if counts_passes else ""


def _exponent(name: str) -> Callable[[Any], str]:
    return lambda op: _schedule(name, decay_steps=op.every, decay_rate=op.factor, staircase=op.staircase)


def _piecewise(op: Any) -> str:
    """Keras has the rate before a boundary at the boundary still."""
    at = [math.ceil(b) - 1 if op.at_boundary == "next" else _whole(b) for b in op.boundaries]
    return f"keras.optimizers.schedules.PiecewiseConstantDecay(boundaries={at}, values={list(op.rates)})"


def _polynomial(op: Any) -> str:
    return _schedule(
        "PolynomialDecay",
        decay_steps=op.length,
        end_learning_rate=op.end_rate,
        power=op.power,
        cycle=op.cycle,
    )


def _cosine(op: Any) -> str:
    if op.beyond == "restarts":
        numbers = {"first_decay_steps": op.length, "t_mul": op.stretch, "m_mul": op.shrink}
        return _schedule("CosineDecayRestarts", **numbers, alpha=_floor(op))
    return _schedule("CosineDecay", decay_steps=op.length, alpha=_floor(op)) if op.beyond == "stays" else ""


def _warmup(op: Any) -> str:
    if not isinstance(op.then, schedules.Cosine) or op.then.beyond != "stays":
        return ""
    return (
        f"keras.optimizers.schedules.CosineDecay({op.start_rate}, decay_steps={_whole(op.then.length)}, "
        f"alpha={_floor(op.then)}, warmup_target=learning_rate, warmup_steps={_whole(op.length)})"
    )


def _schedule(name: str, **arguments: Any) -> str:
    said = ", ".join(f"{key}={value if key == 'alpha' else _whole(value)}" for key, value in arguments.items())
    return f"keras.optimizers.schedules.{name}(learning_rate, {said})"


def _floor(op: Any) -> str:
    """Keras's alpha is a part of the base rate."""
    return f"{op.end_rate} / learning_rate" if op.end_rate else "0.0"


def _whole(value: Any) -> Any:
    """Steps without a fraction."""
    return int(value) if isinstance(value, float) and value > 1 and value.is_integer() else value


_AROUND: Rows = {
    rules.Clipping: (_clipping, named("by", "limit")),
    rules.Accumulation: (
        "optimizer",
        {
            "every": given("gradient_accumulation_steps", lambda op: op.every if op.every > 1 else None),
            "combine": lambda op: "" if op.combine == "mean" or op.every == 1 else None,
            "cleared": only("cleared", True),
        },
    ),
    rules.Rule: (_stepping, named("schedule_every")),
    schedules.Exponential: (_exponent("ExponentialDecay"), named("factor", "every", "staircase")),
    schedules.InverseTime: (_exponent("InverseTimeDecay"), named("factor", "every", "staircase")),
    schedules.Piecewise: (_piecewise, named("boundaries", "rates", "at_boundary")),
    schedules.Polynomial: (_polynomial, named("length", "end_rate", "power", "cycle")),
    schedules.Cosine: (_cosine, named("length", "end_rate", "beyond", "stretch", "shrink")),
    schedules.Warmup: (_warmup, named("length", "start_rate", "then")),
}

ROWS: Rows = {**_OPTIMIZERS, **_AROUND}
