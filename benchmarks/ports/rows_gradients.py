"""Rows of the table of causes that act in the backward pass alone: ties, zeros, derivatives by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import normal
from benchmarks.ports.rows_models import EXAMPLES, in_jax, in_keras, in_torch, layers, ops, ported, turned

LENGTH, CHANNELS = 8, 4


class Pooled(nn.Module):
    """Whole numbers, shifted, then the greatest of each two: many are tied."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(CHANNELS, LENGTH))
        self.fc = nn.Linear(CHANNELS * LENGTH // 2, 1)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.pool(x + self.shift), 1))


def in_windows(z: torch.Tensor) -> torch.Tensor:
    """torch's amax shares the gradient among equals, its max-pooling gives it to the first."""
    return z.unfold(2, 2, 2).amax(dim=-1)


X = normal(EXAMPLES, CHANNELS, LENGTH).round()
Y = normal(EXAMPLES, 1, seed=1)


def pooled(other: Callable[[torch.Tensor], torch.Tensor]) -> Pair:
    _ = torch.manual_seed(0)
    net, again = Pooled(nn.MaxPool1d(2)), Pooled(other)
    again.load_state_dict(net.state_dict())
    return Pair(reference=in_torch(net), candidate=in_torch(again), x=X, y=Y, steps=1)


def pooled_in_keras(by_hand: bool) -> Pair:
    _ = torch.manual_seed(0)
    net = Pooled(nn.MaxPool1d(2))
    inputs = keras.Input((LENGTH, CHANNELS))
    h = Positions(name="shift")(inputs)
    if by_hand:
        pairs = layers.Reshape((LENGTH // 2, 2, CHANNELS), name="pairs")(h)  # TensorFlow shares among equals
        h = layers.Lambda(lambda z: ops.max(z, axis=2), name="pool")(pairs)
    else:
        h = layers.MaxPooling1D(2, name="pool")(h)
    h = layers.Flatten(name="flat")(layers.Permute((2, 1), name="first")(h))
    model = keras.Model(inputs, layers.Dense(1, name="fc")(h))
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    return Pair(reference=in_torch(net), candidate=in_keras(model), x=(X, transfer.channels_last(X)), y=Y, steps=1)


class Positions(layers.Layer):
    def build(self, input_shape: Any) -> None:
        self.shift = self.add_weight(shape=input_shape[1:], initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        return inputs + self.shift


class Lengths(nn.Module):
    """Vectors cut to their length; an example of zeros has length 0."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8, bias=False)
        self.out = nn.Linear(9, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.fc(x)
        return self.out(torch.cat([z, z.norm(dim=-1, keepdim=True)], dim=-1))


def lengths(empty: bool, jax_too: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Lengths()
    x = normal(EXAMPLES, 6)
    x[3] *= 1 - float(empty)
    if jax_too:
        w, b = transfer.linear(net.out)

        def apply(params: Any, x: Any) -> Any:
            z = x @ params["fc"]
            return jnp.concatenate([z, jnp.linalg.norm(z, axis=-1, keepdims=True)], axis=-1) @ params["w"] + params["b"]

        params = {"fc": transfer.array(net.fc.weight).T, "w": w, "b": b}
        squared = lambda output, target: jnp.mean((output - target) ** 2)  # noqa: E731
        return Pair(reference=in_torch(net), candidate=in_jax(apply, params, squared), x=x, y=Y, steps=2)
    inputs = keras.Input((6,))
    z = layers.Dense(8, use_bias=False, name="fc")(inputs)
    length = layers.Lambda(lambda z: ops.sqrt(ops.sum(z * z, axis=-1, keepdims=True)), name="length")(z)
    model = keras.Model(inputs, layers.Dense(1, name="out")(layers.Concatenate(name="both")([z, length])))
    return Pair(reference=in_torch(net), candidate=in_keras(ported(net, model)), x=x, y=Y, steps=2)


class Product(torch.autograd.Function):
    """x W by hand; transposed: of the square kernel's gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, transposed: bool) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        ctx.transposed = transposed
        return x @ w

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, w = ctx.saved_tensors
        of_kernel = x.T @ grads[0]
        return grads[0] @ w.T, of_kernel.T if ctx.transposed else of_kernel, None


class Square(nn.Module):
    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.kernel = nn.Parameter(0.3 * torch.randn(8, 8))
        self.last = nn.Linear(8, 1)
        self.transposed = transposed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        return self.last(Product.apply(h, self.kernel, self.transposed))  # pyright: ignore[reportArgumentType]


class Kernel(layers.Layer):
    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], input_shape[-1]), name="kernel")

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, self.kernel)


