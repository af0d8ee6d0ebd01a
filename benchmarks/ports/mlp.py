"""Plain multilayer perceptrons: a torch module beside a Sequential, functional or subclassed Keras model.

What is trained differently is in training.py, losses.py and gradients.py; this module also makes the models for them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import coins, integers, normal
from harness.recipe import Recipe

EXAMPLES = 48


class Net(nn.Module):
    """10 - 16 - 16 - out; the middle kernel is square, so that a forgotten transpose still fits."""

    def __init__(self, out: int = 1, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 16)
        self.fc2 = nn.Linear(16, 16)
        self.fc3 = nn.Linear(16, out)
        self.act = activation or nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.fc1(x))
        x = self.act(self.fc2(x))
        return self.fc3(x)


def torch_net(out: int = 1, activation: nn.Module | None = None, seed: int = 0) -> Net:
    _ = torch.manual_seed(seed)
    return Net(out, activation)


def keras_net(net: Net, activation: Any = "tanh", last: str | None = None, l2: float = 0.0) -> keras.Model:
    """The Sequential port of a Net, with its weights."""
    penalty = keras.regularizers.L2(l2) if l2 else None
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(16, activation="relu", name="hidden1", kernel_regularizer=penalty),
            keras.layers.Dense(16, activation=activation, name="hidden2", kernel_regularizer=penalty),
            keras.layers.Dense(net.fc3.out_features, activation=last, name="output"),
        ]
    )
    for name, layer in (("hidden1", net.fc1), ("hidden2", net.fc2), ("output", net.fc3)):
        model.get_layer(name).set_weights(transfer.linear(layer))
    return model


def regression_data() -> tuple[np.ndarray, np.ndarray]:
    x = normal(EXAMPLES, 10)
    return x, np.sin(x[:, :1]) + 0.5 * x[:, 1:2]


def sgd(net: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), **{"lr": 0.05, **options})


def sequential(
    activation: nn.Module | None = None, keras_activation: Any = "tanh", transposed: bool = True, forgotten: str = ""
) -> Pair:
    """MSE and SGD; mistakes: another activation, the square kernel not transposed, a layer's weights not set."""
    net = torch_net(activation=activation)
    fresh = keras_net(torch_net(seed=1), keras_activation)
    model = keras_net(net, keras_activation)
    if not transposed:
        model.get_layer("hidden2").set_weights([transfer.array(net.fc2.weight), transfer.array(net.fc2.bias)])
    if forgotten:
        model.get_layer(forgotten).set_weights(fresh.get_layer(forgotten).get_weights())
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    x, y = regression_data()
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=sgd(net)), candidate=Recipe(model=model), x=x, y=y
    )


class Classifier(keras.Model):
    """The subclassed Keras way."""

    def __init__(self, classes: int, use_bias: bool) -> None:
        super().__init__()
        self.encoder = keras.layers.Dense(24, name="encoder")
        self.act = keras.layers.LeakyReLU(negative_slope=0.01, name="act")
        self.middle = keras.layers.Dense(12, activation="elu", use_bias=use_bias, name="middle")
        self.head = keras.layers.Dense(classes, name="head")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.middle(self.act(self.encoder(x))))


