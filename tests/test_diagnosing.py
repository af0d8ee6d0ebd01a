"""Causes of planted differences between two users' models: found, named, proven, with what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

import harness
from benchmarks.ports import ports
from benchmarks.ports.refactored import folded

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = RNG.standard_normal((12, 3)).astype(np.float32)


def port(
    middle: nn.Module,
    keras_middle: Any,
    loss: Any = None,
    keras_loss: Any = "mse",
    optimizer: Callable[..., Any] = torch.optim.SGD,
    keras_optimizer: Any = None,
    data: tuple[Any, Any] = (X, Y),
    keras_first: bool = False,
    **how: Any,
) -> Any:
    """Linear, something, Linear: with the weights copied, trained for three steps on both sides."""
    _ = torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    net = nn.Sequential(first, middle, last)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, name="a"), keras_middle, keras.layers.Dense(3, name="b")]
    )
    for layer, linear in ((model.layers[0], first), (model.layers[2], last)):
        layer.set_weights([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
    model.compile(keras_optimizer or keras.optimizers.SGD(0.05), keras_loss)
    side = harness.side(net, loss=loss or nn.MSELoss(), optimizer=optimizer(net.parameters(), lr=0.05), **how)
    sides = (model, side) if keras_first else (side, model)
    return harness.compare(*sides, *data, steps=3)


def only(result: Any) -> Any:
    """The one cause, which has to be proven."""
    assert result.verdict == "different"
    assert [cause.status for cause in result.causes] == ["proven"]
    cause = result.causes[0]
    assert cause.after64 < 1e-9 * cause.before64
    return cause


def test_a_norm_of_another_epsilon() -> None:
    cause = only(port(nn.LayerNorm(8), keras.layers.LayerNormalization(epsilon=1e-3)))
    assert (cause.id, cause.where, cause.step) == ("layernorm-eps", "forward:1", 0)
    assert cause.advice["candidate"] == "layers.LayerNormalization(epsilon=1e-05)"
    assert "eps=0.001" in cause.advice["reference"]


def test_another_activation() -> None:
    cause = only(port(nn.Tanh(), keras.layers.Activation("sigmoid")))
    assert cause.id == "activation-different"


def test_the_loss_of_another_reduction() -> None:
    cause = only(port(nn.Tanh(), keras.layers.Activation("tanh"), loss=nn.MSELoss(reduction="sum")))
    assert cause.id == "loss-reduction" or "loss-reduction" in cause.same


def test_a_loss_of_the_users_own_is_recognised() -> None:
    halved = lambda output, target: ((output - target) ** 2).mean() / 2  # noqa: E731
    cause = only(port(nn.Tanh(), keras.layers.Activation("tanh"), loss=halved))
    assert cause.id == "loss-half-factor"


def test_a_momentum_that_shows_at_the_second_step() -> None:
    cause = only(
        port(
            nn.Tanh(),
            keras.layers.Activation("tanh"),
            optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
            keras_optimizer=keras.optimizers.SGD(0.05, momentum=0.8),
        )
    )
    assert (cause.id, cause.step) == ("momentum-value", 1)


def test_two_causes_at_once_are_both_found() -> None:
    result = port(
        nn.LayerNorm(8),
        keras.layers.LayerNormalization(epsilon=1e-3),
        loss=nn.L1Loss(),
        keras_optimizer=keras.optimizers.SGD(0.02),
    )
    assert {"layernorm-eps", "loss-different"} <= {cause.id for cause in result.causes}
    assert {"learning-rate", "optimizer-default-lr"} & {cause.id for cause in result.causes}
    assert {cause.status for cause in result.causes} == {"proven"}


def test_three_numbers_of_an_optimizer_with_keras_as_the_reference() -> None:
    result = port(
        nn.Tanh(),
        keras.layers.Activation("tanh"),
        optimizer=lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr, alpha=0.9, momentum=0.5),
        keras_optimizer=keras.optimizers.RMSprop(0.01, rho=0.8, momentum=0.7, epsilon=1e-8),
        keras_first=True,
    )
    assert {"rmsprop-rho", "momentum-value", "learning-rate"} <= {
        id for cause in result.causes for id in (cause.id, *cause.same)
    }
    assert {cause.status for cause in result.causes} == {"proven"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (((X, X[::-1]), (Y, Y[::-1])), "examples in another order"),
        (((X, X[:, ::-1]), Y), "axis 1"),
        ((X, (Y, Y[::-1])), "targets in another order"),
    ],
)
def test_data_in_another_order(data: tuple[Any, Any], word: str) -> None:
    cause = only(port(nn.Tanh(), keras.layers.Activation("tanh"), data=data))
    assert cause.id == "data-order"
    assert word in cause.edit


def test_a_cause_that_is_proven_is_not_said_again_to_be_likely() -> None:
    result = port(
        nn.Tanh(),
        keras.layers.Activation("tanh"),
        penalty=lambda net: 0.01 * sum((p**2).sum() for p in net.parameters()),
    )
    assert [(cause.id, cause.status) for cause in result.causes] == [("l2-missing", "proven")]


class Doubled(torch.autograd.Function):
    """The identity with a backward that is twice too large."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> torch.Tensor:
        return 2 * cotangents[0]


