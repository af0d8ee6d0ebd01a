"""One framework on both sides: the same model rewritten, compiled, fused or split."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import keras
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted
from benchmarks.ports.attention import EXAMPLES, HEADS, TIME, WIDTH
from benchmarks.ports.data import integers, normal
from benchmarks.ports.mlp import Net, regression_data, torch_net
from benchmarks.ports.normalised import spread
from harness.recipe import Recipe

layers = keras.layers


def compiled() -> Pair:
    """Eager against torch.compile; the backend that traces but does not generate code, which takes seconds."""
    net = torch_net()
    other: Any = torch.compile(copy.deepcopy(net), backend="aot_eager")
    recipes = [
        Recipe(model=each, loss=nn.MSELoss(), optimizer=torch.optim.SGD(each.parameters(), lr=0.05))
        for each in (net, other)
    ]
    x, y = regression_data()
    return Pair(reference=recipes[0], candidate=recipes[1], x=x, y=y)


class Split(nn.Module):
    """Three projections, scores written out."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.heads(part(x)) for part in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.mT * (WIDTH // HEADS) ** -0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape))

    @staticmethod
    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), TIME, HEADS, -1).transpose(1, 2)


class Fused(nn.Module):
    """One projection and the framework's own attention."""

    def __init__(self, interleaved: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.interleaved = interleaved

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = self.qkv(x)
        if self.interleaved:  # the arrangement (head, part) where the weights have (part, head)
            q, k, v = projected.reshape(len(x), TIME, HEADS, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = projected.reshape(len(x), TIME, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


def fused(interleaved: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net, other = Split(), Fused(interleaved)
    with torch.no_grad():
        for name in ("weight", "bias"):
            parts = [getattr(part, name) for part in (net.q, net.k, net.v)]
            _ = getattr(other.qkv, name).copy_(torch.cat(parts))
    _ = other.out.load_state_dict(net.out.state_dict())
    recipes = [
        Recipe(model=each, loss=nn.MSELoss(), optimizer=torch.optim.SGD(each.parameters(), lr=0.1))
        for each in (net, other)
    ]
    x = normal(EXAMPLES, TIME, WIDTH)
    return Pair(reference=recipes[0], candidate=recipes[1], x=x, y=normal(*x.shape, seed=1), batch_size=8)


def folded(epsilon: float = 1e-5) -> Pair:
    """Batch norm folded into the convolution before it, for inference."""
    _ = torch.manual_seed(0)
    conv, bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
    spread(bn)
    net = nn.Sequential(conv, bn, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))
    other = copy.deepcopy(nn.Sequential(conv, nn.ReLU(), nn.Flatten(), net[4]))
    assert bn.running_mean is not None
    assert bn.running_var is not None
    assert conv.bias is not None
    scale = bn.weight / torch.sqrt(bn.running_var + epsilon)
    with torch.no_grad():
        _ = other[0].weight.copy_(conv.weight * scale[:, None, None, None])  # pyright: ignore
        _ = other[0].bias.copy_((conv.bias - bn.running_mean) * scale + bn.bias)  # pyright: ignore
    x = normal(EXAMPLES, 2, 6, 6)
    return Pair(reference=Recipe(model=net), candidate=Recipe(model=other), x=x, steps=0)


def optimizer_ported(dampening: float = 0.0) -> Pair:
    """foreach and single-tensor code of one optimizer."""
    net = torch_net()
    other = copy.deepcopy(net)
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9}
    rules = (
        torch.optim.SGD(net.parameters(), foreach=True, **settings),
        torch.optim.SGD(other.parameters(), foreach=False, dampening=dampening, **settings),
    )
    x, y = regression_data()
    recipes = [Recipe(model=m, loss=nn.MSELoss(), optimizer=o) for m, o in zip((net, other), rules, strict=True)]
    return Pair(reference=recipes[0], candidate=recipes[1], x=x, y=y)


def written_out(bias: bool = True) -> Pair:
    """Modules against matrix products."""

    class Products(nn.Module):
        def __init__(self, of: Net) -> None:
            super().__init__()
            copied = copy.deepcopy(of)
            self.w1, self.b1 = nn.Parameter(copied.fc1.weight.detach().T), copied.fc1.bias
            self.w2, self.b2 = nn.Parameter(copied.fc2.weight.detach().T), copied.fc2.bias
            self.w3, self.b3 = nn.Parameter(copied.fc3.weight.detach().T), copied.fc3.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = (x @ self.w1 + self.b1).clamp(min=0)
            h = torch.tanh(h @ self.w2 + self.b2) if bias else torch.tanh(h @ self.w2)
            return h @ self.w3 + self.b3

    net = torch_net()
    other = Products(net)
    recipes = [
        Recipe(model=each, loss=nn.MSELoss(), optimizer=torch.optim.SGD(each.parameters(), lr=0.05))
        for each in (net, other)
    ]
    x, y = regression_data()
    return Pair(reference=recipes[0], candidate=recipes[1], x=x, y=y)


def keras_pair(first: keras.Model, second: keras.Model, x: Any, y: Any) -> Pair:
    for model in (first, second):
        model.compile(
            optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    return Pair(reference=Recipe(model=first), candidate=Recipe(model=second), x=x, y=y, batch_size=8)


def separable(multiplied: bool = False) -> Pair:
    """SeparableConv2D against its two halves."""
    keras.utils.set_random_seed(0)
    one = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.SeparableConv2D(5, 3, activation="relu", name="separable"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(4, name="head"),
        ]
    )
    inputs = keras.Input((8, 8, 3))
    h = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(inputs)
    h = layers.Conv2D(5, 1, name="pointwise")(h)
    if not multiplied:
        h = layers.ReLU(name="relu")(h)
    h = layers.GlobalAveragePooling2D(name="mean")(h)
    two = keras.Model(inputs, layers.Dense(4, name="head")(h))
    two.set_weights(one.get_weights())
    return keras_pair(one, two, normal(24, 8, 8, 3), integers(24, below=4))


def unrolled(time_distributed: bool = True, reverse: bool = False) -> Pair:
    """A recurrence as a layer or as a cell in an RNN layer; Dense on each step or TimeDistributed."""
    keras.utils.set_random_seed(0)
    one = keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.GRU(5, return_sequences=True, name="gru"),
            layers.Dense(3, name="each"),
            layers.GlobalAveragePooling1D(name="mean"),
        ]
    )
    each = layers.Dense(3, name="dense")
    two = keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.RNN(layers.GRUCell(5, name="cell"), return_sequences=True, go_backwards=reverse, name="rnn"),
            layers.TimeDistributed(each, name="each") if time_distributed else each,
            layers.GlobalAveragePooling1D(name="mean"),
        ]
    )
    two.set_weights(one.get_weights())
    return keras_pair(one, two, normal(24, 6, 4), integers(24, below=3))


