"""Wrong maps of the weights found and proven, and put right by harness.transfer; alarms that are none, and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

RNG = np.random.default_rng(1)
IMAGES = RNG.standard_normal((12, 2, 6, 6)).astype(np.float32)
ROWS = RNG.standard_normal((12, 6)).astype(np.float32)
README = Path(__file__).resolve().parents[1] / "README.md"


def flattening(channels_last: bool) -> Any:
    import torch
    from torch import nn

    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4 * 16, 3)

        def forward(self, x: Any) -> Any:
            z = torch.relu(self.conv(x))
            return self.head((z.permute(0, 2, 3, 1) if channels_last else z).flatten(1))

    return Flattening()


def stacked(*layers: Any) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), *layers, nn.Linear(6, 2))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net


def norm_swapped() -> Any:
    from torch import nn

    net = stacked(nn.LayerNorm(6))
    gamma, beta = net[1].weight.detach().clone(), net[1].bias.detach().clone()
    net[1].weight.data, net[1].bias.data = beta, gamma
    return net


def square_transposed() -> Any:
    from torch import nn

    net = stacked(nn.LayerNorm(6))
    net[0].weight.data = net[0].weight.data.T.contiguous()
    return net


def recurrent(order: tuple[int, ...] = (0, 1, 2, 3)) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.LSTM(6, 5, batch_first=True)
    for parameter in net.parameters():
        parameter.data = torch.cat([parameter.data.chunk(4)[gate] for gate in order])
    return net


def inference(reference: Any, candidate: Any, x: np.ndarray) -> harness.Comparison:
    return harness.compare(reference, candidate, x, steps=0)


def wrong_maps() -> dict[str, Any]:
    """By cause: two models and an input."""
    from torch import nn

    normed = lambda: stacked(nn.LayerNorm(6))  # noqa: E731
    sequence = np.stack([ROWS] * 3, axis=1) * np.arange(1, 4, dtype=np.float32)[:, None]
    return {
        "flatten-order": (flattening(False), flattening(True), IMAGES),
        "weight-order-mismatch": (normed(), norm_swapped(), ROWS),
        "weight-layout-transpose": (normed(), square_transposed(), ROWS),
        "rnn-gate-order": (recurrent(), recurrent((0, 2, 1, 3)), sequence),
    }


@pytest.mark.parametrize(
    "cause", ["flatten-order", "weight-order-mismatch", "weight-layout-transpose", "rnn-gate-order"]
)
def test_a_wrong_map_is_proven_by_the_right_one_and_put_right(cause: str) -> None:
    reference, candidate, x = wrong_maps()[cause]
    result = inference(reference, candidate, x)
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.cause == cause
    assert "float64 agrees" in result.first.why
    assert "harness.transfer" in str(result)
    proof: Any
    (proof,) = result.causes
    assert (proof.id, proof.status) == (cause, "proven")
    assert proof.after32 < 1e-4 * proof.before32
    assert proof.after64 < 1e-9 * proof.before64
    assert "edit" not in result.as_json()["first"]
    _ = harness.transfer(reference, candidate, x)
    assert inference(reference, candidate, x).verdict in ("identical", "rounding")


def test_a_difference_that_no_map_explains_is_not_explained() -> None:
    import torch

    result = inference(stacked(torch.nn.LayerNorm(6)), stacked(torch.nn.LayerNorm(6, eps=1e-3)), ROWS)
    assert result.first is not None
    assert (result.first.place, result.first.cause, result.first.why) == ("forward:1", "", "")


# --- alarms that are none, and one that hides -------------------------------------------------------------------


def float32_inside(factor: float = 1.0) -> Any:
    from torch import nn

    class Narrow(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.new_tensor((x * factor).detach().numpy().astype(np.float32))

    return stacked(Narrow())


def test_float32_inside_a_float64_run_is_rounding_and_said() -> None:
    from torch import nn

    result = inference(stacked(nn.Identity()), float32_inside(), ROWS)
    assert (result.verdict, result.because) == ("rounding", "one precision")
    assert any("float32" in note for note in result.notes)


def test_behind_float32_inside_a_larger_difference_still_is_one() -> None:
    from torch import nn

    result = inference(stacked(nn.Identity()), float32_inside(1.0001), ROWS)
    assert result.verdict == "different"


def folded(epsilon: float) -> tuple[Any, Any]:
    """A batch norm folded in float32 into the layer before it."""
    import torch
    from torch import nn

    net, plain = stacked(nn.BatchNorm1d(6)).eval(), stacked()
    norm = net[1]
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        scale = norm.weight / torch.sqrt(norm.running_var + epsilon)
        plain[0].weight.copy_(net[0].weight * scale[:, None])
        plain[0].bias.copy_((net[0].bias - norm.running_mean) * scale + norm.bias)
        plain[1].load_state_dict(net[2].state_dict())
    return net, plain


def test_weights_computed_in_float32_are_rounding() -> None:
    assert inference(*folded(1e-5), ROWS).verdict == "rounding"
    assert inference(*folded(2e-5), ROWS).verdict == "different"


def test_a_kernel_with_a_norm_folded_into_it_is_not_called_another_one() -> None:
    result = inference(*folded(1e-3), ROWS)
    assert result.verdict == "different"
    assert "weights-not-transferred" not in {cause.id for cause in result.causes}


def test_a_difference_that_hides_when_the_candidate_is_fed_the_gradient_is_found() -> None:
    """The optimizer errs with the gradients of its own backward pass only."""
    import torch

    class Aside(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad.data_ptr() == parameter.own.data_ptr():
                        parameter.grad = parameter.grad * 1.01
            return super().step(closure)

    def side(rule: Any) -> Any:
        def keep(parameter: Any) -> None:
            parameter.own = parameter.grad

        net = stacked(torch.nn.Tanh())
        for parameter in net.parameters():
            _ = parameter.register_post_accumulate_grad_hook(keep)
        return harness.side(net, loss=torch.nn.MSELoss(), optimizer=rule(net.parameters(), lr=0.1))

    y = ROWS[:, :2]
    assert harness.compare(side(torch.optim.SGD), side(torch.optim.SGD), ROWS, y).verdict in ("identical", "rounding")
    result = harness.compare(side(torch.optim.SGD), side(Aside), ROWS, y)
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place.startswith("update:")


# --- the README -------------------------------------------------------------------------------------------------


def test_the_readmes_port_is_found_wrong_and_put_right() -> None:
    if "keras" not in registry.installed():
        pytest.skip(registry.pip_line("keras"))
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    code = next(block for block in blocks if "load_digits" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["result"].verdict == "different"
    assert (names["result"].first.place, names["result"].first.cause) == ("forward:4", "flatten-order")
    _ = harness.transfer(names["side"], names["model"], names["x"])
    again = harness.compare(names["side"], names["model"], names["x"], names["labels"], steps=5, batch_size=16)
    assert again.verdict == "rounding"
