"""Torch models that cast, or run under autocast: in the float64 run a floating dtype that code names is float64."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 12)


def model(norm: str = "", end: str = "", auto: bool = False, eps: float = 1e-6) -> Any:
    """norm: how the normalisation in the middle is computed (Llama's is computed in float32); end: what is done to
    the logits; auto: under autocast in bfloat16."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16, enabled=auto):
                h = self.first(x)
                wide = {"float": h.float, "to": lambda: h.to(torch.float32), "": lambda: h}[norm]()
                h = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(h.dtype)
                logits = self.last(h)
            match end:
                case "float":
                    return logits.float()
                case "type":
                    return logits.type(torch.FloatTensor).type("torch.FloatTensor")
            return logits

    torch.manual_seed(0)
    return Model()


def compared(one: Any, other: Any) -> harness.Comparison:
    import torch

    sides: Any = [
        harness.side(of, loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(of.parameters(), 0.1))
        for of in (one, other)
    ]
    return harness.compare(sides[0], sides[1], X, Y, steps=2)


@pytest.mark.parametrize("casts", [{"norm": "float"}, {"norm": "to"}, {"end": "float"}, {"end": "type"}])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_cast_to_what_it_is_already_changes_nothing(casts: dict[str, Any], swapped: bool) -> None:
    pair = [model(**casts), model()][:: -1 if swapped else 1]
    assert compared(pair[0], pair[1]).verdict == "identical"
    assert compared(pair[0], copy.deepcopy(pair[0])).verdict == "identical"


@pytest.mark.parametrize("casts", [{"norm": "float"}, {"norm": "to"}, {"end": "type"}])
def test_casts_of_a_model_in_bfloat16_are_rounding(casts: dict[str, Any]) -> None:
    import torch

    low, plain = (of.to(torch.bfloat16) for of in (model(**casts), model(end="float" if "end" in casts else "")))
    assert compared(low, plain).verdict in ("identical", "rounding")
    assert compared(plain, low).verdict in ("identical", "rounding")


@pytest.mark.parametrize("pair", [*itertools.permutations([{}, {"auto": True}, {"auto": True, "end": "float"}], 2)])
def test_autocast_on_either_side_is_rounding(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert compared(model(**pair[0]), model(**pair[1])).verdict == "rounding"


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_same_weights_in_a_lower_precision_are_rounding(low: str, swapped: bool) -> None:
    import torch

    narrow = model().to(getattr(torch, low))
    pair = [narrow, copy.deepcopy(narrow).float()][:: -1 if swapped else 1]
    assert compared(pair[0], pair[1]).verdict == "rounding"


@pytest.mark.parametrize("settings", [{"norm": "float"}, {"auto": True}, {"auto": True, "end": "float"}])
@pytest.mark.parametrize("swapped", [False, True])
def test_casts_hide_no_difference(settings: dict[str, Any], swapped: bool) -> None:
    pair = [model(eps=1.1e-6, **settings), model()][:: -1 if swapped else 1]
    result = compared(pair[0], pair[1])
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place.startswith("forward:")


def test_a_boolean_input_is_fed_as_it_is() -> None:
    import torch
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2)

        def forward(self, x: Any, padded: Any) -> Any:
            return self.last(x.masked_fill(padded[..., None], 0.0).mean(1))

    torch.manual_seed(0)
    one = Pooled()
    x, padded = RNG.standard_normal((6, 5, 4)).astype(np.float32), RNG.random((6, 5)) < 0.4
    assert harness.compare(one, copy.deepcopy(one), [x, padded], steps=0).verdict == "identical"
    other = copy.deepcopy(one)
    other.last.bias.data += 1e-3
    assert harness.compare(one, other, [x, padded], steps=0).verdict == "different"


@pytest.mark.parametrize("swapped", [False, True])
def test_autocast_over_a_part_of_the_model_is_rounding(swapped: bool) -> None:
    import torch
    from torch import nn

    class Half(nn.Module):
        def __init__(self, auto: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Linear(6, 16)
            self.head = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.Tanh())])
            self.auto = auto

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.auto):
                h = self.body(x)
            return self.head(h.float())

    pair = [Half(True), Half(False)][:: -1 if swapped else 1]
    assert harness.compare(pair[0], pair[1], X).verdict == "rounding"


@pytest.mark.parametrize("scaler", ["none", "off", "unused", "used"])
@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_casts_outside_the_model_beside_a_loss_scale(scaler: str, factor: float) -> None:
    """factor: of the gradients, before the update."""
    import torch

    def side(how: str, factor: float) -> Any:
        of = model()
        rule, loss = torch.optim.SGD(of.parameters(), 0.1), torch.nn.CrossEntropyLoss()
        grows = None if how == "none" else torch.amp.GradScaler("cpu", enabled=how != "off")  # type: ignore[attr-defined]

        def train_step(x: Any, y: Any) -> Any:
            rule.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=how == "used"):
                out = of(x)
            found = loss(out.float(), y)
            if grows is None or how == "unused":
                found.backward()
            else:
                grows.scale(found).backward()
                grows.unscale_(rule)
            for parameter in of.parameters():
                parameter.grad.mul_(factor)
            if grows is None or how == "unused":
                rule.step()
            else:
                grows.step(rule)
                grows.update()
            return found

        return harness.side(of, optimizer=rule, train_step=train_step)

    result = harness.compare(side("none", 1.0), side(scaler, factor), X, Y, steps=2)
    assert (result.verdict == "different") is (factor != 1)
