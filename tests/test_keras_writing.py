"""Losses, optimizers and what lies around them in Keras's words: what is written is read back as what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from harness import case, objectives, rules, schedules, terms
from harness.objectives_standard import INDICES, SAME

keras: Any = pytest.importorskip("keras")
from frameworks import keras_words_losses, keras_words_training  # noqa: E402 (what comes before may skip the whole file)
from frameworks.keras_objectives import read_loss  # noqa: E402
from frameworks.keras_rules import read_optimizer  # noqa: E402
from frameworks.keras_writing import written  # noqa: E402
from tests.keras_words import loss_of, made, read  # noqa: E402

losses, optim = keras.losses, keras.optimizers

ROWS = {**keras_words_losses.ROWS, **keras_words_training.ROWS}


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

_RATES: dict[str, Any] = {"learning_rate": 0.02, "weight_decay": 0.03, "decay": "decoupled"}
_ROOT: dict[str, Any] = {"epsilon": 1e-5, "epsilon_placement": "inside_sqrt"}
OF_A_CASE = (
    case.SGD(**_RATES, momentum=0.8, nesterov=True, velocity="step"),
    case.Adagrad(learning_rate=0.02, initial_accumulator=0.3, **_ROOT),
    case.RMSprop(learning_rate=0.02, rho=0.8, momentum=0.7, velocity="step", **_ROOT),
    case.Adam(**_RATES, beta_1=0.8, beta_2=0.95, epsilon=1e-5, epsilon_placement="before_correction"),
)


def parts() -> Iterator[Any]:
    for loss in LOSSES:
        found = read_loss(loss)
        assert found
        yield found.term
    for optimizer in OPTIMIZERS:
        yield read_optimizer(optimizer)
    yield from OF_A_CASE
    for by in ("value", "variable_norm", "global_norm"):
        yield rules.Clipping(by=by, limit=0.4, epsilon=0.0, order=2.0)
    for l1, l2 in ((0.0, 0.01), (0.02, 0.0), (0.02, 0.01)):
        yield objectives.Penalty(l1=l1, l2=l2, half=False, rooted=False, scope=("kernel",))
    yield from (SAME, INDICES, replace(SAME, smoothing=0.1), replace(INDICES, ignore_index=2))


@pytest.mark.parametrize("part", list(parts()), ids=str)
def test_what_is_written_is_read_back(part: Any) -> None:
    """Whole, and each field by itself."""
    _, entries = ROWS[type(part)]
    named = [f for f in entries if hasattr(part, f) and not (f == "ignore_index" and part.form == "values")]
    assert [field for field in named if wrong(part, [field])] == []
    if not isinstance(part, (objectives.Targets, *map(type, OF_A_CASE))):  # never another as a whole; another class
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


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind, (_, entries) in ROWS.items()
        for field, entry in entries.items()
        if isinstance(entry, str)
    ],
)
def test_each_argument_is_needed(kind: type, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part here has the default that Keras has."""
    held = [part for part in parts() if type(part) is kind and hasattr(part, field)]
    if not held:
        assert kind.__module__ == "harness.case"  # a Case's optimizer does not have it
        return
    words = keras_words_training if kind in keras_words_training.ROWS else keras_words_losses
    name, entries = words.ROWS[kind]
    monkeypatch.setitem(words.ROWS, kind, (name, {**entries, field: lambda op: ""}))
    assert any(wrong(part, [field]) for part in held)


def test_every_row_is_tried() -> None:
    elsewhere = {*get_args(schedules.Schedule), rules.Accumulation, rules.Rule, objectives.Loss}
    elsewhere |= {case.MeanSquaredError, case.BinaryCrossEntropy, case.CategoricalCrossEntropy}
    assert {type(part) for part in parts()} | elsewhere - {schedules.Constant} == set(ROWS)


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
            case.CategoricalCrossEntropy(
                reads="logits",
                sparse=True,
                fused=False,
                clip_probability=0.0,
                renormalize="none",
                reduction="mean",
            ),
            [],
            'keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum_over_batch_size")',
        ),
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
        ("no op", ["epsilon"]),
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
