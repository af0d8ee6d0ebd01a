"""Keras's optimizers and schedules as they are read: the reference's updates are Keras's own, its leaks told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from harness.recipe import Recipe
from harness.rules import slot_names
from reference.rates import rate
from reference.rules import initial_slots, piled, updated, updated_all

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from frameworks.keras_optimizers import Slots  # noqa: E402 (what comes before may skip the whole file)
from frameworks.keras_rules import read_optimizer, read_rule, read_schedule  # noqa: E402

optim: Any = keras.optimizers
schedules: Any = keras.optimizers.schedules

STEPS = 7
START = {"kernel": np.random.default_rng(3).normal(size=(4, 3)), "bias": np.random.default_rng(4).normal(size=3)}
GRADIENTS = [
    {name: np.random.default_rng([t, W.size]).normal(size=W.shape) for name, W in START.items()} for t in range(STEPS)
]
BETAS = ("beta_1", "beta_2", "bias_correction")
# The constants that pass through float32 in a float64 run: those that `ops.cast` takes from a Python number (Keras
# 3.15, keras/src/optimizers/{sgd,adam,adamax,nadam,lion,base_optimizer}.py), and Adagrad's Constant initializer.
OPTIMIZERS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "sgd": (lambda: optim.SGD(0.1), ()),
    "sgd, decay": (lambda: optim.SGD(0.1, weight_decay=0.05), ("weight_decay",)),
    "momentum": (lambda: optim.SGD(0.1, momentum=0.9), ("momentum",)),
    "nesterov": (
        lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
        ("momentum", "weight_decay"),
    ),
    "adagrad": (lambda: optim.Adagrad(0.1), ("initial_accumulator",)),
    "adagrad, all": (
        lambda: optim.Adagrad(0.1, initial_accumulator_value=0.3, epsilon=1e-3, weight_decay=0.05),
        ("initial_accumulator", "weight_decay"),
    ),
    "adadelta": (lambda: optim.Adadelta(0.7, rho=0.8, epsilon=1e-3), ()),
    "rmsprop": (lambda: optim.RMSprop(0.1), ()),
    "rmsprop, momentum": (lambda: optim.RMSprop(0.1, rho=0.8, momentum=0.7, epsilon=1e-3), ()),
    "rmsprop, centered": (lambda: optim.RMSprop(0.1, centered=True, momentum=0.7, epsilon=1e-3), ()),
    "adam": (lambda: optim.Adam(0.1), ("bias_correction",)),
    "adam, all": (
        lambda: optim.Adam(0.1, beta_1=0.8, beta_2=0.95, epsilon=1e-3, weight_decay=0.05),
        ("bias_correction", "weight_decay"),
    ),
    "amsgrad": (lambda: optim.Adam(0.1, beta_1=0.8, beta_2=0.6, amsgrad=True), ("bias_correction",)),
    "adamw": (lambda: optim.AdamW(0.1), ("bias_correction", "weight_decay")),
    "adamax": (lambda: optim.Adamax(0.1, epsilon=1e-2), ("bias_correction",)),
    "nadam": (lambda: optim.Nadam(0.1, epsilon=1e-3), (*BETAS, "decay_base")),
    "lion": (lambda: optim.Lion(0.1), ("beta_2",)),  # beta_1 too, but only a sign reads it
}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def variables() -> dict[str, Any]:
    return {name: keras.Variable(W, dtype="float64", name=name) for name, W in START.items()}


def own_step(optimizer: Any, held: dict[str, Any], gradients: dict[str, np.ndarray]) -> None:
    optimizer.apply([tf.constant(gradients[name]) for name in held], list(held.values()))


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def worst(name: str, leaked: tuple[str, ...]) -> float:
    """The largest relative deviation of a parameter or slot in STEPS steps, once `leaked` pass through float32."""
    held, optimizer = variables(), OPTIMIZERS[name][0]()
    rule = read_optimizer(optimizer)
    assert rule is not None
    optimizer.build(list(held.values()))
    shown = Slots(optimizer, held)
    values, found = dict(START), 0.0
    slots = {parameter: initial_slots(rule, W, leaked) for parameter, W in START.items()}
    for t, gradients in enumerate(GRADIENTS, start=1):
        own_step(optimizer, held, gradients)
        state = shown.state()["slots"]
        for parameter, g in gradients.items():
            values[parameter], slots[parameter] = updated(rule, t, values[parameter], g, slots[parameter], leaked)
            found = max(found, deviation(values[parameter], held[parameter].numpy()))
            for slot in slot_names(rule):
                unit = rule.learning_rate if slot == "velocity" else 1
                own = state[slot][parameter] * (-unit if name in ("momentum", "nesterov") else unit)
                found = max(found, deviation(slots[parameter][slot], own))
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_as_read_updates_as_kerass(name: str) -> None:
    assert worst(name, OPTIMIZERS[name][1]) < 1e-13


@pytest.mark.parametrize(("name", "constant"), [(name, c) for name, (_, leaked) in OPTIMIZERS.items() for c in leaked])
def test_each_leak_is_needed(name: str, constant: str) -> None:
    leaked = tuple(c for c in OPTIMIZERS[name][1] if c != constant)
    assert worst(name, leaked) > 1e-12


SCHEDULES: dict[str, Callable[[], Any]] = {
    "exponential": lambda: schedules.ExponentialDecay(0.3, 3, 0.9),
    "staircase": lambda: schedules.ExponentialDecay(0.3, 3, 0.9, staircase=True),
    "inverse": lambda: schedules.InverseTimeDecay(0.3, 3, 0.5),
    "inverse staircase": lambda: schedules.InverseTimeDecay(0.3, 3, 0.5, staircase=True),
    "piecewise": lambda: schedules.PiecewiseConstantDecay([2, 5], [0.3, 0.2, 0.05]),
    "polynomial": lambda: schedules.PolynomialDecay(0.3, 5, 0.01, power=1.7),
    "cycling": lambda: schedules.PolynomialDecay(0.3, 5, 0.01, cycle=True),
    "cosine": lambda: schedules.CosineDecay(0.3, 5, alpha=0.1),
    "warmup": lambda: schedules.CosineDecay(0.1, 5, alpha=0.1, warmup_target=0.3, warmup_steps=4),
    "warmup of no steps": lambda: schedules.CosineDecay(0.1, 5, warmup_target=0.3),
    "restarts": lambda: schedules.CosineDecayRestarts(0.3, 3, t_mul=2.0, m_mul=0.8, alpha=0.1),
    "even restarts": lambda: schedules.CosineDecayRestarts(0.3, 3, t_mul=1.0, m_mul=0.8),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_as_read_gives_kerass_rates(name: str) -> None:
    """Within float32, in which Keras computes them: `ops.convert_to_tensor(0.3)` is float32 whatever floatx says."""
    schedule = SCHEDULES[name]()
    read = read_schedule(schedule)
    assert read is not None
    base, formula = read
    for t in range(20):
        own = float(schedule(tf.constant(t, tf.int64)))
        assert abs(rate(formula, base, t) - own) <= 4 * np.finfo(np.float32).eps * 0.3, t


CLIPPINGS = {"clipnorm": 0.5, "global_clipnorm": 0.7, "clipvalue": 0.3}


@pytest.mark.parametrize("clipping", [*CLIPPINGS, None])
@pytest.mark.parametrize("every", [None, 3])
def test_a_rule_as_read_updates_as_kerass(clipping: str | None, every: int | None) -> None:
    held = variables()
    settings: dict[str, Any] = {clipping: CLIPPINGS[clipping]} if clipping else {}
    optimizer = optim.RMSprop(
        schedules.PiecewiseConstantDecay([1, 4], [0.5, 0.25, 0.125]),
        gradient_accumulation_steps=every,
        weight_decay=0.5,
        **settings,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(list(held.values()))
    rule = read_rule(optimizer, Recipe(model=None), Model(held))
    assert rule is not None
    assert (rule.decayed, rule.trained) == (("kernel",), ("kernel", "bias"))
    by_name = {name: initial_slots(rule.optimizer, W) for name, W in START.items()}
    values, slots = dict(START), {"mean_square": {name: own["mean_square"] for name, own in by_name.items()}}
    updates = 0
    for i, gradients in enumerate(GRADIENTS, start=1):
        own_step(optimizer, held, gradients)
        if i % rule.accumulation.every == 0:
            updates += 1
            seen = piled(rule.accumulation, GRADIENTS[:i])
            values, slots = updated_all(rule, updates, 0, values, seen, slots)
        assert all(deviation(values[name], held[name].numpy()) < 1e-13 for name in held)


class Model:
    """As much of a Keras model as the reader looks at."""

    def __init__(self, held: dict[str, Any]) -> None:
        self.trainable_variables = list(held.values())


class OwnDecay(schedules.ExponentialDecay):
    def __call__(self, step: Any) -> Any:
        return 0.1


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optim.SGD(0.1, use_ema=True),
        lambda: optim.SGD(0.1, loss_scale_factor=2.0),
        lambda: optim.SGD(OwnDecay(0.1, 2, 0.5)),
        lambda: optim.SGD(lambda: 0.1),
        lambda: optim.Ftrl(0.1),
        lambda: type("Own", (optim.SGD,), {})(0.1),
        lambda: None,
    ],
)
def test_what_is_not_known_is_not_guessed(optimizer: Callable[[], Any]) -> None:
    assert read_rule(optimizer(), Recipe(model=None), Model(variables())) is None


def test_constraints_and_the_users_own_code_are_not_guessed() -> None:
    held = variables()
    assert read_rule(optim.SGD(0.1), Recipe(model=None, schedule=print), Model(held)) is None
    assert read_rule(optim.SGD(0.1), Recipe(model=None, train_step=print), Model(held)) is None
    held["kernel"].constraint = keras.constraints.NonNeg()
    assert read_rule(optim.SGD(0.1), Recipe(model=None), Model(held)) is None
