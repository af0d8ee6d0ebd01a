"""Backward passes that go wrong while the forward pass agrees: custom gradients, detached branches."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf
import torch
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import normal
from benchmarks.ports.mlp import EXAMPLES, regression_data, sgd
from harness.recipe import Recipe


class TorchSwish(torch.autograd.Function):
    """x sigmoid(x) with its derivative by hand, as memory-saving implementations have it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return ctx.factor * grads[0] * s * (1 + x * (1 - s)), None


class Swish(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return TorchSwish.apply(x, self.factor)  # pyright: ignore[reportReturnType]


class KerasSwish(keras.layers.Layer):
    """The same with tf.custom_gradient; `missing` forgets the second term of the derivative."""

    def __init__(self, missing: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.missing = missing

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "missing": self.missing}

    def call(self, inputs: Any) -> Any:
        @tf.custom_gradient
        def swish(x: Any) -> Any:
            s = tf.sigmoid(x)
            slope = s if self.missing else s * (1 + x * (1 - s))
            return x * s, lambda upstream: upstream * slope

        return swish(inputs)


def custom(factor: float = 1.0, missing: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 14), Swish(factor), nn.Linear(14, 1))
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(14, name="first"),
            KerasSwish(missing, name="swish"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    for name, layer in (("first", net[0]), ("last", net[2])):
        model.get_layer(name).set_weights(transfer.linear(layer))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    x, y = regression_data()
    reference = Recipe(model=net, loss=nn.MSELoss(), optimizer=sgd(net))
    return Pair(reference=reference, candidate=Recipe(model=model), x=x, y=y)


class Gated(nn.Module):
    """A value times a gate; the detached gate is learnt from nothing."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.value = nn.Linear(10, 8)
        self.gate = nn.Linear(10, 8)
        self.out = nn.Linear(8, 1)
        self.detached = detached

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(x))
        if self.detached:
            gate = gate.detach()
        return self.out(self.value(x) * gate)


def gated(detached: bool = False, keras_detached: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Gated(detached)
    inputs = keras.Input((10,))
    gate = keras.layers.Dense(8, activation="sigmoid", name="gate")(inputs)
    if keras_detached:
        gate = keras.layers.Lambda(keras.ops.stop_gradient, name="stop")(gate)
    mixed = keras.layers.Multiply(name="mixed")([keras.layers.Dense(8, name="value")(inputs), gate])
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(mixed))
    for name in ("value", "gate", "out"):
        model.get_layer(name).set_weights(transfer.linear(getattr(net, name)))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    x, y = regression_data()
    reference = Recipe(model=net, loss=nn.MSELoss(), optimizer=sgd(net))
    return Pair(reference=reference, candidate=Recipe(model=model), x=x, y=y)


class Clamped(nn.Module):
    """Inputs of whole numbers through an identity layer: some lie exactly on the bound of the clamp."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))
        self.fc = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.clamp(x + self.shift, 0.0, 2.0))


class Shift(keras.layers.Layer):
    def build(self, input_shape: Any) -> None:
        self.shift = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        return inputs + self.shift


def clamped(relus: bool) -> Pair:
    """With `relus` the clamp is written as relu(x) - relu(x - 2): gradient 0 at 0 where torch's clamp has 1."""
    _ = torch.manual_seed(0)
    net = Clamped()
    clamp = (lambda z: tf.nn.relu(z) - tf.nn.relu(z - 2.0)) if relus else (lambda z: tf.clip_by_value(z, 0.0, 2.0))
    model = keras.Sequential(
        [
            keras.Input((6,)),
            Shift(name="shift"),
            keras.layers.Lambda(clamp, name="clamp"),
            keras.layers.Dense(1, name="fc"),
        ]
    )
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    reference = Recipe(model=net, loss=nn.MSELoss(), optimizer=sgd(net))
    x = normal(EXAMPLES, 6, scale=2.0).round()
    return Pair(reference=reference, candidate=Recipe(model=model), x=x, y=x[:, :1] * 0.3, steps=1)


FIRST = "gradient:0* gradient:first*"

PORTS = [
    clean("gradients/by hand", custom),
    clean("gradients/gated", gated),
    clean("gradients/detached on both sides", partial(gated, True, True)),
    clean("gradients/clamp", partial(clamped, relus=False)),
    planted("gradients/factor two", partial(custom, factor=2.0), "gradient-factor", FIRST),
    planted("gradients/wrong sign", partial(custom, factor=-1.0), "gradient-sign", FIRST),
    planted("gradients/missing term", partial(custom, missing=True), "gradient-missing-term", FIRST),
    planted("gradients/detached in torch", partial(gated, detached=True), "detached-branch", "gradient:*gate*"),
    planted(
        "gradients/stopped in Keras",
        partial(gated, keras_detached=True),
        "detached-branch",
        "gradient:*gate* gradient:sigmoid",
    ),
    planted("gradients/clamp at its bound", partial(clamped, relus=True), "clip-boundary-gradient", "gradient:*shift*"),
]
