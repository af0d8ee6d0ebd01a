"""Recurrent networks. torch has two biases per gate and trains both, Keras one: correct ports freeze torch's second.

GRU with reset_after has two in Keras as well.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal
from harness.recipe import Recipe

EXAMPLES, TIME, FEATURES, UNITS = 24, 7, 5, 6
layers = keras.layers


def one_bias(rnn: nn.RNNBase) -> None:
    """Zero and freeze the recurrent biases."""
    for name, parameter in rnn.named_parameters():
        if "bias_hh" in name:
            _ = nn.init.zeros_(parameter).requires_grad_(False)


def sequences(net: nn.Module, model: keras.Model, x: np.ndarray | None = None, **options: Any) -> Pair:
    """MSE and momentum on one number for each sequence."""
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss="mse")
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    x = normal(EXAMPLES, TIME, FEATURES) if x is None else x
    return Pair(
        reference=Recipe(model=net, loss=nn.MSELoss(), optimizer=optimizer),
        candidate=Recipe(model=model),
        x=x,
        y=normal(EXAMPLES, 1, seed=1),
        batch_size=8,
        **options,
    )


class Last(nn.Module):
    """A recurrent layer and a head on its last output."""

    def __init__(self, rnn: nn.RNNBase, width: int = UNITS, first: float = 0.0) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(width, 1)
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.first:
            start = torch.full((1, len(x), UNITS), self.first, dtype=x.dtype)
            out, _ = self.rnn(x, start)
        else:
            out, _ = self.rnn(x)
        return self.head(out[:, -1])


def simple(activation: str = "tanh", transposed: bool = True, first: float = 0.0, both_biases: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    rnn = nn.RNN(FEATURES, UNITS, batch_first=True)
    net = Last(rnn, first=first)
    if not both_biases:
        one_bias(rnn)
    model = keras.Sequential(
        [
            keras.Input((TIME, FEATURES)),
            layers.SimpleRNN(UNITS, activation=activation, name="simple"),
            layers.Dense(1, name="out"),
        ]
    )
    kernel, recurrent, bias = transfer.rnn(rnn)
    model.get_layer("simple").set_weights([kernel, recurrent if transposed else recurrent.T, bias])
    model.get_layer("out").set_weights(transfer.linear(net.head))
    return sequences(net, model)


def lstm(
    both_biases: bool = False,
    gates: tuple[int, ...] = (0, 1, 2, 3),
    recurrent_activation: str = "sigmoid",
    batch_first: bool = True,
    forget_bias: float = 0.0,
) -> Pair:
    _ = torch.manual_seed(0)
    rnn = nn.LSTM(FEATURES, UNITS, batch_first=batch_first)
    net = Last(rnn)
    if not both_biases:
        one_bias(rnn)
    inputs = keras.Input((TIME, FEATURES))
    h = layers.LSTM(UNITS, recurrent_activation=recurrent_activation, name="memory")(inputs)
    model = keras.Model(inputs, layers.Dense(1, name="out")(h))
    arrays = [np.split(each, 4, axis=-1) for each in transfer.rnn(rnn)]
    kernel, recurrent, bias = (np.concatenate([parts[i] for i in gates], axis=-1) for parts in arrays)
    bias[UNITS : 2 * UNITS] += forget_bias
    model.get_layer("memory").set_weights([kernel, recurrent, bias])
    model.get_layer("out").set_weights(transfer.linear(net.head))
    return sequences(net, model)


def gru(reset_after: bool = True, reordered: bool = True) -> Pair:
    _ = torch.manual_seed(0)
    rnn = nn.GRU(FEATURES, UNITS, batch_first=True)
    net = Last(rnn)
    model = keras.Sequential(
        [
            keras.Input((TIME, FEATURES)),
            layers.GRU(UNITS, reset_after=reset_after, name="gated"),
            layers.Dense(1, name="out"),
        ]
    )
    kernel, recurrent, bias = transfer.gru(rnn)
    if not reordered:
        w_in, w_rec, b_in, b_rec = transfer.recurrent(rnn)
        kernel, recurrent, bias = w_in.T, w_rec.T, np.stack([b_in, b_rec])
    model.get_layer("gated").set_weights([kernel, recurrent, bias if reset_after else bias.sum(axis=0)])
    model.get_layer("out").set_weights(transfer.linear(net.head))
    return sequences(net, model)


class BothWays(nn.Module):
    """last_output: the sequence's last step, where the backward direction has seen one element only."""

    def __init__(self, last_output: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, UNITS, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * UNITS, 1)
        self.last_output = last_output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, (h, _) = self.lstm(x)
        return self.fc(out[:, -1] if self.last_output else torch.cat([h[0], h[1]], dim=1))


