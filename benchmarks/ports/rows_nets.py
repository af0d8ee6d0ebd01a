"""What the families rows_again and rows_combined plant causes in: a discriminator, an encoder in JAX, words, maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, transfer
from benchmarks.ports.data import integers, normal
from benchmarks.ports.rows_models import (
    EXAMPLES,
    SGD,
    arrays,
    in_jax,
    in_keras,
    in_torch,
    layers,
    ported,
)

CLASSES, SIZE, TIME, WIDTH, WORDS = 4, 8, 7, 8, 11
LABELS = integers(EXAMPLES, below=CLASSES)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# --- a discriminator: strided convolutions, batch normalisation, LeakyReLU ------------------------------------------


class Discriminator(nn.Module):
    def __init__(self, bias: bool = True, skip: bool = False) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=bias)
        self.bn = nn.BatchNorm2d(6)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 16, CLASSES)
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.leaky_relu(self.bn(self.down(x)), 0.2)
        h = self.again(h) + (h if self.skip else 0)
        return self.fc(torch.flatten(F.silu(h), 1))


def discriminator(
    same: bool = False,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    slope: float = 0.2,
    activation: str = "silu",
    bias: bool = True,
    skip: tuple[bool, bool] = (False, False),
    channels_first: bool = True,
    swapped: bool = False,
    fresh: str = "",
    training: bool | None = False,
    loss: Any = None,
    keras_loss: Any = SPARSE,
    y: Any = LABELS,
    normed: bool = True,
    **sides: Any,
) -> Pair:
    """Inference mode of the statistics: Keras's are biased, torch's are not."""
    _ = torch.manual_seed(0)
    keras.utils.set_random_seed(1)
    net = Discriminator(skip=skip[0])
    with torch.no_grad():
        for tensor, low, high in (
            *((net.bn.weight, 0.5, 1.5), (net.bn.bias, -0.5, 0.5)),
            *((net.bn.running_mean, 0.1, 0.6), (net.bn.running_var, 0.01, 0.2)),
        ):
            assert tensor is not None
            _ = tensor.uniform_(low, high)
    inputs = keras.Input((SIZE, SIZE, 3))
    h = inputs if same else layers.ZeroPadding2D(1, name="pad")(inputs)
    h = layers.Conv2D(6, 3, strides=2, padding="same" if same else "valid", use_bias=bias, name="down")(h)
    if normed:
        h = layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name="bn")(h)
    h = layers.LeakyReLU(negative_slope=slope, name="leaky")(h)
    z = layers.Conv2D(6, 3, padding="same", name="again")(h)
    z = layers.Add(name="add")([z, h]) if skip[1] else z
    z = layers.Activation(activation, name="act")(z)
    z = layers.Permute((3, 1, 2), name="first")(z) if channels_first else z
    model = keras.Model(inputs, layers.Dense(CLASSES, name="fc")(layers.Flatten(name="flat")(z)))
    held = dict(zip(("down", "bn", "again", "fc"), arrays(net), strict=True))
    held["down"] = held["down"][: 1 + bias]
    if swapped:
        held["again"][0] = held["again"][0].transpose(1, 0, 2, 3)
    for name, weights in held.items():
        if name != fresh and (normed or name != "bn"):
            model.get_layer(name).set_weights(weights)
    x = normal(EXAMPLES, 3, SIZE, SIZE)
    return Pair(
        reference=in_torch(net, loss or nn.CrossEntropyLoss(), training=training, **sides.get("reference", {})),
        candidate=in_keras(model, keras_loss, training=training, **sides.get("candidate", {})),
        x=(x, transfer.channels_last(x)),
        y=y,
        steps=3,
    )


# --- a transformer block in JAX -------------------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.up, self.down = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.ln(x)
        scores = self.q(h) @ self.k(h).transpose(-2, -1) * WIDTH**-0.5
        x = x + torch.softmax(scores, dim=-1) @ self.v(h)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean(dim=1))


def encoder(
    approximate: bool = False,
    epsilon: float = 1e-5,
    scale: float = WIDTH**-0.5,
    axis: int = -1,
    causal: bool = False,
    unbiased: bool = False,
    transposed: str = "",
    exchanged: tuple[str, str] = ("", ""),
    reduce: Callable[..., Any] = jnp.mean,
    smoothing: tuple[float, float] = (0.0, 0.0),
    rule: Callable[..., torch.optim.Optimizer] = SGD,
    other_rule: Any = None,
    stopped: bool = False,
    after_backward: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Pair:
    _ = torch.manual_seed(0)
    net = Encoder()
    params: Any = {
        name: dict(zip("wb", transfer.linear(getattr(net, name)), strict=True))
        for name in ("q", "k", "v", "up", "down", "head")
    }
    params["ln"] = dict(zip("wb", transfer.norm(net.ln), strict=True))
    if transposed:
        params[transposed]["w"] = params[transposed]["w"].T.copy()
    if exchanged[0]:
        params[exchanged[0]], params[exchanged[1]] = params[exchanged[1]], params[exchanged[0]]

    def dense(p: Any, x: Any) -> Any:
        return x @ p["w"] + p["b"]

    def apply(p: Any, x: Any) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.var(x, axis=-1, keepdims=True, ddof=int(unbiased))
        h = centred / jnp.sqrt(variance + epsilon) * p["ln"]["w"] + p["ln"]["b"]
        scores = dense(p["q"], h) @ jnp.swapaxes(dense(p["k"], h), -2, -1) * scale
        if causal:
            scores = jnp.where(jnp.tril(jnp.ones((TIME, TIME), bool)), scores, -jnp.inf)
        attended = jax.nn.softmax(scores, axis=axis) @ dense(p["v"], h)
        x = x + (jax.lax.stop_gradient(attended) if stopped else attended)
        x = x + dense(p["down"], jax.nn.gelu(dense(p["up"], x), approximate=approximate))
        return dense(p["head"], x.mean(axis=1))

    def loss(logits: Any, labels: Any) -> Any:
        if smoothing[1]:
            soft = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES, dtype=logits.dtype), smoothing[1])
            return reduce(optax.softmax_cross_entropy(logits, soft))
        return reduce(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    cross = nn.CrossEntropyLoss(label_smoothing=smoothing[0])
    return Pair(
        reference=in_torch(net, cross, rule, after_backward=after_backward, **options),
        candidate=in_jax(apply, params, loss, other_rule),
        x=normal(EXAMPLES, TIME, WIDTH),
        y=LABELS,
        steps=3,
    )


# --- words: embedding, LSTM or convolution over time ----------------------------------------------------------------


class Words(nn.Module):
    def __init__(self, padding_idx: int | None, how: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH, padding_idx=padding_idx)
        self.lstm = nn.LSTM(WIDTH, 6, batch_first=True)
        self.fc = nn.Linear(6, CLASSES)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(self.embed(x))
        return self.fc(out.mean(dim=1) if self.how == "mean" else out[:, -1])


def words(
    padding_idx: int | None = None,
    how: str = "last",
    keras_how: str = "last",
    gates: tuple[int, ...] = (0, 1, 2, 3),
    forget: float = 0.0,
    square: bool = False,
    recurrent: str = "sigmoid",
    activation: str = "tanh",
    fresh: str = "",
    **sides: Any,
) -> Pair:
    _ = torch.manual_seed(0)
    keras.utils.set_random_seed(1)
    net = Words(padding_idx, how)
    with torch.no_grad():
        _ = net.lstm.get_parameter("bias_hh_l0").zero_()
        net.lstm.get_parameter("bias_hh_l0").requires_grad_(False)
    model = keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            layers.Embedding(WORDS, WIDTH, name="embed"),
            layers.LSTM(
                6,
                activation=activation,
                recurrent_activation=recurrent,
                return_sequences=keras_how == "mean",
                name="lstm",
            ),
            *([layers.GlobalAveragePooling1D(name="mean")] if keras_how == "mean" else []),
            layers.Dense(CLASSES, name="fc"),
        ]
    )
    held = dict(zip(("embed", "lstm", "fc"), arrays(net), strict=True))
    held["lstm"] = [np.concatenate([np.split(a, 4, axis=-1)[g] for g in gates], axis=-1) for a in held["lstm"]]
    if square:
        held["lstm"][1] = np.concatenate([block.T for block in np.split(held["lstm"][1], 4, axis=-1)], axis=-1)
    for name, weights in held.items():
        if name != fresh:
            model.get_layer(name).set_weights(weights)
    tokens = integers(EXAMPLES, TIME, below=WORDS, seed=2)
    tokens[:, 5:] = 0
    return Pair(
        reference=in_torch(net, nn.CrossEntropyLoss(), **sides.get("reference", {})),
        candidate=in_keras(model, SPARSE, **sides.get("candidate", {})),
        x=tokens,
        y=LABELS,
        steps=3,
    )


# --- maps: a loss for each pixel ------------------------------------------------------------------------------------


def pixels(loss: Any, keras_loss: Any, factor: float = 1.0, keras_factor: float = 1.0, **sides: Any) -> Pair:
    """A fully convolutional regression of two maps; inputs are scaled inside."""
    _ = torch.manual_seed(0)

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.tanh(self.one(x * factor)))

    net = Maps()
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            *([] if keras_factor == 1.0 else [layers.Rescaling(keras_factor, name="scale")]),
            layers.Conv2D(5, 3, padding="same", activation="tanh", name="one"),
            layers.Conv2D(2, 1, name="two"),
        ]
    )
    x, y = normal(EXAMPLES, 3, SIZE, SIZE), normal(EXAMPLES, 2, SIZE, SIZE, seed=1)
    return Pair(
        reference=in_torch(net, loss, **sides.get("reference", {})),
        candidate=in_keras(ported(net, model), keras_loss, **sides.get("candidate", {})),
        x=(x, transfer.channels_last(x)),
        y=(y, transfer.channels_last(y)),
        steps=3,
    )
