"""Outputs are compared as they are returned: what only moves their numbers about is a difference, a layout is none."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import keras
import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness.case import HarnessError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 4, 6)).astype(np.float32)
IMAGES = RNG.standard_normal((4, 3, 6, 6)).astype(np.float32)


class Net(nn.Module):
    """A layer, a tanh, and what is made of its output."""

    def __init__(self, last: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = nn.Linear(6, 6), last

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(torch.tanh(self.layer(x)))


def as_it_is(out: torch.Tensor) -> torch.Tensor:
    return out


MOVED: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "reversed": (as_it_is, lambda out: out.flip(-1), "forward:flip"),
    "rolled": (as_it_is, lambda out: out.roll(1, 1), "forward:roll"),
    "examples reversed": (as_it_is, lambda out: out.flip(0), "forward:flip"),
    "sorted": (as_it_is, lambda out: out.sort(-1).values, "forward:sort"),
    "turned": (lambda out: out.reshape(-1, 6, 4), lambda out: out.transpose(1, 2), "forward:transpose"),
    "halves exchanged": (lambda out: out.chunk(2, -1), lambda out: out.chunk(2, -1)[::-1], "forward:chunk.1"),
    "outputs exchanged": (lambda out: (out, 2 * out), lambda out: (2 * out, out), "forward:mul"),
}


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", MOVED)
def test_numbers_moved_about_in_an_output_are_a_difference(name: str, steps: int) -> None:
    one, other, place = MOVED[name]
    result = harness.compare(Net(one), Net(other), X, steps=steps)
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.candidate_place == place
    assert harness.compare(Net(other), Net(other), X, steps=steps).verdict == "identical"


@pytest.mark.parametrize("last", [lambda out: out.clone().contiguous(), lambda out: out.unsqueeze(-1)])
def test_the_same_numbers_in_the_same_order_are_the_same_output(last: Callable[..., Any]) -> None:
    assert harness.compare(Net(as_it_is), Net(last), X, steps=1).verdict in ("identical", "rounding")


def test_a_loss_tells_whether_the_order_of_the_outputs_matters() -> None:
    def side(last: Callable[..., Any], loss: Callable[..., Any]) -> Any:
        return harness.side(Net(last), loss=loss)

    mse = nn.functional.mse_loss
    clean = harness.compare(side(as_it_is, mse), side(lambda o: o.flip(-1), lambda o, y: mse(o.flip(-1), y)), X, X)
    assert clean.verdict in ("identical", "rounding")
    planted = harness.compare(side(as_it_is, mse), side(lambda o: o.flip(-1), mse), X, X)
    assert planted.first is not None
    assert planted.first.candidate_place == "forward:flip"


def images(kind: str) -> tuple[Any, Any]:
    """Convolutions to as many channels as there are rows and columns, so that no shape tells them apart."""
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
    inputs = keras.Input((6, 6, 3))
    first, last = (
        keras.layers.Conv2D(6, 3, padding="same", activation="relu"),
        keras.layers.Conv2D(6, 3, padding="same"),
    )
    out = last(first(inputs))
    ops: Any = keras.ops
    moved = {
        "channels last": lambda: out,
        "channels first": lambda: ops.transpose(out, (0, 3, 1, 2)),
        "turned": lambda: ops.transpose(out, (0, 2, 1, 3)),
        "columns first": lambda: ops.transpose(out, (0, 3, 2, 1)),
        "reversed": lambda: ops.flip(out, -1),
    }[kind]()
    model = keras.Model(inputs, moved)
    for layer, conv in ((first, net[0]), (last, net[2])):
        layer.set_weights([conv.weight.detach().numpy().transpose(2, 3, 1, 0), conv.bias.detach().numpy()])
    return net, model


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        ("channels last", True),
        ("channels first", True),
        ("turned", False),
        ("columns first", False),
        ("reversed", False),
    ],
)
def test_channels_may_come_first_or_last(kind: str, same: bool) -> None:
    result = harness.compare(*images(kind), (IMAGES, IMAGES.transpose(0, 2, 3, 1)), steps=0)
    assert (result.verdict in ("identical", "rounding")) is same


UNLIKE: dict[str, tuple[Callable[..., Any], Callable[..., Any], str, str]] = {
    "one more": (lambda out: (out, out.mean(1)), as_it_is, "undecided", "has no counterpart"),
    "none": (as_it_is, lambda out: None, "undecided", "has no counterpart"),
    "nothing": (lambda out: None, lambda out: None, "undecided", "neither model returns numbers"),
    "integers": (
        lambda out: out.argmax(-1),
        lambda out: out.argmin(-1),
        "different",
        "output of integers 0 differs in",
    ),
    "integers too": (lambda o: (o, o.argmax(-1)), lambda o: (o, o.argmin(-1)), "different", "of integers 0 differs in"),
    "booleans": (lambda out: out > 0, lambda out: out > 0.1, "different", "output of integers 0 differs in"),
    "no integers": (lambda out: (out, out.argmax(-1)), as_it_is, "undecided", "has no counterpart"),
    "other sizes": (lambda out: out.mean(1), lambda out: out.mean(0), "different", "has shape"),
    "part": (lambda out: out[..., :5], as_it_is, "different", "has shape"),
}


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", UNLIKE)
def test_outputs_that_cannot_be_compared_are_neither_dropped_nor_equal(name: str, steps: int) -> None:
    one, other, verdict, said = UNLIKE[name]
    result = harness.compare(Net(one), Net(other), X, steps=steps)
    assert result.verdict == verdict
    assert said in str(result)
    assert verdict in set(result.frame["verdict"])
    assert (result.first is not None) is (verdict == "different")


@pytest.mark.parametrize("kind", ["keras", "jax"])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_integers_of_two_frameworks_must_be_equal(kind: str, name: str) -> None:
    """In the float64 run too, where Keras' own argmax reads the bits of a float32."""
    torch.manual_seed(0)
    net = nn.Linear(6, 4)
    values = [net.weight.detach().numpy().T, net.bias.detach().numpy()]

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> Any:
            out = self.net(x)
            return out, out.argmax(-1)

    other: Any
    if kind == "keras":
        inputs, layer = keras.Input((6,)), keras.layers.Dense(4)
        out, ops = layer(inputs), keras.ops
        other = keras.Model(inputs, [out, getattr(ops, name)(out, -1)])
        layer.set_weights(values)
    else:
        jnp = pytest.importorskip("jax.numpy")

        def apply(params: Any, x: Any) -> Any:
            out = x @ params["W"] + params["b"]
            return out, getattr(jnp, name)(out, -1)

        other = harness.side(apply, params=dict(zip("Wb", map(jnp.asarray, values), strict=True)))
    result = harness.compare(Chosen(), other, X[:, 0])
    assert (result.verdict == "different") is (name == "argmin")


