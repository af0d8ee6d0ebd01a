"""Attention: the frameworks' own layers, hand-written ones, a transformer block, masks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal
from harness.recipe import Recipe

EXAMPLES, TIME, WIDTH, HEADS = 16, 6, 8, 2
layers, ops = keras.layers, keras.ops
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class SelfAttention(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.fc = nn.Linear(WIDTH, 3)
        self.masked = masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), diagonal=1) if self.masked else None
        out, _ = self.attn(x, x, x, attn_mask=mask, need_weights=False)
        return self.fc(out.mean(dim=1))


class KerasAttention(keras.Model):
    """mask: Keras's lower triangle says who is seen; torch's upper one (`inverted`) who is not."""

    def __init__(self, masked: bool, inverted: bool, scale: float) -> None:
        super().__init__()
        self.attn = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attn")
        self.fc = layers.Dense(3, name="fc")
        self.masked, self.inverted, self.scale = masked, inverted, scale

    def call(self, x: Any) -> Any:
        mask = np.tril(np.ones((1, TIME, TIME), bool)) if self.masked else None
        if self.inverted:
            mask = np.triu(np.ones((1, TIME, TIME), bool))
        out = self.attn(x * self.scale if self.scale != 1.0 else x, x, attention_mask=mask)
        return self.fc(ops.mean(out, axis=1))


def multihead(
    masked: bool = False, inverted: bool = False, query_and_key_swapped: bool = False, scale: float = 1.0
) -> Pair:
    _ = torch.manual_seed(0)
    net = SelfAttention(masked)
    with torch.no_grad():
        _ = net.attn.in_proj_weight.mul_(2.0)
        _ = nn.init.normal_(net.attn.in_proj_bias, std=0.3)
    model = KerasAttention(masked, inverted, scale)
    x = normal(EXAMPLES, TIME, WIDTH)
    _ = model(x[:1])
    arrays = transfer.attention(net.attn)
    if query_and_key_swapped:
        arrays[:4] = [*arrays[2:4], *arrays[:2]]
    model.attn.set_weights(arrays)
    model.fc.set_weights(transfer.linear(net.fc))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=SPARSE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return Pair(
        reference=Recipe(model=net, loss=nn.CrossEntropyLoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=x,
        y=integers(EXAMPLES, below=3),
        batch_size=8,
    )


class HandWritten(nn.Module):
    """One head; three projections."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.k = nn.Linear(WIDTH, WIDTH)
        self.v = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2) / math.sqrt(WIDTH)
        weights = F.softmax(scores, dim=-1)
        return self.out(weights @ v)


class KerasHead(layers.Layer):
    def __init__(self, scale: float, axis: int, **options: Any) -> None:
        super().__init__(**options)
        self.scale, self.axis = scale, axis
        self.q, self.k, self.v = (layers.Dense(WIDTH, name=name) for name in "qkv")

    def build(self, input_shape: Any) -> None:
        for projection in (self.q, self.k, self.v):
            projection.build(input_shape)

    def call(self, inputs: Any) -> Any:
        scores = ops.matmul(self.q(inputs), ops.transpose(self.k(inputs), (0, 2, 1))) * self.scale
        return ops.matmul(ops.softmax(scores, axis=self.axis), self.v(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "axis": self.axis}


def hand_written(scale: float = WIDTH**-0.5, axis: int = -1, not_transposed: str = "") -> Pair:
    _ = torch.manual_seed(0)
    net = HandWritten()
    head = KerasHead(scale, axis, name="head")
    model = keras.Sequential([keras.Input((TIME, WIDTH)), head, layers.Dense(1, name="last")])
    for name in "qkv":
        kernel, bias = transfer.linear(getattr(net, name))
        getattr(head, name).set_weights([kernel.T if name == not_transposed else kernel, bias])
    model.get_layer("last").set_weights(transfer.linear(net.out))
    model.compile(optimizer=keras.optimizers.Adam(0.01, epsilon=1e-30), loss="mse")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, eps=1e-30)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=normal(EXAMPLES, TIME, WIDTH),
        y=normal(EXAMPLES, TIME, 1, seed=1),
        batch_size=8,
    )


class Transformer(nn.Module):
    """Words and positions, torch's own encoder layer, a head on every position: a small language model's shape."""

    def __init__(self, norm_first: bool, activation: str) -> None:
        super().__init__()
        self.words = nn.Embedding(12, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(TIME, WIDTH))
        self.encoder = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 16, dropout=0.0, activation=activation, batch_first=True, norm_first=norm_first
        )
        self.head = nn.Linear(WIDTH, 12)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.words(tokens) + self.places))


class Places(layers.Layer):
    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(shape=input_shape[1:], initializer="zeros", name="table")

    def call(self, inputs: Any) -> Any:
        return inputs + self.table


def token_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.transpose(1, 2), target)


