"""Models that differ in what nobody sees: the same function computed otherwise is no difference; a parameter that only
one side trains is one, also where it changes nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 12)


def model(how: str, factor: float = 1.0) -> Any:
    """how: the examples as they are, sorted or reversed on the way and put back, or in pieces of four. factor: of the
    output."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def whole(self, x: Any) -> Any:
            out = self.last(torch.tanh(self.first(x)))
            return out if factor == 1 else out * factor

        def forward(self, x: Any) -> Any:
            match how:
                case "plain":
                    return self.whole(x)
                case "pieces":
                    return torch.cat([self.whole(piece) for piece in x.split(4)])
            order = x[:, 0].argsort() if how == "sorted" else torch.arange(len(x)).flip(0)
            return self.whole(x[order])[order.argsort()]

    torch.manual_seed(0)
    return Model()


def compared(sides: Sequence[Any], *data: np.ndarray, steps: int = 1) -> harness.Comparison:
    one, other = sides
    return harness.compare(one, other, *data, steps=steps)


def trained(of: Any) -> Any:
    import torch

    return harness.side(of, loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(of.parameters(), 0.1))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("how", ["sorted", "reversed", "pieces"])
def test_examples_may_be_taken_in_another_order_and_put_back(how: str, swapped: bool) -> None:
    pair = ("plain", how)[:: -1 if swapped else 1]
    for result in (
        compared([model(of) for of in pair], X, steps=0),
        compared([trained(model(of)) for of in pair], X, Y, steps=3),
    ):
        assert result.verdict in ("identical", "rounding")
        assert result.first is None


@pytest.mark.parametrize("how", ["sorted", "reversed", "pieces"])
@pytest.mark.parametrize("train", [False, True])
def test_a_difference_in_the_output_is_found_all_the_same(how: str, train: bool) -> None:
    sides: list[Any] = [model("plain"), model(how, factor=1 + 1e-6)]
    result = compared([*map(trained, sides)], X, Y, steps=2) if train else compared(sides, X, steps=0)
    assert result.verdict == "different"


def test_a_batch_of_packed_sequences_may_be_smaller_than_the_first() -> None:
    import torch
    from torch import nn

    class Last(nn.Module):
        def __init__(self, packs: bool) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.lstm, self.out, self.packs = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 2), packs

        def forward(self, x: Any, lengths: Any) -> Any:
            if self.packs:
                how: Any = {"batch_first": True, "enforce_sorted": False}
                return self.out(self.lstm(nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), **how))[1][0][0])
            return self.out(self.lstm(x)[0][torch.arange(len(x)), lengths - 1])

    x = [RNG.standard_normal((8, 5, 6)).astype(np.float32), np.array([5, 3, 4, 2, 1, 5, 3, 4])]
    result = harness.compare(trained(Last(True)), trained(Last(False)), x, Y[:8] % 2, steps=2, batch_size=6)
    assert result.verdict in ("identical", "rounding")


def without_bias(of: Any) -> Any:
    from torch import nn

    bare = nn.Linear(8, 3, bias=False)
    bare.weight = of.last.weight
    of.last = bare
    return of


def normed(of: Any) -> Any:
    from torch import nn

    of.last = nn.Sequential(of.last, nn.PReLU(init=1.0))
    return of


ALONE: dict[str, Callable[[Any], Any]] = {"bias": without_bias, "slope": normed}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", ALONE)
def test_a_parameter_that_only_one_side_trains_is_a_difference(name: str, swapped: bool) -> None:
    one, other = model("plain"), model("plain")
    for of in (one, other):
        of.last.bias.data.zero_()
    other = ALONE[name](other)
    result = compared([*map(trained, (other, one) if swapped else (one, other))], X, Y)
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.step == 1
    assert any("a step more" in note for note in result.notes)


def test_a_frozen_parameter_that_changes_nothing_is_none() -> None:
    one, other = model("plain"), model("plain")
    for of in (one, other):
        of.last.bias.data.zero_()
    one.last.bias.requires_grad_(False)
    result = harness.compare(trained(one), trained(without_bias(other)), X, Y)
    assert result.verdict in ("identical", "rounding")
    assert set(result.frame["step"]) == {0}


def test_a_layer_may_be_frozen_or_left_out_of_the_optimizer() -> None:
    import torch

    def side(frozen: bool, factor: float = 1.0) -> Any:
        of = model("plain")
        for parameter in of.first.parameters():
            parameter.requires_grad_(not frozen)
        rule = torch.optim.SGD(of.last.parameters(), 0.1 * factor)
        return harness.side(of, loss=torch.nn.CrossEntropyLoss(), optimizer=rule)

    assert harness.compare(side(True), side(False), X, Y, steps=2).verdict in ("identical", "rounding")
    assert harness.compare(side(True), side(False, 1.001), X, Y, steps=2).verdict == "different"
    everything = trained(model("plain"))
    assert harness.compare(side(True), everything, X, Y).verdict == "different"


@pytest.mark.parametrize("swapped", [False, True])
def test_a_bias_before_a_batch_norm_that_adam_moves_by_rounding_alone(swapped: bool) -> None:
    import torch
    from torch import nn

    def side(bias: bool) -> Any:
        torch.manual_seed(0)
        first = nn.Linear(6, 8, bias=False)
        net: Any = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        net[0].weight.data.copy_(first.weight)
        net[0].bias.data.zero_()
        if not bias:
            first.weight.data.copy_(net[0].weight)
            net[0] = first
        return harness.side(net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(net.parameters(), 0.01))

    pair = [side(True), side(False)][:: -1 if swapped else 1]
    assert compared(pair, X, Y, steps=3).verdict == "rounding"
