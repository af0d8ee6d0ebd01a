"""torch modules ported to JAX functions with optax, whose conventions differ in other places than Keras's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from jax import lax
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal
from benchmarks.ports.recurrent import FEATURES, TIME, UNITS, Last
from benchmarks.ports.residual import Block, ResidualMLP
from harness.recipe import Recipe

EXAMPLES = 32
Params = Any


def dense_params(layer: Any) -> Params:
    kernel, bias = transfer.linear(layer)
    return {"kernel": kernel, "bias": bias}


def dense(p: Params, x: Any) -> Any:
    return x @ p["kernel"] + p["bias"]


def squared(output: Any, target: Any) -> Any:
    return jnp.mean((output - target) ** 2)


def classified(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mlp(
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    rule: optax.GradientTransformation | None = None,
    activation: nn.Module | None = None,
    function: Callable[[Any], Any] = jnp.tanh,
    x: np.ndarray | None = None,
    loss: Callable[..., Any] = squared,
    biases: bool = True,
    steps: int = 5,
) -> Pair:
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 10), activation or nn.Tanh(), nn.Linear(10, 2))
    first, last = net[0], net[2]
    if not biases:
        for layer in (first, last):
            _ = nn.init.zeros_(layer.get_parameter("bias"))

    def apply(params: Params, x: Any) -> Any:
        return dense(params["last"], function(dense(params["first"], x)))

    return Pair(
        reference=Recipe(
            model=net, loss=nn.MSELoss(), optimizer=(optimizer or partial(torch.optim.SGD, lr=0.1))(net.parameters())
        ),
        candidate=Recipe(
            model=apply,
            params={"first": dense_params(first), "last": dense_params(last)},
            loss=loss,
            optimizer=rule or optax.sgd(0.1),
        ),
        x=normal(EXAMPLES, 6) if x is None else x,
        y=normal(EXAMPLES, 2, seed=1),
        steps=steps,
    )


class SmallConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(F.avg_pool2d(x, 2).mean(dim=(2, 3)))


def conv(padding: Any = ((1, 1), (1, 1))) -> Pair:
    """NCHW and OIHW on both sides."""
    _ = torch.manual_seed(0)
    net = SmallConv()
    params = {
        name: {"kernel": transfer.array(layer.weight), "bias": transfer.array(layer.bias)}
        for name, layer in (("conv1", net.conv1), ("conv2", net.conv2))
    }

    def apply(params: Params, x: Any) -> Any:
        h = lax.conv_general_dilated(x, params["conv1"]["kernel"], (2, 2), padding)
        h = jax.nn.relu(h + params["conv1"]["bias"][:, None, None])
        h = lax.conv_general_dilated(h, params["conv2"]["kernel"], (1, 1), "VALID")
        h = jax.nn.relu(h + params["conv2"]["bias"][:, None, None])
        h = lax.reduce_window(h, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4
        return dense(params["fc"], h.mean(axis=(2, 3)))

    return Pair(
        reference=Recipe(
            model=net,
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
        ),
        candidate=Recipe(
            model=apply,
            params={**params, "fc": dense_params(net.fc)},
            loss=classified,
            optimizer=optax.sgd(0.1, momentum=0.9, nesterov=True),
        ),
        x=normal(EXAMPLES, 2, 8, 8),
        y=integers(EXAMPLES, below=3),
    )


def lstm(gates: tuple[int, ...] = (0, 1, 2, 3)) -> Pair:
    """A scan over time; both of torch's biases are there."""
    _ = torch.manual_seed(0)
    net = Last(nn.LSTM(FEATURES, UNITS, batch_first=True))
    w_in, w_rec, b_in, b_rec = transfer.recurrent(net.rnn)
    params = {
        "lstm": {"w_in": w_in.T, "w_rec": w_rec.T, "b_in": b_in, "b_rec": b_rec},
        "head": dense_params(net.head),
    }

    def apply(params: Params, x: Any) -> Any:
        p = params["lstm"]

        def step(state: Any, x_t: Any) -> Any:
            h, c = state
            z = jnp.split(x_t @ p["w_in"] + p["b_in"] + h @ p["w_rec"] + p["b_rec"], 4, axis=-1)
            i, f, g, o = (z[k] for k in gates)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[0], UNITS), x.dtype)
        (h, _), _ = lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))
        return dense(params["head"], h)

    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1)),
        candidate=Recipe(model=apply, params=params, loss=squared, optimizer=optax.sgd(0.1)),
        x=normal(EXAMPLES, TIME, FEATURES),
        y=normal(EXAMPLES, 1, seed=1),
    )