def test_a_loss_that_agrees_settles_outputs_of_other_sizes() -> None:
    one = harness.side(Net(as_it_is), loss=nn.functional.mse_loss)
    other = harness.side(Net(lambda out: (out, out.mean(1))), loss=lambda o, y: nn.functional.mse_loss(o[0], y))
    assert harness.compare(one, other, X, X).verdict in ("identical", "rounding")


Named = namedtuple("Named", "logits hidden")


@dataclass
class Fields:
    hidden: Any
    logits: Any


NAMED: dict[str, Callable[[Any, Any], Any]] = {
    "dict": lambda logits, hidden: {"logits": logits, "hidden": hidden},
    "other order": lambda logits, hidden: {"hidden": hidden, "logits": logits},
    "ordered": lambda logits, hidden: OrderedDict(logits=logits, hidden=hidden),
    "named tuple": lambda logits, hidden: Named(logits, hidden),
    "dataclass": lambda logits, hidden: Fields(hidden, logits),
}


@pytest.mark.parametrize("one", NAMED)
@pytest.mark.parametrize("other", NAMED)
def test_outputs_with_names_are_paired_by_them(one: str, other: str) -> None:
    def net(kind: str, swapped: bool = False) -> Net:
        return Net(lambda o: NAMED[kind](2 * o, o) if swapped else NAMED[kind](o, 2 * o))

    assert harness.compare(net(one), net(other), X).verdict == "identical"
    assert harness.compare(net(one), net(other, swapped=True), X, steps=0).verdict == "different"


