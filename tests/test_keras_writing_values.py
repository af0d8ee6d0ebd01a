"""What is written where Keras has another form of a part: it computes the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import objectives, rules, schedules, terms
from harness.objectives_standard import INDICES, SAME
from harness.recipe import Recipe
from reference.objectives import penalty_and_gradients, value_and_gradient
from reference.rates import rate

keras: Any = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from frameworks import keras_words_training  # noqa: E402 (what comes before may skip the whole file)
from frameworks.keras_objectives import read_compiled, read_loss  # noqa: E402
from frameworks.keras_penalties import read_penalty  # noqa: E402
from frameworks.keras_rules import read_optimizer, read_rule, read_schedule  # noqa: E402
from frameworks.keras_writing import written  # noqa: E402
from tests.keras_words import CLASS_OF, CLASSES, OUTPUT, RATE, TARGETS, loss_of, made, read  # noqa: E402

losses, optim = keras.losses, keras.optimizers

MASK = np.array([True, True, False, True, False, True])


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


SQUARED = terms.SquaredError(half=False)


def compiled(text: str, **names: Any) -> objectives.Loss:
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES)])
    (nothing,) = made(text, model=model, **names)
    assert nothing is None
    model.compute_loss(y=tf.constant(TARGETS), y_pred=tf.constant(OUTPUT))
    (found,) = read_compiled(model._compile_loss, (False,), None, ())
    assert found
    return found


@pytest.mark.parametrize(
    "term",
    [
        terms.SquaredError(half=True),
        terms.Huber(delta=0.5, divided_by_delta=True, half=True),
        terms.Huber(delta=0.5, divided_by_delta=False, half=False),
        terms.PercentageError(factor=1.0, floor=1e-7),
    ],
    ids=str,
)
def test_a_factor_is_a_loss_weight(term: Any) -> None:
    pair = compiled(written(term, [])), loss_of(term)
    found, wanted = (value_and_gradient(loss, OUTPUT, TARGETS) for loss in pair)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-14)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-13)


def test_the_factor_of_a_loss_is_a_loss_weight() -> None:
    loss = loss_of(SQUARED, factor=0.25)
    assert compiled(written(loss, ["factor"]), loss="mse").factor == 0.25


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean", "valid_mean", "weighted_mean"])
@pytest.mark.parametrize("mask", [None, MASK])
def test_reductions(reduction: Any, mask: Any) -> None:
    """With a mask too, by which Keras's own mean divides."""
    text = written(loss_of(None, reduction=reduction), ["reduction"])
    output = tf.constant(OUTPUT)
    if mask is not None:
        keras.src.backend.set_keras_mask(output, tf.constant(mask))
    names = {"loss": losses.MeanSquaredError, "y": tf.constant(TARGETS), "output": output}
    (own,) = made(text if "output" in text else f"{text}(y, output)", **names)
    wanted, _ = value_and_gradient(loss_of(SQUARED, reduction=reduction), OUTPUT, TARGETS, None, mask)
    np.testing.assert_allclose(own.numpy(), wanted, rtol=1e-14)


def test_class_weights_are_those_of_fit() -> None:
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, "softmax", use_bias=False)])
    model.layers[0].kernel.assign(np.eye(CLASSES))
    model.compile(loss="sparse_categorical_crossentropy", run_eagerly=True)
    loss = loss_of(None, class_weights=(0.5, 3.0, 1.0, 2.0))
    (history,) = made(written(loss, ["class_weights"]), model=model, x=OUTPUT)
    own = read_loss("sparse_categorical_crossentropy", fused=True)
    assert own
    p = np.exp(OUTPUT) / np.exp(OUTPUT).sum(-1, keepdims=True)
    wanted, _ = value_and_gradient(replace(own, class_weights=loss.class_weights), p, CLASS_OF)
    assert history.history["loss"] == [pytest.approx(float(wanted), rel=1e-6)]  # fit's average is float32


def test_half_a_penalty() -> None:
    part = objectives.Penalty(l1=0.0, l2=0.01, half=True, rooted=False, scope=("kernel",))
    found = read(made(written(part, ["half"]))[0], part)
    weights = {"kernel": TARGETS}
    assert penalty_and_gradients(found, weights)[0] == pytest.approx(penalty_and_gradients(part, weights)[0], rel=1e-15)


