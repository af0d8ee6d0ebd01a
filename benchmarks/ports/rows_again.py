"""The commonest causes a second time: in other architectures, other frameworks, and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal
from benchmarks.ports.rows_models import (
    EXAMPLES,
    SGD,
    arrays,
    in_jax,
    in_keras,
    in_torch,
    layers,
    ops,
    ported,
    turned,
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
        _ = net.lstm.bias_hh_l0.zero_()
        net.lstm.bias_hh_l0.requires_grad_(False)
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


def clip_value(net: nn.Module) -> None:
    nn.utils.clip_grad_value_(net.parameters(), 0.01)


def freeze(pair: Callable[[], Pair]) -> Pair:
    """The first convolution of the torch model rests."""
    made = pair()
    for p in made.reference.model.down.parameters():
        p.requires_grad_(False)
    return made


ORDER = [np.random.default_rng(5).permutation(EXAMPLES)[:16] for _ in range(3)]
WEIGHTS = np.linspace(0.5, 1.5, EXAMPLES, dtype=np.float32)
MSE, K_MSE = nn.MSELoss(), "mse"
ADAM = partial(torch.optim.Adam, lr=0.01)
ADAMW = partial(torch.optim.AdamW, lr=0.01)
optim: Any = torch.optim
ANY = "forward:*"

PLANTED: list[tuple[str, Callable[[], Pair], str, str]] = [
    ("default epsilon, batch", partial(discriminator, epsilon=1e-3), "batchnorm-eps", "forward:bn"),
    ("default slope", partial(discriminator, slope=0.3), "leakyrelu-slope", ANY),
    ("relu or silu", partial(discriminator, activation="relu"), "activation-different", ANY),
    ("no bias in a convolution", partial(discriminator, bias=False), "bias-missing", ANY),
    ("skip connection forgotten", partial(discriminator, skip=(True, False)), "layer-missing", ANY),
    ("skip connection too many", partial(discriminator, skip=(False, True)), "layer-missing", ANY),
    ("no batch norm", partial(discriminator, normed=False), "layer-missing", ANY),
    ("same padding, image", partial(discriminator, same=True), "conv-same-padding-asymmetry", ANY),
    ("flattened last", partial(discriminator, channels_first=False), "flatten-order", ANY),
    ("kernel's height and width", partial(discriminator, swapped=True), "conv-kernel-axes", ANY),
    ("convolution fresh", partial(discriminator, fresh="again"), "weights-not-transferred", ANY),
    ("convolution frozen", partial(freeze, discriminator), "frozen-parameter", "gradient:* update:*"),
    (
        "logits as probabilities, classes",
        partial(discriminator, keras_loss=keras.losses.SparseCategoricalCrossentropy()),
        "from-logits",
        "loss",
    ),
    (
        "summed over examples",
        partial(discriminator, loss=nn.CrossEntropyLoss(reduction="sum")),
        "loss-reduction",
        "loss",
    ),
    ("tanh gelu in JAX", partial(encoder, approximate=True), "gelu-approximation", ANY),
    ("layer norm by hand", partial(encoder, epsilon=1e-3), "layernorm-eps", ANY),
    ("layer norm by hand, unbiased", partial(encoder, unbiased=True), "std-unbiased", ANY),
    ("scale forgotten", partial(encoder, scale=1.0), "attention-scale", ANY),
    ("softmax over queries", partial(encoder, axis=-2), "softmax-axis", ANY),
    ("causal on one side", partial(encoder, causal=True), "attention-mask-convention", ANY),
    ("query not transposed", partial(encoder, transposed="q"), "weight-layout-transpose", ANY),
    ("query and key exchanged", partial(encoder, exchanged=("q", "k")), "weight-order-mismatch", ANY),
    ("attention stopped", partial(encoder, stopped=True), "detached-branch", "gradient:*"),
    ("summed in JAX", partial(encoder, reduce=jnp.sum), "loss-reduction", "loss"),
    ("smoothed on one side, JAX", partial(encoder, smoothing=(0.1, 0.0)), "label-smoothing", "loss"),
    ("smoothed more", partial(encoder, smoothing=(0.1, 0.2)), "label-smoothing", "loss"),
    ("rate in optax", partial(encoder, other_rule=optax.sgd(0.01)), "learning-rate", "update:*"),
    (
        "adam epsilon in optax",
        partial(encoder, rule=ADAM, other_rule=optax.adam(0.01, eps=1e-5)),
        "adam-epsilon",
        "update:*",
    ),
    (
        "beta in optax",
        partial(encoder, rule=ADAM, other_rule=optax.adam(0.01, b2=0.99)),
        "momentum-value",
        "update:*",
    ),
    (
        "default decay in optax",
        partial(encoder, rule=ADAMW, other_rule=optax.adamw(0.01)),
        "adamw-default-weight-decay",
        "update:*",
    ),
    (
        "nesterov in optax",
        partial(
            encoder, rule=partial(optim.SGD, lr=0.05, momentum=0.9), other_rule=optax.sgd(0.05, 0.9, nesterov=True)
        ),
        "nesterov-form",
        "update:*",
    ),
    (
        "clipped in torch",
        partial(encoder, after_backward=clip_value),
        "grad-clip-value",
        "update:*",
    ),
    ("padding row at rest", partial(words, padding_idx=0), "embedding-padding-idx", "gradient:embed*"),
    ("mean or last step", partial(words, how="mean"), "rnn-return-sequences", ANY),
    ("cell gates in another order", partial(words, gates=(0, 2, 1, 3)), "rnn-gate-order", ANY),
    ("recurrent kernel not transposed", partial(words, square=True), "weight-layout-transpose", ANY),
    ("hard sigmoid gates", partial(words, recurrent="hard_sigmoid"), "rnn-recurrent-activation", ANY),
    ("relu in the cell", partial(words, activation="relu"), "activation-different", ANY),
    ("embedding fresh", partial(words, fresh="embed"), "weights-not-transferred", ANY),
    ("batches shuffled", partial(words, candidate={"batches": ORDER}), "data-order", ANY),
    ("summed over pixels", partial(pixels, nn.MSELoss(reduction="sum"), K_MSE), "loss-reduction", "loss"),
    (
        "summed over channels",
        partial(pixels, MSE, lambda y, q: ops.mean(ops.sum(ops.square(y - q), axis=-1))),
        "loss-reduction",
        "loss",
    ),
    ("half of it", partial(pixels, MSE, lambda y, q: 0.5 * ops.mean(ops.square(y - q))), "loss-half-factor", "loss"),
    (
        "huber, other delta",
        partial(pixels, nn.HuberLoss(delta=1.0), keras.losses.Huber(delta=0.7)),
        "huber-delta-scale",
        "loss",
    ),
    ("absolute or squared", partial(pixels, nn.L1Loss(), K_MSE), "loss-different", "loss"),
    ("one of 255", partial(pixels, MSE, K_MSE, 1 / 255, 0.0039), "truncated-constant", ANY),
    ("pixels not scaled", partial(pixels, MSE, K_MSE, 1 / 255), "layer-missing", ANY),
    (
        "weights for examples",
        partial(pixels, MSE, K_MSE, candidate={"sample_weight": WEIGHTS}),
        "sample-weight",
        "loss",
    ),
]

PORTS = [
    clean("rows_again/discriminator", discriminator),
    clean("rows_again/encoder", encoder),
    clean("rows_again/words", words),
    clean("rows_again/words, mean", partial(words, how="mean", keras_how="mean")),
    clean("rows_again/pixels", partial(pixels, MSE, K_MSE, 0.5, 0.5)),
    clean("rows_again/smoothed", partial(encoder, smoothing=(0.1, 0.1))),
    *(planted(f"rows_again/{name}", build, cause, place, range(3)) for name, build, cause, place in PLANTED),
    *(
        planted(f"rows_again/{name}, turned", partial(turned, build), cause, f"{place.partition(':')[0]}*", range(3))
        for name, build, cause, place in PLANTED[::3]
    ),
]