def test_names_pair_the_outputs_of_two_frameworks() -> None:
    torch.manual_seed(0)
    net, inputs, layer = nn.Linear(6, 4), keras.Input((6,)), keras.layers.Dense(4)
    out, jnp = cast(Any, layer)(inputs), pytest.importorskip("jax.numpy")
    of_keras: Any = keras.Model(inputs, {"logits": out, "hidden": 2 * out})
    values = [net.weight.detach().numpy().T, net.bias.detach().numpy()]
    layer.set_weights(values)
    params = dict(zip("Wb", map(jnp.asarray, values), strict=True))
    of_jax = harness.side(
        lambda p, x: {"hidden": 2 * (x @ p["W"] + p["b"]), "logits": x @ p["W"] + p["b"]}, params=params
    )

    class Both(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.net, self.factor = net, factor

        def forward(self, x: torch.Tensor) -> Any:
            return {"logits": self.net(x), "hidden": self.factor * self.net(x)}

    for other in (of_keras, of_jax):
        assert harness.compare(Both(2), other, X[:, 0], steps=0).verdict in ("identical", "rounding")
        assert harness.compare(Both(2.000001), other, X[:, 0], steps=0).verdict == "different"
    twice: Any = keras.Model(inputs, [out, out])
    assert harness.compare(twice, keras.models.clone_model(twice), X[:, 0], steps=0).verdict == "different"
    assert harness.compare(twice, twice, X[:, 0], steps=0).verdict == "identical"


TURNED: dict[str, Callable[..., Any]] = {
    "rows and columns": lambda out: out.transpose(1, 2),
    "examples": lambda out: out.transpose(0, 1),
    "stacked": lambda out: torch.stack([out, 2 * out], 2),
}


@pytest.mark.parametrize("name", TURNED)
def test_models_of_one_framework_have_no_other_layout(name: str) -> None:
    plain = (lambda out: torch.stack([out, 2 * out], 1)) if name == "stacked" else as_it_is
    result = harness.compare(Net(plain), Net(TURNED[name]), X, steps=0)
    assert result.verdict == "different"
    assert any("has shape" in note for note in result.notes)


def test_one_side_with_a_loss_is_refused() -> None:
    with pytest.raises(HarnessError, match="has no loss and the other side has one"):
        _ = harness.compare(Net(as_it_is), harness.side(Net(as_it_is), loss=nn.MSELoss()), X, X, steps=2)
    assert (
        harness.compare(Net(as_it_is), harness.side(Net(as_it_is), loss=nn.MSELoss()), X, X, steps=0).verdict
        == "identical"
    )


def test_keras_integers_stay_what_they_are_in_the_float64_run() -> None:
    """A Python integer is int32 under Keras' floatx of 32 bits, int64 under 64: `arange` against int32 lengths."""
    x, lengths = RNG.standard_normal((6, 5)).astype(np.float32), np.array([5, 3, 4, 2, 1, 5], np.int32)

    class Masked(keras.layers.Layer):
        def call(self, values: Any, lengths: Any) -> Any:
            ops: Any = keras.ops
            return values * ops.cast(ops.arange(5)[None] < lengths[:, None], values.dtype)

    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return self.scale * values * (torch.arange(5)[None] < lengths[:, None])

    inputs: Any = [keras.Input((5,)), keras.Input((), dtype="int32")]
    model = keras.Model(inputs, cast(Any, Masked())(*inputs))
    assert harness.compare(Same(), model, [x, lengths], steps=0).verdict in ("identical", "rounding")
    assert harness.compare(Same(), model, ([x, lengths], [x, lengths + 1]), steps=0).verdict == "different"