def test_a_coupled_decay_is_a_penalty() -> None:
    part = replace(read_optimizer(optim.Adam(0.02)), weight_decay=0.03, decay="coupled")  # type: ignore[type-var]
    penalty, optimizer = made(written(part, ["learning_rate", "weight_decay", "decay"]))
    slope = penalty_and_gradients(read_penalty({"W": penalty}), {"W": TARGETS})[1]["W"]  # type: ignore[arg-type]
    np.testing.assert_allclose(slope, 0.03 * TARGETS, rtol=1e-15)
    assert read_optimizer(optimizer) == replace(part, weight_decay=0.0, decay="decoupled")


def test_indices_are_made_one_hot_to_be_smoothed() -> None:
    one_hot, loss = made(written(replace(INDICES, smoothing=0.1), ["smoothing"]))
    assert np.array_equal(one_hot, np.eye(CLASSES)[CLASS_OF])
    assert read(loss, SAME) == replace(SAME, smoothing=0.1)


SCHEDULES = (
    schedules.Exponential(factor=0.9, every=3.0, staircase=False),
    schedules.Exponential(factor=0.5, every=1.0, staircase=True),
    schedules.InverseTime(factor=0.5, every=2.5, staircase=False),
    schedules.Piecewise(boundaries=(2.0, 5.0), rates=(0.3, 0.2, 0.05), at_boundary="last"),
    schedules.Piecewise(boundaries=(2.0, 5.0), rates=(0.3, 0.2, 0.05), at_boundary="next"),
    schedules.Polynomial(length=5.0, end_rate=0.01, power=1.7, cycle=False),
    schedules.Polynomial(length=5.0, end_rate=0.01, power=1.0, cycle=True),
    schedules.Cosine(length=5.0, end_rate=0.03, beyond="stays", stretch=1.0, shrink=1.0),
    schedules.Cosine(length=5.0, end_rate=0.0, beyond="stays", stretch=1.0, shrink=1.0),
    schedules.Cosine(length=3.0, end_rate=0.03, beyond="restarts", stretch=2.0, shrink=0.8),
    schedules.Warmup(
        length=4.0,
        start_rate=0.1,
        then=schedules.Cosine(length=5.0, end_rate=0.03, beyond="stays", stretch=1.0, shrink=1.0),
    ),
)


def rates(formula: Any, base: float) -> list[float]:
    return [rate(formula, base, t) for t in range(20)]


def rates_written(schedule: Any) -> list[float]:
    (found,) = (read_schedule(thing) for thing in made(written(schedule, ())))
    assert found
    return rates(found[1], found[0])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_schedules(schedule: Any) -> None:
    assert rates_written(schedule) == pytest.approx(rates(schedule, RATE), rel=1e-13)


def test_a_wrong_schedule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = keras_words_training.ROWS
    monkeypatch.setitem(rows, schedules.Exponential, rows[schedules.InverseTime])
    assert rates_written(SCHEDULES[0]) != pytest.approx(rates(SCHEDULES[0], RATE), rel=1e-3)


def rule(**changes: Any) -> rules.Rule:
    whole = read_rule(optim.SGD(0.1), Recipe(model=None), SimpleNamespace(trainable_variables=[]))
    assert whole
    return replace(whole, **changes)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 on NumPy 2.4
def test_what_a_schedule_counts() -> None:
    schedule = optim.schedules.ExponentialDecay(RATE, 3, 0.9)
    (callback,) = made(written(rule(schedule_every="epoch"), ["schedule_every"]), schedule=schedule)
    held = optim.SGD(0.1)
    callback.set_model(SimpleNamespace(optimizer=held))
    callback.on_epoch_begin(4)
    assert float(held.learning_rate) == pytest.approx(float(schedule(4)), rel=1e-6)
    for counted in ("pass", "update"):
        text = written(rule(schedule_every=counted), ["schedule_every"])
        (found,) = made(text, schedule=schedule, optimizer=optim.SGD)
        assert found._learning_rate is schedule


@pytest.mark.parametrize("every", [1, 4])
def test_accumulation(every: int) -> None:
    part = rules.Accumulation(every=every, combine="mean", cleared=True)
    (found,) = made(written(part, ["every"]))
    back = read_rule(found, Recipe(model=None), SimpleNamespace(trainable_variables=[]))
    assert back
    assert back.accumulation.every == every
