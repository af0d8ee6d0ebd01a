"""Keras's recurrent and attention layers, functions and shapes, as the reference knows them; and whole models."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402 (what comes before may skip the whole file)
from keras import layers, ops  # noqa: E402

from frameworks import keras_models as models  # noqa: E402
from harness.ops import GELU, BatchNorm, Conv, Rectifier  # noqa: E402
from harness.recipe import Batch, Forced, Recipe  # noqa: E402
from tests.keras_blocks import assert_close, assert_reproduces, computed, normal, seen  # noqa: E402

few = settings(deadline=None, derandomize=True, max_examples=6, phases=[Phase.explicit, Phase.generate])
flags = st.booleans()

# --- sequences --------------------------------------------------------------------------------------------------

PADDED = np.where((np.arange(5) < [[3], [5], [1]])[..., None], normal(3, 5, 4), -4.0)


@few
@given(kind=st.sampled_from(["SimpleRNN", "LSTM", "GRU"]), data=st.data())
def test_recurrent_layers(kind: str, data: Any) -> None:
    options = {name: data.draw(flags) for name in ("return_sequences", "go_backwards", "use_bias", "unroll")}
    options |= {"activation": data.draw(st.sampled_from(["tanh", "relu"]))}
    options |= (
        {} if kind == "SimpleRNN" else {"recurrent_activation": data.draw(st.sampled_from(["sigmoid", "hard_sigmoid"]))}
    )
    options |= {"reset_after": data.draw(flags)} if kind == "GRU" else {}
    masked, zero = data.draw(flags), data.draw(flags)
    layer = getattr(layers, kind)(3, zero_output_for_mask=zero, **options)
    block = (lambda x: layer(layers.Masking(-6.0)(x))) if masked else layer
    assert_reproduces(seen(block, PADDED))


def test_initial_states_and_the_states_that_are_handed_on() -> None:
    def block(x: Any, h: Any) -> Any:
        return layers.LSTM(3, return_state=True)(x, initial_state=[h, 2 * h])

    found = seen(block, normal(2, 4, 5), normal(2, 3, seed=1))
    names = [name for name in found.others if name.startswith("lstm")]
    assert [found.others[name].ops[0].returns for name in names] == ["final", "state", "cell"]
    for name in names:
        assert_close(computed(found.others[name])[-1], found.others[name].output)


@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul"])
def test_both_directions(merge: str) -> None:
    found = seen(
        layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode=merge, name="both"), normal(2, 4, 5)
    )
    assert_reproduces(found)
    for call in found.others.values():
        assert_close(computed(call)[-1], call.output)


@few
@given(dropout=st.sampled_from([0.0, 0.2]), bias=flags, causal=flags, masked=flags, scores=flags)
def test_multi_head_attention(dropout: float, bias: bool, causal: bool, masked: bool, scores: bool) -> None:
    def block(x: Any, mask: Any) -> Any:
        layer = layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=6, dropout=dropout, use_bias=bias, name="mha")
        mask = {"attention_mask": mask > 0} if masked else {}
        return layer(x, x, use_causal_mask=causal, return_attention_scores=scores, **mask)

    found = seen(block, normal(2, 5, 4), np.broadcast_to(normal(5, 5) + 3 * np.eye(5), (2, 5, 5)), name="mha")
    assert_reproduces(found)


@pytest.mark.parametrize("kind", [layers.Attention, layers.AdditiveAttention])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(kind: Any, masked: bool) -> None:
    mask = layers.Masking(-6.0) if masked else layers.Identity()
    assert_reproduces(seen(lambda q, v: kind()([q, mask(v)]), normal(3, 2, 4, seed=1), PADDED))


# --- functions and shapes ---------------------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{f"keras.activations.{name}": layers.Activation(getattr(keras.activations, name)) for name in (
        "relu", "leaky_relu", "relu6", "softmax", "elu", "selu", "softplus", "softsign", "soft_shrink", "silu", "gelu",
        "celu", "glu", "tanh", "tanh_shrink", "hard_tanh", "hard_shrink", "sigmoid", "exponential", "hard_sigmoid",
        "log_sigmoid", "sparse_sigmoid", "hard_silu", "mish", "log_softmax",
    )},
    "ReLU": layers.ReLU(max_value=0.8, negative_slope=0.1, threshold=0.2),
    "ELU": layers.ELU(0.7),
    "ops.gelu": lambda x: ops.gelu(x),
    "tf.nn.gelu": lambda x: tf.nn.gelu(x, approximate=True),
    "tf.nn.softmax": lambda x: tf.nn.softmax(x),
    "tf.nn.leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.3),
    "clip": lambda x: ops.clip(x, -0.5, 0.5),
    "maximum": lambda x: tf.maximum(x, 0.0),
    "numbers": lambda x: (1 - 2 * x) / 3 - 1,
    "reciprocal": lambda x: 2 / x,
    "square": lambda x: x**2,
    "sum": lambda x: x + x,
    "product": lambda x: tf.matmul(x, x, transpose_b=True),
    "einsum": lambda x: ops.einsum("bij,bkj->bik", x, x),
    "mean": lambda x: ops.mean(x, axis=1),
    "max": lambda x: ops.max(x, axis=-1, keepdims=True),
    "std": lambda x: ops.std(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "norm": lambda x: ops.norm(x, axis=-1),
    "normalize": lambda x: ops.normalize(x, axis=-1),
    "l2_normalize": lambda x: tf.nn.l2_normalize(x, axis=-1),
    "last": lambda x: x[:, -1],
    "slices": lambda x: x[..., 1:3],
    "concat": lambda x: tf.concat([x, x], 1),
    "heads": lambda x: ops.transpose(ops.reshape(x, (-1, 4, 2, 3)), (0, 2, 1, 3)),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 0]], mode="reflect"),
    "split": lambda x: tf.split(x, 2, axis=-1)[1],
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "take": lambda x: ops.take(x, np.array([0, 2]), axis=1),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_users_call(name: str) -> None:
    function = FUNCTIONS[name]
    block = function if isinstance(function, layers.Layer) else layers.Lambda(function)
    assert_reproduces(seen(block, normal(3, 4, 6)))


LAYERS = [
    *(getattr(layers, f"{kind}Pooling{n}D")(size, padding=padding)
      for kind in ("Max", "Average") for n, size, padding in ((1, 3, "same"), (2, 2, "valid"), (3, 2, "same"))),
    *(getattr(layers, f"Global{kind}Pooling{n}D")(keepdims=n == 2) for kind in ("Max", "Average") for n in (1, 2, 3)),
    *(getattr(layers, f"Adaptive{kind}Pooling2D")((3, 2)) for kind in ("Max", "Average")),
    *(getattr(layers, f"{kind}{n}D")(2) for kind in ("UpSampling", "ZeroPadding") for n in (1, 2, 3)),
    *(getattr(layers, f"Cropping{n}D")(1) for n in (1, 2, 3)),
    layers.Resizing(3, 7, interpolation="nearest"),
    *(layers.Flatten(), layers.Reshape((-1, 2)), layers.Permute((2, 1)), layers.Permute((3, 1, 2))),
    *(layers.RepeatVector(3), layers.Softmax([1, 2]), layers.Rescaling(0.5, 0.1)),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_layers_without_weights(layer: Any) -> None:
    rank = getattr(layer.input_spec, "ndim", None) or {"resizing": 4}.get(layer.name, 4)
    assert_reproduces(seen(layer, normal(2, *{2: (4,), 3: (8, 4), 4: (6, 8, 4), 5: (4, 5, 6, 2)}[rank])))


@pytest.mark.parametrize("kind", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])
def test_merging(kind: str) -> None:
    merge = getattr(layers, kind)()
    assert_reproduces(seen(lambda a, b: merge([a, b]), normal(2, 3, 4, 2), normal(2, 3, 4, 2, seed=1)))


def test_dot() -> None:
    assert_reproduces(seen(lambda a, b: layers.Dot((2, 1))([a, b]), normal(2, 3, 4), normal(2, 4, 2, seed=1)))


# --- models -----------------------------------------------------------------------------------------------------


class Written(keras.Model):
    """Functions and operators between layers, one that no reader knows, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = layers.Conv2D(4, 3, padding="same", name="conv"), layers.BatchNormalization(name="norm")
        self.drop, self.flat = layers.Dropout(0.5, name="drop"), layers.Flatten(name="flat")
        self.last = layers.Dense(3, activation="gelu", name="last")

    def call(self, x: Any, training: bool = False) -> Any:
        h = self.norm(ops.relu(self.conv(x)), training=training)
        h = self.flat(self.drop(keras.activations.sparsemax(h), training=training))
        return self.last(0.5 * h + 1)


