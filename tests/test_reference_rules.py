"""Optimizers, clipping, accumulation and schedules of users' training, without a framework."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    RAdam,
    RMSprop,
    Rule,
    slot_names,
)
from harness.schedules import Constant, Cosine, Exponential, InverseTime, Piecewise, Polynomial, Schedule, Warmup
from reference.rates import rate
from reference.rules import clipped_gradients, initial_slots, piled, possible_leaks, updated, updated_all

Array = np.ndarray
STEPS = 8
COUPLED: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.05, "decay": "coupled"}
BETAS: dict[str, Any] = {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-2}
KINDS: dict[str, Optimizer] = {
    "SGD": SGD(
        momentum=0.9, dampening=0.3, first_velocity="undampened", nesterov=False, velocity="gradient", **COUPLED
    ),
    "Adagrad": Adagrad(
        rate_decay=0.2, initial_accumulator=0.1, epsilon=1e-2, epsilon_placement="outside_sqrt", **COUPLED
    ),
    "Adadelta": Adadelta(rho=0.9, epsilon=1e-2, **COUPLED),
    "RMSprop": RMSprop(
        rho=0.9,
        momentum=0.7,
        epsilon=1e-2,
        epsilon_placement="outside_sqrt",
        centered=True,
        velocity="gradient",
        initial_mean_square=1.0,
        **COUPLED,
    ),
    "Adam": Adam(**BETAS, epsilon_placement="after_correction", bias_correction="both", amsgrad="no", **COUPLED),
    "AMSGrad": Adam(
        **{**BETAS, "beta_2": 0.5},
        epsilon_placement="after_correction",
        bias_correction="both",
        amsgrad="uncorrected",
        **COUPLED,
    ),
    "Adamax": Adamax(**BETAS, epsilon_placement="on_gradient", **COUPLED),
    "Nadam": Nadam(**BETAS, momentum_damping=0.5, momentum_decay=0.5, decay_base=0.96, **COUPLED),
    "RAdam": RAdam(**{**BETAS, "beta_2": 0.8}, epsilon_placement="after_correction", threshold=4.0, **COUPLED),
    "Lion": Lion(beta_1=0.9, beta_2=0.95, **{**COUPLED, "decay": "decoupled"}),
}
PLAIN = SGD(
    learning_rate=0.1,
    momentum=0.0,
    dampening=0.0,
    first_velocity="zero",
    nesterov=False,
    velocity="gradient",
    weight_decay=0.0,
    decay="coupled",
)


def run(optimizer: Optimizer, leaked: tuple[str, ...] = (), size: int = 6) -> tuple[Array, dict[str, Array]]:
    """W and slots behind STEPS updates; the rate changes on the way."""
    rng = np.random.default_rng(7)
    W = rng.normal(size=size)
    slots = initial_slots(optimizer, W, leaked)
    for t in range(1, STEPS + 1):
        at = dataclasses.replace(optimizer, learning_rate=optimizer.learning_rate / t)
        W, slots = updated(at, t, W, rng.normal(size=size), slots, leaked)
    return W, slots


def moved(one: tuple[Array, dict[str, Array]], other: tuple[Array, dict[str, Array]]) -> float:
    """The largest difference of W or of a slot."""
    pairs = [(one[0], other[0]), *((one[1][slot], other[1][slot]) for slot in one[1].keys() & other[1].keys())]
    return max(float(np.abs(a - b).max()) for a, b in pairs)


# --- the optimizers ---------------------------------------------------------------------------------------------


def other_values(kind: type, field: dataclasses.Field[Any], value: Any) -> Iterator[Any]:
    """What else a field may hold: the other choices, a number slightly off, the other truth."""
    hint = typing.get_type_hints(kind)[field.name]
    if typing.get_origin(hint) is typing.Literal:
        yield from (choice for choice in typing.get_args(hint) if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, float):
        yield value * (1 + 1e-9)


FIELDS = [
    (name, field.name, other)
    for name, optimizer in KINDS.items()
    for field in dataclasses.fields(optimizer)
    for other in other_values(type(optimizer), field, getattr(optimizer, field.name))
    if (name, field.name) not in (("Lion", "beta_1"), ("RAdam", "threshold"))  # a sign and a choice alone read them
]


@pytest.mark.parametrize(("name", "field", "other"), FIELDS)
def test_every_field_counts(name: str, field: str, other: Any) -> None:
    optimizer = KINDS[name]
    assert moved(run(optimizer), run(dataclasses.replace(optimizer, **{field: other}))) > 1e-13


@pytest.mark.parametrize(("name", "field", "other"), [("Lion", "beta_1", 0.2), ("RAdam", "threshold", 5.0)])
def test_the_other_fields_count(name: str, field: str, other: float) -> None:
    assert moved(run(KINDS[name]), run(dataclasses.replace(KINDS[name], **{field: other}))) > 1e-2


@pytest.mark.parametrize("name", KINDS)
def test_the_possible_leaks_are_the_leaks(name: str) -> None:
    """Whatever else may be named changes nothing."""
    optimizer, possible = KINDS[name], possible_leaks(KINDS[name])
    assert all(moved(run(optimizer), run(optimizer, (leak,))) > 0 for leak in possible if (name, leak) not in QUIET)
    others = {field.name for field in dataclasses.fields(optimizer)} | {"bias_correction", "momentum_product"}
    assert moved(run(optimizer), run(optimizer, tuple(others - set(possible)))) == 0


QUIET = (("Lion", "beta_1"),)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_given_stays(name: str) -> None:
    W, g = np.ones(3), np.full(3, 2.0)
    slots = {slot: np.full(3, 0.5) for slot in slot_names(KINDS[name])}
    after, behind = updated(KINDS[name], 2, W, g, slots)
    assert (W == 1).all()
    assert (g == 2).all()
    assert all((value == 0.5).all() for value in slots.values())
    assert not (after == 1).any()
    assert behind.keys() == slots.keys()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(KINDS)),
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    dtype=st.sampled_from([np.float32, np.float64]),
    t=st.integers(1, 50),
)
def test_shapes_and_dtypes_stay(name: str, shape: tuple[int, ...], dtype: type, t: int) -> None:
    W = np.ones(shape, dtype)
    after, slots = updated(KINDS[name], t, W, W, initial_slots(KINDS[name], W))
    assert [(a.shape, a.dtype) for a in (after, *slots.values())] == [(W.shape, W.dtype)] * (1 + len(slots))


def test_elements_do_not_mix() -> None:
    for optimizer in KINDS.values():
        (W, _), (first, _) = run(optimizer), run(optimizer)
        np.testing.assert_array_equal(W, first)
        rng = np.random.default_rng(1)
        W, g = rng.normal(size=4), rng.normal(size=4)
        whole, _ = updated(optimizer, 3, W, g, initial_slots(optimizer, W))
        parts = [
            updated(optimizer, 3, W[i : i + 1], g[i : i + 1], initial_slots(optimizer, W[:1]))[0] for i in range(4)
        ]
        np.testing.assert_array_equal(whole, np.concatenate(parts))


LEAKS = {
    **{"SGD": ("momentum", "weight_decay", "learning_rate"), "Adagrad": ("initial_accumulator", "epsilon")},
    **{"Adadelta": ("rho",), "RMSprop": ("rho", "momentum"), "Adam": ("beta_1", "beta_2", "bias_correction")},
    **{"Adamax": ("bias_correction",), "Nadam": ("decay_base", "momentum_product", "bias_correction")},
    **{"Lion": ("weight_decay",)},
}


@pytest.mark.parametrize(("name", "leak"), [(name, leak) for name, leaks in LEAKS.items() for leak in leaks])
def test_a_leak_moves_the_update_by_float32s_rounding(name: str, leak: str) -> None:
    assert 1e-13 < moved(run(KINDS[name]), run(KINDS[name], (leak,))) < 1e-5


# --- what comes before ------------------------------------------------------------------------------------------

GRADIENTS = {"W": np.array([[3.0, 0.0], [0.0, 4.0]]), "b": np.array([12.0, 0.0])}
CLIP = Clipping(by="global_norm", limit=6.5, epsilon=0.0, order=2.0)


@pytest.mark.parametrize(
    ("changes", "W", "b"),
    [
        ({}, 0.5, 0.5),
        ({"by": "variable_norm"}, 1.0, 6.5 / 12),
        ({"epsilon": 13.0}, 0.25, 0.25),
        ({"limit": 20.0}, 1.0, 1.0),
        ({"order": math.inf}, 6.5 / 12, 6.5 / 12),
        ({"order": 1.0}, 6.5 / 19, 6.5 / 19),
        ({"limit": 0.0}, 0.0, 0.0),
    ],
)
def test_clipping(changes: dict[str, Any], W: float, b: float) -> None:
    found = clipped_gradients(dataclasses.replace(CLIP, **changes), GRADIENTS)
    np.testing.assert_allclose(found["W"], W * GRADIENTS["W"], rtol=1e-15)
    np.testing.assert_allclose(found["b"], b * GRADIENTS["b"], rtol=1e-15)


def test_clipping_by_value_and_of_nothing() -> None:
    found = clipped_gradients(dataclasses.replace(CLIP, by="value", limit=3.5), GRADIENTS)
    assert found["W"].tolist() == [[3.0, 0.0], [0.0, 3.5]]
    zero = {"W": np.zeros(2)}
    for by, limit in product(("global_norm", "variable_norm"), (0.0, 1.0)):
        assert clipped_gradients(dataclasses.replace(CLIP, by=by, limit=limit), zero)["W"].tolist() == [0.0, 0.0]


def test_accumulation() -> None:
    passes = [{"W": np.array([float(k)])} for k in (1, 2, 4, 8)]
    ways = [Accumulation(every=2, combine="sum", cleared=cleared) for cleared in (True, False)]
    assert [piled(way, passes)["W"].item() for way in ways] == [12, 15]


RULE = Rule(
    optimizer=dataclasses.replace(PLAIN, weight_decay=0.5, decay="coupled"),
    accumulation=Accumulation(every=2, combine="sum", cleared=True),
    clipping=None,
    maximize=False,
    schedule=Piecewise(boundaries=(1, 2, 3, 4, 5, 6), rates=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), at_boundary="next"),
    schedule_every="update",
    first_position=1,
    decayed="all",
    trained="all",
)


@pytest.mark.parametrize(
    ("changes", "W", "b"),
    [
        # the third update in the second epoch, from W = b = 2 with g = 1: r (g + 0.5 * 2)
        ({}, 0.3 * 2, 0.3 * 2),
        ({"accumulation": Accumulation(every=2, combine="mean", cleared=True)}, 0.3 * 1.5, 0.3 * 1.5),
        ({"schedule_every": "epoch"}, 0.2 * 2, 0.2 * 2),
        ({"schedule_every": "pass"}, 0.6 * 2, 0.6 * 2),
        ({"first_position": 0}, 0.2 * 2, 0.2 * 2),
        ({"decayed": "kernels"}, 0.3 * 2, 0.3 * 1),
        ({"decayed": ("b",)}, 0.3 * 1, 0.3 * 2),
        ({"trained": ("W",)}, 0.3 * 2, 0.0),
        ({"clipping": Clipping(by="value", limit=0.5, epsilon=0.0, order=2.0)}, 0.3 * 1.5, 0.3 * 1.5),
        ({"schedule": Constant()}, 0.1 * 2, 0.1 * 2),
        ({"maximize": True, "decayed": ("b",)}, 0.3 * -1, 0.3 * (1 - 1)),  # the decay keeps its sign
    ],
)
def test_a_rule(changes: dict[str, Any], W: float, b: float) -> None:
    rule = dataclasses.replace(RULE, **changes)
    values = {"W": np.full((1, 1), 2.0), "b": np.full(1, 2.0)}
    after, slots = updated_all(rule, 3, 1, values, {name: np.ones_like(V) for name, V in values.items()}, {})
    assert after["W"].item() == pytest.approx(2 - W, rel=1e-15)
    assert after["b"].item() == pytest.approx(2 - b, rel=1e-15)
    assert slots == {}


def test_what_is_not_trained_does_not_count_in_the_norm() -> None:
    rule = dataclasses.replace(RULE, clipping=CLIP, trained=("b",), optimizer=PLAIN, schedule=Constant())
    values = {name: np.zeros_like(g) for name, g in GRADIENTS.items()}
    after, _ = updated_all(rule, 1, 0, values, GRADIENTS, {})
    np.testing.assert_allclose(after["b"], -0.1 * GRADIENTS["b"] * 6.5 / 12, rtol=1e-15)
    np.testing.assert_array_equal(after["W"], 0)


# --- rates ------------------------------------------------------------------------------------------------------

COSINE = Cosine(length=4.0, end_rate=0.2, beyond="stays", stretch=1.0, shrink=1.0)
POLYNOMIAL = Polynomial(length=4.0, end_rate=0.2, power=2.0, cycle=False)
STEPPED = Piecewise(boundaries=(2.0, 4.0), rates=(1.0, 0.5, 0.25), at_boundary="next")
TABLE: list[tuple[Schedule, list[float]]] = [
    (Constant(), [1, 1, 1]),
    (Exponential(factor=0.25, every=2.0, staircase=False), [1, 0.5, 0.25, 0.125]),
    (Exponential(factor=0.25, every=2.0, staircase=True), [1, 1, 0.25, 0.25, 0.0625]),
    (InverseTime(factor=1.0, every=2.0, staircase=False), [1, 2 / 3, 0.5, 0.4]),
    (InverseTime(factor=1.0, every=2.0, staircase=True), [1, 1, 0.5, 0.5]),
    (STEPPED, [1, 1, 0.5, 0.5, 0.25, 0.25]),
    (dataclasses.replace(STEPPED, at_boundary="last"), [1, 1, 1, 0.5, 0.5, 0.25]),
    (COSINE, [1, 0.2 + 0.4 * (1 + 0.5**0.5), 0.6, 0.2 + 0.4 * (1 - 0.5**0.5), 0.2, 0.2]),
    (
        dataclasses.replace(COSINE, beyond="returns"),
        [1, 0.882842712474619, 0.6, 0.317157287525381, 0.2, 0.317157287525381],
    ),
    (
        dataclasses.replace(COSINE, length=2.0, beyond="restarts", stretch=2.0, shrink=0.5),
        [1, 0.6, 0.6, 0.2 + 0.2 * (1 + 0.5**0.5), 0.4, 0.2 + 0.2 * (1 - 0.5**0.5), 0.4],
    ),
    (POLYNOMIAL, [1, 0.2 + 0.8 * 9 / 16, 0.4, 0.25, 0.2, 0.2]),
    (dataclasses.replace(POLYNOMIAL, cycle=True), [1, 0.65, 0.4, 0.25, 0.2, 0.2 + 0.8 * 9 / 64]),
    (Warmup(length=2.0, start_rate=0.5, then=STEPPED), [0.5, 0.75, 1, 1, 0.5]),
]


@pytest.mark.parametrize(("schedule", "wanted"), TABLE)
def test_rates(schedule: Schedule, wanted: list[float]) -> None:
    assert [rate(schedule, 1.0, t) for t in range(len(wanted))] == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in TABLE])
def test_every_field_of_a_schedule_counts(schedule: Schedule) -> None:
    before = [rate(schedule, 1.0, t) for t in range(9)]
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        for other in other_values(type(schedule), field, value):
            changed = dataclasses.replace(schedule, **{field.name: other})
            idle = field.name in ("stretch", "shrink") and getattr(schedule, "beyond", "") != "restarts"
            assert ([rate(changed, 1.0, t) for t in range(9)] != before) or idle, field.name
