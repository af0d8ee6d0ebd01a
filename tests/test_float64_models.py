"""Models that the user stores in float64 are compared as they are; what float32 holds is told from what it rounded."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness

needs = {
    name: pytest.mark.skipif(name not in registry.installed(), reason=registry.pip_line(name))
    for name in ("pytorch", "keras", "jax")
}
pytestmark = needs["pytorch"]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = np.arange(12) % 3


def net(dtype: str, off: float = 0.0) -> Any:
    """off: of one weight of the second layer, relative."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    model: Any = nn.Sequential(*layers).to(getattr(torch, dtype))
    with torch.no_grad():
        model[2].weight[3, 4] *= 1 + off
    return model


def trained(model: Any) -> Any:
    import torch

    return harness.side(model, loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), 0.1))


def keras_net(model: Any, dtype: str) -> Any:
    """The torch model in Keras."""
    import keras

    kinds = [(8, "tanh"), (8, "tanh"), (3, None)]
    dense = [keras.layers.Dense(units, activation=activation, dtype=dtype) for units, activation in kinds]
    found = keras.Sequential([keras.Input((6,), dtype=dtype), *dense])
    for layer, of in zip(dense, (model[0], model[2], model[4]), strict=True):
        layer.set_weights([of.weight.detach().numpy().T, of.bias.detach().numpy()])
    return found


def jax_net(model: Any) -> Any:
    """The torch model in JAX, in its dtype."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        params = [
            {"w": jnp.asarray(of.weight.detach().numpy().T), "b": jnp.asarray(of.bias.detach().numpy())}
            for of in (model[0], model[2], model[4])
        ]

    def apply(p: Any, x: Any) -> Any:
        for layer in p[:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return x @ p[-1]["w"] + p[-1]["b"]

    return harness.side(apply, params=params)


def off_in_the_second_layer(dtype: str, off: float, first: bool) -> harness.Comparison:
    """first: on the first side. Asserts that it is found there."""
    pair = net(dtype, off if first else 0.0), net(dtype, 0.0 if first else off)
    result = harness.compare(trained(pair[0]), trained(pair[1]), X, Y, steps=2)
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place == "forward:2"
    return result


# --- float64 on both sides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [1e-12, 1e-9, 1e-7, 1e-5])
@pytest.mark.parametrize("first", [True, False])
def test_a_weight_that_is_off_is_found_whatever_float32_holds_of_it(off: float, first: bool) -> None:
    result = off_in_the_second_layer("float64", off, first)
    assert result.causes[0].id == "weights-not-transferred"
    assert any("2.weight" in note for note in result.notes)


def test_the_same_float64_weights_are_identical() -> None:
    model = net("float64")
    model[0].weight.data *= 1 / 3  # of no float32
    assert harness.compare(trained(model), trained(copy.deepcopy(model)), X, Y, steps=2).verdict == "identical"


@needs["keras"]
@pytest.mark.parametrize("off", [0.0, 1e-9])
def test_across_frameworks_keras(off: float) -> None:
    pair = net("float64", 1e-10), keras_net(net("float64", 1e-10 + off), "float64")
    assert harness.compare(pair[0], pair[1], X, steps=0).verdict == ("different" if off else "rounding")


@needs["jax"]
@pytest.mark.parametrize("off", [0.0, 1e-9])
def test_across_frameworks_jax(off: float) -> None:
    pair = net("float64", 1e-10), jax_net(net("float64", 1e-10 + off))
    assert harness.compare(pair[0], pair[1], X, steps=0).verdict == ("different" if off else "rounding")


@pytest.mark.parametrize("swapped", [False, True])
def test_beside_a_float32_side_float64_is_what_float32_holds_of_it(swapped: bool) -> None:
    model = net("float64")
    model[0].weight.data *= 1 / 3
    pair = [trained(model), trained(copy.deepcopy(model).float())]
    assert harness.compare(pair[swapped], pair[not swapped], X, Y, steps=2).verdict in ("identical", "rounding")


@needs["jax"]
def test_numpys_float64_is_float32_to_jax() -> None:
    model = net("float64", 1e-10)
    of_jax = jax_net(model)
    params = [{name: np.asarray(value) for name, value in layer.items()} for layer in of_jax.params]
    assert harness.compare(model, harness.side(of_jax.model, params=params), X, steps=0).verdict == "rounding"


# --- float32 on both sides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [3e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("first", [True, False])
def test_one_float32_weight_that_is_off_by_more_than_roundings_is_found(off: float, first: bool) -> None:
    _ = off_in_the_second_layer("float32", off, first)


def test_weights_that_all_are_off_are_found() -> None:
    model, other = net("float32"), net("float32")
    other[2].weight.data *= 1 + 1e-5
    assert harness.compare(trained(model), trained(other), X, Y, steps=2).verdict == "different"


@pytest.mark.parametrize("factor", [3.0, 7.0, 10.0])
def test_weights_that_were_computed_in_float32_are_rounding(factor: float) -> None:
    model, other = net("float32"), net("float32")
    other[2].weight.data = other[2].weight.data * factor / factor * factor / factor
    assert not (other[2].weight == model[2].weight).all()
    assert harness.compare(trained(model), trained(other), X, Y, steps=2).verdict == "rounding"
