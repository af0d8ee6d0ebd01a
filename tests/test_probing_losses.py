"""Losses of users' own code: what two of them have to do with each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6)).astype(np.float32)
Y = RNG.standard_normal((8, 3)).astype(np.float32)
Loss = Callable[[Any, Any], Any]


class Net(nn.Module):
    """What is asked for, and its spread."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean, self.spread = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(self.hidden(x))
        return self.mean(h), self.spread(h)


def with_losses(*losses: Loss) -> Any:
    sides = []
    for loss in losses:
        _ = torch.manual_seed(0)
        net = Net()
        sides.append(harness.side(net, loss=loss, optimizer=torch.optim.SGD(net.parameters(), 0.05)))
    return harness.compare(sides[0], sides[1], X, Y, steps=2)


def weighed(mean: float = 1.0, spread: float = 1.0) -> Loss:
    def loss(output: Any, y: torch.Tensor) -> torch.Tensor:
        return mean * torch.sinh(output[0] - y).square().sum() + spread * torch.cosh(output[1]).sum()

    return loss


@pytest.mark.parametrize(
    ("factors", "ids"),
    [
        ({"mean": 1 / 24}, {"loss-reduction"}),
        ({"mean": 0.5}, {"loss-half-factor", "loss-reduction"}),
        ({"spread": 0.3}, {"loss-weights"}),
        ({"mean": 0.125, "spread": 0.125}, {"loss-reduction"}),
    ],
)
def test_a_term_that_is_scaled(factors: dict[str, float], ids: set[str]) -> None:
    cause = with_losses(weighed(), weighed(**factors)).causes[0]
    assert cause.where == "loss"
    assert {cause.id, *cause.same} == ids
    assert cause.status != "proven"


def test_another_loss_is_another_loss() -> None:
    def other(output: Any, y: torch.Tensor) -> torch.Tensor:
        return torch.atan(output[0] - y).square().sum() + torch.cosh(output[1]).sum()

    causes = with_losses(weighed(), other).causes
    assert [(cause.id, cause.status, cause.where) for cause in causes] == [("loss-different", "likely", "loss")]


def test_one_loss_has_no_cause() -> None:
    assert with_losses(weighed(spread=0.3), weighed(spread=0.3)).causes == ()
