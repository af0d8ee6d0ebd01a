"""torch's optimizers and schedules as they are read: the reference's updates are torch's own, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from harness.recipe import Recipe
from reference.rates import rate
from reference.rules import clipped_gradients, initial_slots, piled, updated, updated_all

torch = pytest.importorskip("torch")
from torch import optim  # noqa: E402 (what comes before may skip the whole file)
from torch.optim import lr_scheduler as rates  # noqa: E402

from frameworks.pytorch_rules import read_optimizer, read_rule, read_schedule  # noqa: E402
from frameworks.pytorch_updating import slots as torch_slots  # noqa: E402
from harness.rules import Clipping  # noqa: E402

STEPS = 9
START = {"W": np.random.default_rng(3).normal(size=(4, 3)), "b": np.random.default_rng(4).normal(size=3)}
GRADIENTS = [
    {name: np.random.default_rng([t, len(name) + W.size]).normal(size=W.shape) for name, W in START.items()}
    for t in range(STEPS)
]

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd, decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1),
    "adagrad, all": lambda p: optim.Adagrad(
        p, lr=0.1, lr_decay=0.2, weight_decay=0.05, initial_accumulator_value=0.3, eps=1e-3
    ),
    "adadelta": lambda p: optim.Adadelta(p),
    "adadelta, all": lambda p: optim.Adadelta(p, lr=0.7, rho=0.8, eps=1e-3, weight_decay=0.05),
    "rmsprop": lambda p: optim.RMSprop(p),
    "rmsprop, momentum": lambda p: optim.RMSprop(p, lr=0.1, alpha=0.8, eps=1e-3, momentum=0.7, weight_decay=0.05),
    "rmsprop, centered": lambda p: optim.RMSprop(p, lr=0.1, centered=True, eps=1e-3),
    "rmsprop, both": lambda p: optim.RMSprop(p, lr=0.1, centered=True, momentum=0.7, eps=1e-3),
    "adam": lambda p: optim.Adam(p),
    "adam, all": lambda p: optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.05),
    "amsgrad": lambda p: optim.Adam(p, lr=0.1, betas=(0.8, 0.6), eps=1e-3, amsgrad=True),
    "adam, decoupled": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.05, decoupled_weight_decay=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.05),
    "adamax": lambda p: optim.Adamax(p, lr=0.1, eps=1e-2, weight_decay=0.05),
    "nadam": lambda p: optim.NAdam(p),
    "nadam, all": lambda p: optim.NAdam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, momentum_decay=0.5, weight_decay=0.05),
    "nadam, decoupled": lambda p: optim.NAdam(p, lr=0.1, weight_decay=0.05, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, betas=(0.8, 0.95)),
    "radam, all": lambda p: optim.RAdam(p, lr=0.1, betas=(0.8, 0.6), eps=1e-3, weight_decay=0.05),
    "radam, decoupled": lambda p: optim.RAdam(
        p, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.05, decoupled_weight_decay=True
    ),
}


def tensors() -> dict[str, Any]:
    return {name: torch.tensor(W, requires_grad=True) for name, W in START.items()}


def own_step(held: dict[str, Any], optimizer: Any, gradients: dict[str, np.ndarray]) -> None:
    for name, tensor in held.items():
        tensor.grad = torch.tensor(gradients[name])
    optimizer.step()


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= 1e-14 * np.abs(expected).max())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_as_read_updates_as_torchs(name: str) -> None:
    held = tensors()
    optimizer = OPTIMIZERS[name](held.values())
    rule = read_optimizer(optimizer)
    assert rule is not None
    leaked = ("momentum_product",) if name.startswith("nadam") else ()  # torch keeps it in float32
    values = dict(START)
    slots = {parameter: initial_slots(rule, W) for parameter, W in START.items()}
    for t, gradients in enumerate(GRADIENTS, start=1):
        own_step(held, optimizer, gradients)
        shown = torch_slots(optimizer, held, t)
        for parameter, g in gradients.items():
            values[parameter], slots[parameter] = updated(rule, t, values[parameter], g, slots[parameter], leaked)
            assert close(values[parameter], held[parameter].detach().numpy()), (t, parameter)
            for slot, value in slots[parameter].items():
                assert close(value, shown[slot][parameter]), (t, parameter, slot)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: rates.StepLR(o, 3, gamma=0.5),
    "exponential": lambda o: rates.ExponentialLR(o, 0.9),
    "multistep": lambda o: rates.MultiStepLR(o, [2, 5, 5], gamma=0.5),
    "constant": lambda o: rates.ConstantLR(o, factor=0.5, total_iters=3),
    "warmup": lambda o: rates.LinearLR(o, start_factor=0.25, total_iters=4),
    "cooldown": lambda o: rates.LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=4),
    "polynomial": lambda o: rates.PolynomialLR(o, total_iters=5, power=1.7),
    "cosine": lambda o: rates.CosineAnnealingLR(o, T_max=5, eta_min=0.01),
    "restarts": lambda o: rates.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.01),
    "warmup, cosine": lambda o: rates.SequentialLR(
        o, [rates.LinearLR(o, start_factor=0.25, total_iters=4), rates.CosineAnnealingLR(o, T_max=6)], milestones=[4]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_as_read_gives_torchs_rates(name: str) -> None:
    optimizer = optim.SGD(tensors().values(), lr=0.3)
    schedule = SCHEDULES[name](optimizer)
    read = read_schedule(schedule)
    assert read is not None
    base, formula = read
    for t in range(25):
        assert rate(formula, base, t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-15)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["nesterov", "adamw", "rmsprop, momentum"])
def test_a_recipe_as_read_updates_as_torchs(name: str, kind: str) -> None:
    held = tensors()
    optimizer = OPTIMIZERS[kind](held.values())
    schedule = SCHEDULES[name](optimizer)
    recipe = Recipe(model=None, optimizer=optimizer, schedule=schedule)
    rule = read_rule(recipe, {tensor: name for name, tensor in held.items()})
    assert rule is not None
    values, slots = START, first_slots(rule.optimizer)
    for t, gradients in enumerate(GRADIENTS, start=1):
        own_step(held, optimizer, gradients)
        schedule.step()
        values, slots = updated_all(rule, t, 0, values, gradients, slots)
        for parameter, tensor in held.items():
            assert np.abs(values[parameter] - tensor.detach().numpy()).max() < 1e-13


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_goes_uphill_updates_as_torchs(name: str) -> None:
    held = tensors()
    optimizer = OPTIMIZERS[name](held.values())
    optimizer.param_groups[0]["maximize"] = True
    assert read_optimizer(optimizer) is None  # it alone does not say so
    rule = read_rule(Recipe(model=None, optimizer=optimizer), {tensor: name for name, tensor in held.items()})
    assert rule is not None
    assert rule.maximize
    values, slots = START, first_slots(rule.optimizer)
    leaked = ("momentum_product",) if name.startswith("nadam") else ()
    for t, gradients in enumerate(GRADIENTS, start=1):
        own_step(held, optimizer, gradients)
        values, slots = updated_all(rule, t, 0, values, gradients, slots, leaked)
        for parameter, tensor in held.items():
            assert close(values[parameter], tensor.detach().numpy()), (t, parameter)


@pytest.mark.parametrize("name", ["none", *SCHEDULES])
@pytest.mark.parametrize("kind", ["nesterov", "adamw"])
def test_groups_with_rates_of_their_own_update_as_torchs(name: str, kind: str) -> None:
    held = tensors()
    optimizer = OPTIMIZERS[kind]([{"params": [held["W"]]}, {"params": [held["b"]], "lr": 0.7}])
    schedule = SCHEDULES[name](optimizer) if name != "none" else None
    recipe = Recipe(model=None, optimizer=optimizer, schedule=schedule)
    rule = read_rule(recipe, {tensor: name for name, tensor in held.items()})
    if name in ("cosine", "restarts"):  # both go down to one rate, and so by other factors
        assert rule is None
        return
    assert rule is not None
    assert [name for name, _ in rule.multiples] == ["b"]
    values, slots = START, first_slots(rule.optimizer)
    for t, gradients in enumerate(GRADIENTS, start=1):
        own_step(held, optimizer, gradients)
        if schedule is not None:
            schedule.step()
        values, slots = updated_all(rule, t, 0, values, gradients, slots)
        for parameter, tensor in held.items():
            assert np.abs(values[parameter] - tensor.detach().numpy()).max() < 1e-13


def first_slots(optimizer: Any) -> dict[str, dict[str, np.ndarray]]:
    by_name = {name: initial_slots(optimizer, W) for name, W in START.items()}
    return {slot: {name: by_name[name][slot] for name in START} for slot in by_name["W"]}


def test_groups_tell_what_decays_and_what_is_trained() -> None:
    held = tensors()
    groups = [{"params": [held["W"]], "weight_decay": 0.1}, {"params": [held["b"]], "weight_decay": 0.0}]
    optimizer = optim.AdamW(groups, lr=0.1)
    names = {tensor: name for name, tensor in held.items()}
    rule = read_rule(Recipe(model=None, optimizer=optimizer, accumulate=2, zero_grad=False), names)
    assert rule is not None
    assert (rule.decayed, rule.trained) == (("W",), ("W", "b"))
    assert (rule.accumulation.every, rule.accumulation.combine, rule.accumulation.cleared) == (2, "sum", False)
    own_step(held, optimizer, GRADIENTS[0])
    values, _ = updated_all(rule, 1, 0, START, GRADIENTS[0], first_slots(rule.optimizer))
    assert all(close(values[name], tensor.detach().numpy()) for name, tensor in held.items())
    only = read_rule(Recipe(model=None, optimizer=optim.SGD([held["W"]], lr=0.1)), names)
    assert only is not None
    values, _ = updated_all(only, 1, 0, START, GRADIENTS[0], {})
    np.testing.assert_array_equal(values["b"], START["b"])


CLIPPINGS: dict[str, tuple[Clipping, Callable[[Sequence[Any]], Any]]] = {
    **{
        f"norm {order}, {limit}": (
            Clipping(by="global_norm", limit=limit, epsilon=1e-6, order=order),
            lambda held, limit=limit, order=order: torch.nn.utils.clip_grad_norm_(held, limit, norm_type=order),
        )
        for order in (1.0, 2.0, float("inf"))
        for limit in (0.5, 100.0)
    },
    "value": (
        Clipping(by="value", limit=0.3, epsilon=0.0, order=2.0),
        lambda held: torch.nn.utils.clip_grad_value_(held, 0.3),
    ),
}


@pytest.mark.parametrize("name", CLIPPINGS)
def test_clipping_is_torchs(name: str) -> None:
    clipping, own = CLIPPINGS[name]
    held = tensors()
    for parameter, tensor in held.items():
        tensor.grad = torch.tensor(GRADIENTS[0][parameter])
    own(list(held.values()))
    found = clipped_gradients(clipping, GRADIENTS[0])
    assert all(close(found[parameter], tensor.grad.numpy()) for parameter, tensor in held.items())


@pytest.mark.parametrize("every", [1, 3])
def test_gradients_pile_up_as_in_torch(every: int) -> None:
    held = tensors()
    for gradients in GRADIENTS[: 2 * every]:
        for name, tensor in held.items():
            (tensor * torch.tensor(gradients[name])).sum().backward()
    rule = read_rule(
        Recipe(model=None, optimizer=optim.SGD(held.values(), lr=0.1), accumulate=every, zero_grad=False), {}
    )
    assert rule is not None
    found = piled(rule.accumulation, GRADIENTS[: 2 * every])
    assert all(close(found[name], tensor.grad.numpy()) for name, tensor in held.items())


class OwnStep(rates.StepLR):
    def get_lr(self) -> Any:
        return [1.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": lambda p: optim.Rprop(p)},
        {"optimizer": lambda p: optim.SGD([{"params": [q], "momentum": 0.1 * i} for i, q in enumerate(p)], lr=1)},
        {"after_backward": print},
        {"train_step": print},
        {"schedule": lambda o: rates.LambdaLR(o, lambda t: 0.5)},
        {"schedule": lambda o: OwnStep(o, 3)},
        {"schedule": lambda o: lambda count: 0.1},
        {"optimizer": None},
    ],
)
def test_what_is_not_known_is_not_guessed(changes: dict[str, Any]) -> None:
    held = tensors()
    build = changes.pop("optimizer", OPTIMIZERS["sgd"])
    optimizer = build and build(list(held.values()))
    if "schedule" in changes:
        changes["schedule"] = changes["schedule"](optimizer)
    assert read_rule(Recipe(model=None, optimizer=optimizer, **changes), {}) is None
