"""Clean pairs that are hard by their length: many layers, many time steps, many updates."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, transfer
from benchmarks.ports.data import normal
from benchmarks.ports.hard import EXAMPLES, chain, trained
from benchmarks.ports.recurrent import FEATURES, UNITS, Last, one_bias
from harness.recipe import Recipe

layers, ops = keras.layers, keras.ops
Y = normal(EXAMPLES, 1, seed=1)


def deep(activation: str, depth: int, gain: float, rate: float = 1e-3) -> Pair:
    return trained(*chain((8, *[16] * depth, 1), activation, gain), normal(EXAMPLES, 8), Y, rate=rate, steps=3)


def many_updates(momentum: float) -> Pair:
    net, model = chain((8, 12, 1), "tanh")
    return trained(net, model, normal(EXAMPLES, 8), Y, rate=0.02, momentum=momentum, steps=200)


def quadratic() -> Pair:
    """An ill-conditioned valley under momentum."""
    net, model = chain((10, 1), "tanh")
    x = normal(EXAMPLES, 10) * np.logspace(0, -3, 10, dtype=np.float32)
    return trained(net, model, x, Y, rate=0.2, momentum=0.9, steps=100)


class Tower(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + 0.5 * torch.tanh(block(x))
        return self.head(x)


def tower(depth: int = 40) -> Pair:
    _ = torch.manual_seed(0)
    net = Tower(depth)
    inputs = keras.Input((8,))
    h: Any = inputs
    for i in range(depth):
        z = layers.Dense(8, activation="tanh", name=f"block{i}")(h)
        h = layers.Add(name=f"sum{i}")([h, layers.Rescaling(0.5, name=f"half{i}")(z)])
    model = keras.Model(inputs, layers.Dense(1, name="head")(h))
    for i, block in enumerate(net.blocks):
        assert isinstance(block, nn.Linear)
        model.get_layer(f"block{i}").set_weights(transfer.linear(block))
    model.get_layer("head").set_weights(transfer.linear(net.head))
    return trained(net, model, normal(EXAMPLES, 8), Y, rate=1e-3, steps=3)


def recurrent(kind: str, time: int, gain: float) -> Pair:
    """A recurrence over many steps whose kernels are scaled: below 1 it forgets, above it saturates."""
    _ = torch.manual_seed(0)
    rnn = {"simple": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](FEATURES, UNITS, batch_first=True)
    with torch.no_grad():
        _ = rnn.weight_hh_l0.mul_(gain)
    layer = {"simple": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}[kind](UNITS, name="memory")
    net = Last(rnn)
    if kind != "gru":
        one_bias(rnn)
    model = keras.Sequential([keras.Input((time, FEATURES)), layer, layers.Dense(1, name="out")])
    layer.set_weights(transfer.gru(rnn) if isinstance(rnn, nn.GRU) else transfer.rnn(rnn))
    model.get_layer("out").set_weights(transfer.linear(net.head))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=normal(EXAMPLES, time, FEATURES),
        y=Y,
        steps=2,
    )


class Convolved(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth))
        self.fc = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = F.silu(conv(x))
        return self.fc(x.mean(dim=(2, 3)))


def convolved(depth: int = 12) -> Pair:
    """Convolutions that shrink their input layer by layer."""
    _ = torch.manual_seed(0)
    net = Convolved(depth)
    middle = [layers.Conv2D(4, 3, padding="same", activation="silu", name=f"conv{i}") for i in range(depth)]
    ends = [layers.GlobalAveragePooling2D(name="mean"), layers.Dense(1, name="fc")]
    model = keras.Sequential([keras.Input((6, 6, 4)), *middle, *ends])
    for layer, conv in zip(middle, net.convs, strict=True):
        assert isinstance(conv, nn.Conv2d)
        layer.set_weights(transfer.conv(conv))
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    x = normal(EXAMPLES, 4, 6, 6)
    return trained(net, model, (x, transfer.channels_last(x)), Y, steps=3)


class Sharp(nn.Module):
    """Attention with scores of hundreds: one key takes all."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(6, 6)
        self.k = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(30 * self.q(x) @ self.k(x).mT, dim=-1)
        return self.fc((weights @ x).mean(dim=1))


class KerasSharp(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.fc = layers.Dense(6, name="q"), layers.Dense(6, name="k"), layers.Dense(1, name="fc")

    def call(self, x: Any) -> Any:
        scores = 30 * ops.matmul(self.q(x), ops.transpose(self.k(x), (0, 2, 1)))
        return self.fc(ops.mean(ops.matmul(ops.softmax(scores, axis=-1), x), axis=1))


def sharp() -> Pair:
    _ = torch.manual_seed(0)
    net, model = Sharp(), KerasSharp()
    x = normal(EXAMPLES, 20, 6)
    _ = model(x[:1])
    for name in ("q", "k", "fc"):
        getattr(model, name).set_weights(transfer.linear(getattr(net, name)))
    return trained(net, model, x, Y, rate=1e-3, steps=3)


PORTS = [
    clean("long/30 tanh layers", partial(deep, "tanh", 30, 1.2)),
    clean("long/30 relu layers", partial(deep, "relu", 30, 1.4)),
    clean("long/12 sigmoid layers", partial(deep, "sigmoid", 12, 1.0, 0.1)),
    clean("long/200 updates", partial(many_updates, 0.0)),
    clean("long/200 updates with momentum", partial(many_updates, 0.9)),
    clean("long/ill-conditioned valley", quadratic),
    clean("long/40 residual blocks", tower),
    clean("long/12 convolutions", convolved),
    clean("long/rnn of 100 steps", partial(recurrent, "simple", 100, 0.7)),
    clean("long/lstm of 60 steps, saturated", partial(recurrent, "lstm", 60, 4.0)),
    clean("long/gru of 80 steps", partial(recurrent, "gru", 80, 1.0)),
    clean("long/sharp attention", sharp),
]