def written_model(training: bool = True) -> tuple[Any, Batch]:
    keras.utils.set_random_seed(0)
    model, x = Written(), normal(2, 4, 5, 2)
    model(x.astype(np.float32))
    watched = models.watch(Recipe(model=model, training=training), "float64", False)
    watched._eager = True
    return watched, Batch(inputs=(x,))


def test_every_activation_of_a_model_has_its_call_and_the_state_stays() -> None:
    watched, batch = written_model()
    names = list(watched.pull_back(batch, {}).activations)
    state = watched.state()
    calls, again = watched.calls(batch, names), watched.calls(batch, names)
    assert [name for name in calls if "@" not in name] == names
    for name, call in calls.items():
        assert np.array_equal(call.output, again[name].output)  # the same dropout
        if call.ops:
            assert_close(computed(call)[-1], call.output)
    for name, value in watched.state().values.items():
        assert np.array_equal(value, state.values[name])
    assert [type(op) for op in calls["conv"].ops] == [Conv]
    assert [type(op) for op in calls["norm"].ops] == [BatchNorm]
    assert [type(op) for op in calls["norm/input"].ops] == [Rectifier]
    assert [type(op) for op in calls["drop/input"].ops] == [Rectifier]  # the last step of sparsemax
    assert any(name.startswith("drop/input@") for name in calls)
    assert [type(op).__name__ for op in calls["last/input"].ops] == ["Scale", "Scale"]
    assert calls["last"].ops == (GELU(form="erf", scale=math.sqrt(0.5), cubic=0.0),)
    assert calls["norm"].names == (("norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"),)


