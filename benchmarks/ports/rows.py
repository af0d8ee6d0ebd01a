"""Rows of the table of causes that act in the forward pass and that no other family plants."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import normal
from benchmarks.ports.rows_models import EXAMPLES, in_jax, in_keras, in_torch, layers, ops, ported, turned

SIZE = 9


class Head(nn.Module):
    """A small image network: a convolution, something in the middle, the mean of each channel, a dense layer."""

    def __init__(self, middle: nn.Module, top: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.middle = middle
        self.fc = nn.Linear(6, 2)
        self.top = top or (lambda z: z.mean(dim=(2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.top(self.middle(self.conv(x))))


def keras_head(middle: Any, top: Any = None) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 2)),
            layers.Conv2D(6, 3, name="conv"),
            middle,
            top or layers.GlobalAveragePooling2D(name="top"),
            layers.Dense(2, name="fc"),
        ]
    )


def image(middle: nn.Module, keras_middle: Any, top: Any = None, keras_top: Any = None, copied: bool = True) -> Pair:
    _ = torch.manual_seed(0)
    keras.utils.set_random_seed(1)
    net = Head(middle, top)
    model = keras_head(keras_middle, keras_top)
    if copied:
        for name in ("conv", "fc"):
            convert = transfer.conv if name == "conv" else transfer.linear
            model.get_layer(name).set_weights(convert(getattr(net, name)))
    x = normal(EXAMPLES, 2, SIZE, SIZE)
    return Pair(
        reference=in_torch(net),
        candidate=in_keras(model),
        x=(x, transfer.channels_last(x)),
        y=normal(EXAMPLES, 2, seed=1),
        steps=3,
    )


def refactored(middle: nn.Module, other: nn.Module) -> Pair:
    """The same network twice in torch, but for the middle."""
    _ = torch.manual_seed(0)
    net, again = Head(middle), Head(other)
    again.conv.load_state_dict(net.conv.state_dict())
    again.fc.load_state_dict(net.fc.state_dict())
    x, y = normal(EXAMPLES, 2, SIZE, SIZE), normal(EXAMPLES, 2, seed=1)
    return Pair(reference=in_torch(net), candidate=in_torch(again), x=x, y=y, steps=3)


def dense(
    middle: Callable[[], Any], keras_middle: Callable[[], Any], copied: bool = True, training: bool | None = None
) -> Pair:
    """A perceptron with something in the middle."""
    _ = torch.manual_seed(0)
    keras.utils.set_random_seed(1)
    net = nn.Sequential(nn.Linear(10, 16), middle(), nn.Linear(16, 1))
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(16, name="first"), keras_middle(), layers.Dense(1, name="last")]
    )
    if copied:
        model.get_layer("first").set_weights(transfer.linear(net[0]))
        model.get_layer("last").set_weights(transfer.linear(net[2]))
    return Pair(
        reference=in_torch(net, training=training),
        candidate=in_keras(model, training=training),
        x=normal(EXAMPLES, 10, scale=2.0),
        y=normal(EXAMPLES, 1, seed=1),
        steps=3,
    )


class ByHand(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def old_hard_sigmoid(z: torch.Tensor) -> torch.Tensor:
    """As Keras 2 had it."""
    return torch.clamp(0.2 * z + 0.5, 0.0, 1.0)


class PaperDropout(nn.Module):
    """Units are scaled where none is dropped, as the paper has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.3) * 0.7 if self.training else 0.7 * x


def resized(jax_too: bool, antialias: bool = False) -> Pair:
    """An image halved, then read: torch does not antialias by itself, jax.image.resize does."""
    _ = torch.manual_seed(0)

    class Halved(nn.Module):
        def __init__(self, antialias: bool) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 6, 3)
            self.fc = nn.Linear(6, 2)
            self.antialias = antialias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            small = F.interpolate(x, size=(6, 6), mode="bilinear", align_corners=False, antialias=self.antialias)
            return self.fc(F.relu(self.conv(small)).mean(dim=(2, 3)))

    net = Halved(antialias=False)
    x, y = normal(EXAMPLES, 2, 12, 12), normal(EXAMPLES, 2, seed=1)
    if not jax_too:
        other = Halved(antialias)
        other.load_state_dict(net.state_dict())
        return Pair(reference=in_torch(net), candidate=in_torch(other), x=x, y=y, steps=2)

    def apply(params: Any, x: Any) -> Any:
        h = jax.image.resize(x, (*x.shape[:2], 6, 6), "bilinear", antialias=antialias)
        h = jax.lax.conv_general_dilated(h, params["conv"]["w"], (1, 1), "VALID") + params["conv"]["b"][:, None, None]
        return jax.nn.relu(h).mean(axis=(2, 3)) @ params["fc"]["w"] + params["fc"]["b"]

    w, b = transfer.linear(net.fc)
    params = {
        "conv": {"w": transfer.array(net.conv.weight), "b": transfer.array(net.conv.bias)},
        "fc": {"w": w, "b": b},
    }
    squared = lambda output, target: jnp.mean((output - target) ** 2)  # noqa: E731
    return Pair(reference=in_torch(net), candidate=in_jax(apply, params, squared), x=x, y=y, steps=2)


TIME, WIDTH = 6, 8


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.fc = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        out, _ = self.attn(x, x, x, key_padding_mask=padding > 0, need_weights=False)
        return self.fc(out)


