"""A user's own Keras model, watched: it trains as `fit` trains it, shows what a plain tape shows, and is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import harness
from harness.case import PRECISIONS, HarnessError, Precision
from harness.recipe import Batch, Forced, Recipe
from harness.rules import SGD, Adagrad, Adam, Lion, RMSprop

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
adapter = pytest.importorskip("frameworks.keras_models")
global_state = pytest.importorskip("keras.src.backend.common.global_state")
recording = pytest.importorskip("frameworks.keras_recording")

layers, rng = keras.layers, np.random.default_rng(0)
FEATURES = rng.standard_normal((6, 4)).astype(np.float32)
OTHERS = rng.standard_normal((6, 4)).astype(np.float32)
IMAGES = rng.standard_normal((6, 8, 8, 2)).astype(np.float32)
SERIES = rng.standard_normal((6, 5, 3)).astype(np.float32)
WORDS = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 0], [1, 2, 3, 4, 5], [9, 0, 0, 0, 0], [3, 3, 1, 0, 0], [2, 8, 7, 6, 5]])
VALUES = rng.standard_normal((6, 1)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 0, 1, 2])
SCALE = tf.constant([0.5, 1.5, 2.5, 3.5])


def mlp() -> Any:
    hidden = layers.Dense(8, activation="relu", kernel_regularizer="l2", name="hidden")
    norm, last = layers.BatchNormalization(name="norm"), layers.Dense(3, activation="softmax", name="last")
    return compiled(keras.Sequential([keras.Input((4,)), hidden, norm, last]), keras.optimizers.Adam(0.01))


def images() -> Any:
    x = keras.Input((8, 8, 2))
    h = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    h = h + layers.DepthwiseConv2D(3, padding="same", name="depthwise")(h) * 0.3
    h = layers.LeakyReLU(0.1, name="leaky")(layers.Conv2DTranspose(2, 3, name="transposed")(h))
    model = keras.Model(x, layers.Dense(1, name="last")(layers.Flatten(name="flat")(h)))
    return compiled(model, keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=0.5), "mse")


class Blocks(keras.Model):
    """Layers in a list, one of them called twice, own weights, and arithmetic of its own around them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [layers.Dense(5, activation="gelu", name="up"), layers.Dense(4, name="down")]
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")
        self.mask = np.array([1, 0, 1, 1], np.float32)
        self.calls = 0

    def call(self, x: Any, training: bool = False) -> Any:
        self.calls += 1
        h = self.inner[1](self.inner[0](x)) + x * self.mask
        return tf.reduce_sum(self.inner[0](h), -1, keepdims=True) * self.temperature


def blocks() -> Any:
    model = Blocks()
    model(FEATURES[:1])
    return compiled(model, keras.optimizers.RMSprop(0.01, momentum=0.5), keras.losses.Huber(0.3))


def words() -> Any:
    embedding = layers.Embedding(10, 4, mask_zero=True, name="embedding")
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")
    model = keras.Sequential([keras.Input((5,)), embedding, both, layers.GRU(3, name="gru")])
    model.add(layers.Dense(1, activation="sigmoid", name="last"))
    return compiled(model, keras.optimizers.AdamW(0.01), "binary_crossentropy")


def attention() -> Any:
    x = keras.Input((5, 3))
    h = layers.LayerNormalization(name="norm")(x + layers.MultiHeadAttention(2, 3, name="attention")(x, x))
    h = layers.TimeDistributed(layers.Dense(4, activation="relu"), name="each")(h)
    h = layers.GlobalAveragePooling1D()(layers.PReLU(name="prelu")(layers.SeparableConv1D(3, 2, name="separable")(h)))
    model = keras.Model(x, layers.Dense(1, name="last")(h))
    return compiled(model, keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), "mse")


def shared() -> Any:
    """Two inputs, one layer for both, two outputs, each with its loss and weight, and a rate that decays."""
    a, b, twin = keras.Input((4,), name="a"), keras.Input((4,), name="b"), layers.Dense(3, "tanh", name="twin")
    h = layers.Concatenate(name="joined")([twin(a), twin(b)])
    number = layers.Dense(1, name="number")(h)
    kind = layers.Dense(3, activation="softmax", name="kind")(layers.Lambda(lambda t: t * 0.7, name="scaled")(h))
    model = keras.Model([a, b], [number, kind])
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.9)
    loss = {"number": "mse", "kind": "sparse_categorical_crossentropy"}
    model.compile(keras.optimizers.Adagrad(rate), loss, loss_weights={"number": 0.3, "kind": 1.2})
    return model


