"""Where a difference between a torch and a Keras model is said to be: layouts, stacked layers, residuals."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

import frameworks as registry
import harness

MISSING = [name for name in ("pytorch", "keras") if name not in registry.installed()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason="; ".join(map(registry.pip_line, MISSING)))

RNG = np.random.default_rng(2)


def places(result: harness.Comparison) -> set[str]:
    return {found.place for found in result.own}


def test_images_of_equal_height_width_and_channels_behind_the_first_difference() -> None:
    """Nothing agrees, and every permutation fits the shapes: the inputs say how images lie."""
    import keras
    import torch
    from torch import nn

    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(512, 4))
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),  # pads behind, torch on both sides
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Permute((3, 1, 2)),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    harness.transfer(net, model)
    x = RNG.standard_normal((6, 3, 16, 16)).astype(np.float32)
    result = harness.compare(net, model, (x, x.transpose(0, 2, 3, 1).copy()), steps=1, batch_size=6)
    assert result.first is not None
    assert result.first.place == "forward:0"
    assert places(result) <= {"forward:0", "gradient:0.weight"}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_two_recurrences_in_one_layer_end_with_the_second(gate: str, turned: bool) -> None:
    import keras
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.head = nn.LSTM(5, 6, 2, batch_first=True), nn.Linear(6, 3)
            for name, bias in self.rnn.named_parameters():
                if "bias_hh" in name:
                    _ = nn.init.zeros_(bias)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    recurrent = keras.layers.LSTM
    model = keras.Sequential(
        [
            keras.Input((7, 5)),
            recurrent(6, return_sequences=True),
            recurrent(6, recurrent_activation=gate, name="second"),
            keras.layers.Dense(3),
        ]
    )
    net = Net()
    harness.transfer(net, model)
    x = RNG.standard_normal((8, 7, 5)).astype(np.float32)
    result = harness.compare(*((model, net) if turned else (net, model)), x, steps=1, batch_size=8)
    if gate == "sigmoid":
        assert result.verdict == "rounding"
        assert result.first is None
    else:
        assert result.first is not None
        assert {result.first.place, result.first.candidate_place} == {"forward:second", "forward:getitem"}


@pytest.mark.parametrize("penalty", [None, 0.01])
def test_a_value_read_twice_within_a_call_has_one_cotangent(penalty: float | None) -> None:
    """A residual around a layer, or an activity penalty on it: what is before the one difference is not blamed."""
    import keras
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.inner, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            self.shown = torch.tanh(self.first(x)) * 2
            return self.head(self.shown + torch.tanh(self.inner(self.shown)))

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            dense = keras.layers.Dense
            self.first, self.inner, self.head = dense(6, "tanh"), dense(6, "sigmoid"), dense(3)
            self.penalty = keras.layers.ActivityRegularization(l2=penalty or 0.0)

        def call(self, x: Any) -> Any:
            x = self.first(x) * 2
            if penalty:
                x = self.penalty(x)
            return self.head(x + self.inner(x))

    x, y = RNG.standard_normal((24, 5)).astype(np.float32), RNG.integers(0, 3, 24)
    net, model = Net(), Model()
    _ = model(x[:1])
    harness.transfer(net, model)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    reference = harness.side(
        net,
        loss=nn.CrossEntropyLoss(),
        penalty=lambda net: (penalty or 0.0) * net.shown.square().sum() / 12,
        optimizer=torch.optim.SGD(net.parameters(), 0.1),
    )
    result = harness.compare(reference, model, x, y, steps=1, batch_size=12)
    assert result.first is not None
    assert result.first.place == "forward:tanh#2"
    assert not {place for place in places(result) if "first" in place}


def decoder(flipped: bool) -> tuple[Any, Any]:
    """Images made of vectors: no input tells how images lie."""
    import keras
    import torch
    from torch import nn

    torch.manual_seed(1)
    net: Any = nn.Sequential(
        nn.Linear(5, 36), nn.ReLU(), nn.Unflatten(1, (4, 3, 3)), nn.ConvTranspose2d(4, 4, 4, 2, 1),
        nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 3, padding=1),
    )  # fmt: skip
    layers: Any = keras.layers
    first, wide = layers.Dense(36, activation="relu"), layers.Conv2DTranspose(4, 4, strides=2, padding="same")
    last = layers.Conv2D(2, 3, padding="same")
    moved = [layers.Reshape((4, 3, 3)), layers.Permute((2, 3, 1))]
    model = keras.Sequential([keras.Input((5,)), first, *moved, wide, layers.LeakyReLU(negative_slope=0.2), last])
    kernel = weights(net[3].weight).transpose(2, 3, 1, 0)
    first.set_weights([weights(net[0].weight).T, weights(net[0].bias)])
    wide.set_weights([kernel[::-1, ::-1] if flipped else kernel, weights(net[3].bias)])
    last.set_weights([weights(net[5].weight).transpose(2, 3, 1, 0), weights(net[5].bias)])
    return net, model


def cube(turned: bool) -> tuple[Any, Any]:
    """As many channels as rows and columns, so that no shape tells how images lie; turned: a kernel's axes."""
    import keras
    import torch
    from torch import nn

    torch.manual_seed(1)
    net: Any = nn.Sequential(
        *(nn.Linear(5, 64), nn.ReLU(), nn.Unflatten(1, (4, 4, 4)), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
        nn.ConvTranspose2d(4, 2, 2, 2),
    )
    layers: Any = keras.layers
    first, conv = layers.Dense(64, activation="relu"), layers.Conv2D(4, 3, padding="same", activation="relu")
    wide, moved = layers.Conv2DTranspose(2, 2, strides=2), [layers.Reshape((4, 4, 4)), layers.Permute((2, 3, 1))]
    model = keras.Sequential([keras.Input((5,)), first, *moved, conv, wide])
    first.set_weights([weights(net[0].weight).T, weights(net[0].bias)])
    conv.set_weights(
        [weights(net[3].weight).transpose(*((3, 2, 0, 1) if turned else (2, 3, 1, 0))), weights(net[3].bias)]
    )
    wide.set_weights([weights(net[5].weight).transpose(2, 3, 1, 0), weights(net[5].bias)])
    return net, model


def reader(swapped: bool) -> tuple[Any, Any]:
    """A recurrence's last states of both directions, one after the other; swapped: the candidate's gates."""
    import keras
    import torch
    from torch import nn

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.rnn, self.out = nn.GRU(6, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            last = self.rnn(x)[1]
            return self.out(torch.cat([last[0], last[1]], -1))

    net, layers = Reader(), cast(Any, keras.layers)
    order = np.r_[0:12] if swapped else np.r_[4:8, 0:4, 8:12]
    values = []
    for way in ("l0", "l0_reverse"):
        w, u, b, c = (
            weights(getattr(net.rnn, f"{kind}_{way}"))[order]
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        values += [w.T, u.T, np.stack([b, c])]
    both, out = layers.Bidirectional(layers.GRU(4, reset_after=True)), layers.Dense(3)
    model = keras.Sequential([keras.Input((7, 6)), both, out])
    both.set_weights(values)
    out.set_weights([weights(net.out.weight).T, weights(net.out.bias)])
    return net, model


@pytest.mark.parametrize(
    ("pair", "shape", "cause"),
    [
        (decoder, (12, 5), "convtranspose-kernel-flip"),
        (cube, (8, 5), "conv-kernel-axes"),
        (reader, (12, 7, 6), "rnn-gate-order"),
    ],
)
def test_what_lies_behind_a_difference_is_seen_in_its_own_layout(pair: Any, shape: tuple[int, ...], cause: str) -> None:
    clean, planted = pair(False), pair(True)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert harness.compare(clean[0], clean[1], x, steps=0).verdict in ("identical", "rounding")
    result = harness.compare(planted[0], planted[1], x, steps=0)
    assert result.verdict == "different"
    assert len(result.own) == 1
    assert [(found.status, found.id) for found in result.causes] == [("proven", cause)]


def weights(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()
