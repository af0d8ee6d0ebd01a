"""What the layers of a user's Keras model are given, where the user's own call computed it in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.case import PRECISIONS, Precision
from harness.recipe import Batch, Forced, Recipe

keras = pytest.importorskip("keras")
adapter = pytest.importorskip("frameworks.keras_models")

layers, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 4))
NAMES = ["m1", "m2/input", "m2", "m2#2/input", "m2#2", "both/input.1", "both"]


class Between(keras.Model):
    """Functions between layers, one of them called twice, and one given two tensors, the first a layer's own."""

    def __init__(self, dtype: Any = None) -> None:
        super().__init__(dtype=dtype)
        self.m1, self.m2 = layers.Dense(4, name="m1", dtype=dtype), layers.Dense(4, name="m2", dtype=dtype)
        self.both = layers.Add(name="both", dtype=dtype)

    def call(self, x: Any) -> Any:
        h = self.m2(ops.gelu(self.m1(x)))
        return self.both([self.m2(ops.tanh(h)), h * 3])


class Block(layers.Layer):
    """A layer below it is called `input`."""

    def __init__(self) -> None:
        super().__init__(name="block")
        self.first = layers.Dense(4, name="input")

    def build(self, shape: Any) -> None:
        self.first.build(shape)

    def call(self, x: Any) -> Any:
        return ops.relu(self.first(x))


def between(dtype: Any = None) -> Any:
    keras.utils.set_random_seed(0)
    model = Between(dtype)
    model(X.astype(np.float32))
    model.compile("sgd", "mse")
    return model


def watched(model: Any, precision: Precision = "float64", eager: bool = False) -> Any:
    watch = adapter.watch(Recipe(model=model), precision, False)
    watch._eager = eager
    return watch


def batch(precision: Precision = "float64") -> Batch:
    return Batch(inputs=(X.astype(precision),), targets=(Y.astype(precision),))


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_inputs_that_no_layer_put_out_are_shown(precision: Precision, eager: bool) -> None:
    record = watched(between(), precision, eager).step(batch(precision))
    assert list(record.activations) == list(record.cotangents) == NAMES
    assert record.outputs == ("both",)
    h = record.activations["m2"]
    assert np.abs(record.activations["m2#2/input"] - np.tanh(h)).max() < 1e-6
    assert np.array_equal(record.activations["both/input.1"], h * 3)
    assert np.array_equal(record.cotangents["both/input.1"], record.cotangents["both"])


def test_forced_inputs_are_what_the_layer_reads() -> None:
    watch = watched(between())
    start, own = watch.state(), watch.step(batch())
    watch.load(start)
    value, cotangent = 1.5 * own.activations["m2/input"], 2 * own.cotangents["m2/input"]
    record = watch.step(batch(), Forced(activations={"m2/input": value}))
    assert np.array_equal(record.activations["m2/input"], own.activations["m2/input"])
    expected = value @ start.values["m2/kernel"] + start.values["m2/bias"]
    assert np.abs(record.activations["m2"] - expected).max() < 1e-14
    watch.load(start)
    record = watch.step(batch(), Forced(cotangents={"m2/input": cotangent}))
    assert np.array_equal(record.cotangents["m2/input"], own.cotangents["m2/input"])
    assert np.abs(record.cotangents["m1"] - 2 * own.cotangents["m1"]).max() < 1e-15
    assert np.array_equal(record.gradients["m2/kernel"], own.gradients["m2/kernel"])


def test_a_wrong_function_is_not_its_layers() -> None:
    """The planted failure: the other gelu differs in what `m2` is given; fed alike, `m2` itself agrees."""

    class Exact(Between):
        def call(self, x: Any) -> Any:
            h = self.m2(ops.gelu(self.m1(x), approximate=False))
            return self.both([self.m2(ops.tanh(h)), h * 3])

    model, wrong = between(), Exact()
    wrong(X.astype(np.float32))
    wrong.set_weights(model.get_weights())
    wrong.compile("sgd", "mse")
    right = watched(model).step(batch())
    fed = watched(wrong).step(batch(), Forced(activations=right.activations))
    differs = {name: not np.allclose(fed.activations[name], right.activations[name], rtol=1e-13) for name in NAMES}
    assert [name for name in NAMES if differs[name]] == ["m2/input"]


def test_an_autocast_is_no_value_of_its_own() -> None:
    """In mixed precision a layer's input is cast before its call: nothing new to show, nor in float64."""
    x = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep", dtype="mixed_bfloat16")], name="inner")
    model = keras.Model(x, inner(layers.Dense(4, name="first", dtype="float32")(x)))
    model.compile("sgd", "mse")
    for precision in PRECISIONS:
        assert list(watched(model, precision).step(batch(precision)).activations) == ["first", "inner/deep"]
    model = between(keras.DTypePolicy("mixed_bfloat16"))
    for precision in PRECISIONS:
        assert list(watched(model, precision).step(batch(precision)).activations) == NAMES


def test_a_layer_named_input_keeps_its_name() -> None:
    class Outer(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def call(self, x: Any) -> Any:
            return self.block(x * 2)

    model = Outer()
    model(X.astype(np.float32))
    model.compile("sgd", "mse")
    record = watched(model).step(batch())
    assert list(record.activations) == ["block/input()", "block/input", "block"]
    assert np.array_equal(record.activations["block/input()"], X * 2)


def test_a_functional_models_own_operations_are_shown_under_their_names() -> None:
    keras.backend.clear_session()  # Keras numbers the operations of all models together
    x = keras.Input((4,))
    h = ops.gelu(layers.Dense(4, name="first")(x)) * 2
    model = keras.Model(x, layers.Dense(4, name="last")(ops.concatenate([h, ops.tanh(h)], axis=-1)))
    model.compile("sgd", "mse")
    names = list(watched(model).step(batch()).activations)
    assert names == ["first", "gelu", "multiply", "tanh", "concatenate", "last"]
