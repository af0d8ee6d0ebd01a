"""Keras's losses as they are read: the reference's value and gradient are Keras's own, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from reference.objectives import value_and_gradient

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from frameworks.keras_objectives import read_compiled, read_loss  # noqa: E402 (what comes before may skip the file)

losses: Any = keras.losses

RNG = np.random.default_rng(5)
ROWS, CLASSES, STEPS = 6, 4, 3
LOGITS = RNG.normal(size=(ROWS, CLASSES)) * 3
PROBABILITIES = RNG.dirichlet(np.ones(CLASSES), ROWS)
UNEVEN = PROBABILITIES * 1.3
SURE = np.tile([0.0, 1.0, 1e-12, 1 - 1e-9], (ROWS, 1))
INDICES = RNG.integers(CLASSES, size=ROWS)
ONE_HOT = np.eye(CLASSES)[INDICES]
SEQUENCES, TAGS = RNG.normal(size=(ROWS, STEPS, CLASSES)), RNG.integers(CLASSES, size=(ROWS, STEPS))
BITS = RNG.integers(2, size=(ROWS, CLASSES)).astype(float)
TARGETS = RNG.normal(size=LOGITS.shape)

CASES: dict[str, tuple[Callable[..., Any], np.ndarray, np.ndarray]] = {
    "mse": (losses.MeanSquaredError, LOGITS, TARGETS),
    "mse, column": (losses.MeanSquaredError, LOGITS[:, :1], TARGETS[:, 0]),
    "mse, row": (losses.MeanSquaredError, LOGITS[:, 0], TARGETS[:, :1]),
    "mse, sequences": (losses.MeanSquaredError, SEQUENCES[..., :1], SEQUENCES[..., 1]),
    "mae": (losses.MeanAbsoluteError, LOGITS, TARGETS),
    "mape": (losses.MeanAbsolutePercentageError, LOGITS, TARGETS * BITS),
    "msle": (losses.MeanSquaredLogarithmicError, LOGITS, TARGETS),
    "cosine": (losses.CosineSimilarity, LOGITS, TARGETS),
    "cosine of 0": (losses.CosineSimilarity, LOGITS * 1e-9, TARGETS),
    "huber": (lambda **k: losses.Huber(delta=0.7, **k), LOGITS, TARGETS),
    "log cosh": (losses.LogCosh, LOGITS * 20, TARGETS),
    "hinge of signs": (losses.Hinge, LOGITS, 2 * BITS - 1),
    "hinge of bits": (losses.Hinge, LOGITS, BITS),
    "hinge at its margin": (losses.Hinge, 2 * BITS - 1, BITS),
    "squared hinge": (losses.SquaredHinge, LOGITS, BITS),
    "categorical hinge": (losses.CategoricalHinge, LOGITS, ONE_HOT),
    "categorical hinge, ties": (losses.CategoricalHinge, np.rint(LOGITS / 3), ONE_HOT),
    "kl": (losses.KLDivergence, PROBABILITIES, PROBABILITIES[::-1].copy()),
    "kl, sure": (losses.KLDivergence, SURE, ONE_HOT),
    "poisson": (losses.Poisson, PROBABILITIES, BITS * 3),
    "dice": (losses.Dice, PROBABILITIES, ONE_HOT),
    "dice by example": (lambda **k: losses.Dice(axis=(1, 2), **k), np.abs(SEQUENCES), SEQUENCES > 0),
    "dice, column": (losses.Dice, PROBABILITIES[:, :1], BITS[:, 0]),
    "dice, squeezed": (losses.Dice, np.abs(SEQUENCES[..., :1]), np.sign(SEQUENCES[..., 1])),
    "tversky": (lambda **k: losses.Tversky(alpha=0.3, beta=0.7, axis=1, **k), PROBABILITIES, ONE_HOT),
    "bce": (losses.BinaryCrossentropy, PROBABILITIES, BITS),
    "bce, sure": (losses.BinaryCrossentropy, SURE, BITS),
    "bce, smoothed": (lambda **k: losses.BinaryCrossentropy(label_smoothing=0.1, **k), PROBABILITIES, BITS),
    "bce, logits": (lambda **k: losses.BinaryCrossentropy(from_logits=True, **k), LOGITS * 10, BITS),
    "focal": (losses.BinaryFocalCrossentropy, PROBABILITIES, BITS),
    "focal, sure": (losses.BinaryFocalCrossentropy, SURE, BITS),
    "focal, balanced": (
        lambda **k: losses.BinaryFocalCrossentropy(apply_class_balancing=True, gamma=1.5, label_smoothing=0.1, **k),
        PROBABILITIES,
        BITS,
    ),
    "focal, logits": (lambda **k: losses.BinaryFocalCrossentropy(from_logits=True, **k), LOGITS * 10, BITS),
    "categorical": (losses.CategoricalCrossentropy, UNEVEN, ONE_HOT),
    "categorical, sure": (losses.CategoricalCrossentropy, SURE, ONE_HOT),
    "categorical, smoothed": (lambda **k: losses.CategoricalCrossentropy(label_smoothing=0.1, **k), UNEVEN, ONE_HOT),
    "categorical, logits": (lambda **k: losses.CategoricalCrossentropy(from_logits=True, **k), LOGITS, ONE_HOT),
    "categorical, axis": (
        lambda **k: losses.CategoricalCrossentropy(axis=1, **k),
        np.abs(SEQUENCES),
        np.moveaxis(np.eye(STEPS)[TAGS[:, :1].repeat(CLASSES, 1) % STEPS], 2, 1).copy(),
    ),
    "categorical focal": (losses.CategoricalFocalCrossentropy, UNEVEN, ONE_HOT),
    "categorical focal, logits": (
        lambda **k: losses.CategoricalFocalCrossentropy(from_logits=True, gamma=1.5, label_smoothing=0.1, **k),
        LOGITS * 5,
        ONE_HOT,
    ),
    "sparse": (losses.SparseCategoricalCrossentropy, UNEVEN, INDICES),
    "sparse column": (losses.SparseCategoricalCrossentropy, UNEVEN, INDICES[:, None]),
    "sparse, sure": (losses.SparseCategoricalCrossentropy, SURE, INDICES),
    "sparse, logits": (lambda **k: losses.SparseCategoricalCrossentropy(from_logits=True, **k), SEQUENCES, TAGS),
    "sparse, ignoring": (
        lambda **k: losses.SparseCategoricalCrossentropy(ignore_class=1, from_logits=True, **k),
        SEQUENCES,
        TAGS,
    ),
}
REDUCTIONS = ("sum_over_batch_size", "sum", "none", "mean", "mean_with_sample_weight", None)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # another test may have set one, which floatx does not change
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def own(loss: Any, q: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, mask: Any = None) -> Any:
    leaf = tf.Variable(q)
    with tf.GradientTape() as tape:
        output = tf.identity(leaf)
        if mask is not None:
            keras.src.backend.set_keras_mask(output, tf.constant(mask))
        value = loss(y, output) if weights is None else loss(y, output, sample_weight=weights)
        total = tf.reduce_sum(value)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(total, leaf)).numpy()


def assert_same(found: Any, expected: Any, bound: float = 1e-13) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= bound * np.abs(other).max()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_an_object_as_read_gives_kerass_value_and_gradient(name: str, reduction: str | None) -> None:
    kind, q, y = CASES[name]
    loss = kind(reduction=reduction)
    read = read_loss(loss)
    assert read is not None
    assert_same(value_and_gradient(read, q, y), own(loss, q, y))


def test_alignments_within_float32_in_which_keras_computes_them() -> None:
    labels = np.array([[1, 2, 3], [2, 2, 0], [1, 0, 0], [3, 3, 0], [1, 2, 1], [2, 0, 0]])
    q, loss = RNG.normal(size=(ROWS, 7, CLASSES)), losses.CTC()
    read = read_loss(loss)
    assert read is not None
    assert_same(value_and_gradient(read, q, labels), own(loss, q, labels), bound=1e-5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("name", ["mse", "sparse, logits", "sparse, ignoring", "bce", "kl"])
def test_weights_and_masks(name: str, reduction: str) -> None:
    kind, q, y = CASES[name]
    loss = kind(reduction=reduction)
    read = read_loss(loss)
    assert read is not None
    shape = y.shape if name.startswith("sparse") else y.shape[:-1]
    weights, mask = RNG.uniform(0.5, 2, shape), RNG.random(shape) < 0.6
    assert_same(value_and_gradient(read, q, y, weights), own(loss, q, y, weights))
    assert_same(value_and_gradient(read, q, y, None, mask), own(loss, q, y, None, mask))
    assert_same(value_and_gradient(read, q, y, weights, mask), own(loss, q, y, weights, mask))


FUSED = {
    "softmax": ("categorical_crossentropy", "softmax", ONE_HOT),
    "sparse softmax": ("sparse_categorical_crossentropy", "softmax", INDICES),
    "sigmoid": ("binary_crossentropy", "sigmoid", BITS),
    "focal sigmoid": ("binary_focal_crossentropy", "sigmoid", BITS),
    "focal softmax": ("categorical_focal_crossentropy", "softmax", ONE_HOT),
}


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("name", FUSED)
def test_an_activation_before_an_entropy_is_skipped(name: str, is_fused: bool) -> None:
    """By dL/d(logits); one example is so sure that clipping would show."""
    loss, activation, y = FUSED[name]
    logits = LOGITS.copy()
    logits[0] *= 20
    leaf = tf.Variable(logits)
    with tf.GradientTape() as tape:
        p = keras.ops.sigmoid(leaf) if activation == "sigmoid" else keras.ops.softmax(leaf)
        value = losses.get(loss)(y, p if is_fused else tf.identity(p))
        total = tf.reduce_mean(value)
    read = read_loss(loss, is_fused)
    assert read is not None
    L, dp = value_and_gradient(read, p.numpy(), y)
    with tf.GradientTape() as second:
        p = keras.ops.sigmoid(leaf) if activation == "sigmoid" else keras.ops.softmax(leaf)
    own_slope = tf.convert_to_tensor(tape.gradient(total, leaf)).numpy()
    dz = tf.convert_to_tensor(second.gradient(p, leaf, output_gradients=tf.constant(dp))).numpy()
    # p rounds 1 - p away: its logarithm keeps eps / (1 - p) of it
    assert abs(L - total.numpy()) <= 1e-7 * abs(total.numpy())
    assert np.abs(dz - own_slope).max() <= 1e-7 * np.abs(own_slope).max()


def test_what_fit_adds_up_is_read_with_its_weights() -> None:
    x = keras.Input((CLASSES,))
    outputs = {"one": keras.layers.Dense(CLASSES, name="one")(x), "two": keras.layers.Dense(1, name="two")(x)}
    model = keras.Model(x, outputs)
    model.compile(
        loss={"one": losses.SparseCategoricalCrossentropy(from_logits=True), "two": "mse"},
        loss_weights={"one": 0.3, "two": 2.0},
    )
    y = {"one": INDICES, "two": TARGETS[:, :1]}
    predicted = model(LOGITS)
    total = model.compute_loss(x=LOGITS, y=y, y_pred=predicted).numpy()
    read = read_compiled(model._compile_loss, (False, False), None, ())
    found = [value_and_gradient(loss, predicted[k].numpy(), y[k])[0] for loss, k in zip(read, y, strict=True) if loss]
    assert len(found) == 2
    assert sum(found) == pytest.approx(total, rel=1e-13)


def test_class_weights_are_those_of_fit() -> None:
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, activation="softmax")])
    model.compile(loss="categorical_crossentropy")
    weights = {0: 0.5, 2: 3.0}
    p = model(LOGITS)
    by_example = np.array([weights.get(k, 1.0) for k in INDICES])
    total = model.compute_loss(x=LOGITS, y=ONE_HOT, y_pred=p, sample_weight=tf.constant(by_example)).numpy()
    (read,) = read_compiled(model._compile_loss, (True,), weights, (ONE_HOT,))
    assert read is not None
    assert value_and_gradient(read, p.numpy(), ONE_HOT)[0] == pytest.approx(total, rel=1e-13)


class Doubled(losses.MeanSquaredError):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return 2 * super().call(y_true, y_pred)


@pytest.mark.parametrize(
    "loss",
    [
        lambda y, q: (q - y) ** 2,
        Doubled(),
        losses.Circle(),
        losses.CosineSimilarity(axis=1),
        losses.BinaryCrossentropy(axis=0),
        None,
    ],
)
def test_what_is_not_known_is_not_guessed(loss: Any) -> None:
    assert read_loss(loss) is None


def test_names_and_functions_are_read_as_the_objects() -> None:
    assert read_loss("mse") == read_loss(losses.mean_squared_error) == read_loss(losses.MeanSquaredError())
    assert read_loss("sparse_categorical_crossentropy") == read_loss(losses.SparseCategoricalCrossentropy())
