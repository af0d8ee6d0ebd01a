"""Several inputs and outputs, shared layers, embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import coins, integers, normal
from harness.recipe import Recipe

EXAMPLES = 32
layers: Any = keras.layers
ops: Any = keras.ops


class TwoInputs(nn.Module):
    """Numbers and two categories, embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.city = nn.Embedding(7, 3)
        self.day = nn.Embedding(5, 3)
        self.fc1 = nn.Linear(4 + 6, 12)
        self.fc2 = nn.Linear(12, 1)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        city, day = self.city(categories[:, 0]), self.day(categories[:, 1])
        return self.fc2(F.relu(self.fc1(torch.cat([numbers, city, day], dim=1))))


def tabular(order: tuple[int, ...] = (0, 1, 2), columns: tuple[int, int] = (0, 1), adagrad: bool = False) -> Pair:
    """With Adagrad, Keras squares an embedded row's gradients one by one where the row occurs twice in a batch."""
    _ = torch.manual_seed(0)
    net = TwoInputs()
    numbers = keras.Input((4,), name="numbers")
    categories: Any = keras.Input((2,), dtype="int32", name="categories")
    city = layers.Embedding(7, 3, name="cities")(categories[:, columns[0]])
    day = layers.Embedding(5, 3, name="days")(categories[:, columns[1]])
    parts = [numbers, city, day]
    h = layers.Concatenate(name="joined")([parts[i] for i in order])
    h = layers.Dense(12, activation="relu", name="hidden")(h)
    model = keras.Model([numbers, categories], layers.Dense(1, name="price")(h))
    for name, arrays in (
        ("cities", transfer.embedding(net.city)),
        ("days", transfer.embedding(net.day)),
        ("hidden", transfer.linear(net.fc1)),
        ("price", transfer.linear(net.fc2)),
    ):
        model.get_layer(name).set_weights(arrays)
    if adagrad:
        model.compile(optimizer=keras.optimizers.Adagrad(0.1, 0.1, 1e-30), loss="mse")
        optimizer = torch.optim.Adagrad(net.parameters(), lr=0.1, initial_accumulator_value=0.1, eps=1e-30)
    else:
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    chosen = integers(EXAMPLES, 2, below=5)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=[normal(EXAMPLES, 4), chosen],
        y=normal(EXAMPLES, 1, seed=1),
    )


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 12)
        self.value = nn.Linear(12, 1)
        self.kind = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(self.body(x))
        return self.value(h), self.kind(h)


def both_losses(outputs: Any, targets: Any) -> torch.Tensor:
    (value, kind), (wanted, label) = outputs, targets
    return F.mse_loss(value, wanted) + 0.5 * F.cross_entropy(kind, label)


def two_heads(weight: float = 0.5, stopped: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = TwoHeads()
    inputs = keras.Input((8,))
    h = layers.Dense(12, activation="tanh", name="body")(inputs)
    branch = layers.Lambda(ops.stop_gradient, name="stop")(h) if stopped else h
    model = keras.Model(inputs, [layers.Dense(1, name="value")(h), layers.Dense(3, name="kind")(branch)])
    for name in ("body", "value", "kind"):
        model.get_layer(name).set_weights(transfer.linear(getattr(net, name)))
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=["mse", keras.losses.SparseCategoricalCrossentropy(from_logits=True)],
        loss_weights=[1.0, weight],
    )
    return Pair(
        reference=Recipe(model=net, loss=both_losses, optimizer=torch.optim.SGD(net.parameters(), lr=0.1)),
        candidate=Recipe(model=model),
        x=normal(EXAMPLES, 8),
        y=[normal(EXAMPLES, 1, seed=1), integers(EXAMPLES, below=3)],
    )


