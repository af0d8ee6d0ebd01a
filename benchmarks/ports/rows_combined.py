"""Models with two or three causes at once, drawn at random from switches that do not touch each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations as combined
from typing import Any, NamedTuple

import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
from torch import nn

from benchmarks.ports import Pair
from benchmarks.ports.data import integers, normal, one_hot
from benchmarks.ports.optimizers import HatAdam
from benchmarks.ports.rows_models import EXAMPLES, K_SGD, arrays, in_keras, in_torch, layers, turned
from benchmarks.ports.rows_nets import CLASSES, discriminator, encoder

TURNED = ", turned"
LABELS = integers(EXAMPLES, below=CLASSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A pair, and the ids of all causes in it."""

    name: str
    build: Callable[[], Pair]
    causes: frozenset[str]


class Switch(NamedTuple):
    """A cause and the keywords with which a base model has it."""

    cause: str
    keywords: Mapping[str, Any]


def perceptron(
    rule: str = "sgd",
    slope: float = 0.01,
    epsilon: float = 1e-5,
    approximate: bool = False,
    activation: str = "tanh",
    transposed: bool = False,
    dropped: float = 0.0,
    smoothing: float = 0.0,
    reduction: str = "sum_over_batch_size",
    l2: float = 0.0,
    rate: float = 0.01,
    momentum: float = 0.9,
    hat: float = 1e-3,
    clip: float | None = None,
    frozen: bool = False,
) -> Pair:
    """Dense layers with layer norm, LeakyReLU, GELU and tanh between, in torch and Keras; by SGD or Adam."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(10, 12), nn.LayerNorm(12), nn.LeakyReLU(0.01)),
        *(nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, CLASSES)),
    )
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(12, name="first"),
            layers.LayerNormalization(epsilon=epsilon, name="norm"),
            layers.LeakyReLU(negative_slope=slope, name="leaky"),
            layers.Dense(12, name="second"),
            layers.Lambda(lambda z: keras.ops.gelu(z, approximate=approximate), name="gelu"),
            *([layers.Dropout(dropped, name="drop")] if dropped else []),
            layers.Dense(
                12, activation=activation, name="third", kernel_regularizer=keras.regularizers.L2(l2) if l2 else None
            ),
            layers.Dense(CLASSES, name="last"),
        ]
    )
    for name, held in zip(("first", "norm", "second", "third", "last"), arrays(net), strict=True):
        if transposed and name == "second":
            held[0] = held[0].T
        model.get_layer(name).set_weights(held)
    model.get_layer("second").trainable = not frozen
    options: Any = {"clipvalue": clip}
    by_torch, by_keras = {
        "sgd": (
            partial(torch.optim.SGD, lr=0.01, momentum=0.9),
            partial(keras.optimizers.SGD, rate, momentum=momentum, **options),
        ),
        "adam": (
            partial(HatAdam, lr=0.01, eps=1e-3),
            partial(keras.optimizers.Adam, rate, beta_1=momentum, epsilon=hat, **options),
        ),
    }[rule]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=reduction)
    return Pair(
        reference=in_torch(net, nn.CrossEntropyLoss(), by_torch, training=True),
        candidate=in_keras(model, loss, by_keras, training=True),
        x=normal(EXAMPLES, 10, scale=2.0),
        y=(LABELS, one_hot(LABELS, CLASSES)),
        steps=3,
    )


OF_PERCEPTRON = (
    Switch("leakyrelu-slope", {"slope": 0.3}),
    Switch("layernorm-eps", {"epsilon": 1e-3}),
    Switch("gelu-approximation", {"approximate": True}),
    Switch("activation-different", {"activation": "softsign"}),
    Switch("weight-layout-transpose", {"transposed": True}),
    Switch("dropout-active", {"dropped": 0.3}),
    Switch("label-smoothing", {"smoothing": 0.1}),
    Switch("loss-reduction", {"reduction": "sum"}),
    Switch("l2-missing", {"l2": 0.01}),
    Switch("learning-rate", {"rate": 0.02}),
    Switch("momentum-value", {"momentum": 0.8}),
    Switch("grad-clip-value", {"clip": 1e-3}),
    Switch("frozen-parameter", {"frozen": True}),
)
OF_ADAM = (*OF_PERCEPTRON, Switch("adam-epsilon", {"hat": 1e-4}))
OF_DISCRIMINATOR = (
    Switch("batchnorm-eps", {"epsilon": 1e-3}),
    Switch("leakyrelu-slope", {"slope": 0.3}),
    Switch("activation-different", {"activation": "tanh"}),
    Switch("bias-missing", {"bias": False}),
    Switch("conv-same-padding-asymmetry", {"same": True}),
    Switch("layer-missing", {"skip": (True, False)}),
    Switch("conv-kernel-axes", {"swapped": True}),
    Switch("loss-reduction", {"loss": nn.CrossEntropyLoss(reduction="sum")}),
    Switch("learning-rate", {"candidate": {"rule": partial(keras.optimizers.SGD, 0.02)}}),
    Switch("grad-clip-value", {"candidate": {"rule": partial(K_SGD, clipvalue=1e-3)}}),
)
OF_ENCODER = (
    Switch("gelu-approximation", {"approximate": True}),
    Switch("layernorm-eps", {"epsilon": 1e-3}),
    Switch("attention-scale", {"scale": 1.0}),
    Switch("weight-layout-transpose", {"transposed": "q"}),
    Switch("loss-reduction", {"reduce": jnp.sum}),
    Switch("label-smoothing", {"smoothing": (0.1, 0.0)}),
    Switch("learning-rate", {"other_rule": optax.sgd(0.02)}),
    Switch(
        "momentum-value", {"rule": partial(torch.optim.SGD, lr=0.05, momentum=0.5), "other_rule": optax.sgd(0.05, 0.8)}
    ),
)
BASES: Mapping[str, tuple[Callable[..., Pair], tuple[Switch, ...]]] = {
    "perceptron": (perceptron, OF_PERCEPTRON),
    "discriminator": (discriminator, OF_DISCRIMINATOR),
    "encoder": (encoder, OF_ENCODER),
    "perceptron by adam": (partial(perceptron, "adam"), OF_ADAM),
}
"""By name: a base model, and what can be wrong with it."""


def combinations(count: int, seed: int) -> list[Combination]:
    """Pairs and triples of causes, base model after base model, half of them turned round; no two are alike."""
    rng = np.random.default_rng(seed)
    decks = {name: [_sets(switches, n) for n in (2, 3)] for name, (_, switches) in BASES.items()}
    for of in decks.values():
        for deck in of:
            rng.shuffle(deck)  # pyright: ignore[reportArgumentType]
    chosen: list[Combination] = []
    names = list(BASES)
    for i in range(count):
        name, deck = names[i % len(names)], decks[names[i % len(names)]][i // len(names) % 2]
        if deck:
            chosen.append(_made(name, deck.pop(), turn=bool(rng.integers(2))))
    return chosen


def combination(name: str) -> Combination:
    """The one of that name: `base/cause + cause`, perhaps `, turned`."""
    base, _, causes = name.removesuffix(TURNED).partition("/")
    switches = {switch.cause: switch for switch in BASES[base][1]}
    some = tuple(switches[cause] for cause in causes.split(" + "))
    return _made(base, some, turn=name.endswith(TURNED))


def _sets(switches: tuple[Switch, ...], size: int) -> list[tuple[Switch, ...]]:
    """Sets of switches that set no keyword twice."""
    return [some for some in combined(switches, size) if len(_keywords(some)) == sum(len(s.keywords) for s in some)]


def _keywords(some: tuple[Switch, ...]) -> dict[str, Any]:
    return {name: value for switch in some for name, value in switch.keywords.items()}


def _made(base: str, some: tuple[Switch, ...], turn: bool) -> Combination:
    build = partial(BASES[base][0], **_keywords(some))
    causes = [switch.cause for switch in some]
    return Combination(
        name=f"{base}/{' + '.join(causes)}{TURNED if turn else ''}",
        build=partial(turned, build) if turn else build,
        causes=frozenset(causes),
    )
