"""Models whose two sides spell the same things otherwise, or whose norms are fresh: as strangers wrote them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import coins, integers, normal
from benchmarks.ports.rows_models import in_jax, in_keras, in_torch, layers, ops

EXAMPLES, TIME, WIDTH, HEADS, CLASSES = 24, 5, 8, 2, 3
LABELS = integers(EXAMPLES, below=CLASSES)
CROSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# --- a block with the norms in front, fresh ones: `norm` comes behind `norm1` and `norm2` ----------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attend, self.norm2 = (
            nn.LayerNorm(WIDTH),
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
            nn.LayerNorm(WIDTH),
        )
        self.up, self.down = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm1(x)
        x = x + self.attend(h, h, h, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm(x)[:, 0])


def block(epsilon: float = 1e-5, approximate: bool = False, mean: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Block()
    x = keras.Input((TIME, WIDTH))
    normed = [layers.LayerNormalization(epsilon=epsilon) for _ in range(3)]
    attend = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
    up, down, head = layers.Dense(16), layers.Dense(WIDTH), layers.Dense(CLASSES)
    h = normed[0](x)
    y = x + attend(h, h)
    y = y + down(keras.activations.gelu(up(normed[1](y)), approximate=approximate))
    y = normed[2](y)
    model = keras.Model(x, head(ops.mean(y, axis=1) if mean else y[:, 0]))
    attend.set_weights(transfer.attention(net.attend))
    for layer, linear in ((up, net.up), (down, net.down), (head, net.head)):
        layer.set_weights(transfer.linear(linear))
    data = normal(EXAMPLES, TIME, WIDTH)
    return Pair(reference=in_torch(net, nn.CrossEntropyLoss()), candidate=in_keras(model, CROSS), x=data, y=LABELS)


# --- words through windows of several widths ------------------------------------------------------------------------


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.windows = nn.ModuleList([nn.Conv1d(6, 4, width) for width in (2, 3, 4)])
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).transpose(1, 2)
        return self.head(torch.cat([F.relu(window(x)).amax(2) for window in self.windows], 1))


def windows(order: tuple[int, ...] = (0, 1, 2), mean: bool = False, activation: str = "relu") -> Pair:
    _ = torch.manual_seed(0)
    net = Windows()
    x = keras.Input((9,), dtype="int32")
    embed, head = layers.Embedding(20, 6), layers.Dense(CLASSES)
    convs = [layers.Conv1D(4, width, activation=activation) for width in (2, 3, 4)]
    pool = layers.GlobalAveragePooling1D if mean else layers.GlobalMaxPooling1D
    embedded = embed(x)
    pooled = [pool()(conv(embedded)) for conv in convs]
    model = keras.Model(x, head(layers.Concatenate()([pooled[k] for k in order])))
    embed.set_weights(transfer.embedding(net.embed))
    head.set_weights(transfer.linear(net.head))
    for layer, conv in zip(convs, net.windows, strict=True):
        assert isinstance(conv, nn.Conv1d)
        layer.set_weights(transfer.conv(conv))
    data = integers(EXAMPLES, 9, below=20, seed=2)
    return Pair(reference=in_torch(net, nn.CrossEntropyLoss()), candidate=in_keras(model, CROSS), x=data, y=LABELS)


# --- attention of the library, and by hand --------------------------------------------------------------------------


class Library(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [part(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v)]
        return self.out(self.attended(*parts).transpose(1, 2).flatten(2)).mean(1)

    def attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class ByHand(Library):
    def __init__(self, scale: float, axis: int) -> None:
        super().__init__()
        self.scale, self.axis = scale, axis

    def attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.softmax((q * self.scale) @ k.transpose(-2, -1), dim=self.axis) @ v


def attention(scale: float = 0.5, axis: int = -1) -> Pair:
    _ = torch.manual_seed(0)
    net, other = Library(), ByHand(scale, axis)
    _ = other.load_state_dict(net.state_dict())
    x, y = normal(EXAMPLES, TIME, WIDTH), normal(EXAMPLES, WIDTH, seed=1)
    return Pair(reference=in_torch(net), candidate=in_torch(other), x=x, y=y)


# --- two inputs through one encoder ---------------------------------------------------------------------------------


class Twins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        u, v = (F.normalize(self.encoder(x), dim=1) for x in (a, b))
        return self.head((u - v).abs())


def twins(normed: bool = True) -> Pair:
    _ = torch.manual_seed(0)
    net = Twins()
    a, b = keras.Input((6,)), keras.Input((6,))
    first, second, head = layers.Dense(8, activation="tanh"), layers.Dense(4), layers.Dense(1)
    u, v = (second(first(x)) for x in (a, b))
    if normed:
        u, v = (layers.UnitNormalization(axis=1)(x) for x in (u, v))
    model = keras.Model([a, b], head(ops.absolute(u - v)))
    for layer, linear in zip((first, second, head), (net.encoder[0], net.encoder[2], net.head), strict=True):
        layer.set_weights(transfer.linear(linear))
    return Pair(
        reference=in_torch(net, nn.BCEWithLogitsLoss()),
        candidate=in_keras(model, keras.losses.BinaryCrossentropy(from_logits=True)),
        x=[normal(EXAMPLES, 6), normal(EXAMPLES, 6, seed=2)],
        y=coins(EXAMPLES, 1, seed=3),
    )


# --- a loss of two terms, by hand on both sides ---------------------------------------------------------------------


class Moments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.spread, self.decode = (
            nn.Linear(*sizes) for sizes in ((9, 8), (8, 2), (8, 2), (2, 9))
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = torch.tanh(self.body(x))
        return self.decode(self.mean(h)), self.mean(h), self.spread(h)


def two_terms(averaged: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Moments()
    params = {name: jnp.asarray(value.detach().numpy()) for name, value in net.named_parameters()}

    def dense(p: Any, name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def apply(p: Any, x: Any) -> Any:
        h = jnp.tanh(dense(p, "body", x))
        return dense(p, "decode", dense(p, "mean", h)), dense(p, "mean", h), dense(p, "spread", h)

    def elbo(output: Any, x: torch.Tensor) -> torch.Tensor:
        q, mean, spread = output
        return (q - x).square().sum(1).mean() - 0.5 * (1 + spread - mean**2 - spread.exp()).sum(1).mean()

    def other(output: Any, x: Any) -> Any:
        q, mean, spread = output
        fit = jnp.square(q - x)
        kl = -0.5 * (1 + spread - mean**2 - jnp.exp(spread)).sum(1).mean()
        return (fit.mean() if averaged else fit.sum(1).mean()) + kl

    x = normal(EXAMPLES, 9)
    return Pair(reference=in_torch(net, elbo), candidate=in_jax(jax.jit(apply), params, other), x=x, y=x)


# --- a map made larger ----------------------------------------------------------------------------------------------


def enlarged(corners: bool = False, interpolation: str = "bilinear") -> Pair:
    _ = torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=corners), nn.Conv2d(4, 1, 1)
    )
    up = layers.UpSampling2D(2, interpolation=interpolation)
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 3), up, layers.Conv2D(1, 1)])
    for layer, conv in ((model.layers[0], net[0]), (model.layers[2], net[2])):
        assert isinstance(conv, nn.Conv2d)
        layer.set_weights(transfer.conv(conv))
    x, y = normal(EXAMPLES, 2, 6, 6), normal(EXAMPLES, 1, 8, 8, seed=1)
    last = transfer.channels_last
    return Pair(reference=in_torch(net), candidate=in_keras(model), x=(x, last(x)), y=(y, last(y)))


CLEAN: list[Callable[[], Pair]] = [block, windows, attention, twins, two_terms, enlarged]
PLANTED: list[tuple[str, Callable[[], Pair], str, str]] = [
    ("fresh norms, epsilon", partial(block, epsilon=1e-3), "layernorm-eps", "forward:*"),
    ("fresh norms, gelu", partial(block, approximate=True), "gelu-approximation", "forward:*"),
    ("first or all", partial(block, mean=True), "layer-different", "forward:*"),
    ("windows joined otherwise", partial(windows, order=(2, 1, 0)), "weight-order-mismatch", "forward:*"),
    ("windows averaged", partial(windows, mean=True), "layer-different", "forward:*"),
    ("windows' activation", partial(windows, activation="tanh"), "activation-different", "forward:*"),
    ("by hand, scale", partial(attention, scale=1.0), "attention-scale", "forward:*"),
    ("by hand, axis", partial(attention, axis=-2), "softmax-axis", "forward:*"),
    ("twins not normalised", partial(twins, normed=False), "layer-missing", "forward:*"),
    ("one term averaged", partial(two_terms, averaged=True), "loss-reduction", "loss"),
    ("enlarged by corners", partial(enlarged, corners=True), "resize-align-corners", "forward:*"),
    ("enlarged by steps", partial(enlarged, interpolation="nearest"), "resize-align-corners", "forward:*"),
]

PORTS = [
    *(clean(f"spelled/{build.__name__.replace('_', ' ')}", build) for build in CLEAN),
    *(planted(f"spelled/{name}", build, cause, place) for name, build, cause, place in PLANTED),
]
