"""Autoencoders: dense, with tied weights, variational without sampling, convolutional with transposed convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import normal
from harness.recipe import Recipe

EXAMPLES = 24
layers, ops = keras.layers, keras.ops


def reconstructing(net: nn.Module, model: keras.Model, x: Any, y: Any, rate: float = 0.1, **options: Any) -> Pair:
    """MSE between the output and the input."""
    model.compile(optimizer=keras.optimizers.SGD(rate, momentum=0.9), loss="mse")
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    reference = Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer, **options)
    return Pair(reference=reference, candidate=Recipe(model=model), x=x, y=y, batch_size=8)


def dense(code: str = "relu", sparse: float = 0.0) -> Pair:
    _ = torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 4), nn.ReLU())
    decoder = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 14))
    net = nn.Sequential(encoder, decoder)
    inputs = keras.Input((14,))
    h = layers.Dense(10, activation="relu", name="enc1")(inputs)
    regulariser = keras.regularizers.L1(sparse) if sparse else None
    h = layers.Dense(4, activation=code, name="code", activity_regularizer=regulariser)(h)
    h = layers.Dense(10, activation="relu", name="dec1")(h)
    model = keras.Model(inputs, layers.Dense(14, name="dec2")(h))
    linears = [m for m in net.modules() if isinstance(m, nn.Linear)]
    for name, layer in zip(("enc1", "code", "dec1", "dec2"), linears, strict=True):
        model.get_layer(name).set_weights(transfer.linear(layer))
    x = normal(EXAMPLES, 14)
    return reconstructing(net, model, x, x)


class Tied(nn.Module):
    """The decoder uses the encoder's kernel, transposed: its gradient is the sum of two."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(12, 5)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(torch.tanh(self.enc(x)), self.enc.weight.t(), self.bias)


class KerasTied(keras.Model):
    """detached: the decoder's use of the kernel sends no gradient."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.enc = layers.Dense(5, activation="tanh", name="enc")
        self.detached = detached

    def build(self, input_shape: Any) -> None:
        self.enc.build(input_shape)
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        kernel = ops.stop_gradient(self.enc.kernel) if self.detached else self.enc.kernel
        return ops.matmul(self.enc(x), ops.transpose(kernel)) + self.bias


def tied(detached: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Tied()
    model = KerasTied(detached)
    x = normal(EXAMPLES, 12)
    _ = model(x[:1])
    model.enc.set_weights(transfer.linear(net.enc))
    return reconstructing(net, model, x, x)


class ConvAutoencoder(nn.Module):
    """8 x 8 images down to 2 x 2 and up again; `size` of the transposed kernels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        extra = 4 - size  # the output keeps its size
        self.up1 = nn.ConvTranspose2d(4, 4, size, stride=2, padding=1, output_padding=extra)
        self.up2 = nn.ConvTranspose2d(4, 2, size, stride=2, padding=1, output_padding=extra)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.down1(x))
        x = F.relu(self.down2(x))
        x = F.relu(self.up1(x))
        return torch.sigmoid(self.up2(x))


def convolutional(size: int = 4, axes: tuple[int, ...] = (0, 1, 2, 3), flipped: bool = False) -> Pair:
    """Keras's 'same' cuts (1, 1) off a kernel of 4 as padding=1 does, but (0, 1) off a kernel of 3."""
    _ = torch.manual_seed(0)
    net = ConvAutoencoder(size)
    inputs = keras.Input((8, 8, 2))
    h = inputs
    for i in (1, 2):
        h = layers.ZeroPadding2D(1, name=f"pad{i}")(h)
        h = layers.Conv2D(4, 3, strides=2, activation="relu", name=f"enc{i}")(h)
    h = layers.Conv2DTranspose(4, size, strides=2, padding="same", activation="relu", name="dec1")(h)
    h = layers.Conv2DTranspose(2, size, strides=2, padding="same", activation="sigmoid", name="dec2")(h)
    model = keras.Model(inputs, h)
    model.get_layer("enc1").set_weights(transfer.conv(net.down1))
    model.get_layer("enc2").set_weights(transfer.conv(net.down2))
    kernel, bias = transfer.conv_transpose(net.up1)
    kernel = kernel.transpose(axes)
    model.get_layer("dec1").set_weights([kernel[::-1, ::-1] if flipped else kernel, bias])
    model.get_layer("dec2").set_weights(transfer.conv_transpose(net.up2))
    x = normal(EXAMPLES, 2, 8, 8)
    last = transfer.channels_last(x)
    return reconstructing(net, model, (x, last), (x, last), rate=0.5)


