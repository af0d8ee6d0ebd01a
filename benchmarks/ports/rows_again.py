"""The commonest causes a second time: in other architectures, other frameworks, and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
from torch import nn

from benchmarks.ports import Pair, clean, planted
from benchmarks.ports.rows_models import EXAMPLES, ops, turned
from benchmarks.ports.rows_nets import discriminator, encoder, pixels, words


def clip_value(net: nn.Module) -> None:
    nn.utils.clip_grad_value_(net.parameters(), 0.01)


def freeze(pair: Callable[[], Pair]) -> Pair:
    """The first convolution of the torch model rests."""
    made = pair()
    for p in made.reference.model.down.parameters():
        p.requires_grad_(False)
    return made


ORDER = [np.random.default_rng(5).permutation(EXAMPLES)[:16] for _ in range(3)]
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
