"""Residual networks: skip connections around dense and convolutional blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal
from benchmarks.ports.normalised import spread
from harness.recipe import Recipe

EXAMPLES = 32
Dense = keras.layers.Dense


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.relu(self.up(self.norm(x))))


class ResidualMLP(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(9, 12)
        self.blocks = nn.ModuleList(Block(12) for _ in range(depth))
        self.head = nn.Linear(12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class KerasBlock(keras.layers.Layer):
    """after: the norm behind the sum (the first transformers) instead of before the branch. scale: of the branch."""

    def __init__(self, width: int, after: bool = False, scale: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.settings = {"width": width, "after": after, "scale": scale}
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.up = Dense(2 * width, activation="relu", name="up")
        self.down = Dense(width, name="down")

    def build(self, input_shape: Any) -> None:
        self.norm.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], 2 * self.settings["width"]))

    def call(self, inputs: Any) -> Any:
        if self.settings["after"]:
            return self.norm(inputs + self.down(self.up(inputs)))
        branch = self.down(self.up(self.norm(inputs)))
        return inputs + (branch if self.settings["scale"] == 1.0 else self.settings["scale"] * branch)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


def blocks(after: bool = False, scale: float = 1.0, depth: int = 3, dropped: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = ResidualMLP()
    layers = [KerasBlock(12, after, scale, name=f"block{i}") for i in range(depth)]
    model = keras.Sequential([keras.Input((9,)), Dense(12, name="stem"), *layers, Dense(1, name="head")])
    model.get_layer("stem").set_weights(transfer.linear(net.stem))
    model.get_layer("head").set_weights(transfer.linear(net.head))
    for layer, block in zip(layers, net.blocks, strict=False):
        assert isinstance(block, Block)
        layer.set_weights([*transfer.norm(block.norm), *transfer.linear(block.up), *transfer.linear(block.down)])
    model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9), loss="mse")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=normal(EXAMPLES, 9),
        y=normal(EXAMPLES, 1, seed=1),
    )


class BasicBlock(nn.Module):
    """ResNet's: two convolutions with batch norm; the shortcut is projected where the shape changes."""

    def __init__(self, features: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or features != out:
            self.downsample = nn.Sequential(nn.Conv2d(features, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + identity)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = BasicBlock(3, 3, 1)
        self.layer2 = BasicBlock(3, 6, 2)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.layer2(self.layer1(x)), 1).flatten(1))


def resnet(same: bool = False, epsilon: float = 1e-5, relu_early: bool = False, training: bool = False) -> Pair:
    """A pretrained network fine-tuned with frozen statistics."""
    _ = torch.manual_seed(0)
    net = ResNet()
    for i, module in enumerate(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        spread(module, seed=i)
    weights: dict[str, transfer.Arrays] = {}

    def conv(h: Any, layer: nn.Conv2d, name: str) -> Any:
        stride, size = layer.stride[0], layer.kernel_size[0]
        weights[name] = transfer.conv(layer)
        if size > 1 and stride > 1 and not same:
            h = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(h)
        padding = "valid" if size > 1 and stride > 1 and not same else "same"
        filters = layer.out_channels
        return keras.layers.Conv2D(filters, size, stride, padding=padding, use_bias=False, name=name)(h)

    def norm(h: Any, layer: nn.BatchNorm2d, name: str) -> Any:
        weights[name] = transfer.batch_norm(layer)
        return keras.layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=name)(h)

    def block(h: Any, of: BasicBlock, name: str) -> Any:
        shortcut = h
        if of.downsample is not None:
            projection, bn = of.downsample
            assert isinstance(projection, nn.Conv2d)
            assert isinstance(bn, nn.BatchNorm2d)
            shortcut = norm(conv(h, projection, f"{name}_conv0"), bn, f"{name}_bn0")
        h = keras.layers.ReLU(name=f"{name}_relu1")(norm(conv(h, of.conv1, f"{name}_conv1"), of.bn1, f"{name}_bn1"))
        h = norm(conv(h, of.conv2, f"{name}_conv2"), of.bn2, f"{name}_bn2")
        if relu_early:
            h = keras.layers.ReLU(name=f"{name}_relu2")(h)
            return keras.layers.Add(name=f"{name}_add")([h, shortcut])
        h = keras.layers.Add(name=f"{name}_add")([h, shortcut])
        return keras.layers.ReLU(name=f"{name}_relu2")(h)

    inputs = keras.Input((8, 8, 3))
    h = block(block(inputs, net.layer1, "one"), net.layer2, "two")
    h = keras.layers.GlobalAveragePooling2D(name="gap")(h)
    model = keras.Model(inputs, Dense(4, name="fc")(h))
    weights["fc"] = transfer.linear(net.fc)
    for name, arrays in weights.items():
        model.get_layer(name).set_weights(arrays)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=loss)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x = normal(EXAMPLES, 3, 8, 8)
    return Pair(
        reference=Recipe(model=net, loss=nn.CrossEntropyLoss(), optimizer=optimizer, training=training),
        candidate=Recipe(model=model, training=training),
        x=(x, transfer.channels_last(x)),
        y=integers(EXAMPLES, below=4),
    )


BN = "forward:layer*bn* forward:layer*downsample.1 forward:*_bn?"

PORTS = [
    clean("residual/blocks", blocks),
    clean("residual/resnet", resnet),
    planted(  # the first block normalises its input in torch, the sum in Keras
        "residual/norm behind the sum",
        partial(blocks, after=True),
        "layer-missing",
        "forward:blocks.0* forward:block0*",
    ),
    planted(
        "residual/scaled branch",
        partial(blocks, scale=0.5),
        "layer-missing",
        "forward:blocks.0 forward:blocks.0/add* forward:block0*",
    ),
    planted(
        "residual/a block less",
        partial(blocks, depth=2),
        "layer-missing",
        "forward:blocks.2* forward:head",
    ),
    planted(  # the main path's convolution of the second block; the 1 x 1 shortcut pads nothing
        "residual/same padding",
        partial(resnet, same=True),
        "conv-same-padding-asymmetry",
        "forward:layer2.conv1 forward:two_conv1",
    ),
    planted("residual/batch norm epsilon", partial(resnet, epsilon=1e-3), "batchnorm-eps", BN),
    planted(
        "residual/relu before the sum",
        partial(resnet, relu_early=True),
        "activation-different",
        "forward:layer1 forward:layer1/* forward:one_add forward:one_relu2",
    ),
    planted(
        "residual/unbiased variance",
        partial(resnet, training=True),
        "batchnorm-unbiased-variance",
        "state:*running_var state:*moving_variance",
    ),
]
