"""The structural layouts, proven: weights moved through them make both frameworks' layers compute the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.pairing import pair_parameters, transfer_values
from tests.pairing_models import Built, keras_layer, torch_layer

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

RNG = np.random.default_rng(0)


class Both:
    """A layer of either framework, run on channels-last input; torch's result is brought to channels last."""

    def __init__(self, torch_module, run_torch, keras_module, run_keras, op, torch_roles, keras_roles, shape):
        self.torch, self.run_torch = torch_module, run_torch
        self.keras, self.run_keras = keras_module, run_keras
        self.op, self.torch_roles, self.keras_roles, self.shape = op, torch_roles, keras_roles, shape
        self.x = RNG.normal(size=(3, *shape)).astype(np.float32)
        run_keras(keras_module, self.x)
        for variable in keras_module.weights:
            variable.assign(RNG.uniform(0.1, 0.9, variable.shape))
        for tensor in [*torch_module.parameters(), *torch_module.buffers()]:
            if tensor.is_floating_point():
                tensor.data = torch.tensor(RNG.uniform(0.1, 0.9, tensor.shape), dtype=torch.float32)

    def sides(self) -> tuple[Built, Built]:
        return (
            torch_layer("block", self.op, self.torch, self.torch_roles),
            keras_layer("block", self.op, self.keras, self.keras_roles),
        )

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            own = self.run_torch(self.torch, torch.tensor(self.x)).numpy()
        return own, np.array(self.run_keras(self.keras, self.x))

    def write(self, framework: str, values: dict[str, np.ndarray]) -> None:
        if framework == "keras":
            for role, variable in zip(self.keras_roles, self.keras.weights, strict=True):
                variable.assign(values[f"block/{role}"])
        else:
            arrays = {**dict(self.torch.named_parameters()), **dict(self.torch.named_buffers())}
            for name, tensor in arrays.items():
                if f"block.{name}" in values:
                    tensor.data = torch.tensor(values[f"block.{name}"])


def last(x):
    return x.movedim(1, -1)


def first(x):
    return x.movedim(-1, 1)


def call(module, x):
    return module(x)


def spatial(module, x):
    return last(module(first(x)))


def recurrent(module, x):
    return module(x)[0]


KB = ["kernel", "bias"]
RNN = ["kernel", "recurrent_kernel", "bias"]
NORM = ["gamma", "beta", "moving_mean", "moving_variance"]
MHA = [f"{name}_{what}" for name in ("query", "key", "value", "out") for what in ("kernel", "bias")]