def subclassed(keras_slope: float = 0.01, use_bias: bool = True) -> Pair:
    """A torch Sequential with LeakyReLU and ELU beside a subclassed Keras model."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 24), nn.LeakyReLU(0.01), nn.Linear(24, 12), nn.ELU(), nn.Linear(12, 4))
    model = Classifier(4, use_bias)
    model.act.negative_slope = keras_slope
    x, y = normal(EXAMPLES, 8), integers(EXAMPLES, below=4)
    _ = model(x[:2])
    first, middle, last = (layer for layer in net if isinstance(layer, nn.Linear))
    model.encoder.set_weights(transfer.linear(first))
    model.middle.set_weights(transfer.linear(middle)[: 1 + use_bias])
    model.head.set_weights(transfer.linear(last))
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    reference = Recipe(model=net, loss=nn.CrossEntropyLoss(), optimizer=sgd(net, momentum=0.9))
    return Pair(reference=reference, candidate=Recipe(model=model), x=x, y=y)


def functional(approximate: bool = False, missing: bool = False, layers_swapped: bool = False) -> Pair:
    """GELU and softplus in a functional Keras model; binary cross-entropy on probabilities and Nesterov."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 20), nn.Softplus(), nn.Linear(20, 20), nn.SiLU(), nn.Linear(20, 1)
    )
    inputs = keras.Input((12,))
    h = keras.layers.Dense(20, name="d0")(inputs)
    h = keras.layers.Lambda(lambda z: keras.ops.gelu(z, approximate=approximate), name="gelu")(h)
    h = keras.layers.Dense(20, activation=None if missing else "softplus", name="d1")(h)
    h = keras.layers.Dense(20, activation="silu", name="d2")(h)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="d3")(h))
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    if layers_swapped:
        linears[1], linears[2] = linears[2], linears[1]
    for i, layer in enumerate(linears):
        model.get_layer(f"d{i}").set_weights(transfer.linear(layer))
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), loss=keras.losses.BinaryCrossentropy()
    )
    full = nn.Sequential(*net, nn.Sigmoid())
    reference = Recipe(model=full, loss=nn.BCELoss(), optimizer=sgd(full, momentum=0.9, nesterov=True))
    return Pair(
        reference=reference, candidate=Recipe(model=model), x=normal(EXAMPLES, 12), y=coins(EXAMPLES, 1), batch_size=12
    )


def inference(standard_deviation: float = 1.0) -> Pair:
    """The forward pass alone, with the normalisation of the inputs inside the Keras model."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU6(), nn.Linear(9, 5), nn.Softmax(dim=1))
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Rescaling(1 / standard_deviation, name="scale"),
            keras.layers.Dense(9, activation="relu6", name="a"),
            keras.layers.Dense(5, activation="softmax", name="b"),
        ]
    )
    for name, layer in (("a", net[0]), ("b", net[2])):
        model.get_layer(name).set_weights(transfer.linear(layer))
    return Pair(
        reference=Recipe(model=net), candidate=Recipe(model=model), x=normal(30, 6, scale=3.0), steps=0, batch_size=30
    )


PORTS = [
    clean("mlp/sequential", sequential),
    clean("mlp/sequential relu", partial(sequential, nn.ReLU(), "relu")),
    clean("mlp/sequential sigmoid", partial(sequential, nn.Sigmoid(), "sigmoid")),
    clean("mlp/subclassed", subclassed),
    clean("mlp/functional", functional),
    clean("mlp/inference", inference),
    planted(
        "mlp/kernel not transposed",
        partial(sequential, transposed=False),
        "weight-layout-transpose",
        "forward:fc2 forward:act forward:hidden2",
    ),
    planted(
        "mlp/output weights not set",
        partial(sequential, forgotten="output"),
        "weights-not-transferred",
        "forward:fc3 forward:output",
    ),
    planted(
        "mlp/another activation",
        partial(sequential, nn.Tanh(), "sigmoid"),
        "activation-different",
        "forward:act forward:hidden2",
    ),
    planted(  # Keras's default slope is 0.3
        "mlp/leaky slope", partial(subclassed, keras_slope=0.3), "leakyrelu-slope", "forward:1 forward:*act"
    ),
    planted(
        "mlp/bias missing", partial(subclassed, use_bias=False), "bias-missing", "forward:2 forward:3 forward:*middle"
    ),
    planted("mlp/tanh gelu", partial(functional, approximate=True), "gelu-approximation", "forward:1 forward:gelu"),
    planted(  # without its activation d1 agrees with layer 2; where 3 has no counterpart, d2 is the first to differ
        "mlp/activation missing",
        partial(functional, missing=True),
        "activation-different",
        "forward:3 forward:d1 forward:4 forward:d2",
    ),
    planted(  # the two kernels have one shape
        "mlp/layers swapped",
        partial(functional, layers_swapped=True),
        "weight-order-mismatch",
        "forward:2 forward:3 forward:d1",
    ),
    planted(
        "mlp/inputs rescaled",
        partial(inference, standard_deviation=3.0),
        "layer-missing",
        "forward:0 forward:scale forward:a forward:1",
    ),
]