def square(transposed: bool) -> Pair:
    _ = torch.manual_seed(0)
    net = Square(transposed)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "tanh", name="first"), Kernel(name="mid"), layers.Dense(1, name="last")]
    )
    model.get_layer("first").set_weights(transfer.linear(net.first))
    model.get_layer("mid").set_weights([transfer.array(net.kernel)])
    model.get_layer("last").set_weights(transfer.linear(net.last))
    return Pair(reference=in_torch(net), candidate=in_keras(model), x=normal(EXAMPLES, 6), y=Y, steps=2)


class Reversed(torch.autograd.Function):
    """The gradient reversal layer of domain adaptation."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return -grads[0]


class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(6, 8)
        self.domain = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.domain(Reversed.apply(torch.tanh(self.features(x))))  # pyright: ignore[reportArgumentType]


def reversal(sign: float) -> Pair:
    """In JAX with a custom_vjp, or forgotten."""
    _ = torch.manual_seed(0)
    net = Adapted()

    @jax.custom_vjp
    def turn(x: Any) -> Any:
        return x

    turn.defvjp(lambda x: (x, None), lambda _, g: (sign * g,))

    def apply(params: Any, x: Any) -> Any:
        (w, b), (v, c) = params["features"], params["domain"]
        return turn(jnp.tanh(x @ w + b)) @ v + c

    params = {name: tuple(transfer.linear(getattr(net, name))) for name in ("features", "domain")}
    squared = lambda output, target: jnp.mean((output - target) ** 2)  # noqa: E731
    return Pair(reference=in_torch(net), candidate=in_jax(apply, params, squared), x=normal(EXAMPLES, 6), y=Y, steps=2)


class Siamese(nn.Module):
    """Two views, one of them the target; detached, as in BYOL, or not."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 5)
        self.predict = nn.Linear(5, 5)
        self.detached = detached

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        target = torch.tanh(self.encode(2 * x))
        return self.predict(torch.tanh(self.encode(x))) - (target.detach() if self.detached else target)


def siamese(detached: bool) -> Pair:
    _ = torch.manual_seed(0)
    net, other = Siamese(False), Siamese(detached)
    other.load_state_dict(net.state_dict())
    y = np.zeros((EXAMPLES, 5), np.float32)
    return Pair(reference=in_torch(net), candidate=in_torch(other), x=normal(EXAMPLES, 6), y=y, steps=2)


SHIFT = "gradient:*shift*"

PORTS = [
    clean("rows_gradients/pooled", partial(pooled_in_keras, by_hand=False)),
    clean("rows_gradients/lengths", partial(lengths, empty=False)),
    clean("rows_gradients/square", partial(square, transposed=False)),
    clean("rows_gradients/reversal", partial(reversal, -1.0)),
    planted("rows_gradients/tied windows", partial(pooled, in_windows), "maxpool-tie-gradient", SHIFT),
    planted(
        "rows_gradients/tied windows, turned",
        partial(turned, partial(pooled, in_windows)),
        "maxpool-tie-gradient",
        SHIFT,
    ),
    planted(
        "rows_gradients/tied windows in Keras", partial(pooled_in_keras, by_hand=True), "maxpool-tie-gradient", SHIFT
    ),
    planted("rows_gradients/length 0 in Keras", partial(lengths, True), "norm-gradient-at-zero", "gradient:fc*"),
    planted("rows_gradients/length 0 in JAX", partial(lengths, True, True), "norm-gradient-at-zero", "gradient:fc*"),
    planted("rows_gradients/transposed", partial(square, True), "gradient-transposed", "gradient:kernel gradient:mid*"),
    planted(
        "rows_gradients/transposed, turned",
        partial(turned, partial(square, True)),
        "gradient-transposed",
        "gradient:kernel gradient:mid*",
    ),
    planted("rows_gradients/reversal forgotten", partial(reversal, 1.0), "gradient-sign", "gradient:features*"),
    planted("rows_gradients/reversal weaker", partial(reversal, -0.1), "gradient-factor", "gradient:features*"),
    planted("rows_gradients/target detached", partial(siamese, True), "detached-branch", "gradient:encode*"),
    planted(
        "rows_gradients/target detached, turned",
        partial(turned, partial(siamese, True)),
        "detached-branch",
        "gradient:encode*",
    ),
]
