"""Clean pairs that are hard where something is almost zero: variances, norms, gradients that vanish on paper."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, transfer
from benchmarks.ports.data import integers, normal
from benchmarks.ports.hard import EXAMPLES, Y, copy_linears, trained
from benchmarks.ports.normalised import BiasedBatchNorm
from benchmarks.ports.optimizers import HatAdam
from harness.recipe import Recipe

layers: Any = keras.layers
ops: Any = keras.ops


def batch_normalised(x: np.ndarray, adam: bool = False, batch_size: int = 16) -> Pair:
    """A bias before batch norm has a gradient of 0 on paper; Adam makes full steps of its rounding."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(x.shape[1], 10), BiasedBatchNorm(10), nn.Tanh(), nn.Linear(10, 1))
    linear, norm, _, last = net
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            layers.Dense(10, name="before"),
            layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm"),
            layers.Activation("tanh", name="tanh"),
            layers.Dense(1, name="behind"),
        ]
    )
    model.get_layer("before").set_weights(transfer.linear(linear))
    model.get_layer("norm").set_weights(transfer.batch_norm(norm))
    model.get_layer("behind").set_weights(transfer.linear(last))
    model.compile(optimizer=keras.optimizers.Adam(0.01) if adam else keras.optimizers.SGD(0.05), loss="mse")
    optimizer = HatAdam(net.parameters(), lr=0.01) if adam else torch.optim.SGD(net.parameters(), lr=0.05)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=x,
        y=Y,
        batch_size=batch_size,
    )


def constant_features() -> Pair:
    """Some features do not vary: their variance is 0, and epsilon alone is under the root."""
    x = normal(EXAMPLES, 6)
    x[:] = x[:1]
    return batch_normalised(x)


def layer_normalised(x: np.ndarray, epsilon: float = 1e-5) -> Pair:
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(x.shape[1], eps=epsilon), nn.Linear(x.shape[1], 8), nn.Tanh(), nn.Linear(8, 1))
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            layers.LayerNormalization(epsilon=epsilon, name="norm"),
            layers.Dense(8, activation="tanh", name="a"),
            layers.Dense(1, name="b"),
        ]
    )
    copy_linears(net, model)
    return trained(net, model, x, Y)


class Cosine(nn.Module):
    """Directions of vectors, some of which are almost zero."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.fc(x)
        return z / torch.sqrt((z**2).sum(dim=1, keepdim=True) + 1e-12)


def cosine() -> Pair:
    _ = torch.manual_seed(0)
    net = Cosine()

    def direction(z: Any) -> Any:
        return z / ops.sqrt(ops.sum(ops.square(z), axis=1, keepdims=True) + 1e-12)

    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, use_bias=False, name="fc"), layers.Lambda(direction, name="direction")]
    )
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    x = normal(EXAMPLES, 6) * np.logspace(-6, 1, EXAMPLES, dtype=np.float32)[:, None]
    return trained(net, model, x, np.tanh(normal(EXAMPLES, 4, seed=1)), rate=1e-9)


class Rare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(500, 6)
        self.fc = nn.Linear(6, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.words(tokens)).mean(dim=1))


def unused_rows() -> Pair:
    """Most rows of the table are never looked up."""
    _ = torch.manual_seed(0)
    net = Rare()
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(500, 6, name="words"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling1D(name="mean"),
            layers.Dense(1, name="fc"),
        ]
    )
    model.get_layer("words").set_weights(transfer.embedding(net.words))
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    return trained(net, model, integers(EXAMPLES, 3, below=500), Y, momentum=0.9)


PORTS = [
    clean("delicate/bias before batch norm, adam", partial(batch_normalised, normal(EXAMPLES, 6), True)),
    clean("delicate/constant features", constant_features),
    clean("delicate/batches of two", partial(batch_normalised, normal(EXAMPLES, 6), batch_size=2)),
    clean("delicate/layer norm at mean 1e4", partial(layer_normalised, 1e4 + normal(EXAMPLES, 9))),
    clean("delicate/layer norm of almost nothing", partial(layer_normalised, 1 + normal(EXAMPLES, 9, scale=1e-4))),
    clean("delicate/directions of almost zero", cosine),
    clean("delicate/unused rows", unused_rows),
]
