"""Clean pairs that are numerically hard: where rounding is large, or a fixed tolerance sees what is not there.

Dense networks here; normalisation and embeddings in delicate.py; deep, recurrent and long ones in long.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from benchmarks.ports import Pair, clean, transfer
from benchmarks.ports.data import coins, integers, normal
from benchmarks.ports.optimizers import HatAdam
from harness.recipe import Recipe

EXAMPLES = 32
layers: Any = keras.layers
ops: Any = keras.ops
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "softplus": partial(nn.Softplus, threshold=1e4)}


def chain(widths: Sequence[int], activation: str, gain: float = 1.0) -> tuple[nn.Sequential, keras.Sequential]:
    """Dense layers with an activation between, kernels of variance gain^2 / inputs."""
    _ = torch.manual_seed(0)
    parts: list[nn.Module] = []
    ported: list[Any] = [keras.Input((widths[0],))]
    for i, (n, m) in enumerate(pairwise(widths)):
        linear = nn.Linear(n, m)
        with torch.no_grad():
            _ = linear.weight.normal_(0, gain / n**0.5)
        last = i == len(widths) - 2
        parts += [linear] if last else [linear, ACTIVATIONS[activation]()]
        ported.append(layers.Dense(m, activation=None if last else activation, name=f"dense{i}"))
    net, model = nn.Sequential(*parts), keras.Sequential(ported)
    copy_linears(net, model)
    return net, model


def copy_linears(net: nn.Sequential, model: keras.Sequential) -> None:
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    for layer, linear in zip(dense, (m for m in net if isinstance(m, nn.Linear)), strict=True):
        layer.set_weights(transfer.linear(linear))


def trained(
    net: nn.Module,
    model: keras.Model,
    x: Any,
    y: Any,
    rate: float = 0.05,
    momentum: float = 0.0,
    loss: Any = None,
    keras_loss: Any = "mse",
    steps: int = 5,
) -> Pair:
    model.compile(optimizer=keras.optimizers.SGD(rate, momentum=momentum), loss=keras_loss)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum)
    return Pair(
        reference=Recipe(model=net, loss=loss or nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=x,
        y=y,
        steps=steps,
    )


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Y = normal(EXAMPLES, 1, seed=1)
classified = partial(trained, loss=nn.CrossEntropyLoss(), keras_loss=SPARSE)
on_logits = partial(trained, loss=nn.BCEWithLogitsLoss(), keras_loss=keras.losses.BinaryCrossentropy(from_logits=True))


def ill_conditioned() -> Pair:
    net, model = chain((12, 12, 1), "tanh")
    first = net[0]
    assert isinstance(first, nn.Linear)
    u, _, v = torch.linalg.svd(first.weight.detach())
    with torch.no_grad():
        _ = first.weight.copy_(u @ torch.diag(torch.logspace(2, -5, 12)) @ v)
    copy_linears(net, model)
    return trained(net, model, normal(EXAMPLES, 12), Y, rate=1e-3)


def large_activations() -> Pair:
    return trained(*chain((8, 16, 16, 1), "relu"), normal(EXAMPLES, 8, scale=1e4), 1e4 * Y, rate=1e-10)


def tiny_gradients() -> Pair:
    return trained(*chain((8, 16, 1), "tanh", gain=1e-5), normal(EXAMPLES, 8, scale=1e-5), 1e-6 * Y, rate=0.1)


def long_reduction() -> Pair:
    return trained(*chain((100_000, 1), "tanh"), normal(EXAMPLES, 100_000), Y, rate=1e-6, steps=2)


def saturated_softmax() -> Pair:
    net, model = chain((8, 16, 5), "tanh", gain=12.0)
    return classified(net, model, normal(EXAMPLES, 8), integers(EXAMPLES, below=5), rate=1e-3)


def logits_of_eighty() -> Pair:
    net, model = chain((8, 16, 1), "relu", gain=7.0)
    return on_logits(net, model, normal(EXAMPLES, 8), coins(EXAMPLES, 1), rate=1e-4)


def many_classes() -> Pair:
    net, model = chain((16, 3000), "tanh", gain=3.0)
    return classified(net, model, normal(EXAMPLES, 16), integers(EXAMPLES, below=3000), rate=0.1, steps=3)


def integer_grid(step: float) -> Pair:
    """Weights and inputs on a grid: pre-activations that are 0 on paper are 0 (step 1/4) or +-1e-17 (step 0.1)."""
    net, model = chain((6, 12, 8, 1), "relu")
    with torch.no_grad():
        for parameter in net.parameters():
            _ = parameter.copy_(torch.round(3 * torch.randn_like(parameter)) * step)
    copy_linears(net, model)
    x = normal(EXAMPLES, 6).round()
    return trained(net, model, x, Y.round(), rate=2.0**-12, steps=2)


def dead_units() -> Pair:
    net, model = chain((8, 16, 16, 1), "relu")
    with torch.no_grad():
        for i in (0, 2):
            _ = net[i].bias[::2].fill_(-50.0)  # pyright: ignore
    copy_linears(net, model)
    return trained(net, model, normal(EXAMPLES, 8), Y)


def adam_with_zero_gradients() -> Pair:
    """Dead units have gradients of exactly 0: Adam divides 0 by epsilon."""
    pair = dead_units()
    net, model = pair.reference.model, pair.candidate.model
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    reference = Recipe(model=net, loss=nn.MSELoss(), optimizer=HatAdam(net.parameters(), lr=0.01))
    return Pair(reference=reference, candidate=Recipe(model=model), x=pair.x, y=pair.y)


def zero_inputs() -> Pair:
    return trained(*chain((8, 16, 1), "tanh"), np.zeros((EXAMPLES, 8), np.float32), Y)


def mixed_magnitudes() -> Pair:
    x = normal(EXAMPLES, 12) * np.logspace(-4, 4, 12, dtype=np.float32)
    return trained(*chain((12, 16, 1), "softplus", gain=0.01), x, Y, rate=1e-8)


def perfect_fit() -> Pair:
    """Targets are the network's own outputs: what is left of the loss is rounding."""
    net, model = chain((8, 16, 1), "tanh")
    x = normal(EXAMPLES, 8)
    with torch.no_grad():
        y = net(torch.tensor(x)).numpy()
    return trained(net, model, x, y)


