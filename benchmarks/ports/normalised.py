"""Normalisation layers. Keras's batch norm keeps the biased running variance, torch's the unbiased one: correct ports
train in inference mode, or keep the biased one in torch too."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import normal
from harness.recipe import Recipe

EXAMPLES = 32
ops: Any = keras.ops


class BiasedBatchNorm(nn.BatchNorm1d):
    """Running variance over n, not n - 1."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        mean, variance = input.mean(dim=0), input.var(dim=0, unbiased=False)
        with torch.no_grad():
            _ = self.running_mean.lerp_(mean, self.momentum)
            _ = self.running_var.lerp_(variance, self.momentum)
        return self.weight * (input - mean) / torch.sqrt(variance + self.eps) + self.bias


class Normalised(nn.Module):
    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(7, 12)
        self.bn = (BiasedBatchNorm if biased else nn.BatchNorm1d)(12)
        self.fc2 = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.relu(self.bn(self.fc1(x))))


def spread(bn: nn.BatchNorm1d | nn.BatchNorm2d, seed: int = 3) -> None:
    """Statistics and scales that tell each other apart, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    for tensor, low, high in (
        (bn.weight.data, 0.5, 1.5),
        (bn.bias.data, -0.5, 0.5),
        (bn.running_mean, 0.1, 0.6),
        (bn.running_var, 0.5, 2.0),
    ):
        assert tensor is not None
        _ = tensor.uniform_(low, high, generator=generator)


def batch(
    biased: bool = True,
    training: tuple[bool | None, bool | None] = (None, None),
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    order: tuple[int, ...] = (0, 1, 2, 3),
) -> Pair:
    _ = torch.manual_seed(0)
    net = Normalised(biased)
    spread(net.bn)
    model = keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Dense(12, name="a"),
            keras.layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Dense(2, name="b"),
        ]
    )
    model.get_layer("a").set_weights(transfer.linear(net.fc1))
    weights = transfer.batch_norm(net.bn)
    model.get_layer("norm").set_weights([weights[i] for i in order])
    model.get_layer("b").set_weights(transfer.linear(net.fc2))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer, training=training[0]),
        candidate=Recipe(model=model, training=training[1]),
        x=normal(EXAMPLES, 7),
        y=normal(EXAMPLES, 2, seed=1),
        batch_size=16,
    )


class RMSNorm(keras.layers.Layer):
    """By hand, before Keras had its own."""

    def __init__(self, epsilon: float, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        mean = ops.mean(ops.square(inputs), axis=-1, keepdims=True)
        return inputs * ops.rsqrt(mean + self.epsilon) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


class Layered(nn.Module):
    """Layer, group and RMS norm in turn on a (4, 6) map."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 24)
        self.ln = nn.LayerNorm(24)
        self.gn = nn.GroupNorm(2, 6)
        self.rms = nn.RMSNorm(6, eps=1e-6)
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.ln(self.embed(x)), approximate="tanh")
        x = self.gn(x.reshape(-1, 4, 6).transpose(1, 2)).transpose(1, 2)
        return self.head(self.rms(x).mean(dim=1))