class Wrong(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(x)  # type: ignore[return-value]


def test_a_backward_that_is_not_known_is_likely_at_most() -> None:
    result = port(Wrong(), keras.layers.Activation("linear"))
    assert [(cause.id, cause.status) for cause in result.causes] == [("gradient-factor", "likely")]


class Strange(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(7 * x) * torch.cos(x**2) + torch.atan(x)


def test_what_nothing_explains_is_said_to_be_unknown() -> None:
    result = port(Strange(), keras.layers.Activation("tanh"))
    assert "unknown" in {cause.status for cause in result.causes}
    assert not any(cause.status == "proven" for cause in result.causes)


def test_a_clean_port_has_no_cause() -> None:
    result = port(nn.Tanh(), keras.layers.Activation("tanh"))
    assert result.verdict == "rounding"
    assert result.causes == ()


@pytest.mark.parametrize("word", ["proven", "layernorm-eps", "layers.LayerNormalization(epsilon=1e-05)"])
def test_the_answer_says_it(word: str) -> None:
    assert word in str(port(nn.LayerNorm(8), keras.layers.LayerNormalization(epsilon=1e-3)))


class Shortcut(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) + x


class StoppedShortcut(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        ops: Any = keras.ops
        return ops.tanh(x) + ops.stop_gradient(x)


@pytest.mark.parametrize(
    ("middle", "keras_middle", "wanted"),
    [
        (nn.BatchNorm1d(8, eps=1e-3), keras.layers.BatchNormalization(), {"batchnorm-momentum"}),
        (Shortcut(), StoppedShortcut(), {"detached-branch"}),
    ],
)
def test_a_proof_has_both_precisions(middle: nn.Module, keras_middle: Any, wanted: set[str]) -> None:
    proven = {cause.id: cause for cause in port(middle, keras_middle).causes if cause.status == "proven"}
    assert wanted <= set(proven)
    for cause in proven.values():
        assert cause.after32 < 1e-4 * cause.before32
        assert cause.after64 < 1e-9 * cause.before64


def test_no_layer_is_proven_missing_behind_what_nothing_explains() -> None:
    """A norm folded into a kernel with another epsilon: what the kernel was fed proves nothing of the norm."""
    pair = folded(epsilon=1e-3)
    causes = harness.compare(pair.reference, pair.candidate, pair.x, steps=0).causes
    assert causes
    assert "proven" not in {cause.status for cause in causes}


def test_zeros_where_values_belong_are_weights_that_were_not_transferred() -> None:
    """Nothing is added there, but the layer that would add is on both sides."""
    pair = next(one for one in ports(["attention"]) if one.name == "attention/positions not set").build()
    result = harness.compare(pair.reference, pair.candidate, pair.x, pair.y, steps=1, batch_size=pair.batch_size)
    assert [(cause.id, cause.status) for cause in result.causes] == [("weights-not-transferred", "proven")]


@pytest.mark.parametrize("steps", [0, 1])
def test_two_layers_that_are_all_there_is_to_compare(steps: int) -> None:
    def summed(mode: str) -> nn.Module:
        _ = torch.manual_seed(0)
        return nn.EmbeddingBag(9, 4, mode=mode)

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            _ = torch.manual_seed(0)
            self.e = nn.Embedding(9, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.e(x).sum(1)

    words = RNG.integers(0, 9, (8, 5))
    result = harness.compare(summed("mean"), Summed(), words, steps=steps)
    assert result.verdict == "different"
    assert all(cause.status != "proven" for cause in result.causes)
    assert harness.compare(summed("sum"), Summed(), words, steps=steps).verdict in ("identical", "rounding")


def test_a_search_whose_time_is_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.SEARCH", -1.0)
    (cause,) = port(nn.LayerNorm(8), keras.layers.LayerNormalization(epsilon=1e-3)).causes
    assert (cause.id, cause.status, cause.where) == ("", "unknown", "forward:1")
    assert "search stopped after 10 s" in cause.edit