def layers() -> dict[str, Callable[[], Both]]:
    nn, kl = torch.nn, keras.layers
    norm = [*RNN, *(f"{role}_reverse" for role in RNN)]
    return {
        "dense": lambda: Both(nn.Linear(5, 7), call, kl.Dense(7), call, "Dense", "", KB, (5,)),
        "dense-square": lambda: Both(nn.Linear(5, 5), call, kl.Dense(5), call, "Dense", "", KB, (5,)),
        "conv1d": lambda: Both(nn.Conv1d(3, 5, 4), spatial, kl.Conv1D(5, 4), call, "Conv", "", KB, (9, 3)),
        "conv2d": lambda: Both(nn.Conv2d(3, 3, 3), spatial, kl.Conv2D(3, 3), call, "Conv", "", KB, (9, 8, 3)),
        "conv3d": lambda: Both(
            nn.Conv3d(2, 3, (2, 3, 2)), spatial, kl.Conv3D(3, (2, 3, 2)), call, "Conv", "", KB, (4, 5, 6, 2)
        ),
        "conv2d-groups": lambda: Both(
            nn.Conv2d(4, 6, 3, groups=2), spatial, kl.Conv2D(6, 3, groups=2), call, "Conv", "", KB, (7, 6, 4)
        ),
        "transpose2d": lambda: Both(
            nn.ConvTranspose2d(3, 4, (3, 2)),
            spatial,
            kl.Conv2DTranspose(4, (3, 2)),
            call,
            "ConvTranspose",
            "",
            KB,
            (5, 6, 3),
        ),
        "transpose2d-square": lambda: Both(
            nn.ConvTranspose2d(3, 3, 3, stride=2),
            spatial,
            kl.Conv2DTranspose(3, 3, strides=2),
            call,
            "ConvTranspose",
            "",
            KB,
            (5, 6, 3),
        ),
        "transpose1d": lambda: Both(
            nn.ConvTranspose1d(3, 4, 3), spatial, kl.Conv1DTranspose(4, 3), call, "ConvTranspose", "", KB, (5, 3)
        ),
        "depthwise": lambda: Both(
            nn.Conv2d(3, 6, 3, groups=3),
            spatial,
            kl.DepthwiseConv2D(3, depth_multiplier=2),
            call,
            "DepthwiseConv",
            "",
            KB,
            (7, 6, 3),
        ),
        "depthwise1d": lambda: Both(
            nn.Conv1d(3, 3, 3, groups=3), spatial, kl.DepthwiseConv1D(3), call, "DepthwiseConv", "", KB, (7, 3)
        ),
        "rnn": lambda: Both(
            nn.RNN(3, 4, batch_first=True),
            recurrent,
            kl.SimpleRNN(4, return_sequences=True),
            call,
            "SimpleRNN",
            "RNN",
            RNN,
            (5, 3),
        ),
        "lstm": lambda: Both(
            nn.LSTM(3, 4, batch_first=True),
            recurrent,
            kl.LSTM(4, return_sequences=True),
            call,
            "LSTM",
            "RNN",
            RNN,
            (5, 3),
        ),
        "gru": lambda: Both(
            nn.GRU(3, 4, batch_first=True), recurrent, kl.GRU(4, return_sequences=True), call, "GRU", "RNN", RNN, (5, 3)
        ),
        "lstm-bidirectional": lambda: Both(
            nn.LSTM(3, 4, batch_first=True, bidirectional=True),
            recurrent,
            kl.Bidirectional(kl.LSTM(4, return_sequences=True)),
            call,
            "LSTM",
            "RNN",
            norm,
            (5, 3),
        ),
        "gru-bidirectional": lambda: Both(
            nn.GRU(3, 4, batch_first=True, bidirectional=True),
            recurrent,
            kl.Bidirectional(kl.GRU(4, return_sequences=True)),
            call,
            "GRU",
            "RNN",
            norm,
            (5, 3),
        ),
        "attention": lambda: Both(
            nn.MultiheadAttention(6, 2, batch_first=True),
            lambda module, x: module(x, x.flip(1), x + 1)[0],
            kl.MultiHeadAttention(2, 3),
            lambda module, x: module(x, value=x + 1, key=np.flip(x, 1)),
            "MultiHeadAttention",
            "MultiHeadAttention",
            MHA,
            (5, 6),
        ),
        "batchnorm": lambda: Both(
            nn.BatchNorm1d(5, eps=1e-3).eval(),
            call,
            kl.BatchNormalization(),
            call,
            "BatchNorm",
            "BatchNorm",
            NORM,
            (5,),
        ),
        "layernorm": lambda: Both(
            nn.LayerNorm((5,), eps=1e-3), call, kl.LayerNormalization(), call, "LayerNorm", "BatchNorm", NORM[:2], (5,)
        ),
        "prelu": lambda: Both(
            nn.PReLU(5), spatial, kl.PReLU(shared_axes=[1, 2]), call, "PReLU", "PReLU", ["alpha"], (3, 4, 5)
        ),
    }


@pytest.mark.parametrize("to", ["keras", "pytorch"])
@pytest.mark.parametrize("name", layers())
def test_both_compute_the_same_after_a_transfer(name: str, to: str) -> None:
    both = layers()[name]()
    one, other = both.sides() if to == "keras" else both.sides()[::-1]
    pairing = pair_parameters(one.parameters, other.parameters, one.values, other.values)
    assert pairing.unmatched_reference == pairing.unmatched_candidate == ()
    assert {note.cause for note in pairing.notes} == {"weights-not-transferred"}
    before = both.outputs()
    assert np.abs(before[0] - before[1]).max() > 1e-3
    moved = transfer_values(pairing, one.values, other.parameters, other.values)
    both.write(to, moved)
    own, theirs = both.outputs()
    assert np.abs(own - theirs).max() <= 1e-5 * np.abs(own).max()
    again = pair_parameters(one.parameters, other.parameters, one.values, moved)
    assert [link.how for link in again.links] == ["value"] * len(again.links)
    assert all(link.expected for link in again.links)
    assert again.notes == ()
