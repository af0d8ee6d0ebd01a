"""Where a difference is said to be: up the branches, at the end; not where sides merely do it in another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness
from harness.pairing import pair_parameters
from harness.recipe import Parameter

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

RNG = np.random.default_rng(2)
X = RNG.standard_normal((24, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 24)


def side(forward: Any, **how: Any) -> Any:
    """A model of five linear layers, with the same weights each time, that computes `forward(layers, x)`."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tower = nn.ModuleList([nn.Linear(6, 5) for _ in range(3)])
            self.body, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return forward(self, x)

    net = Net()
    return harness.side(net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(net.parameters(), 0.1), **how)


def compared(reference: Any, candidate: Any) -> harness.Comparison:
    return harness.compare(reference, candidate, X, Y, steps=2, batch_size=12)


def once(net: Any, x: Any) -> Any:
    import torch

    z = torch.tanh(net.body(torch.tanh(net.tower[0](x))))
    return net.head(z + z)


def twice(net: Any, x: Any) -> Any:
    import torch

    first = torch.tanh(net.tower[0](x))
    return net.head(torch.tanh(net.body(first)) + torch.tanh(net.body(first)))


def twice_detached(net: Any, x: Any) -> Any:
    import torch

    first = torch.tanh(net.tower[0](x))
    return net.head(torch.tanh(net.body(first)) + torch.tanh(net.body(first)).detach())


def test_a_value_used_in_another_way_is_no_difference_and_is_said() -> None:
    result = compared(side(once), side(twice))
    assert result.verdict in ("identical", "rounding")
    assert any("not compared" in note for note in result.notes)
    left_out = set(result.frame.loc[result.frame["kind"] == "activation_gradient", "name"])
    assert "dL/dhead" in left_out  # the others still are compared


def test_a_stopped_gradient_beside_it_still_is_one() -> None:
    result = compared(side(once), side(twice_detached))
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place.startswith("gradient:")


def towers(middle: Any) -> Any:
    import torch

    def forward(net: Any, x: Any) -> Any:
        relu = torch.relu
        return net.head(relu(net.tower[0](x)) + middle(net.tower[1](x)) + relu(net.tower[2](x)))

    return forward


def test_an_activation_in_one_of_several_branches_is_named() -> None:
    import torch

    result = compared(side(towers(torch.relu)), side(towers(lambda z: torch.nn.functional.leaky_relu(z, 0.1))))
    assert result.first is not None
    assert (result.first.place, result.first.candidate_place) == ("forward:relu#2", "forward:leaky_relu")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_last_step_that_only_one_side_has_is_named(swapped: bool) -> None:
    import torch

    def ended(net: Any, x: Any) -> Any:
        return torch.softmax(net.head(torch.relu(net.tower[0](x))), -1)

    def open_ended(net: Any, x: Any) -> Any:
        return net.head(torch.relu(net.tower[0](x)))

    sides = side(ended), side(open_ended)
    result = compared(sides[1], sides[0]) if swapped else compared(*sides)
    assert result.first is not None
    assert "forward:softmax" in (result.first.place, result.first.candidate_place)
    (cause,) = result.causes
    assert cause.status == "proven"
    assert "none in" in cause.edit
    assert "SoftmaxOver" in cause.edit


# --- pairs of parameters ----------------------------------------------------------------------------------------


def parameter(name: str, values: np.ndarray, framework: str, **how: Any) -> Parameter:
    layer = name.rpartition("." if framework == "pytorch" else "/")[0]
    return Parameter(name=name, shape=values.shape, layer=layer, framework=framework, **{"op": "", "role": "", **how})


def pairs(own: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, str]:
    pairing = pair_parameters(
        [parameter(name, values, "pytorch") for name, values in own.items()],
        [parameter(name, values, "jax") for name, values in theirs.items()],
        own,
        theirs,
    )
    return {link.reference.parameter: link.candidate.parameter for link in pairing.links}


def test_two_layers_of_equal_values_are_not_crossed() -> None:
    one, two = (np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32) for seed in (0, 1))
    found = pairs(
        {"q1.0.weight": one, "q1.2.weight": two, "q2.0.weight": one, "q2.2.weight": two},
        {"q1/0/w": one, "q1/1/w": two, "q2/0/w": one, "q2/1/w": two},
    )
    assert found == {"q1.0.weight": "q1/0/w", "q1.2.weight": "q1/1/w", "q2.0.weight": "q2/0/w", "q2.2.weight": "q2/1/w"}


def test_ones_and_zeros_tell_the_parts_of_a_norm() -> None:
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    found = pairs({"ln.weight": ones, "ln.bias": zeros}, {"norm/b": zeros, "norm/g": ones})
    assert found == {"ln.weight": "norm/g", "ln.bias": "norm/b"}