def bidirectional(last_output: bool = False, directions_swapped: bool = False) -> Pair:
    _ = torch.manual_seed(0)
    net = BothWays(last_output)
    one_bias(net.lstm)
    model = keras.Sequential(
        [
            keras.Input((TIME, FEATURES)),
            layers.Bidirectional(layers.LSTM(UNITS, name="lstm"), name="both"),
            layers.Dense(1, name="out"),
        ]
    )
    forward, backward = transfer.rnn(net.lstm), transfer.rnn(net.lstm, reverse=True)
    model.get_layer("both").set_weights([*backward, *forward] if directions_swapped else [*forward, *backward])
    model.get_layer("out").set_weights(transfer.linear(net.fc))
    return sequences(net, model)


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, UNITS, num_layers=2, batch_first=True)
        self.head = nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.rnn(x)
        return self.head(out).mean(dim=1)


def stacked(sequences_returned: bool = True) -> Pair:
    """Two layers in one torch module, two layers in Keras; the head acts on every step."""
    _ = torch.manual_seed(0)
    net = Stacked()
    inputs = keras.Input((TIME, FEATURES))
    h = layers.GRU(UNITS, return_sequences=True, name="lower")(inputs)
    h = layers.GRU(UNITS, return_sequences=sequences_returned, name="upper")(h)
    h = layers.Dense(1, name="head")(h)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D(name="mean")(h) if sequences_returned else h)
    model.get_layer("lower").set_weights(transfer.gru(net.rnn))
    model.get_layer("upper").set_weights(transfer.gru(net.rnn, depth=1))
    model.get_layer("head").set_weights(transfer.linear(net.head))
    return sequences(net, model)


class Words(nn.Module):
    """Embedded words, padded with 0 behind, packed for the recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, FEATURES)
        self.lstm = nn.LSTM(FEATURES, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        lengths = (tokens != 0).sum(dim=1)
        packed = pack_padded_sequence(self.words(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.fc(h[-1])


def words(masked: bool = True) -> Pair:
    _ = torch.manual_seed(0)
    net = Words()
    one_bias(net.lstm)
    model = keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            layers.Embedding(20, FEATURES, mask_zero=masked, name="words"),
            layers.LSTM(UNITS, name="memory"),
            layers.Dense(1, name="out"),
        ]
    )
    model.get_layer("words").set_weights(transfer.embedding(net.words))
    model.get_layer("memory").set_weights(transfer.rnn(net.lstm))
    model.get_layer("out").set_weights(transfer.linear(net.fc))
    tokens = 1 + integers(EXAMPLES, TIME, below=19)
    lengths = integers(EXAMPLES, below=TIME - 1, seed=2) + 2
    return sequences(net, model, x=np.where(np.arange(TIME) < lengths[:, None], tokens, 0))


class ByHand(nn.Module):
    """An LSTM cell in a loop, each gate with its own layers, as in tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(FEATURES + UNITS, UNITS) for _ in range(4))
        self.head = nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(len(x), UNITS)
        for t in range(x.shape[1]):
            both = torch.cat([x[:, t], h], dim=1)
            i, f, g, o = (gate(both) for gate in self.gates)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


