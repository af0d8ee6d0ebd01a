"""Convolutional networks: NCHW in torch, NHWC in Keras."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal
from harness.recipe import Recipe

EXAMPLES = 24
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class LeNet(nn.Module):
    """Two convolutions with pooling between, then two dense layers, on 3 x 10 x 10 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3)
        self.fc1 = nn.Linear(8 * 3 * 3, 16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))
        x = torch.flatten(x, 1)
        return self.fc2(F.relu(self.fc1(x)))


def lenet(reordered: bool = True, swapped: bool = False, last_pool: str = "valid") -> Pair:
    """The dense layer behind Flatten needs its rows reordered from C, H, W to H, W, C."""
    _ = torch.manual_seed(0)
    net = LeNet()
    model = keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv_a"),
            keras.layers.MaxPooling2D(2, padding=last_pool, name="pool"),
            keras.layers.Conv2D(8, 3, activation="relu", name="conv_b"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(16, activation="relu", name="dense_a"),
            keras.layers.Dense(4, name="dense_b"),
        ]
    )
    kernel, bias = transfer.linear(net.fc1)
    if reordered:
        kernel = kernel.reshape(8, 3, 3, 16).transpose(1, 2, 0, 3).reshape(-1, 16)
    model.get_layer("dense_a").set_weights([kernel, bias])
    model.get_layer("dense_b").set_weights(transfer.linear(net.fc2))
    model.get_layer("conv_a").set_weights(transfer.conv(net.conv1))
    kernel, bias = transfer.conv(net.conv2)
    model.get_layer("conv_b").set_weights([kernel.swapaxes(0, 1) if swapped else kernel, bias])
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=SPARSE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x = normal(EXAMPLES, 3, 10, 10)
    return Pair(
        reference=Recipe(model=net, loss=nn.CrossEntropyLoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=(x, transfer.channels_last(x)),
        y=integers(EXAMPLES, below=4),
        batch_size=8,
    )


class Strided(nn.Module):
    """Convolutions of stride 2 with padding 1, as torch has them, and global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, stride=1, padding=2, dilation=2)
        self.pool = nn.AvgPool2d(2, stride=2, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.conv1(x), 0.1)
        x = self.pool(F.leaky_relu(self.conv2(x), 0.1))
        return self.fc(x.mean(dim=(2, 3)))


def average_with_zeros(x: Any) -> Any:
    return keras.ops.average_pool(keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 2, 2, "valid", "channels_last")


def average_without_zeros(x: Any) -> Any:
    """Keras's own 'same' pooling of an odd size would pad on one side; what is padded is not counted."""
    ones = keras.ops.ones_like(x)
    return average_with_zeros(x) / average_with_zeros(ones)


def strided(same: bool = False, dilation: int = 2, count_zeros: bool = True) -> Pair:
    """'same' with stride 2 pads an even size only behind: (0, 1) where padding=1 is (1, 1)."""
    _ = torch.manual_seed(0)
    net = Strided()
    inputs = keras.Input((12, 12, 2))
    h = inputs if same else keras.layers.ZeroPadding2D(1, name="pad")(inputs)
    h = keras.layers.Conv2D(6, 3, strides=2, padding="same" if same else "valid", name="c1")(h)
    h = keras.layers.LeakyReLU(0.1, name="l1")(h)
    h = keras.layers.Conv2D(6, 3, padding="same", dilation_rate=dilation, name="c2")(h)
    h = keras.layers.LeakyReLU(0.1, name="l2")(h)
    h = keras.layers.Lambda(average_with_zeros if count_zeros else average_without_zeros, name="pool")(h)
    h = keras.layers.GlobalAveragePooling2D(name="mean")(h)
    model = keras.Model(inputs, keras.layers.Dense(3, name="fc")(h))
    model.get_layer("c1").set_weights(transfer.conv(net.conv1))
    model.get_layer("c2").set_weights(transfer.conv(net.conv2))
    model.get_layer("fc").set_weights(transfer.linear(net.fc))
    model.compile(optimizer=keras.optimizers.RMSprop(0.002, rho=0.99, epsilon=1e-30), loss="mse")
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.002, alpha=0.99, eps=1e-30)
    x = normal(EXAMPLES, 2, 12, 12)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=(x, transfer.channels_last(x)),
        y=normal(EXAMPLES, 3, seed=1),
        batch_size=8,
    )