def layered(ln: float = 1e-5, gn: float = 1e-5, rms: float = 1e-6, swapped: bool = False, groups: int = 2) -> Pair:
    _ = torch.manual_seed(0)
    net = Layered()
    with torch.no_grad():
        for norm in (net.ln, net.gn):
            _ = norm.weight.add_(0.1 * torch.randn(norm.weight.shape))
            _ = norm.bias.add_(0.1 * torch.randn(norm.bias.shape))
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(24, name="embed"),
            keras.layers.LayerNormalization(epsilon=ln, name="layer_norm"),
            keras.layers.Lambda(lambda z: ops.gelu(z, approximate=True), name="gelu"),
            keras.layers.Reshape((4, 6), name="map"),
            keras.layers.GroupNormalization(groups, epsilon=gn, name="group_norm"),
            RMSNorm(rms, name="rms_norm"),
            keras.layers.GlobalAveragePooling1D(name="mean"),
            keras.layers.Dense(1, name="head"),
        ]
    )
    gamma, beta = transfer.norm(net.ln)
    model.get_layer("embed").set_weights(transfer.linear(net.embed))
    model.get_layer("layer_norm").set_weights([beta, gamma] if swapped else [gamma, beta])
    model.get_layer("group_norm").set_weights(transfer.norm(net.gn))
    model.get_layer("head").set_weights(transfer.linear(net.head))
    model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9), loss=keras.losses.Huber(delta=1.0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    return Pair(
        reference=Recipe(model=net, loss=nn.HuberLoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=normal(EXAMPLES, 5),
        y=normal(EXAMPLES, 1, seed=1),
        batch_size=8,
    )


class Standardised(nn.Module):
    """Columns divided by their standard deviation over the batch: n - 1 in torch.std, n in NumPy and Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.fc(x)
        return (z - z.mean(0)) / z.std(0)


def standardised(unbiased: bool) -> Pair:
    _ = torch.manual_seed(0)
    net = Standardised()

    def over_batch(z: Any) -> Any:
        n = ops.cast(ops.shape(z)[0], z.dtype)
        deviation = ops.std(z, axis=0) * (ops.sqrt(n / (n - 1)) if unbiased else 1)
        return (z - ops.mean(z, axis=0)) / deviation

    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, name="fc"), keras.layers.Lambda(over_batch, name="standard")]
    )
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1)),
        candidate=Recipe(model=model),
        x=normal(EXAMPLES, 6),
        y=np.tanh(normal(EXAMPLES, 4, seed=1)),
    )


LN, GN = "forward:ln forward:layer_norm", "forward:gn forward:group_norm"
STATISTICS = "state:bn.running_* state:*norm/moving_*"

PORTS = [
    clean("normalised/batch, biased by hand", batch),
    clean("normalised/batch, frozen statistics", partial(batch, biased=False, training=(False, False))),
    clean("normalised/layer, group, rms", layered),
    clean("normalised/standard deviation", partial(standardised, unbiased=True)),
    planted(
        "normalised/unbiased variance",
        partial(batch, biased=False),
        "batchnorm-unbiased-variance",
        "state:bn.running_var state:*norm/moving_variance",
    ),
    planted("normalised/momentum", partial(batch, momentum=0.99), "batchnorm-momentum", STATISTICS),
    planted("normalised/momentum complement", partial(batch, momentum=0.1), "batchnorm-momentum", STATISTICS),
    planted("normalised/batch epsilon", partial(batch, epsilon=1e-3), "batchnorm-eps", "forward:bn forward:norm"),
    planted(
        "normalised/training mode",
        partial(batch, biased=False, training=(True, False)),
        "train-eval-mode",
        "forward:bn forward:norm",
    ),
    planted(
        "normalised/mean and variance swapped",
        partial(batch, biased=False, training=(False, False), order=(0, 1, 3, 2)),
        "weight-order-mismatch",
        "forward:bn forward:norm",
    ),
    planted("normalised/gamma and beta swapped", partial(layered, swapped=True), "weight-order-mismatch", LN),
    planted("normalised/layer epsilon", partial(layered, ln=1e-3), "layernorm-eps", LN),
    planted("normalised/group epsilon", partial(layered, gn=1e-3), "groupnorm-eps", GN),
    planted("normalised/groups", partial(layered, groups=3), "norm-axis", GN),
    planted("normalised/rms epsilon", partial(layered, rms=1e-5), "rmsnorm-eps", "forward:rms forward:rms_norm"),
    planted(
        "normalised/biased deviation",
        partial(standardised, unbiased=False),
        "std-unbiased",
        # the outermost operation is a division, which no function hook may see: then it shows in the output
        "forward:standard forward:std forward:*div* forward:output forward:",
    ),
]