def by_hand(forget_bias: float = 0.0) -> Pair:
    _ = torch.manual_seed(0)
    net = ByHand()
    model = keras.Sequential(
        [keras.Input((TIME, FEATURES)), layers.LSTM(UNITS, name="memory"), layers.Dense(1, name="out")]
    )
    gates = [transfer.linear(gate) for gate in net.gates if isinstance(gate, nn.Linear)]
    kernel, bias = (np.concatenate([gate[i] for gate in gates], axis=-1) for i in range(2))
    bias[UNITS : 2 * UNITS] += forget_bias
    model.get_layer("memory").set_weights([kernel[:FEATURES], kernel[FEATURES:], bias])
    model.get_layer("out").set_weights(transfer.linear(net.head))
    return sequences(net, model)


LSTM = "forward:rnn* forward:memory"

PORTS = [
    clean("recurrent/simple", simple),
    clean("recurrent/lstm", lstm),
    clean("recurrent/gru", gru),
    clean("recurrent/bidirectional", bidirectional),
    clean("recurrent/stacked", stacked),
    clean("recurrent/words", words),
    clean("recurrent/by hand", by_hand),
    planted(
        "recurrent/kernel not transposed",
        partial(simple, transposed=False),
        "weight-layout-transpose",
        "forward:rnn* forward:simple",
    ),
    planted("recurrent/activation", partial(simple, "relu"), "activation-different", "forward:rnn* forward:simple"),
    planted("recurrent/initial state", partial(simple, first=0.5), "rnn-initial-state", "forward:rnn* forward:simple"),
    planted(  # gradients agree bias by bias; the sum of torch's two moves twice as far, and is seen a step later
        "recurrent/two biases",
        partial(lstm, both_biases=True),
        "rnn-double-bias",
        "gradient:rnn.bias* gradient:memory/* update:rnn.bias* update:memory/* forward:rnn* forward:memory",
        (0, 1),
    ),
    planted(
        "recurrent/two biases, simple",
        partial(simple, both_biases=True),
        "rnn-double-bias",
        "gradient:rnn.bias* gradient:simple/* update:rnn.bias* update:simple/* forward:rnn* forward:simple",
        (0, 1),
    ),
    planted("recurrent/gate order", partial(lstm, gates=(0, 2, 1, 3)), "rnn-gate-order", LSTM),
    planted(
        "recurrent/hard sigmoid", partial(lstm, recurrent_activation="hard_sigmoid"), "rnn-recurrent-activation", LSTM
    ),
    planted("recurrent/batch first", partial(lstm, batch_first=False), "rnn-batch-first", LSTM),
    planted("recurrent/forget bias", partial(lstm, forget_bias=1.0), "gate-bias", LSTM),
    planted("recurrent/reset before", partial(gru, reset_after=False), "gru-reset-after", "forward:rnn* forward:gated"),
    planted("recurrent/gru gates", partial(gru, reordered=False), "rnn-gate-order", "forward:rnn* forward:gated"),
    planted(  # torch's sequence agrees; what is cut out of it is the first that Keras has too
        "recurrent/last step of both directions",
        partial(bidirectional, last_output=True),
        "rnn-bidirectional-last",
        "forward:lstm* forward:both* forward:fc forward:out forward:*getitem*",
    ),
    planted(
        "recurrent/directions swapped",
        partial(bidirectional, directions_swapped=True),
        "weight-order-mismatch",
        "forward:lstm* forward:both* forward:cat",
    ),
    planted(
        "recurrent/last step or all",
        partial(stacked, sequences_returned=False),
        "rnn-return-sequences",
        "forward:rnn* forward:upper forward:head* forward:mean",
    ),
    planted(
        "recurrent/not masked",
        partial(words, masked=False),
        "sequence-masking",
        "forward:lstm* forward:memory forward:fc",
    ),
    planted(  # the loop has no layer that is Keras's LSTM: its head is the first that both have
        "recurrent/forget bias by hand",
        partial(by_hand, forget_bias=1.0),
        "gate-bias",
        "forward:gates.* forward:sigmoid* forward:tanh* forward:mul* forward:memory forward:head forward:out",
    ),
]