def residual(epsilon: float = 1e-5, stopped: bool = False) -> Pair:
    """Pre-norm blocks; flax's layer norm has epsilon 1e-6."""
    _ = torch.manual_seed(0)
    net = ResidualMLP()
    blocks: list[Params] = []
    for block in net.blocks:
        assert isinstance(block, Block)
        gamma, beta = transfer.norm(block.norm)
        up, down = dense_params(block.up), dense_params(block.down)
        blocks.append({"gamma": gamma, "beta": beta, "up": up, "down": down})

    def apply(params: Params, x: Any) -> Any:
        x = dense(params["stem"], x)
        for p in params["blocks"]:
            mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            z = (x - mean) * lax.rsqrt(variance + epsilon) * p["gamma"] + p["beta"]
            branch = dense(p["down"], jax.nn.relu(dense(p["up"], z)))
            x = (lax.stop_gradient(x) if stopped else x) + branch
        return dense(params["head"], x)

    params = {"stem": dense_params(net.stem), "blocks": blocks, "head": dense_params(net.head)}
    return Pair(
        reference=Recipe(
            model=net, loss=nn.HuberLoss(), optimizer=torch.optim.Adam(net.parameters(), lr=0.01, eps=1e-8)
        ),
        candidate=Recipe(
            model=apply,
            params=params,
            loss=lambda output, target: optax.huber_loss(output, target, delta=1.0).mean(),
            optimizer=optax.adam(0.01, eps=1e-8),
        ),
        x=normal(EXAMPLES, 9),
        y=normal(EXAMPLES, 1, seed=1),
    )


ADAM = partial(torch.optim.Adam, lr=0.01)

PORTS = [
    clean("functions/mlp", mlp),
    clean("functions/adam", partial(mlp, ADAM, optax.adam(0.01))),
    clean(
        "functions/adamw",
        partial(mlp, partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1), optax.adamw(0.01, weight_decay=0.1)),
    ),
    clean("functions/gelu", partial(mlp, activation=nn.GELU(), function=partial(jax.nn.gelu, approximate=False))),
    clean("functions/conv", conv),
    clean("functions/lstm", lstm),
    clean("functions/residual", residual),
    planted(  # jax.nn.gelu is the tanh form by default
        "functions/gelu default",
        partial(mlp, activation=nn.GELU(), function=jax.nn.gelu),
        "gelu-approximation",
        "forward:1 forward:gelu*",
    ),
    planted(  # 1e-2 in torch, 1e-4 in optax
        "functions/adamw default decay",
        partial(mlp, partial(torch.optim.AdamW, lr=0.01), optax.adamw(0.01)),
        "adamw-default-weight-decay",
        "update:*",
    ),
    planted("functions/same padding", partial(conv, "SAME"), "conv-same-padding-asymmetry", "forward:conv1*"),
    planted(
        "functions/gate order",
        partial(lstm, (0, 2, 1, 3)),
        "rnn-gate-order",
        "forward:rnn* forward:*scan* forward:head",
    ),
    planted("functions/layer norm epsilon", partial(residual, epsilon=1e-6), "layernorm-eps", "forward:blocks.0.norm"),
    planted(
        "functions/stopped shortcut",
        partial(residual, stopped=True),
        "detached-branch",
        "gradient:blocks.* gradient:stem*",
    ),
    planted(  # jnp.maximum passes half the gradient at 0, relu none; zero inputs and biases make every unit 0
        "functions/maximum at zero",
        partial(
            mlp,
            activation=nn.ReLU(),
            function=lambda z: jnp.maximum(z, 0),
            x=normal(EXAMPLES, 6) * (np.arange(EXAMPLES) % 2)[:, None].astype(np.float32),
            biases=False,
        ),
        "max-tie-gradient",
        "gradient:0*",
    ),
    planted(
        "functions/summed over outputs",
        partial(mlp, loss=lambda output, target: jnp.mean(jnp.sum((output - target) ** 2, axis=-1))),
        "loss-reduction",
        "loss",
    ),
    planted(
        "functions/coupled decay",
        partial(
            mlp,
            partial(torch.optim.Adam, lr=0.01, weight_decay=0.1),
            optax.adamw(0.01, weight_decay=0.1),
        ),
        "weight-decay-coupling",
        "update:*",
    ),
]
