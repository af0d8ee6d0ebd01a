"""Losses, optimizers and what lies around them in Keras's words: what is written is read back as what was meant."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import case, objectives, rules, schedules, terms
from harness.objectives_standard import INDICES, SAME, standard_losses
from harness.recipe import Recipe
from reference.objectives import penalty_and_gradients, value_and_gradient
from reference.rates import rate

keras: Any = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from frameworks import keras_words_losses, keras_words_training  # noqa: E402 (what comes before may skip the whole file)
from frameworks.keras_objectives import read_compiled, read_loss  # noqa: E402
from frameworks.keras_penalties import read_penalty  # noqa: E402
from frameworks.keras_rules import read_clipping, read_optimizer, read_rule, read_schedule  # noqa: E402
from frameworks.keras_writing import written  # noqa: E402

losses, optim, regularizers = keras.losses, keras.optimizers, keras.regularizers

ROWS = {**keras_words_losses.ROWS, **keras_words_training.ROWS}

RNG = np.random.default_rng(3)
EXAMPLES, CLASSES = 6, 4
OUTPUT, TARGETS = RNG.normal(size=(EXAMPLES, CLASSES)), RNG.normal(size=(EXAMPLES, CLASSES))
CLASS_OF = RNG.integers(CLASSES, size=EXAMPLES)
MASK = np.array([True, True, False, True, False, True])
RATE = 0.3


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def made(text: str, **names: Any) -> list[Any]:
    """What each alternative and each step of a text makes."""
    own = {"keras": keras, "loss": losses.CategoricalCrossentropy, "optimizer": functools.partial(optim.SGD, 0.1)}
    scope = {**own, "learning_rate": RATE, "y": CLASS_OF, "classes": CLASSES, **names}
    return [eval(step, scope) for one in text.split(" or ") for step in one.split(" then ")]


def read(thing: Any, like: Any) -> Any:
    """The part of a Keras object that is of a kind."""
    if isinstance(thing, losses.Loss):
        loss = read_loss(thing)
        return loss and (loss.targets if isinstance(like, objectives.Targets) else loss.term)
    if isinstance(thing, regularizers.Regularizer):
        return read_penalty({"kernel": thing})
    return read_clipping(thing) if isinstance(like, rules.Clipping) else read_optimizer(thing)


def wrong(part: Any, named: Sequence[str]) -> list[str]:
    """The fields that are read back as something else; all of them where nothing is written or it makes nothing."""
    try:
        found = [read(thing, part) for thing in made(written(part, named))]
    except (TypeError, ValueError, AttributeError, SyntaxError):
        return list(named)
    return [field for field in named if any(getattr(one, field, None) != getattr(part, field) for one in found)]


# --- what has an argument ---------------------------------------------------------------------------------------

LOSSES = (
    losses.MeanSquaredError(),
    losses.MeanAbsoluteError(),
    losses.MeanAbsolutePercentageError(),
    losses.MeanSquaredLogarithmicError(),
    losses.LogCosh(),
    losses.Huber(delta=0.7),
    losses.Poisson(),
    losses.Hinge(),
    losses.SquaredHinge(),
    losses.CategoricalHinge(),
    losses.KLDivergence(),
    losses.CosineSimilarity(),
    losses.CTC(),
    losses.Dice(),
    losses.Dice(axis=(1, 2)),
    losses.Tversky(alpha=0.3, beta=0.7, axis=1),
    *(losses.BinaryCrossentropy(from_logits=logits) for logits in (True, False)),
    *(losses.CategoricalCrossentropy(from_logits=logits) for logits in (True, False)),
    *(losses.SparseCategoricalCrossentropy(from_logits=logits) for logits in (True, False)),
    losses.CategoricalCrossentropy(axis=1),
    losses.BinaryFocalCrossentropy(gamma=1.5, from_logits=True),
    losses.BinaryFocalCrossentropy(gamma=1.5, alpha=0.4, apply_class_balancing=True),
    losses.CategoricalFocalCrossentropy(gamma=1.5, alpha=0.4, from_logits=True),
    losses.CategoricalFocalCrossentropy(axis=1),
)
OPTIMIZERS = (
    optim.SGD(0.02),
    optim.SGD(0.02, momentum=0.8, nesterov=True, weight_decay=0.03),
    optim.Adagrad(0.02, initial_accumulator_value=0.3, epsilon=1e-5, weight_decay=0.03),
    optim.Adadelta(0.02, rho=0.8, epsilon=1e-5),
    optim.RMSprop(0.02, rho=0.8, momentum=0.7, epsilon=1e-5, centered=True),
    optim.Adam(0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-5, amsgrad=True),
    optim.Adam(0.02, weight_decay=0.03),
    optim.AdamW(0.02, weight_decay=0.03),
    optim.Adamax(0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-5),
    optim.Nadam(0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-5),
    optim.Lion(0.02, beta_1=0.8, beta_2=0.95, weight_decay=0.03),
)


def parts() -> Iterator[Any]:
    for loss in LOSSES:
        found = read_loss(loss)
        assert found
        yield found.term
    for optimizer in OPTIMIZERS:
        yield read_optimizer(optimizer)
    for by in ("value", "variable_norm", "global_norm"):
        yield rules.Clipping(by=by, limit=0.4, epsilon=0.0, order=2.0)
    for l1, l2 in ((0.0, 0.01), (0.02, 0.0), (0.02, 0.01)):
        yield objectives.Penalty(l1=l1, l2=l2, half=False, rooted=False, scope=("kernel",))
    yield from (SAME, INDICES, replace(SAME, smoothing=0.1), replace(INDICES, ignore_index=2))


@pytest.mark.parametrize("part", list(parts()), ids=str)
def test_what_is_written_is_read_back(part: Any) -> None:
    """Whole, and each field by itself."""
    _, entries = ROWS[type(part)]
    named = [field for field in entries if not (field == "ignore_index" and part.form == "values")]
    assert [field for field in named if wrong(part, [field])] == []
    if not isinstance(part, objectives.Targets):  # never another as a whole
        assert [thing for thing in made(written(part, ())) if read(thing, part) != part] == []


PLANTED = (
    (optim.RMSprop(0.02, rho=0.8, momentum=0.7), keras_words_training, "rho", "momentum"),
    (optim.RMSprop(0.02, rho=0.8, momentum=0.7), keras_words_training, "momentum", "alpha"),
    (optim.SGD(0.02), keras_words_training, "learning_rate", lambda op: "learning_rate=0.0200001"),
    (losses.BinaryCrossentropy(from_logits=True), keras_words_losses, "reads", lambda op: "from_logits=False"),
    (losses.BinaryFocalCrossentropy(gamma=1.5), keras_words_losses, "gamma", lambda op: ""),
)


@pytest.mark.parametrize(("thing", "words", "field", "entry"), PLANTED)
def test_wrong_words_are_found(thing: Any, words: Any, field: str, entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    part = read(thing, None)
    assert wrong(part, [field]) == []
    name, entries = words.ROWS[type(part)]
    monkeypatch.setitem(words.ROWS, type(part), (name, {**entries, field: entry}))
    assert wrong(part, [field]) == [field]


# --- what is computed, where Keras has another form of it -------------------------------------------------------


def loss_of(term: Any, **changes: Any) -> objectives.Loss:
    found = next(loss for loss in standard_losses() if type(loss.term) is terms.SquaredError and loss.inner == "mean")
    return replace(found, term=term, **changes)


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


# --- texts ------------------------------------------------------------------------------------------------------

ADAM = read_optimizer(optim.Adam(0.02))
CROSS = terms.CrossEntropy(reads="logits", axis=-1, renormalize="none", clip=None, log_epsilon=0.0)


@pytest.mark.parametrize(
    ("part", "named", "text"),
    [
        (read_optimizer(optim.SGD(0.02)), ["learning_rate"], "keras.optimizers.SGD(learning_rate=0.02)"),
        (read_optimizer(optim.AdamW()), ["epsilon"], "keras.optimizers.AdamW(epsilon=1e-07)"),
        (
            replace(CROSS, reads="probabilities", renormalize="softmax"),
            ["reads"],
            "keras.losses.SparseCategoricalCrossentropy(from_logits=False)",
        ),
        (
            CROSS,
            ["reads"],
            "keras.losses.CategoricalCrossentropy(from_logits=True) or "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)",
        ),
        (case.MeanSquaredError(reduction="sum"), ["reduction"], 'keras.losses.MeanSquaredError(reduction="sum")'),
        (
            rules.Clipping(by="global_norm", limit=0.5, epsilon=0.0, order=2.0),
            ["by"],
            "optimizer(global_clipnorm=0.5)",
        ),
        (
            objectives.Penalty(l1=0.0, l2=0.01, half=False, rooted=False, scope="all"),
            [],
            "keras.regularizers.L2(0.01)",
        ),
    ],
    ids=str,
)
def test_texts(part: Any, named: list[str], text: str) -> None:
    assert written(part, named) == text


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (ADAM, ["epsilon_placement"]),
        (replace(ADAM, amsgrad="corrected"), ["amsgrad"]),  # type: ignore[type-var]
        (replace(ADAM, amsgrad="corrected"), []),  # type: ignore[type-var]
        (replace(ADAM, weight_decay=0.1, decay="unscaled"), ["decay"]),  # type: ignore[type-var]
        (rules.Clipping(by="global_norm", limit=0.5, epsilon=0.0, order=1.0), ["limit"]),
        (rules.Accumulation(every=2, combine="sum", cleared=True), ["combine"]),
        (rules.Accumulation(every=1, combine="mean", cleared=False), ["cleared"]),
        (schedules.Constant(), []),
        (schedules.Cosine(length=5.0, end_rate=0.0, beyond="returns", stretch=1.0, shrink=1.0), ["beyond"]),
        (schedules.Warmup(length=4.0, start_rate=0.1, then=schedules.Constant()), ["length"]),
        (replace(CROSS, reads="log_probabilities"), ["reads"]),
        (terms.SoftMargin(labels="signs"), []),
        (terms.Poisson(reads="log_rate", epsilon=0.0, stirling=False), []),
        (replace(SAME, smoothing=0.1, spread="others"), ["smoothing"]),
        (replace(SAME, ignore_index=1), ["ignore_index"]),
        (loss_of(None, class_weights=(1.0, 2.0), class_weighting="classes"), ["class_weights"]),
        (loss_of(None), ["inner"]),
        (objectives.Penalty(l1=0.0, l2=0.1, half=False, rooted=True, scope="all"), ["rooted"]),
        (object(), ["epsilon"]),
    ],
    ids=str,
)
def test_what_keras_has_no_words_for(part: Any, named: list[str]) -> None:
    assert written(part, named) == ""


@pytest.mark.parametrize("table", [keras_words_losses.ROWS, keras_words_training.ROWS])
def test_each_entry_is_for_a_field(table: Any) -> None:
    """Optimizers of a Case have some fields fewer than those of users' models."""
    for kind, (_, entries) in table.items():
        if kind.__module__ != "harness.case":
            assert set(entries) <= {field.name for field in fields(kind)}