def test_forced_values_are_what_calls_read() -> None:
    watched, batch = written_model(training=False)
    own = watched.pull_back(batch, {}).activations
    forced = Forced(activations={"conv": 2 * own["conv"]})
    call = watched.calls(batch, ["norm/input"], forced)["norm/input"]
    assert_close(call.output, np.maximum(2 * np.moveaxis(own["conv"], -1, 1), 0))


def test_a_layer_of_the_users_own_is_read_by_its_functions() -> None:
    class Mine(layers.Dense):
        def call(self, inputs: Any, training: Any = None) -> Any:
            return ops.multiply(2, super().call(inputs))

    call = seen(Mine(3), normal(2, 4)).call
    assert call.kind == "Mine"
    assert [type(op).__name__ for op in call.ops] == ["Scale"]
    assert [value.shape for value in call.inputs] == [(2, 3)]


# --- advice -----------------------------------------------------------------------------------------------------


def test_ops_as_keras_writes_them() -> None:
    calls = {kind: seen(layer, normal(2, *shape)).call.ops[0] for kind, layer, shape in (
        ("batch", layers.BatchNormalization(epsilon=1e-5, momentum=0.9), (5, 4)),
        ("conv", layers.Conv2D(3, 3, strides=2, padding="same"), (6, 6, 2)),
        ("lstm", layers.LSTM(3, return_sequences=True), (5, 4)),
        ("relu", layers.ReLU(6.0), (4,)),
        ("flat", layers.Flatten(), (3, 4, 2)),
    )}  # fmt: skip
    wanted = {
        "batch": (("epsilon", "momentum"), "layers.BatchNormalization(epsilon=1e-05, momentum=0.9)"),
        "conv": (("padding", "stride"), "layers.ZeroPadding2D(((0, 1), (0, 1))) then layers.Conv2D(strides=2)"),
        "lstm": (
            ("returns", "recurrent_activation"),
            'layers.LSTM(return_sequences=True, recurrent_activation="sigmoid")',
        ),
        "relu": (("maximum",), "layers.ReLU(max_value=6.0)"),
        "flat": (("order",), "layers.Flatten()"),
    }
    for kind, (fields, text) in wanted.items():
        assert models.written(calls[kind], fields) == text
    assert models.written(calls["batch"], ["moving_variance"]) == ""