def closures() -> Any:
    """What no config holds: constants in closures and globals, hard-coded float32, a loss that reads the weights."""
    slope = tf.constant([0.3, 0.2, 0.1, 0.7])

    def bend(t: Any) -> Any:
        return t * SCALE + slope + tf.cast(t > 0, tf.float32) + tf.zeros((4,))

    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(1, name="last")(layers.Lambda(bend, name="bend")(x)))

    def loss(y: Any, p: Any) -> Any:
        penalty = 0.01 * tf.reduce_sum(model.weights[0] ** 2)
        return tf.reduce_mean(tf.square(tf.cast(y, tf.float32) - p) * tf.constant([2.0])) + penalty

    return compiled(model, keras.optimizers.Nadam(0.01, weight_decay=0.01), loss)


class OwnStep(keras.Model):
    """Its own train_step, which `fit` would call."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = layers.Dense(3, activation="relu", name="encoder"), layers.Dense(4, name="decoder")

    def call(self, x: Any) -> Any:
        return self.decoder(self.encoder(x))

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(data[0]) - data[0]))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


def own_step() -> Any:
    model = OwnStep()
    model(FEATURES[:1])
    return compiled(model, keras.optimizers.Adamax(0.01), None)


def dropping() -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.3, name="drop"), layers.Dense(3, name="last")])
    return compiled(model, keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def compiled(model: Any, optimizer: Any, loss: Any = "sparse_categorical_crossentropy") -> Any:
    model.compile(optimizer, loss)
    return model


DATA: dict[Callable[[], Any], tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    mlp: ((FEATURES,), (CLASSES,)),
    images: ((IMAGES,), (VALUES,)),
    blocks: ((FEATURES,), (VALUES,)),
    words: ((WORDS,), ((VALUES > 0).astype(np.float32),)),
    attention: ((SERIES,), (VALUES,)),
    shared: ((FEATURES, OTHERS), (VALUES, CLASSES)),
    closures: ((FEATURES,), (VALUES,)),
    own_step: ((FEATURES,), (FEATURES,)),
    dropping: ((FEATURES,), (CLASSES,)),
}
BUILDERS = pytest.mark.parametrize("build", DATA, ids=lambda build: build.__name__)


def built(build: Callable[[], Any]) -> Any:
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    return build()


def batch_of(build: Callable[[], Any], precision: Precision, step: int = 0) -> Batch:
    def typed(values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return tuple(value.astype(precision) if value.dtype.kind == "f" else value for value in values)

    return Batch(inputs=typed(DATA[build][0]), targets=typed(DATA[build][1]), step=step)


def everything(model: Any) -> list[Any]:
    """Every bit of a model that a comparison could have touched, and of the process around it."""
    parts = [*model._flatten_layers(), model.optimizer]
    variables = [*model.variables, *model.optimizer.variables]
    return [
        [(id(v), id(v.value), v.dtype, v.trainable, v.numpy().tobytes()) for v in variables],
        [{key: id(value) for key, value in vars(part).items()} for part in parts],
        [[id(value) for value in vars(part).values() if isinstance(value, list)] for part in parts],
        [(len(part._losses), part.trainable, part.dtype_policy.name) for part in parts[:-1]],
        [keras.config.floatx(), keras.config.dtype_policy().name, tf.config.functions_run_eagerly()],
        [id(tf.cast), id(tf.nn.leaky_relu), id(layers.Layer.__call__), id(keras.Operation.__call__)],
        [random.getstate(), str(np.random.get_state()), dict(global_state.get_global_attribute("object_name_uids"))],
    ]


def worst(own: Any, other: Any) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(np.asarray(own) - np.asarray(other)).max() / max(np.abs(np.asarray(other)).max(), 1e-30))


@BUILDERS
def test_the_users_objects_are_left_alone(build: Callable[[], Any]) -> None:
    model = built(build)
    before = everything(model)
    recipe = Recipe(model=model)
    for precision in PRECISIONS:
        watched = adapter.watch(recipe, precision, False)
        record = watched.step(batch_of(build, precision))
        watched.load(record.after)
        _ = watched.pull_back(batch_of(build, precision), {})
    assert everything(model) == before


def test_a_planted_change_would_be_seen() -> None:
    model = built(mlp)
    before = everything(model)
    model.layers[0].kernel.value[0, 0].assign(np.nextafter(model.layers[0].kernel.numpy()[0, 0], np.float32(9)))
    assert everything(model) != before


def test_after_an_error_too() -> None:
    model = built(mlp)
    before = everything(model)
    watched = adapter.watch(Recipe(model=model), "float64", False)
    with pytest.raises(HarnessError, match="fails in layer hidden: ValueError"):
        _ = watched.step(Batch(inputs=(FEATURES[:, :3],), targets=(CLASSES,)))
    assert everything(model) == before
    assert watched.step(batch_of(mlp, "float64")).loss is not None


@BUILDERS
def test_float32_trains_as_keras_does(build: Callable[[], Any]) -> None:
    """To the bit, but where gradients are sums over several uses: TensorFlow adds those in another order."""
    model = built(build)
    watched = adapter.watch(Recipe(model=model), "float32", False)
    records = [watched.step(batch_of(build, "float32", step)) for step in range(4)]
    inputs, targets = (part[0] if len(part) == 1 else list(part) for part in DATA[build])
    losses = [float(np.ravel(model.train_on_batch(inputs, targets))[0]) for _ in range(4)]
    assert records[0].loss == pytest.approx(losses[0], rel=2e-7)
    for name, variable in recording.Names(model).variables.items():
        own, keras_own = records[-1].after.values[name], variable.numpy()
        if build in (blocks, shared, own_step):
            assert np.abs(own - keras_own).max() <= 8 * np.spacing(np.float32(1)), name
        else:
            np.testing.assert_array_equal(own, keras_own, name)


@BUILDERS
def test_float64_is_float64_throughout(build: Callable[[], Any]) -> None:
    model = built(build)
    single, double = (adapter.watch(Recipe(model=model), precision, False) for precision in PRECISIONS)
    _ = single.step(batch_of(build, "float32")), double.step(batch_of(build, "float64"))
    record32, record64 = single.step(batch_of(build, "float32", 1)), double.step(batch_of(build, "float64", 1))
    shown = {**record64.activations, **record64.cotangents, **record64.after.values, "loss": record64.loss}
    for name, values in shown.items():
        assert values.dtype == np.float64, name
    if build is not dropping:  # masks are drawn at the precision
        assert worst(record32.loss, record64.loss) < 1e-5
        assert record64.loss != np.float32(record64.loss)
        for name, values in record32.activations.items():
            assert worst(values, record64.activations[name]) < 1e-4, name
    assert list(record32.activations) == list(record64.activations)


def test_float64_has_no_float32_constant() -> None:
    """Two steps in NumPy from the numbers typed: learning rate, betas, decay, slope, L2 and class weights."""
    x = keras.Input((4,))
    h = layers.LeakyReLU(0.3)(layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.013))(x))
    model = keras.Model(x, h)
    model.compile(keras.optimizers.AdamW(0.001, weight_decay=0.004, beta_1=0.87), keras.losses.MeanSquaredError())
    watched = adapter.watch(Recipe(model=model, class_weight={0: 0.7, 1: 1.3}), "float64", False)
    W, b = (values.astype(np.float64) for values in model.get_weights())
    X, y = FEATURES.astype(np.float64), (CLASSES % 2).reshape(-1, 1)
    m, v = np.zeros_like(W), np.zeros_like(W)
    factor = np.where(y == 0, 0.7, 1.3)
    mb, vb = np.zeros_like(b), np.zeros_like(b)
    for t in (1, 2):
        record = watched.step(Batch(inputs=(X,), targets=(y,), step=t - 1))
        z = X @ W + b
        p = np.where(z > 0, z, 0.3 * z)
        assert worst(record.loss, (factor * (p - y) ** 2).mean() + 0.013 * (W**2).sum()) < 1e-15 * 4
        dz = factor * 2 * (p - y) / p.size * np.where(z > 0, 1, 0.3)
        for values, g, moment, square in ((W, X.T @ dz + 0.026 * W, m, v), (b, dz.sum(0), mb, vb)):
            values -= 0.001 * 0.004 * values
            moment += (g - moment) * (1 - 0.87)
            square += (g**2 - square) * (1 - 0.999)
            values -= 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.87**t) * moment / (np.sqrt(square) + 1e-7)
        assert worst(record.after.values["dense/kernel"], W) < 1e-14
        assert worst(record.after.values["dense/bias"], b) < 1e-12
    assert (
        np.abs(record.after.values["dense/kernel"] - record.after.values["dense/kernel"].astype(np.float32)).max() > 0
    )


@pytest.mark.parametrize("pool", [layers.MaxPooling3D, layers.AveragePooling3D])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_pooling_in_three_dimensions_is_float64_too(pool: Any, padding: str, order: str) -> None:
    """TensorFlow has no such kernel on CPU; its float32 one gives the same to the same elements."""
    volume = rng.standard_normal((2, 6, 7, 5, 3)).astype(np.float32)
    layer = pool((2, 3, 2), (1, 2, 2), padding, order, name="pool")
    model = keras.Sequential([keras.Input((6, 7, 5, 3)), layers.Rescaling(1.5, name="scaled"), layer, layers.Flatten()])
    model.add(layers.Dense(1))
    shown = []
    for precision in PRECISIONS:
        watched = adapter.watch(Recipe(model=compiled(model, "sgd", "mse")), precision, False)
        batch = Batch(inputs=(volume.astype(precision),), targets=(np.ones((2, 1), precision),))
        record = watched.step(batch)
        assert not watched._eager
        shown.append(record)
    single, double = shown
    for tensors in (single.activations, double.activations):
        assert tensors["pool"].shape[1:] == layer.compute_output_shape((2, 6, 7, 5, 3))[1:]
    assert worst(double.activations["pool"], single.activations["pool"]) < 1e-6
    assert worst(double.cotangents["scaled"], single.cotangents["scaled"]) < 1e-6
    assert (double.activations["pool"] != double.activations["pool"].astype(np.float32)).any()


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_in_three_dimensions_by_tensorflows_own_names(kind: str) -> None:
    volume = rng.standard_normal((2, 3, 6, 4, 5)).astype(np.float32)

    def call(x: Any) -> Any:
        first = getattr(tf.nn, f"{kind}_pool3d")(tf.transpose(x, (0, 2, 3, 4, 1)), 2, (1, 2, 1), "SAME")
        return getattr(tf.nn, f"{kind}_pool")(first, 2, 1, "VALID")

    model = keras.Sequential([keras.Input((3, 6, 4, 5)), layers.Lambda(call, name="pool")])
    double = adapter.watch(Recipe(model=model), "float64", True).step(Batch(inputs=(volume.astype(np.float64),)))
    assert worst(double.activations["pool"], call(tf.constant(volume))) < 1e-6


def test_activations_and_cotangents_are_those_of_a_plain_tape() -> None:
    model = built(images)
    watched = adapter.watch(Recipe(model=model), "float32", False)
    record = watched.step(batch_of(images, "float32"))
    assert not watched._eager
    conv, depthwise, transposed, last = (model.get_layer(n) for n in ("conv", "depthwise", "transposed", "last"))
    with tf.GradientTape() as tape:
        linear = tf.nn.conv2d(IMAGES, conv.kernel, 2, "SAME") + conv.bias
        h = tf.nn.relu(linear)
        side = depthwise(h)
        up = transposed(h + side * 0.3)
        leaky = tf.nn.leaky_relu(up, 0.1)
        p = last(tf.reshape(leaky, (6, -1)))
        loss = tf.reduce_mean((p - VALUES) ** 2)
    shown = {"conv/linear": linear, "conv": h, "depthwise": side, "transposed": up, "leaky": leaky, "last": p}
    names = ["conv/linear", "conv", "depthwise", "multiply", "add", "transposed", "leaky", "flat", "last"]
    assert list(record.activations) == names
    assert record.outputs == ("last",)
    gradients = tape.gradient(loss, [*shown.values(), *model.trainable_weights])
    for (name, values), cotangent in zip(shown.items(), gradients, strict=False):
        assert worst(record.activations[name], values) < 1e-6, name
        assert worst(record.cotangents[name], cotangent) < 1e-5, name
    for (name, values), gradient in zip(record.gradients.items(), gradients[len(shown) :], strict=True):
        assert worst(values, gradient) < 1e-5, name


@BUILDERS
def test_eagerly_it_shows_the_same_and_forcing_too(build: Callable[[], Any]) -> None:
    model = built(build)
    graph, eager = (adapter.watch(Recipe(model=model), "float64", False) for _ in range(2))
    eager._eager = True
    start, batch = graph.state(), batch_of(build, "float64")
    plain = graph.step(batch)
    assert graph._eager == (build is own_step)
    names = [name for name in plain.activations if name in plain.cotangents and "#" not in name]
    values = {name: plain.activations[name] * 1.25 for name in names[1:2]}
    flowing = {name: plain.cotangents[name] * 1.5 for name in names[:1]}
    forced = Forced(activations=values, cotangents=flowing)
    graph.load(start)
    shown, other = graph.step(batch, forced), eager.step(batch, forced)
    if build is dropping:
        return  # the second mask
    assert list(shown.activations) == list(other.activations) == list(plain.activations)
    for name in shown.activations:
        assert worst(shown.activations[name], other.activations[name]) < 1e-13, name
    for name in shown.cotangents:
        assert worst(shown.cotangents[name], other.cotangents[name]) < 1e-11, name
    for name, gradient in shown.gradients.items():
        assert worst(gradient, other.gradients[name]) < 1e-11 or np.abs(gradient).max() < 1e-15, name


def test_forced_values_are_what_later_layers_read() -> None:
    watched = adapter.watch(Recipe(model=built(mlp)), "float64", False)
    start, batch = watched.state(), batch_of(mlp, "float64")
    own = watched.step(batch)
    watched.load(start)
    other = 1.5 * own.activations["norm"]
    record = watched.step(batch, Forced(activations={"norm": other}))
    for name in ("hidden/linear", "hidden", "norm"):  # its own is recorded
        np.testing.assert_array_equal(record.activations[name], own.activations[name])
    z = other @ start.values["last/kernel"] + start.values["last/bias"]
    assert worst(record.activations["last/linear"], z) < 1e-14
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    dz = (p - np.eye(3)[CLASSES]) / 6
    assert worst(record.cotangents["last/linear"], dz) < 1e-13
    assert worst(record.gradients["last/kernel"], other.T @ dz) < 1e-13
    assert worst(record.cotangents["norm"], dz @ start.values["last/kernel"].T) < 1e-13


def test_forced_cotangents_flow_on_and_gradients_reach_the_optimizer() -> None:
    watched = adapter.watch(Recipe(model=built(mlp)), "float64", False)
    start, batch = watched.state(), batch_of(mlp, "float64")
    own = watched.step(batch)
    watched.load(start)
    record = watched.step(batch, Forced(cotangents={"hidden": 3 * own.cotangents["hidden"]}))
    np.testing.assert_array_equal(record.cotangents["hidden"], own.cotangents["hidden"])
    assert worst(record.gradients["hidden/bias"], 3 * own.gradients["hidden/bias"]) < 1e-14
    np.testing.assert_array_equal(record.gradients["norm/gamma"], own.gradients["norm/gamma"])
    watched.load(start)
    record = watched.step(batch, Forced(gradients={"last/bias": np.zeros(3)}))
    np.testing.assert_array_equal(record.after.values["last/bias"], start.values["last/bias"])
    assert np.abs(record.gradients["last/bias"]).max() > 0


def test_a_wrong_shape_is_not_forced() -> None:
    watched = adapter.watch(Recipe(model=built(mlp)), "float64", False)
    with pytest.raises(HarnessError, match=r"shape \(6, 8\) cannot be forced to \(2, 2\)"):
        _ = watched.step(batch_of(mlp, "float64"), Forced(activations={"hidden": np.zeros((2, 2))}))


def test_a_pull_back_is_the_outputs_jacobian_and_changes_nothing() -> None:
    watched = adapter.watch(Recipe(model=built(mlp)), "float64", True)
    start = watched.state()
    weights = np.zeros((6, 3))
    weights[:, 1] = 1
    record = watched.pull_back(batch_of(mlp, "float64"), {"last": weights})
    p = record.activations["last"]
    dz = p * (weights - (p * weights).sum(-1, keepdims=True))
    assert worst(record.cotangents["last/linear"], dz) < 1e-13
    assert worst(record.gradients["last/bias"], dz.sum(0)) < 1e-12
    assert record.loss is None
    assert record.after is None
    for name, values in watched.state().values.items():
        np.testing.assert_array_equal(values, start.values[name])


def test_inference_is_predict() -> None:
    model = built(mlp)
    record = adapter.watch(Recipe(model=model), "float32", True).step(batch_of(mlp, "float32"))
    assert worst(record.activations["last"], model.predict(FEATURES, verbose=0)) < 1e-6
    assert (record.loss, record.after, record.cotangents) == (None, None, {})


@BUILDERS
def test_a_state_is_loaded_bit_for_bit(build: Callable[[], Any]) -> None:
    watched = adapter.watch(Recipe(model=built(build)), "float32", False)
    _ = watched.step(batch_of(build, "float32"))
    start = watched.state()
    first = watched.step(batch_of(build, "float32", 1)).after
    watched.load(start)
    again = watched.state()
    for slot, owned in {"": start.values, **start.slots}.items():
        found = again.values if slot == "" else again.slots[slot]
        assert owned.keys() == found.keys()
        assert all(np.array_equal(owned[name], found[name]) for name in owned), slot
    assert again.count == start.count == 1
    second = watched.step(batch_of(build, "float32", 1)).after
    if build is not dropping:
        assert all(np.array_equal(first.values[name], second.values[name]) for name in first.values)


def test_slots_are_in_torchs_units() -> None:
    model = built(mlp)
    recipe = Recipe(model=model, optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    watched = adapter.watch(recipe, "float64", False)
    first, second = (watched.step(batch_of(mlp, "float64", step)) for step in range(2))
    v1 = first.gradients["last/kernel"]
    assert worst(first.after.slots["velocity"]["last/kernel"], v1) < 1e-14
    assert worst(second.after.slots["velocity"]["last/kernel"], 0.9 * v1 + second.gradients["last/kernel"]) < 1e-14


def test_an_optimizers_progress_is_kept() -> None:
    model = built(mlp)
    for _ in range(3):
        _ = model.train_on_batch(FEATURES, CLASSES)
    state = adapter.watch(Recipe(model=model), "float64", False).state()
    assert state.count == 3
    np.testing.assert_array_equal(
        state.slots["m"]["last/bias"], model.optimizer._momentums[-1].numpy().astype(np.float64)
    )


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01), SGD),
        (lambda: keras.optimizers.Adagrad(0.1), Adagrad),
        (lambda: keras.optimizers.RMSprop(0.1, rho=0.8), RMSprop),
        (lambda: keras.optimizers.Adam(0.1), Adam),
        (lambda: keras.optimizers.AdamW(0.1), Adam),
        (lambda: keras.optimizers.Adam(0.1, amsgrad=True), Adam),
        (lambda: keras.optimizers.SGD(0.1, clipvalue=0.5), SGD),
        (lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), SGD),
        (lambda: keras.optimizers.Lion(0.1), Lion),
        (lambda: keras.optimizers.Ftrl(0.1), None),
        (lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 5)), SGD),
    ],
)
def test_the_rule_is_the_references(optimizer: Callable[[], Any], kind: type | None) -> None:
    rule = adapter.watch(Recipe(model=built(mlp), optimizer=optimizer()), "float64", False).rule()
    assert type(rule and rule.optimizer) is (kind or type(None))
    assert rule is None or rule.optimizer.learning_rate == 0.1


def test_clipping_is_behind_the_gradients() -> None:
    recipe = Recipe(model=built(mlp), optimizer=keras.optimizers.SGD(1.0, global_clipnorm=1e-3))
    watched = adapter.watch(recipe, "float64", False)
    start, record = watched.state(), watched.step(batch_of(mlp, "float64"))
    norm = np.sqrt(sum((gradient**2).sum() for gradient in record.gradients.values()))
    moved = start.values["last/kernel"] - record.after.values["last/kernel"]
    assert norm > 1e-2
    assert worst(moved, record.gradients["last/kernel"] * 1e-3 / norm) < 1e-9


def test_what_the_optimizer_accumulates_is_shown_summed_and_counted_by_updates() -> None:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    watched = adapter.watch(Recipe(model=built(mlp), optimizer=optimizer), "float64", False)
    start, records, states = watched.state(), [], []
    for step in range(7):
        states.append(watched.state())
        records.append(watched.step(batch_of(mlp, "float64", step)))
    assert [record.after is None for record in records] == [True, True, False, True, True, False, True]
    assert [state.count for state in states] == [0, 0, 0, 1, 1, 1, 2]
    plain = records[0].gradients["last/bias"]
    assert worst(records[1].gradients["last/bias"], 2 * plain) < 1e-13
    assert worst(records[2].gradients["last/bias"], 3 * plain) < 1e-13
    assert worst(start.values["last/bias"] - records[2].after.values["last/bias"], 0.1 * plain) < 1e-13
    for step in (4, 1, 5, 2):  # taken again, out of order
        watched.load(states[step])
        again = watched.step(batch_of(mlp, "float64", step))
        np.testing.assert_array_equal(again.gradients["last/bias"], records[step].gradients["last/bias"])
        assert (again.after is None) == (records[step].after is None)
    watched.load(states[2])
    after = watched.step(batch_of(mlp, "float64", 2), Forced(gradients={"last/bias": 6 * plain})).after
    assert worst(start.values["last/bias"] - after.values["last/bias"], 0.2 * plain) < 1e-13
    with pytest.raises(HarnessError, match=r"twice.*gradient_accumulation_steps.*choose one"):
        _ = adapter.watch(Recipe(model=built(mlp), optimizer=optimizer, accumulate=3), "float64", False)


def test_schedules_and_accumulation() -> None:
    plain = {"model": built(mlp), "optimizer": keras.optimizers.SGD(1.0)}
    watched = adapter.watch(Recipe(**plain, schedule=lambda count: 0.5**count), "float64", False)
    state = watched.state()
    for step in range(3):
        record = watched.step(batch_of(mlp, "float64", step))
        moved = state.values["last/bias"] - record.after.values["last/bias"]
        assert worst(moved, 0.5**step * record.gradients["last/bias"]) < 1e-13
        state = record.after
    watched = adapter.watch(Recipe(**plain, accumulate=2), "float64", False)
    start = watched.state()
    first, second = (watched.step(batch_of(mlp, "float64", step)) for step in range(2))
    assert first.after is None
    np.testing.assert_array_equal(second.gradients["last/bias"], 2 * first.gradients["last/bias"])
    moved = start.values["last/bias"] - second.after.values["last/bias"]
    assert worst(moved, second.gradients["last/bias"]) < 1e-13


def test_sample_weights_and_a_penalty() -> None:
    model = built(mlp)
    weights = np.arange(6.0)
    penalty = Recipe(model=model, penalty=lambda model: tf.reduce_sum(model.weights[-1] ** 2 + 3.0))
    batch = Batch(inputs=(FEATURES.astype(np.float64),), targets=(CLASSES,), weights=weights)
    record = adapter.watch(penalty, "float64", False).step(batch)
    p = record.activations["last"][np.arange(6), CLASSES]
    kernel = model.get_layer("hidden").kernel.numpy().astype(np.float64)
    assert worst(record.loss, (-np.log(p) * weights).mean() + 0.01 * (kernel**2).sum() + 9) < 1e-14


def test_parameters_say_what_they_are() -> None:
    found = {
        p.name: p
        for build in (mlp, words, attention, images)
        for p in adapter.watch(Recipe(model=built(build)), "float32", True).parameters
    }
    kinds = {name: (p.layer, p.op, p.role) for name, p in found.items()}
    assert kinds["hidden/kernel"] == ("hidden", "Dense", "kernel")
    assert kinds["norm/gamma"] in (("norm", "BatchNorm", "gamma"), ("norm", "LayerNorm", "gamma"))
    assert kinds["both/forward_lstm/lstm_cell/kernel"] == ("both", "LSTM", "kernel")
    assert kinds["both/backward_lstm/lstm_cell/bias"] == ("both", "LSTM", "bias_reverse")
    assert kinds["gru/gru_cell/recurrent_kernel"] == ("gru", "GRU", "recurrent_kernel")
    assert kinds["attention/query/kernel"] == ("attention", "MultiHeadAttention", "query_kernel")
    assert kinds["attention/attention_output/bias"] == ("attention", "MultiHeadAttention", "out_bias")
    assert kinds["each/dense/kernel"] == ("each", "Dense", "kernel")
    assert kinds["separable/pointwise_kernel"] == ("separable", "SeparableConv", "kernel")
    assert kinds["transposed/kernel"] == ("transposed", "ConvTranspose", "kernel")
    assert kinds["embedding/embeddings"] == ("embedding", "Embedding", "embeddings")
    assert found["norm/moving_mean"].buffer
    assert not found["norm/moving_mean"].trainable


@BUILDERS
def test_a_parameters_layer_is_shown(build: Callable[[], Any]) -> None:
    watched = adapter.watch(Recipe(model=built(build)), "float32", True)
    record = watched.step(batch_of(build, "float32"))
    assert {p.layer for p in watched.parameters if p.op} <= record.activations.keys()


def test_a_frozen_layer_has_no_gradient() -> None:
    model = built(mlp)
    model.get_layer("hidden").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    watched = adapter.watch(Recipe(model=model), "float32", False)
    record = watched.step(batch_of(mlp, "float32"))
    assert record.gradients["hidden/kernel"] is None
    parameter = next(p for p in watched.parameters if p.name == "hidden/kernel")
    assert (parameter.trainable, parameter.buffer) == (False, False)


def test_a_users_own_step_is_watched() -> None:
    """Traced before, by a call of the user's: that graph holds the user's variables, and must not run."""
    model, optimizer = built(mlp), keras.optimizers.SGD(0.1, momentum=0.9)

    @tf.function
    def train(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    _ = train(tf.constant(FEATURES), tf.constant(CLASSES))
    before = [v.numpy().tobytes() for v in (*model.variables, *optimizer.variables)]
    recipe = Recipe(model=model, optimizer=optimizer, train_step=train)
    record64 = adapter.watch(recipe, "float64", False).step(batch_of(mlp, "float64"))
    record = adapter.watch(recipe, "float32", False).step(batch_of(mlp, "float32"))
    assert [v.numpy().tobytes() for v in (*model.variables, *optimizer.variables)] == before
    assert worst(record.loss, record64.loss) < 1e-6
    loss = train(tf.constant(FEATURES), tf.constant(CLASSES))
    assert float(loss) == pytest.approx(float(record.loss), rel=1e-6)
    for name, variable in recording.Names(model).variables.items():
        assert worst(record.after.values[name], variable.numpy()) < 1e-6, name
    assert worst(record64.cotangents["last/linear"].sum(0), record64.gradients["last/bias"]) < 1e-14


def test_mixed_precision_becomes_the_precision() -> None:
    keras.utils.set_random_seed(0)
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu", dtype=policy)], name="mixed")
    model.add(layers.Dense(3, activation="softmax", dtype="float32"))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)), "sparse_categorical_crossentropy")
    single, double = (adapter.watch(Recipe(model=model), precision, False) for precision in PRECISIONS)
    record32, record64 = single.step(batch_of(mlp, "float32")), double.step(batch_of(mlp, "float64"))
    assert all(values.dtype == np.float32 for values in record32.activations.values())
    assert 1e-6 < worst(record32.loss, record64.loss) < 1e-3
    assert model.layers[0].dtype_policy.name == "mixed_float16"


def test_a_dictionary_of_inputs_and_outputs() -> None:
    a, b = keras.Input((4,), name="zz"), keras.Input((4,), name="aa")
    twice = layers.Dense(3, activation="softmax", name="kind")(layers.Subtract(name="minus")([a, b]))
    model = keras.Model({"zz": a, "aa": b}, {"y": layers.Dense(1, name="number")(a), "c": twice})
    model.compile("sgd", {"y": "mse", "c": "sparse_categorical_crossentropy"})
    record = adapter.watch(Recipe(model=model), "float64", False).step(batch_of(shared, "float64"))
    np.testing.assert_array_equal(record.activations["minus"], FEATURES.astype(np.float64) - OTHERS)
    assert record.outputs == ("number", "kind")
    p, y = record.activations["kind"][np.arange(6), CLASSES], record.activations["number"]
    assert worst(record.loss, ((y - VALUES) ** 2).mean() - np.log(p).mean()) < 1e-14


def test_a_layer_goes_by_its_own_name_not_by_the_operations_in_its_call() -> None:
    pad, flat = layers.ZeroPadding2D(1, name="padded"), layers.Flatten(name="flat")
    model = compiled(keras.Sequential([keras.Input((8, 8, 2)), pad, flat, layers.Dense(1, name="last")]), "sgd", "mse")
    record = adapter.watch(Recipe(model=model), "float32", True).step(batch_of(images, "float32"))
    assert list(record.activations) == ["padded", "flat", "last"]


def test_a_float64_model_is_narrowed() -> None:
    model = keras.Sequential([keras.Input((4,), dtype="float64"), layers.Dense(1, dtype="float64", name="last")])
    watched = adapter.watch(Recipe(model=compiled(model, "sgd", "mse")), "float32", False)
    record = watched.step(batch_of(blocks, "float32"))
    assert {values.dtype for values in (*record.activations.values(), *record.after.values.values())} == {
        np.dtype("f4")
    }


def test_assign_writes_by_name() -> None:
    model = built(mlp)
    adapter.assign(Recipe(model=model), {"last/bias": np.array([1.0, 2.0, 3.0])})
    np.testing.assert_array_equal(model.get_layer("last").bias.numpy(), [1, 2, 3])
    with pytest.raises(HarnessError, match=r"no weight foo; it has hidden/kernel"):
        adapter.assign(Recipe(model=model), {"foo": np.zeros(3)})
    with pytest.raises(HarnessError, match=r"last/bias has shape \(3,\), not \(2,\)"):
        adapter.assign(Recipe(model=model), {"last/bias": np.zeros(2)})


def test_errors_say_what_to_do() -> None:
    with pytest.raises(HarnessError, match=r"no weights yet; call it once on data"):
        _ = adapter.watch(Recipe(model=Blocks()), "float32", False)
    model = built(mlp)
    model.get_layer("last").bias.assign([1, np.nan, 0])
    with pytest.raises(HarnessError, match="weight last/bias of sequential holds NaN"):
        _ = adapter.watch(Recipe(model=model), "float32", False)
    with pytest.raises(HarnessError, match=r"int is no keras\.Model"):
        _ = adapter.watch(Recipe(model=3), "float32", False)


def test_a_model_that_is_frozen_altogether_takes_its_steps() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, trainable=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.ones((8, 4), np.float32), np.ones((8, 3), np.float32)
    before = [np.array(weight) for weight in model.get_weights()]
    result = harness.compare(model, model, x, y, steps=2)
    assert result.verdict == "identical"
    assert all((now == was).all() for now, was in zip(model.get_weights(), before, strict=True))


class Pairs(OwnStep):
    """Takes its data as Keras' guide on customising `fit` does: without weights there are two."""

    def train_step(self, data: Any) -> Any:
        x, _ = data
        return super().train_step((x,))


def test_an_own_train_step_gets_what_fit_gives_it() -> None:
    model = Pairs()
    model(FEATURES[:1])
    compiled(model, keras.optimizers.SGD(0.01), None)
    model.fit(FEATURES, FEATURES, verbose=0)
    data = Batch(inputs=(FEATURES,), targets=(FEATURES,))
    record = adapter.watch(Recipe(model=model), "float64", False).step(data)
    assert record.loss is not None
    assert np.isfinite(record.loss)
