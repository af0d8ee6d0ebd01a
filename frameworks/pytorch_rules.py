"""torch's optimizers and schedules in the reference's words.

Source: torch 2.13, torch/optim/{sgd,adagrad,adadelta,rmsprop,adam,adamw,adamax,nadam,radam,lr_scheduler}.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, optim
from torch.optim import lr_scheduler

from harness.recipe import Recipe
from harness.rules import SGD, Accumulation, Adadelta, Adagrad, Adam, Adamax, Nadam, Optimizer, RAdam, RMSprop, Rule
from harness.schedules import Constant, Cosine, Exponential, Piecewise, Polynomial, Schedule, Warmup

Group = Mapping[str, Any]

# --- optimizers -------------------------------------------------------------------------------------------------


def read_optimizer(optimizer: optim.Optimizer) -> Optimizer | None:
    """The update rule, the same for all parameters; None for one that is not known, or that goes uphill."""
    settings = [_settings(group) for group in optimizer.param_groups]
    if any(group != settings[0] for group in settings) or settings[0].get("maximize"):
        return None
    return _read(type(optimizer), settings[0])


def read_rule(recipe: Recipe, names: Mapping[Tensor, str]) -> Rule | None:
    """All that lies between a recipe's gradients and its updates; None where user code lies there too.

    names: of the parameters. Groups may differ in weight_decay, where some have none, and in their rates. The schedule
    is taken to have advanced with every update since the first.
    """
    optimizer = recipe.optimizer
    if not isinstance(optimizer, optim.Optimizer) or recipe.after_backward or recipe.train_step:
        return None
    groups = optimizer.param_groups
    decays = {group.get("weight_decay", 0) for group in groups} - {0}
    settings = [{**_settings(group), "weight_decay": max(decays, default=0), "lr": None} for group in groups]
    base, schedule = _scheduled(recipe.schedule, float(groups[0]["lr"]))
    if schedule is None or len(decays) > 1 or any(group != settings[0] for group in settings):
        return None
    rates = [float(group["lr" if recipe.schedule is None else "initial_lr"]) for group in groups]
    if rates[0] == 0 and any(rates):
        return None
    rule = _read(type(optimizer), {**settings[0], "lr": base})
    if rule is None:
        return None
    members = [(names.get(tensor, ""), group) for group in groups for tensor in group["params"]]
    return Rule(
        optimizer=rule,
        accumulation=Accumulation(every=recipe.accumulate, combine="sum", cleared=recipe.zero_grad),
        clipping=None,
        maximize=bool(groups[0]["maximize"]),  # every optimizer negates the gradient first: -grads[i]
        schedule=schedule,
        schedule_every="epoch" if recipe.schedule_every == "epoch" else "update",
        first_position=0,
        decayed=tuple(name for name, group in members if group["weight_decay"]),
        trained=tuple(name for name, _ in members),
        multiples=tuple(
            (names.get(tensor, ""), own / rates[0])
            for own, group in zip(rates, groups, strict=True)
            for tensor in group["params"]
            if own != rates[0]
        ),
    )


def _settings(group: Group) -> Group:
    return {name: _plain(value) for name, value in group.items() if name not in ("params", "initial_lr")}


def _plain(value: Any) -> Any:
    match value:
        case Tensor():
            return value.item()
        case tuple() | list():
            return tuple(map(_plain, value))
    return value


def _read(kind: type[optim.Optimizer], group: Group) -> Optimizer | None:
    if kind not in _READERS:
        return None
    decoupled = kind is optim.AdamW or group.get("decoupled_weight_decay")
    shared = {
        "learning_rate": float(group["lr"]),
        "weight_decay": float(group["weight_decay"]),
        "decay": "decoupled" if decoupled else "coupled",
    }
    return _READERS[kind](group, shared)


def _adam(group: Group, shared: dict[str, Any]) -> Adam:
    return Adam(
        **_betas(group),
        epsilon_placement="after_correction",
        bias_correction="both",
        amsgrad="uncorrected" if group["amsgrad"] else "no",
        **shared,
    )


def _betas(group: Group) -> dict[str, float]:
    return {"beta_1": group["betas"][0], "beta_2": group["betas"][1], "epsilon": group["eps"]}


_READERS: Mapping[type[optim.Optimizer], Callable[[Group, dict[str, Any]], Optimizer]] = {
    optim.SGD: lambda group, shared: SGD(
        momentum=float(group["momentum"]),
        dampening=float(group["dampening"]),
        first_velocity="undampened",
        nesterov=group["nesterov"],
        velocity="gradient",
        **shared,
    ),
    optim.Adagrad: lambda group, shared: Adagrad(
        rate_decay=float(group["lr_decay"]),
        initial_accumulator=float(group["initial_accumulator_value"]),
        epsilon=group["eps"],
        epsilon_placement="outside_sqrt",
        **shared,
    ),
    optim.Adadelta: lambda group, shared: Adadelta(rho=group["rho"], epsilon=group["eps"], **shared),
    optim.RMSprop: lambda group, shared: RMSprop(
        rho=group["alpha"],
        momentum=float(group["momentum"]),
        epsilon=group["eps"],
        epsilon_placement="outside_sqrt",
        centered=group["centered"],
        velocity="gradient",
        initial_mean_square=0.0,
        **shared,
    ),
    optim.Adam: _adam,
    optim.AdamW: _adam,
    optim.Adamax: lambda group, shared: Adamax(**_betas(group), epsilon_placement="on_gradient", **shared),
    optim.NAdam: lambda group, shared: Nadam(
        **_betas(group),
        momentum_damping=0.5,
        momentum_decay=group["momentum_decay"],
        decay_base=0.96,
        **shared,
    ),
    optim.RAdam: lambda group, shared: RAdam(
        **_betas(group), epsilon_placement="before_correction", threshold=5.0, **shared
    ),
}

# --- schedules --------------------------------------------------------------------------------------------------


def read_schedule(schedule: Any) -> tuple[float, Schedule] | None:
    """A scheduler's base rate (the first group's) and formula, from its own start; None for one that is not known, or
    that does not move the rates of several groups alike."""
    if not isinstance(schedule, lr_scheduler.LRScheduler):
        return None
    base, *others = (float(group["initial_lr"]) for group in schedule.optimizer.param_groups)
    found = _formula(schedule, base)
    if found is None or (set(others) - {base} and _formula(schedule, 2 * base) != _doubled(found)):
        return None
    return base, found


def _doubled(schedule: Schedule) -> Schedule:
    """The schedule with all rates twice as high."""
    match schedule:
        case Piecewise():
            return replace(schedule, rates=tuple(2 * rate for rate in schedule.rates))
        case Polynomial() | Cosine():
            return replace(schedule, end_rate=2 * schedule.end_rate)
        case Warmup():
            return replace(schedule, start_rate=2 * schedule.start_rate, then=_doubled(schedule.then))
    return schedule


def _scheduled(schedule: Any, rate: float) -> tuple[float, Schedule | None]:
    """The base rate and the schedule, one that stays for no schedule."""
    if schedule is None:
        return rate, Constant()
    return read_schedule(schedule) or (rate, None)


def _formula(schedule: Any, base: float) -> Schedule | None:
    if type(schedule) not in vars(lr_scheduler).values():
        return None
    match schedule:
        case lr_scheduler.StepLR():
            return Exponential(factor=schedule.gamma, every=float(schedule.step_size), staircase=True)
        case lr_scheduler.ExponentialLR():
            return Exponential(factor=schedule.gamma, every=1.0, staircase=False)
        case lr_scheduler.MultiStepLR():
            boundaries = tuple(float(milestone) for milestone in sorted(schedule.milestones.elements()))
            rates = itertools.accumulate((schedule.gamma for _ in boundaries), lambda r, f: r * f, initial=base)
            return Piecewise(boundaries=boundaries, rates=tuple(rates), at_boundary="next")
        case lr_scheduler.ConstantLR():
            boundary = float(schedule.total_iters)
            return Piecewise(boundaries=(boundary,), rates=(base * schedule.factor, base), at_boundary="next")
        case lr_scheduler.LinearLR(end_factor=1.0):
            length = float(schedule.total_iters)
            return Warmup(length=length, start_rate=base * schedule.start_factor, then=Constant())
        case lr_scheduler.LinearLR(start_factor=1.0):
            length, end = float(schedule.total_iters), base * schedule.end_factor
            return Polynomial(length=length, end_rate=end, power=1.0, cycle=False)
        case lr_scheduler.PolynomialLR():
            return Polynomial(length=float(schedule.total_iters), end_rate=0.0, power=schedule.power, cycle=False)
        case lr_scheduler.CosineAnnealingLR():
            return _cosine(schedule.T_max, schedule.eta_min, "returns", 1.0)
        case lr_scheduler.CosineAnnealingWarmRestarts():
            return _cosine(schedule.T_0, schedule.eta_min, "restarts", float(schedule.T_mult))
        case lr_scheduler.SequentialLR(_schedulers=[lr_scheduler.LinearLR(end_factor=1.0) as warmup, later]):
            then = _formula(later, base)
            if then is None or schedule._milestones != [warmup.total_iters]:
                return None
            return Warmup(length=float(warmup.total_iters), start_rate=base * warmup.start_factor, then=then)
    return None


def _cosine(length: float, end: float, beyond: Any, stretch: float) -> Cosine:
    return Cosine(length=float(length), end_rate=float(end), beyond=beyond, stretch=stretch, shrink=1.0)