def all_padding(empty: bool) -> Pair:
    """A batch that holds an empty sequence: torch gives zeros where nothing may be attended, Keras the mean of all."""
    _ = torch.manual_seed(0)
    net = Attending()
    inputs = keras.Input((TIME, WIDTH)), keras.Input((TIME,))
    seen = layers.Lambda(lambda p: ops.equal(p, 0.0)[:, None, :], name="seen")(inputs[1])
    out = layers.MultiHeadAttention(2, WIDTH // 2, name="attn")(inputs[0], inputs[0], attention_mask=seen)
    model = ported(net, keras.Model(list(inputs), layers.Dense(3, name="fc")(out)))
    padding = np.zeros((EXAMPLES, TIME), np.float32)
    padding[:, 4:] = 1.0
    padding[5] = float(empty)
    return Pair(
        reference=in_torch(net),
        candidate=in_keras(model),
        x=[normal(EXAMPLES, TIME, WIDTH), padding],
        y=normal(EXAMPLES, TIME, 3, seed=1),
        steps=2,
    )


def spread(prelu: nn.PReLU) -> nn.PReLU:
    """Slopes as after some training."""
    with torch.no_grad():
        _ = prelu.weight.copy_(torch.linspace(0.1, 0.4, len(prelu.weight)))
    return prelu


def sloped(shared: bool, slopes: int = 6) -> Pair:
    """torch has a slope for each channel (or one), Keras one for each element unless told otherwise."""
    prelu = spread(nn.PReLU(slopes))
    other = layers.PReLU(shared_axes=[1, 2] if shared else None, name="prelu")
    pair = image(prelu, other)
    alpha = np.broadcast_to(transfer.array(prelu.weight), other.weights[0].shape)
    other.set_weights([alpha])
    return pair


MIDDLE, DENSE = "forward:middle forward:middle/* forward:middle.*", "forward:1 forward:1/*"
POOLED = "forward:middle"  # told by its size: maps of other sizes have nothing to be compared with
SLOPES = "gradient:*prelu* gradient:middle* forward:middle"  # slopes of another shape neither: their effect, a step on

PORTS = [
    clean("rows/image", partial(image, nn.ReLU(), layers.ReLU())),
    clean("rows/dense", partial(dense, nn.Hardsigmoid, lambda: layers.Activation("hard_sigmoid"))),
    clean("rows/slope per channel", partial(sloped, shared=True)),
    clean("rows/padded attention", partial(all_padding, empty=False)),
    clean("rows/halved", partial(resized, jax_too=True)),
    planted(
        "rows/never copied",
        partial(dense, nn.Tanh, lambda: layers.Activation("tanh"), False),
        "init-default",
        "forward:0 forward:first",
    ),
    planted(
        "rows/never copied, image",
        partial(image, nn.ReLU(), layers.ReLU(), copied=False),
        "init-default",
        "forward:conv",
    ),
    planted(
        "rows/mean or maximum",
        partial(image, nn.ReLU(), layers.ReLU(), None, layers.GlobalMaxPooling2D(name="top")),
        "layer-different",
        "forward:mean forward:top forward:fc",
    ),
    planted(
        "rows/average or max pooling",
        partial(refactored, nn.AvgPool2d(2), nn.MaxPool2d(2)),
        "layer-different",
        MIDDLE,
    ),
    planted(
        "rows/hard sigmoid of old",
        partial(dense, partial(ByHand, old_hard_sigmoid), lambda: layers.Activation("hard_sigmoid")),
        "hard-sigmoid-slope",
        DENSE,
    ),
    planted(
        "rows/hard sigmoid, Keras of old",
        partial(dense, nn.Hardsigmoid, lambda: layers.Lambda(lambda z: ops.clip(0.2 * z + 0.5, 0.0, 1.0))),
        "hard-sigmoid-slope",
        DENSE,
    ),
    planted("rows/slope per element", partial(sloped, shared=False), "prelu-sharing", SLOPES, (0, 1)),
    planted(
        "rows/one slope or many",
        partial(sloped, shared=False, slopes=1),
        "prelu-sharing",
        SLOPES,
        (0, 1),
    ),
    planted(
        "rows/ceiling",
        partial(image, nn.MaxPool2d(2, ceil_mode=True), layers.MaxPooling2D(2)),
        "pool-ceil-mode",
        POOLED,
    ),
    planted(
        "rows/ceiling in torch",
        partial(refactored, nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True)),
        "pool-ceil-mode",
        POOLED,
    ),
    planted(
        "rows/antialias in JAX",
        partial(resized, jax_too=True, antialias=True),
        "resize-antialias",
        "forward:interpolate*",
    ),
    planted(
        "rows/antialias in torch",
        partial(resized, jax_too=False, antialias=True),
        "resize-antialias",
        "forward:interpolate*",
    ),
    planted(  # functional.dropout is told nothing of the mode
        "rows/dropout never off",
        partial(dense, partial(ByHand, lambda z: F.dropout(z, 0.5)), lambda: layers.Dropout(0.5), training=False),
        "dropout-active",
        DENSE,
    ),
    planted(
        "rows/dropout on one side",
        partial(dense, partial(nn.Dropout, 0.4), lambda: layers.Activation("linear"), training=True),
        "dropout-active",
        f"{DENSE} forward:2",
    ),
    planted(
        "rows/dropout of the paper",
        partial(dense, PaperDropout, lambda: layers.Dropout(0.3), training=False),
        "dropout-scaling",
        f"{DENSE} forward:2",
    ),
    planted(
        "rows/ceiling, turned",
        partial(turned, partial(image, nn.MaxPool2d(2, ceil_mode=True), layers.MaxPooling2D(2))),
        "pool-ceil-mode",
        POOLED,
    ),
    planted("rows/all padding", partial(all_padding, empty=True), "attention-fully-masked-row", "forward:attn*"),
]
