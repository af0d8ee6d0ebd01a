"""harness.assert_equivalent and harness.assert_gradient: what passes, what raises, and that the text is complete."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness
from harness import asserting

pytestmark = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

DICE = np.random.default_rng(1)
X = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)


def network(epsilon: float = 1e-5, factor: float = 1.0, noisy: bool = False) -> Any:
    import torch
    from torch import nn

    class Last(nn.Linear):
        def forward(self, input: Any) -> Any:
            noise = torch.tensor(DICE.random(3) * 1e-3, dtype=input.dtype) if noisy else 0.0
            return super().forward(input) * factor + noise

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12, eps=epsilon), nn.ReLU(), Last(12, 3))


def test_equal_sides_pass() -> None:
    harness.assert_equivalent(network(), network(), X)
    harness.assert_equivalent(network(), network(), X, steps=0)


@pytest.mark.parametrize("factor", [-1.0, 1.001, 1 + 1e-9, float("nan")])
def test_a_planted_difference_raises_with_the_place(factor: float) -> None:
    with pytest.raises(AssertionError, match=r"^different.*\n.*forward:3"):
        harness.assert_equivalent(network(), network(factor=factor), X)


def test_the_text_says_what_where_how_much_allowed_why_and_what_next() -> None:
    with pytest.raises(AssertionError) as raised:
        harness.assert_equivalent(network(), network(epsilon=1e-3), X)
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("different: pytorch (reference) and pytorch (candidate)")
    assert lines[1] == "first divergence: forward:1 at step 0"
    assert lines[3] == "  Mismatched elements: 192 / 192 (100.0%)"
    assert lines[4].startswith("  Greatest absolute difference: 0.0108 at index (2, 4) (rounding explains ")
    assert lines[6].startswith("cause proven: layernorm-eps: LayerNorm.epsilon 1e-05 in pytorch (reference), 0.001 in")
    assert lines[7].startswith("  write nn.LayerNorm(eps=1e-05) in pytorch (candidate), or nn.LayerNorm(eps=0.001) in")
    assert lines[-3:] == [
        'next: result.frame.query("step == 0") shows every quantity of that step',
        f"page: pytest {os.environ['PYTEST_CURRENT_TEST'].removesuffix(' (call)')} --gradparity-report=DIR writes one",
        "result: what harness.compare gives for the same arguments",
    ]


def test_undecided_raises_and_says_what_to_do() -> None:
    with pytest.raises(AssertionError) as raised:
        harness.assert_equivalent(network(noisy=True), network(noisy=True), X)
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("undecided (nondeterministic): pytorch")
    said = next(line for line in lines[1:] if line.startswith("undecided (nondeterministic): "))
    assert "quantities, the first 3 at step 0; switch off what draws random numbers" in said, lines


def test_bad_input_is_one_line_at_the_users_own() -> None:
    with pytest.raises(harness.HarnessError, match="steps is -1") as raised:
        harness.assert_equivalent(network(), network(), X, steps=-1)
    assert [entry.name for entry in raised.traceback] == [
        "test_bad_input_is_one_line_at_the_users_own",
        "assert_equivalent",
    ]


def test_a_gradient_that_is_wrong_or_not_to_be_judged_raises() -> None:
    harness.assert_gradient((np.sin, lambda v, x: v * np.cos(x)), np.ones(3))
    with pytest.raises(AssertionError, match=r"^fail: .*\npattern: sign\nwhere: input 0 \[0\], output 0\n.*\nresult: "):
        harness.assert_gradient((np.sin, lambda v, x: -v * np.cos(x)), np.ones(3))
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match=r"^inconclusive: "):
        harness.assert_gradient((lambda x: x + rng.standard_normal(3), lambda v, x: v), np.ones(3))
    with pytest.raises(harness.HarnessError, match="order is 3"):
        harness.assert_gradient((np.sin, lambda v, x: v * np.cos(x)), np.ones(3), order=3)


def test_who_judges_decides_and_adds_to_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's way in: nothing else can make a difference pass."""
    seen: list[Any] = []

    def refuse(result: Any) -> list[str]:
        seen.append(result)
        return ["not today"]

    monkeypatch.setattr(asserting, "judge", refuse)
    with pytest.raises(AssertionError, match=r"^identical(.|\n)*\nnot today\nresult: "):
        harness.assert_equivalent(network(), network(), X)
    assert [result.verdict for result in seen] == ["identical"]