class Siamese(nn.Module):
    """One encoder for both inputs: its gradients add up."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        a, b = self.encoder(left), self.encoder(right)
        return torch.sqrt(((a - b) ** 2).sum(dim=1, keepdim=True) + 1e-6)


def contrastive(distance: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    return (same * distance**2 + (1 - same) * F.relu(1 - distance) ** 2).mean()


def siamese(shared: bool = True, epsilon: float = 1e-6, margin: float = 1.0) -> Pair:
    _ = torch.manual_seed(0)
    net = Siamese()

    def encoder(name: str) -> keras.Sequential:
        first = layers.Dense(10, activation="relu", name=f"{name}_a")
        model = keras.Sequential([keras.Input((6,)), first, layers.Dense(4, name=f"{name}_b")], name=name)
        linears = [layer for layer in net.encoder if isinstance(layer, nn.Linear)]
        model.set_weights([each for layer in linears for each in transfer.linear(layer)])
        return model

    def distance(pair: Any) -> Any:
        return ops.sqrt(ops.sum(ops.square(pair[0] - pair[1]), axis=1, keepdims=True) + epsilon)

    left, right = keras.Input((6,)), keras.Input((6,))
    one = encoder("one")
    other = one if shared else encoder("other")
    model = keras.Model([left, right], layers.Lambda(distance, name="distance")([one(left), other(right)]))
    model.compile(
        optimizer=keras.optimizers.SGD(0.05),
        loss=lambda same, d: ops.mean(same * ops.square(d) + (1 - same) * ops.square(ops.relu(margin - d))),
    )
    return Pair(
        reference=Recipe(model=net, loss=contrastive, optimizer=torch.optim.SGD(net.parameters(), lr=0.05)),
        candidate=Recipe(model=model),
        x=[normal(EXAMPLES, 6), normal(EXAMPLES, 6, seed=2)],
        y=coins(EXAMPLES, 1, seed=3),
    )


class Factors(nn.Module):
    """Matrix factorisation: users times items, and their biases."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.users = nn.Embedding(9, 4)
        self.items = nn.Embedding(11, 4, padding_idx=padding)
        self.item_bias = nn.Embedding(11, 1)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        u, i = self.users(pairs[:, 0]), self.items(pairs[:, 1])
        return (u * i).sum(dim=1, keepdim=True) + self.item_bias(pairs[:, 1])


class KerasFactors(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.users = layers.Embedding(9, 4, name="users")
        self.items = layers.Embedding(11, 4, name="items")
        self.item_bias = layers.Embedding(11, 1, name="item_bias")

    def call(self, pairs: Any) -> Any:
        u, i = self.users(pairs[:, 0]), self.items(pairs[:, 1])
        return ops.sum(u * i, axis=1, keepdims=True) + self.item_bias(pairs[:, 1])


def factors(padding: int | None = None, bias_set: bool = True) -> Pair:
    """torch's padding row starts at zero and gets no gradient."""
    _ = torch.manual_seed(0)
    net = Factors(padding)
    model = KerasFactors()
    pairs = np.stack([integers(EXAMPLES, below=9), integers(EXAMPLES, below=11, seed=2)], axis=1)
    _ = model(pairs[:1])
    for name in ("users", "items", "item_bias")[: 2 + bias_set]:
        getattr(model, name).set_weights(transfer.embedding(getattr(net, name)))
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.5)),
        candidate=Recipe(model=model),
        x=pairs,
        y=normal(EXAMPLES, 1, seed=1),
    )


PORTS = [
    clean("several/tabular", tabular),
    clean("several/two heads", two_heads),
    clean("several/siamese", siamese),
    clean("several/factors", factors),
    planted(  # the joined array, in another order, stands for nothing in torch; the layer behind it does
        "several/inputs joined otherwise",
        partial(tabular, order=(1, 2, 0)),
        "weight-order-mismatch",
        "forward:cat forward:joined forward:fc1 forward:relu forward:hidden",
    ),
    planted(  # the sparse gradient's rows are squared before they are added up (Keras 3.15 on TF 2.21)
        "several/rows squared one by one",
        partial(tabular, adagrad=True),
        "sparse-gradient-square",
        "update:city* update:day* update:cities* update:days*",
    ),
    planted(
        "several/columns swapped",
        partial(tabular, columns=(1, 0)),
        "data-order",
        "forward:city forward:day forward:cities forward:days forward:*getitem* forward:*get_item*",
    ),
    planted("several/loss weights", partial(two_heads, weight=1.0), "loss-reduction", "loss"),
    planted(
        "several/stopped head", partial(two_heads, stopped=True), "detached-branch", "gradient:body* gradient:tanh*"
    ),
    planted(  # two encoders share nothing: each gets one of the two gradients that add up in torch
        "several/encoder not shared",
        partial(siamese, shared=False),
        "weight-order-mismatch",
        "gradient:encoder* gradient:one* gradient:other*",
    ),
    planted(
        "several/distance epsilon",
        partial(siamese, epsilon=1e-3),
        "truncated-constant",
        "forward:sqrt forward:distance forward:add* forward:output",
    ),
    planted("several/margin", partial(siamese, margin=2.0), "loss-different", "loss"),
    planted(
        "several/padding row",
        partial(factors, padding=0),
        "embedding-padding-idx",
        "gradient:items* gradient:*items/*",
    ),
    planted("several/bias not set", partial(factors, bias_set=False), "weights-not-transferred", "forward:*item_bias"),
]