PORTS = [
    clean("refactored/compiled", compiled),
    clean("refactored/fused attention", fused),
    clean("refactored/folded norm", folded),
    clean("refactored/optimizer", optimizer_ported),
    clean("refactored/written out", written_out),
    clean("refactored/separable", separable),
    clean("refactored/cell", unrolled),
    planted(  # the fused projection holds the same numbers; heads and parts are mixed behind it
        "refactored/heads mixed",
        partial(fused, interleaved=True),
        "weight-order-mismatch",
        "forward:q forward:k forward:v forward:qkv forward:reshape forward:*attention* forward:softmax forward:matmul* "
        "forward:out",
    ),
    planted(
        "refactored/folded with another epsilon",
        partial(folded, 1e-3),
        "batchnorm-eps",
        "forward:0 forward:1 forward:2",
    ),
    planted("refactored/dampening", partial(optimizer_ported, 0.5), "momentum-dampening", "update:*", 1),
    planted(
        "refactored/bias forgotten",
        partial(written_out, bias=False),
        "bias-missing",
        "forward:fc2 forward:act forward:tanh* forward:matmul* forward:add*",
    ),
    planted(
        "refactored/relu forgotten",
        partial(separable, multiplied=True),
        "activation-different",
        "forward:separable forward:pointwise forward:mean",
    ),
    planted("refactored/backwards", partial(unrolled, reverse=True), "rnn-direction", "forward:gru forward:rnn"),
]