def transformer(
    norm_first: bool = False,
    keras_norm_first: bool = False,
    epsilon: float = 1e-5,
    places: bool = True,
    activation: str = "relu",
) -> Pair:
    _ = torch.manual_seed(0)
    net = Transformer(norm_first, activation)
    block = net.encoder
    inputs = keras.Input((TIME,), dtype="int32")
    h = layers.Embedding(12, WIDTH, name="embedding")(inputs)
    h = Places(name="places")(h)
    attend = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")
    norms = [layers.LayerNormalization(epsilon=epsilon, name=f"norm{i}") for i in (1, 2)]
    wide = layers.Dense(16, activation="relu", name="wide")
    narrow = layers.Dense(WIDTH, name="narrow")
    if keras_norm_first:
        z = norms[0](h)
        h = layers.Add(name="add1")([h, attend(z, z)])
        h = layers.Add(name="add2")([h, narrow(wide(norms[1](h)))])
    else:
        h = norms[0](layers.Add(name="add1")([h, attend(h, h)]))
        h = norms[1](layers.Add(name="add2")([h, narrow(wide(h))]))
    model = keras.Model(inputs, layers.Dense(12, name="vocabulary")(h))
    model.get_layer("embedding").set_weights(transfer.embedding(net.words))
    if places:
        model.get_layer("places").set_weights([transfer.array(net.places)])
    attend.set_weights(transfer.attention(block.self_attn))
    for layer, arrays in (
        (norms[0], transfer.norm(block.norm1)),
        (norms[1], transfer.norm(block.norm2)),
        (wide, transfer.linear(block.linear1)),
        (narrow, transfer.linear(block.linear2)),
        (model.get_layer("vocabulary"), transfer.linear(net.head)),
    ):
        layer.set_weights(arrays)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss=SPARSE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    tokens = integers(EXAMPLES, TIME, below=12)
    return Pair(
        reference=Recipe(model=net, loss=token_loss, optimizer=optimizer),
        candidate=Recipe(model=model),
        x=tokens,
        y=np.roll(tokens, -1, axis=1),
        batch_size=8,
    )


class Padded(nn.Module):
    """Sequences of several lengths: padded keys are ignored, outputs averaged over the valid steps."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(15, WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.fc = nn.Linear(WIDTH, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padding = tokens == 0
        x = self.words(tokens)
        out, _ = self.attn(x, x, x, key_padding_mask=padding)
        valid = (~padding).unsqueeze(-1).to(x.dtype)
        return self.fc((out * valid).sum(dim=1) / valid.sum(dim=1))


class KerasPadded(keras.Model):
    def __init__(self, all_counted: bool, ignored: bool) -> None:
        super().__init__()
        self.words = layers.Embedding(15, WIDTH, name="words")
        self.attn = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attn")
        self.fc = layers.Dense(1, name="fc")
        self.all_counted, self.ignored = all_counted, ignored

    def call(self, tokens: Any) -> Any:
        valid = ops.not_equal(tokens, 0)
        x = self.words(tokens)
        mask = ops.expand_dims(valid, 1)
        out = self.attn(x, x, attention_mask=ops.logical_not(mask) if self.ignored else mask)
        weights = ops.expand_dims(ops.cast(valid, out.dtype), -1)
        count = TIME if self.all_counted else ops.sum(weights, axis=1)
        return self.fc(ops.sum(out * weights, axis=1) / count)


def padded(all_counted: bool = False, ignored: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Padded()
    model = KerasPadded(all_counted, ignored)
    lengths = integers(EXAMPLES, below=TIME - 2, seed=2) + 2  # every row has valid and padded keys
    tokens = np.where(np.arange(TIME) < lengths[:, None], 1 + integers(EXAMPLES, TIME, below=14), 0)
    _ = model(tokens[:1])
    model.words.set_weights(transfer.embedding(net.words))
    model.attn.set_weights(transfer.attention(net.attn))
    model.fc.set_weights(transfer.linear(net.fc))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1)),
        candidate=Recipe(model=model),
        x=tokens,
        y=normal(EXAMPLES, 1, seed=1),
        batch_size=8,
    )


ATTN, HEAD = (
    "forward:attn* forward:*attn*",
    "forward:softmax forward:matmul* forward:head* forward:*softmax* forward:out forward:last",
)
ENCODER = "forward:encoder* forward:attention forward:add? forward:norm?"

PORTS = [
    clean("attention/multihead", multihead),
    clean("attention/causal", partial(multihead, masked=True)),
    clean("attention/hand-written", hand_written),
    clean("attention/transformer", transformer),
    clean("attention/transformer, norm first", partial(transformer, norm_first=True, keras_norm_first=True)),
    clean("attention/padded", padded),
    planted("attention/mask inverted", partial(multihead, True, inverted=True), "attention-mask-convention", ATTN),
    planted("attention/mask missing", partial(multihead, False, inverted=True), "attention-mask-convention", ATTN),
    planted(
        "attention/query and key swapped",
        partial(multihead, query_and_key_swapped=True),
        "weight-order-mismatch",
        ATTN,
    ),
    planted(
        "attention/queries scaled twice", partial(multihead, scale=0.5), "attention-scale", f"{ATTN} forward:*mul*"
    ),
    planted("attention/scale missing", partial(hand_written, scale=1.0), "attention-scale", f"{HEAD} forward:*div*"),
    planted("attention/softmax axis", partial(hand_written, axis=1), "softmax-axis", HEAD),
    planted(
        "attention/key not transposed",
        partial(hand_written, not_transposed="k"),
        "weight-layout-transpose",
        "forward:k forward:head/k",
    ),
    planted("attention/norm first", partial(transformer, keras_norm_first=True), "layer-missing", ENCODER),
    planted(
        "attention/norm epsilon", partial(transformer, epsilon=1e-3), "layernorm-eps", "forward:encoder* forward:norm1"
    ),
    planted(
        "attention/activation",
        partial(transformer, activation="gelu"),
        "activation-different",
        "forward:encoder* forward:wide",
    ),
    planted(
        "attention/positions not set",
        partial(transformer, places=False),
        "weights-not-transferred",
        "forward:add forward:places forward:encoder* forward:*add*",
    ),
    planted(
        "attention/padding counted",
        partial(padded, all_counted=True),
        "masked-loss-normalisation",
        "forward:*div* forward:fc",
    ),
    planted("attention/padding mask inverted", partial(padded, ignored=True), "attention-mask-convention", ATTN),
]
