"""The same function in float64, but float32 far worse on one side: a difference, and where it is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 10)).astype(np.float32)
Y = RNG.integers(0, 3, 32)


def side(function: Callable[[Any], Any]) -> Any:
    """A small net with this function between its layers."""
    import torch
    from torch import nn

    class Between(nn.Module):
        def forward(self, z: Any) -> Any:
            return function(z)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 16), Between(), nn.Linear(16, 3))
    return harness.side(net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(net.parameters(), 0.05))


def functions() -> dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """By name: a stable form, and a naive one."""
    import torch

    def variance_by_squares(z: Any) -> Any:
        z = z + 3000
        mean = z.mean(-1, keepdim=True)
        return (z - mean) / torch.sqrt((z * z).mean(-1, keepdim=True) - mean * mean + 1e-5)

    return {
        "softplus": (
            lambda z: torch.nn.functional.softplus(z - 12, threshold=1e9),
            lambda z: torch.log(1 + torch.exp(z - 12)),
        ),
        "expm1": (lambda z: torch.expm1(z * 1e-4), lambda z: torch.exp(z * 1e-4) - 1),
        "not finite": (lambda z: torch.nn.functional.layer_norm(z + 3000, (16,)), variance_by_squares),
    }


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", ["softplus", "expm1", "not finite"])
def test_a_naive_form_is_a_difference_where_it_stands(name: str, swapped: bool) -> None:
    stable, naive = functions()[name]
    reference, candidate = (naive, stable) if swapped else (stable, naive)
    result = harness.compare(side(reference), side(candidate), X, Y, steps=2, batch_size=16)
    assert (result.verdict, result.because) == ("different", "unstable")
    assert result.first is not None
    assert (result.first.place, result.first.step) == ("forward:1", 0)
    assert f"float32 pytorch ({'reference' if swapped else 'candidate'}) is" in result.first.text
    assert "nan" not in str(result)


def test_another_stable_form_is_none() -> None:
    import torch

    result = harness.compare(side(torch.tanh), side(lambda z: 2 * torch.sigmoid(2 * z) - 1), X, Y, steps=2)
    assert result.verdict == "rounding"