def exponential_rates() -> Pair:
    net, model = chain((8, 16, 1), "relu", gain=4.0)
    return trained(
        net,
        model,
        normal(EXAMPLES, 8),
        3 * coins(EXAMPLES, 1),
        rate=1e-12,
        loss=nn.PoissonNLLLoss(),
        keras_loss=lambda y, z: ops.mean(ops.exp(z) - y * z),
    )


def ordinary_difference() -> Pair:
    """A difference of two large numbers: the output is what rounding has left."""
    _ = torch.manual_seed(0)

    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.fc(x)
            return (z + 1e4) ** 2 - z**2 - 1e8

    net = Cancelling()
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(4, name="fc"),
            layers.Lambda(lambda z: ops.square(z + 1e4) - ops.square(z) - 1e8, name="cancelling"),
        ]
    )
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    return trained(net, model, normal(EXAMPLES, 8), normal(EXAMPLES, 4, seed=1), rate=1e-11)


PORTS = [
    clean("hard/ill-conditioned", ill_conditioned),
    clean("hard/activations of 1e4", large_activations),
    clean("hard/tiny gradients", tiny_gradients),
    clean("hard/reduction over 1e5", long_reduction),
    clean("hard/saturated softmax", saturated_softmax),
    clean("hard/logits of 80", logits_of_eighty),
    clean("hard/3000 classes", many_classes),
    clean("hard/dyadic grid", partial(integer_grid, 0.25)),
    clean("hard/decimal grid", partial(integer_grid, 0.1)),
    clean("hard/dead units", dead_units),
    clean("hard/adam with zero gradients", adam_with_zero_gradients),
    clean("hard/zero inputs", zero_inputs),
    clean("hard/mixed magnitudes", mixed_magnitudes),
    clean("hard/perfect fit", perfect_fit),
    clean("hard/exponential rates", exponential_rates),
    clean("hard/cancellation", ordinary_difference),
]