class Upsampled(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.enc = nn.Conv2d(1, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, **options)
        self.dec = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dec(self.up(F.elu(self.pool(self.enc(x)))))


def upsampled(interpolation: str = "nearest", **options: Any) -> Pair:
    _ = torch.manual_seed(0)
    net = Upsampled(mode=interpolation, **options)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, padding="same", name="enc"),
            layers.MaxPooling2D(2, name="pool"),
            layers.ELU(name="elu"),
            layers.UpSampling2D(2, interpolation=interpolation, name="upsample"),
            layers.Conv2D(1, 3, padding="same", name="dec"),
        ]
    )
    for name in ("enc", "dec"):
        model.get_layer(name).set_weights(transfer.conv(getattr(net, name)))
    x = normal(EXAMPLES, 1, 6, 6)
    last = transfer.channels_last(x)
    return reconstructing(net, model, (x, last), (x, last))


class Variational(nn.Module):
    """The code's mean is decoded, as at inference; both moments are outputs for the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(9, 8)
        self.mean = nn.Linear(8, 2)
        self.log_var = nn.Linear(8, 2)
        self.decode = nn.Linear(2, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.body(x))
        mean, log_var = self.mean(h), self.log_var(h)
        return torch.cat([self.decode(mean), mean, log_var], dim=1)


def torch_elbo(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    decoded, mean, log_var = output[:, :9], output[:, 9:11], output[:, 11:]
    kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(dim=1)
    return ((decoded - x) ** 2).sum(dim=1).mean() + kl.mean()


def keras_elbo(x: Any, output: Any, kl_mean: bool = False) -> Any:
    decoded, mean, log_var = output[:, :9], output[:, 9:11], output[:, 11:]
    terms = -0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var))
    kl = ops.mean(terms, axis=1) if kl_mean else ops.sum(terms, axis=1)
    return ops.sum(ops.square(decoded - x), axis=1) + kl


def variational(kl_mean: bool = False, heads_swapped: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = Variational()
    inputs = keras.Input((9,))
    h = layers.Dense(8, activation="tanh", name="body")(inputs)
    mean, log_var = layers.Dense(2, name="mean")(h), layers.Dense(2, name="log_var")(h)
    decoded = layers.Dense(9, name="decode")(mean)
    model = keras.Model(inputs, layers.Concatenate(name="all")([decoded, mean, log_var]))
    for name in ("body", "mean", "log_var", "decode"):
        model.get_layer(name).set_weights(transfer.linear(getattr(net, name)))
    if heads_swapped:
        model.get_layer("mean").set_weights(transfer.linear(net.log_var))
        model.get_layer("log_var").set_weights(transfer.linear(net.mean))
    model.compile(optimizer=keras.optimizers.SGD(0.02), loss=partial(keras_elbo, kl_mean=kl_mean))
    x = normal(EXAMPLES, 9)
    return Pair(
        reference=Recipe(model=net, loss=torch_elbo, optimizer=torch.optim.SGD(net.parameters(), lr=0.02)),
        candidate=Recipe(model=model),
        x=x,
        y=x,
        batch_size=8,
    )


UP1 = "forward:up1 forward:relu#3 forward:dec1"

PORTS = [
    clean("autoencoder/dense", dense),
    clean("autoencoder/tied", tied),
    clean("autoencoder/convolutional", convolutional),
    clean("autoencoder/upsampled", upsampled),
    clean("autoencoder/bilinear", partial(upsampled, "bilinear", align_corners=False)),
    clean("autoencoder/variational", variational),
    planted(
        "autoencoder/code", partial(dense, "linear"), "activation-different", "forward:0* forward:code forward:1.0"
    ),
    planted("autoencoder/sparse", partial(dense, sparse=0.1), "l2-missing", "loss"),
    planted("autoencoder/tied on one side", partial(tied, detached=True), "detached-branch", "gradient:*enc*"),
    planted("autoencoder/transposed padding", partial(convolutional, 3), "convtranspose-padding", UP1),
    planted(
        "autoencoder/channels swapped",
        partial(convolutional, axes=(0, 1, 3, 2)),
        "convtranspose-kernel-flip",
        UP1,
    ),
    planted("autoencoder/kernel flipped", partial(convolutional, flipped=True), "convtranspose-kernel-flip", UP1),
    planted(
        "autoencoder/corners aligned",
        partial(upsampled, "bilinear", align_corners=True),
        "resize-align-corners",
        "forward:up* forward:upsample",
    ),
    planted("autoencoder/kl averaged", partial(variational, kl_mean=True), "loss-reduction", "loss"),
    planted(
        "autoencoder/heads swapped",
        partial(variational, heads_swapped=True),
        "weight-order-mismatch",
        "forward:mean forward:log_var",
    ),
]
