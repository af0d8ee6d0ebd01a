"""Near misses: real differences of relative size 1e-9 to 1e-6, which no tolerance on float32 can see."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import coins
from benchmarks.ports.losses import CLASSES, SHARES, scored
from benchmarks.ports.mlp import EXAMPLES, keras_net, regression_data, sgd, torch_net
from benchmarks.ports.normalised import batch, layered
from benchmarks.ports.optimizers import HatAdam
from benchmarks.ports.training import K_SGD, SGD, clip_norm, trained
from harness.recipe import Recipe

ops: Any = keras.ops


class TorchLambda(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def activated(torch_function: Any, keras_function: Any, scale: float = 1.0) -> Pair:
    """A hidden activation written by hand on both sides."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 16), TorchLambda(torch_function), nn.Linear(16, 1))
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(16, name="first"),
            keras.layers.Lambda(keras_function, name="activation"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    for name, layer in (("first", net[0]), ("last", net[2])):
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            _ = layer.weight.mul_(scale if name == "first" else 1 / scale)
        model.get_layer(name).set_weights(transfer.linear(layer))
    model.compile(optimizer=keras.optimizers.SGD(0.01 / scale), loss="mse")
    x, y = regression_data()
    reference = Recipe(model=net, loss=nn.MSELoss(), optimizer=sgd(net, lr=0.01 / scale))
    return Pair(reference=reference, candidate=Recipe(model=model), x=x, y=y)


def gelu(library: Any, root: float) -> Any:
    return lambda z: 0.5 * z * (1 + library.tanh(root * (z + 0.044715 * z**3)))


def wave(library: Any, pi: float) -> Any:
    return lambda z: library.sin(pi * z) / pi


def shrunk(library: Any, constant: float) -> Any:
    return lambda z: z / library.sqrt(z * z + constant)


def scheduled(rate: float) -> Pair:
    return trained(SGD, partial(keras.optimizers.SGD, rate))


def probable(torch_floor: float, keras_floor: float) -> Pair:
    """Binary cross-entropy by hand with an epsilon inside the logarithms, or without."""

    def by_hand(log: Any, mean: Any, floor: float, p: Any, y: Any) -> Any:
        return -mean(y * log(p + floor) + (1 - y) * log(1 - p + floor))

    return scored(
        partial(by_hand, torch.log, torch.mean, torch_floor),
        lambda y, p: by_hand(ops.log, ops.mean, keras_floor, p, y),
        coins(EXAMPLES, 1),
        last="sigmoid",
    )


def clipped_probability(floor: float, naive: bool = False) -> Pair:
    """Probabilities by hand, of which a few lie below Keras's 1e-7: only these are clipped; naive: 1 - p is rounded,
    and float32 keeps two digits of the loss."""
    net = torch_net()
    with torch.no_grad():
        _ = net.fc3.weight.mul_(20.0)
        _ = net.fc3.bias.fill_(-13.5)
    model = keras_net(net)
    full = nn.Sequential(net, nn.Sigmoid())
    inputs = keras.Input((10,))
    logits = model(inputs)
    outputs = keras.layers.Lambda(lambda z: 1 / (1 + ops.exp(-z)), name="probability")(logits)
    wrapped = keras.Model(inputs, outputs)

    def loss(y: Any, p: Any) -> Any:
        p = ops.clip(p, floor, 1 - floor)
        return -ops.mean(y * ops.log(p) + (1 - y) * (ops.log(1 - p) if naive else ops.log1p(-p)))

    wrapped.compile(optimizer=keras.optimizers.SGD(1e-3), loss=loss)
    reference = Recipe(model=full, loss=nn.BCELoss(), optimizer=sgd(full, lr=1e-3))
    x, _ = regression_data()
    return Pair(reference=reference, candidate=Recipe(model=wrapped), x=x, y=np.zeros((EXAMPLES, 1), np.float32))


ROOT = math.sqrt(2 / math.pi)
HIDDEN = "forward:1* forward:activation"

PORTS = [
    clean("near/gelu by hand", partial(activated, gelu(torch, ROOT), gelu(ops, ROOT))),
    clean("near/wave", partial(activated, wave(torch, math.pi), wave(ops, math.pi))),
    clean("near/none clipped", partial(clipped_probability, 1e-30)),
    planted("near/naive logarithm", partial(clipped_probability, 1e-30, True), "unstable-form", "loss"),
    planted(
        "near/root of two over pi, seven digits",
        partial(activated, gelu(torch, ROOT), gelu(ops, 0.7978846)),
        "truncated-constant",
        HIDDEN,
    ),
    planted(
        "near/pi, seven digits",
        partial(activated, wave(torch, math.pi), wave(ops, 3.141593)),
        "truncated-constant",
        HIDDEN,
    ),
    planted(
        "near/epsilon in a root",
        partial(activated, shrunk(torch, 0.01), shrunk(ops, 0.01000001)),
        "truncated-constant",
        HIDDEN,
    ),
    planted(  # the gradients are about 0.01, so epsilon / sqrt(v) moves by about 1e-6 to 1e-4
        "near/adam epsilon",
        partial(trained, partial(HatAdam, lr=0.01, eps=1e-8), partial(keras.optimizers.Adam, 0.01, epsilon=1e-7)),
        "adam-epsilon",
        "update:*",
    ),
    planted(
        "near/adam epsilon placement",
        partial(
            trained,
            partial(torch.optim.Adam, lr=0.01, eps=1e-8),
            partial(keras.optimizers.Adam, 0.01, epsilon=1e-8),
        ),
        "adam-epsilon-placement",
        "update:*",
    ),
    planted(  # inputs above 20, where softplus is exp(-z) away from z: 2e-9 at most
        "near/softplus threshold",
        partial(activated, nn.Softplus(), lambda z: ops.logaddexp(z, ops.zeros_like(z)), scale=30.0),
        "softplus-threshold",
        HIDDEN,
    ),
    planted(
        "near/clipping's 1e-6",
        partial(trained, SGD, partial(K_SGD, global_clipnorm=0.1), after_backward=partial(clip_norm, 0.1)),
        "grad-clip-epsilon",
        "update:*",
    ),
    planted("near/batch norm epsilon", partial(batch, epsilon=1.001e-5), "batchnorm-eps", "forward:bn forward:norm"),
    planted("near/layer norm epsilon", partial(layered, ln=1.001e-5), "layernorm-eps", "forward:ln forward:layer_norm"),
    planted("near/learning rate", partial(scheduled, 0.05000005), "learning-rate", "update:*"),
    planted("near/floor in the logarithm", partial(probable, 0.0, 1e-7), "bce-clipping", "loss"),
    planted("near/few clipped", partial(clipped_probability, 1e-7), "bce-clipping", "loss"),
    planted(
        "near/penalty",
        partial(
            trained,
            SGD,
            K_SGD,
            keras_l2=0.01,
            options={"penalty": lambda net: 0.01000001 * ((net.fc1.weight**2).sum() + (net.fc2.weight**2).sum())},
        ),
        "l2-factor-two",
        "loss",
    ),
    planted(  # torch multiplies the softmax by the sum of the labels, TensorFlow's gradient takes it for 1
        "near/soft labels adding up to 1.0000001",
        partial(
            scored,
            nn.CrossEntropyLoss(),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            SHARES * np.float32(1.0000001),
            out=CLASSES,
        ),
        "gradient-missing-term",
        "gradient:*",
    ),
    planted(
        "near/momentum",
        partial(trained, partial(SGD, momentum=0.9), partial(K_SGD, momentum=0.900001)),
        "momentum-value",
        "update:*",
        1,
    ),
]