def separable(pool_pad: str = "-inf", axis: int = -1) -> Pair:
    """Depthwise and pointwise convolution, padded max-pooling, softmax over channels; the forward pass alone."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Hardswish(),
        nn.Softmax(dim=1),
    )
    value = float("-inf") if pool_pad == "-inf" else 0.0
    inputs = keras.Input((9, 9, 4))
    h = keras.layers.DepthwiseConv2D(3, name="depth")(inputs)
    h = keras.layers.Conv2D(6, 1, use_bias=False, name="point")(h)
    h = keras.layers.Lambda(
        lambda z: keras.ops.pad(z, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=value), name="pad"
    )(h)
    h = keras.layers.MaxPooling2D(3, strides=2, name="pool")(h)
    h = keras.layers.Lambda(lambda z: z * keras.ops.relu6(z + 3) / 6, name="swish")(h)
    model = keras.Model(inputs, keras.layers.Softmax(axis=axis, name="softmax")(h))
    first, second = net[0], net[1]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        _ = first.bias.sub_(2.0)  # pyright: ignore[reportOptionalMemberAccess]
    model.get_layer("depth").set_weights(transfer.depthwise(first))
    model.get_layer("point").set_weights(transfer.conv(second))
    x = normal(EXAMPLES, 4, 9, 9)
    return Pair(
        reference=Recipe(model=net),
        candidate=Recipe(model=model),
        x=(x, transfer.channels_last(x)),
        steps=0,
        batch_size=EXAMPLES,
    )


class Signal(nn.Module):
    """A one-dimensional network with grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 8, 5, padding=2)
        self.conv2 = nn.Conv1d(8, 8, 3, groups=2)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.conv1(x))
        x = F.silu(self.conv2(x))
        return self.head(x.amax(dim=2))


def signal(groups_shuffled: bool = False, replicate: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Signal()
    if replicate:
        net.conv1.padding_mode = "replicate"
        net.conv1._reversed_padding_repeated_twice = [2, 2]
    model = keras.Sequential(
        [
            keras.Input((16, 2)),
            keras.layers.Conv1D(8, 5, padding="same", activation="tanh", name="wide"),
            keras.layers.Conv1D(8, 3, groups=2, activation="silu", name="grouped"),
            keras.layers.GlobalMaxPooling1D(name="top"),
            keras.layers.Dense(1, name="head"),
        ]
    )
    model.get_layer("wide").set_weights(transfer.conv(net.conv1))
    kernel, bias = transfer.conv(net.conv2)
    if groups_shuffled:  # outputs of the two groups taken in turn
        order = np.arange(8).reshape(2, 4).T.ravel()
        kernel, bias = kernel[..., order], bias[order]
    model.get_layer("grouped").set_weights([kernel, bias])
    model.get_layer("head").set_weights(transfer.linear(net.head))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mae")
    x = normal(EXAMPLES, 2, 16)
    return Pair(
        reference=Recipe(model=net, loss=nn.L1Loss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1)),
        candidate=Recipe(model=model),
        x=(x, transfer.channels_last(x)),
        y=normal(EXAMPLES, 1, seed=1),
        batch_size=8,
    )


PORTS = [
    clean("convolutional/lenet", lenet),
    clean("convolutional/strided", strided),
    clean("convolutional/separable", separable),
    clean("convolutional/signal", signal),
    planted(
        "convolutional/flatten order",
        partial(lenet, reordered=False),
        "flatten-order",
        "forward:fc1 forward:dense_a forward:relu#3",
    ),
    planted(
        "convolutional/kernel axes",
        partial(lenet, swapped=True),
        "conv-kernel-axes",
        "forward:conv2 forward:conv_b forward:relu#2",
    ),
    planted(
        "convolutional/same padding",
        partial(strided, same=True),
        "conv-same-padding-asymmetry",
        "forward:conv1 forward:c1",
    ),
    planted("convolutional/dilation", partial(strided, dilation=1), "conv-stride-dilation", "forward:conv2 forward:c2"),
    planted(
        "convolutional/zeros not counted",
        partial(strided, count_zeros=False),
        "avgpool-count-include-pad",
        "forward:pool",
    ),
    planted(  # the padded array is Keras's alone; the pooled one is the first that both have
        "convolutional/pooling over zeros",
        partial(separable, pool_pad="0"),
        "maxpool-padding-value",
        "forward:2 forward:pool",
    ),
    planted("convolutional/softmax axis", partial(separable, axis=1), "softmax-axis", "forward:4 forward:softmax"),
    planted(
        "convolutional/groups shuffled",
        partial(signal, groups_shuffled=True),
        "conv-groups-order",
        "forward:conv2 forward:silu forward:grouped",
    ),
    planted(
        "convolutional/padding mode",
        partial(signal, replicate=True),
        "padding-value",
        "forward:conv1 forward:tanh forward:wide",
    ),
]
