"""Every Keras layer with weights, as the reference knows it: outputs and gradients agree in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402 (what comes before may skip the whole file)

from frameworks import keras_models as models  # noqa: E402
from harness.recipe import Batch, Recipe  # noqa: E402
from tests.keras_blocks import assert_close, assert_reproduces, computed, normal, seen  # noqa: E402

few = settings(deadline=None, derandomize=True, max_examples=5, phases=[Phase.explicit, Phase.generate])
flags = st.booleans()
whole = st.integers(1, 3)

# --- products ---------------------------------------------------------------------------------------------------


@few
@given(rank=st.integers(1, 3), units=whole, bias=flags, activation=st.sampled_from([None, "relu", "tanh"]))
def test_dense(rank: int, units: int, bias: bool, activation: str | None) -> None:
    found = seen(layers.Dense(units, use_bias=bias, activation=activation, name="dense"), normal(3, *(4, 2, 5)[-rank:]))
    assert_reproduces(found)
    if activation:  # the product by itself, then the function that reads it
        linear, function = found.others["dense/linear"], found.others["dense"]
        assert linear.kind == "Dense"
        assert function.kind == activation
        assert (
            np.array_equal(function.inputs[0], linear.canonical(found.record.activations["dense/linear"])) or rank == 3
        )
        assert_close(computed(linear)[-1], linear.output)
    names = ("dense/kernel", "dense/bias")[: 1 + bias]
    assert found.others["dense/linear" if activation else "dense"].names == (names,)


@pytest.mark.parametrize(
    ("equation", "output", "bias"),
    [("abc,cd->abd", (None, 3), "d"), ("abc,cde->abde", (None, 3, 2), "de"), ("abc,bcd->abd", (4, 3), None)],
)
def test_einsum_dense(equation: str, output: Any, bias: str | None) -> None:
    found = seen(layers.EinsumDense(equation, output_shape=output, bias_axes=bias), normal(2, 4, 5))
    assert_reproduces(found)


def test_embedding_and_dense_for_every_step() -> None:
    assert_reproduces(seen(layers.Embedding(5, 3), np.random.default_rng(0).integers(0, 5, (3, 4)).astype("int32")))
    assert_reproduces(seen(layers.TimeDistributed(layers.Dense(3, activation="relu")), normal(2, 4, 5)))


# --- convolutions -----------------------------------------------------------------------------------------------

LENGTHS = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}


def strides(draw: Any) -> dict[str, Any]:
    if draw(flags):
        return {"dilation_rate": draw(st.integers(1, 2))}
    return {"strides": draw(whole)}


@few
@given(data=st.data())
def test_convolutions(data: Any) -> None:
    rank = data.draw(st.integers(1, 3))
    paddings = ["same", "valid", "causal"] if rank == 1 else ["same", "valid"]
    options = {"padding": data.draw(st.sampled_from(paddings)), "use_bias": data.draw(flags)}
    layer = getattr(layers, f"Conv{rank}D")(4, data.draw(st.integers(1, 3)), **options, **strides(data.draw))
    assert_reproduces(seen(layer, normal(2, *LENGTHS[rank], 4)))


@few
@given(data=st.data())
def test_convolutions_by_channel(data: Any) -> None:
    rank, options = data.draw(st.integers(1, 2)), {"padding": data.draw(st.sampled_from(["same", "valid"]))}
    options |= {"depth_multiplier": data.draw(st.integers(1, 2)), "use_bias": data.draw(flags)}
    options |= strides(data.draw)
    depthwise = getattr(layers, f"DepthwiseConv{rank}D")(3, **options)
    separable = getattr(layers, f"SeparableConv{rank}D")(4, 3, **options)
    assert_reproduces(seen(depthwise, normal(2, *LENGTHS[rank], 3)))
    assert_reproduces(seen(separable, normal(2, *LENGTHS[rank], 3)))


@few
@given(data=st.data())
def test_transposed_convolutions(data: Any) -> None:
    rank, stride, padding = data.draw(whole), data.draw(whole), data.draw(st.sampled_from(["same", "valid"]))
    more = data.draw(st.sampled_from([None, *range(stride)]))
    layer = getattr(layers, f"Conv{rank}DTranspose")(
        2, data.draw(st.integers(2, 4)), strides=stride, padding=padding, output_padding=more
    )
    assert_reproduces(seen(layer, normal(2, *(4, 3, 3)[:rank], 3)))


@pytest.mark.parametrize("options", [{"groups": 2}, {"data_format": "channels_first"}])
def test_what_takes_xlas_kernels(options: Any) -> None:
    """A width that is no number of channels, for else Keras 3.15 adds a bias along the width (ops.add)."""
    model = keras.Sequential(
        [keras.Input((2, 7, 6)[:: -1 if "groups" in options else 1]), layers.Conv2D(4, 3, **options)]
    )
    watched, batch = (
        models.watch(Recipe(model=model), "float64", True),
        Batch(inputs=(normal(2, *model.input_shape[1:]),)),
    )
    names = list(watched.step(batch).activations)
    call = watched.calls(batch, names)[names[0]]
    assert_close(computed(call)[-1], call.canonical(watched.step(batch).activations[names[0]]))


# --- normalisation ----------------------------------------------------------------------------------------------


@few
@given(data=st.data())
def test_normalisation(data: Any) -> None:
    shape = data.draw(st.sampled_from([(4,), (5, 4), (3, 5, 4)]))
    x, options = normal(3, *shape), {"epsilon": data.draw(st.floats(1e-6, 0.5))}
    scaled = {"scale": data.draw(flags), "center": data.draw(flags)}
    axes = data.draw(st.sampled_from([[-1], [1], list(range(1, len(shape) + 1))]))
    assert_reproduces(seen(layers.LayerNormalization(axes, **options, **scaled), x))
    if axes != [1]:
        assert_reproduces(seen(layers.RMSNormalization(axes, **options), x))
    assert_reproduces(seen(layers.UnitNormalization(axes), x))
    if len(shape) > 1:
        assert_reproduces(
            seen(layers.GroupNormalization(data.draw(st.sampled_from([1, 2, -1])), **options, **scaled), x)
        )
    training, axis = data.draw(flags), data.draw(st.sampled_from([-1, 1]))
    norm = layers.BatchNormalization(axis, momentum=0.7, **options, **scaled)
    found = seen(norm, x, training=training)
    assert_reproduces(found)
    assert found.call.ops[0].momentum == 0.7
    assert found.call.ops[0].training is training


def test_masked_batch_normalisation() -> None:
    x = np.where((np.arange(5) < [[3], [5], [1]])[..., None], normal(3, 5, 4), -4.0)  # times 1.5 it is the mask's value
    found = seen(lambda x: layers.BatchNormalization()(layers.Masking(-6.0)(x)), x, training=True)
    assert found.call.ops[0].masked
    assert_reproduces(found)


# --- the rest ---------------------------------------------------------------------------------------------------


def test_dropout_keeps_what_it_kept() -> None:
    for layer in (layers.Dropout(0.4), layers.SpatialDropout1D(0.4)):
        x = np.maximum(normal(3, 5, 4), 0)  # a 0 tells nothing of the mask
        found = seen(layer, x, training=True)
        assert found.call.inputs[1].dtype == bool
        assert not found.call.inputs[1].all()
        assert_reproduces(found)


@pytest.mark.parametrize("shared", [None, [1], [1, 2]])
def test_prelu(shared: Any) -> None:
    x = np.round(normal(3, 4, 5, 2))  # with zeros: the slope there is 0
    assert_reproduces(seen(layers.PReLU(shared_axes=shared), x))


PLANTED: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "stride": (layers.Conv2D(3, 3, strides=2), (7, 7, 2), {"stride": (1, 2)}),
    "padding": (layers.Conv2D(3, 3, strides=2, padding="same"), (6, 6, 2), {"padding": ((1, 0), (1, 0))}),
    "kernel axes": (layers.Conv2D(3, 3), (5, 5, 2), {"kernel_axes": (0, 1, 3, 2)}),
    "flip": (layers.Conv2DTranspose(3, 3), (4, 4, 2), {"flip": True}),
    "epsilon": (layers.BatchNormalization(), (5, 5, 2), {"epsilon": 1e-5}),
    "layer norm": (layers.LayerNormalization(), (5, 4), {"axes": (1,)}),
    "groups": (layers.GroupNormalization(2), (5, 4), {"groups": 4}),
    "count": (layers.AveragePooling2D(2, padding="same"), (5, 5, 2), {"count_include_pad": True}),
    "gates": (layers.LSTM(4), (5, 3), {"gates": "figo"}),
    "reset": (layers.GRU(4), (5, 3), {"reset_after": False}),
    "slope": (layers.LeakyReLU(), (4,), {"negative_slope": 0.2}),
    "flatten": (layers.Flatten(), (4, 5, 2), {"order": (0, 1, 2)}),
    "softmax": (layers.Softmax(), (4, 5), {"axes": (1,)}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_an_edited_field_is_seen(name: str) -> None:
    layer, shape, fields = PLANTED[name]
    call = seen(layer, normal(3, *shape)).call
    assert_close(computed(call)[-1], call.output)
    wrong = computed(replace(call, ops=(replace(call.ops[0], **fields), *call.ops[1:])))[-1]
    assert wrong.shape != call.output.shape or np.abs(wrong - call.output).max() > 1e-6
