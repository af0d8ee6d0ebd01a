"""The measuring of planted causes: what it counts as right, and a small sample of the ports themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import frameworks as registry
from harness.causes import TABLE
from harness.finding import Finding

pytest.importorskip("torch")

SAMPLE = (
    *("mlp/kernel not transposed", "losses/half", "training/rmsprop rho", "normalised/batch epsilon"),
    *("rows/ceiling", "rows/average or max pooling", "rows_training/decay value", "rows_training/divergence clipped"),
    *("rows_gradients/transposed", "rows_again/default slope", "rows_again/no bias in a convolution"),
    *(
        "rows_again/pixels",
        "rows_again/no batch norm",
        "rows/hard sigmoid of old",
        "rows_again/skip connection too many",
    ),
    *(
        "rows_again/causal on one side",
        "attention/scale missing",
        "recurrent/not masked",
        "normalised/biased deviation",
    ),
)
TRAINING = (
    *("rows_gradients/tied windows", "rows_gradients/length 0 in Keras", "rows_gradients/target detached, turned"),
    *("rows_gradients/transposed, turned", "training/frozen layer", "training/adagrad accumulator", "near/few clipped"),
    *("near/softplus threshold", "near/root of two over pi, seven digits", "near/naive logarithm"),
    *("rows_training/beta, Keras first", "rows_training/rate inside velocity, Keras first"),
    *("rows_training/columns in another order", "rows_training/targets in another order"),
    *("rows_training/sums accumulated", "rows_training/clipped by optax", "rows_training/schedule of optax"),
    *("rows_training/bias not corrected, turned", "several/rows squared one by one"),
)
COMBINED = (
    *("perceptron/leakyrelu-slope + learning-rate", "discriminator/batchnorm-eps + loss-reduction"),
    *("perceptron/learning-rate + momentum-value", "perceptron/learning-rate + momentum-value, turned"),
    *("perceptron/learning-rate + frozen-parameter, turned", "perceptron by adam/learning-rate + adam-epsilon, turned"),
    *("perceptron/dropout-active + learning-rate, turned", "encoder/attention-scale + loss-reduction, turned"),
    *("perceptron by adam/weight-layout-transpose + dropout-active + momentum-value",),
)
NOT_PLANTED = {
    "float32-constant": "rounding: no difference to be explained",
    "float32-kernel": "rounding: no difference to be explained",
    "tf32-or-reduced-precision": "no difference in float64",
    "nondeterminism": "no side to compare with",
    "stale-weights": "a race that a comparison does not run",
    "batch-size": "compare refuses batches of another size",
}
"""Rows of the table that no port has, and why."""


@pytest.fixture(autouse=True)
def _all_frameworks() -> None:
    absent = next((name for name in registry.FRAMEWORKS if name not in registry.installed()), "")
    if absent:
        pytest.skip(registry.pip_line(absent))


def test_every_cause_is_planted_or_says_why_not() -> None:
    from benchmarks.ports import ports

    planted = {port.cause for port in ports() if port.cause}
    assert planted <= set(TABLE)
    assert set(TABLE) - planted == set(NOT_PLANTED)


@pytest.mark.parametrize("name", [*SAMPLE, *TRAINING])
def test_a_port_s_cause_is_named(name: str) -> None:
    from benchmarks.causesuite import examined, single

    row = examined(next(one for one in single([name.partition("/")[0]]) if one.name == name))
    assert row["ok"], row


@pytest.mark.parametrize("name", COMBINED)
def test_causes_together_are_all_named(name: str) -> None:
    from benchmarks.causesuite import Planted, examined
    from benchmarks.ports.rows_combined import combination

    one = combination(name)
    row = examined(Planted(name=one.name, build=one.build, causes=one.causes))
    assert row["ok"], row


@pytest.mark.parametrize("name", ["several/encoder not shared", "gradients/factor two", "training/momentum"])
def test_nothing_is_said_to_stop_where_all_flows(name: str) -> None:
    """Two encoders instead of a shared one, a derivative by hand, nothing at all."""
    from benchmarks.causesuite import single, told

    said = told(next(one for one in single([name.partition("/")[0]]) if one.name == name).build)
    assert not said.error
    assert not [finding for finding in said.findings if finding.status == "proven"]


def test_combinations_are_drawn_without_repetition_and_again_the_same() -> None:
    from benchmarks.ports.rows_combined import combinations

    drawn = combinations(48, 0)
    assert len({one.name.removesuffix(", turned") for one in drawn}) == 48
    assert [one.name for one in drawn] == [one.name for one in combinations(48, 0)]
    assert {len(one.causes) for one in drawn} == {2, 3}
    assert all(one.causes <= set(TABLE) for one in drawn)


# --- planted failures of the measuring itself -----------------------------------------------------------------------


def small(rate: float = 0.05, broken: bool = False) -> Any:
    """Two equal perceptrons, one trained at another rate."""
    import torch
    from torch import nn

    from benchmarks.ports import Pair
    from benchmarks.ports.data import normal
    from benchmarks.ports.rows_models import in_torch

    if broken:
        raise ValueError("no model")
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    return Pair(
        reference=in_torch(nets[0]),
        candidate=in_torch(nets[1], rule=partial(torch.optim.SGD, lr=rate)),
        x=normal(16, 3),
        y=normal(16, 1, seed=1),
        steps=1,
    )


@pytest.mark.parametrize(
    ("build", "causes", "named", "ok", "wrong"),
    [
        (small, (), True, True, "none"),
        (partial(small, 0.07), ("learning-rate",), True, True, "none"),
        (partial(small, 0.07), ("momentum-value",), False, False, "learning-rate"),
        (partial(small, 0.07), ("learning-rate", "momentum-value"), False, False, "none"),
        (partial(small, 0.07), (), True, False, "learning-rate"),
        (small, ("learning-rate",), False, False, "none"),
        (partial(small, broken=True), ("learning-rate",), False, False, "none"),
        (partial(small, broken=True), (), False, False, "none"),
    ],
)
def test_only_the_planted_cause_is_right(
    build: Callable[[], Any], causes: tuple[str, ...], named: bool, ok: bool, wrong: str
) -> None:
    from benchmarks.causesuite import Planted, examined

    row = examined(Planted(name="small/one", build=build, causes=frozenset(causes)))
    assert (row["named"], row["ok"], row["wrong"]) == (named, ok, wrong)


def finding(id: str, status: Any, *same: str) -> Finding:
    return Finding(id=id, where="loss", candidate_where="loss", step=0, status=status, edit="", same=same)


def test_an_id_among_the_same_is_named_and_a_likely_one_is_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import causesuite

    said = (finding("", "unknown"), finding("adam-epsilon", "likely"), finding("l2-missing", "proven", "learning-rate"))
    monkeypatch.setattr(causesuite, "told", lambda build: causesuite.Told(findings=said))
    row = causesuite.examined(causesuite.Planted(name="a/b", build=small, causes=frozenset({"learning-rate"})))
    assert (row["ok"], row["as id"], row["status"], row["wrong"]) == (True, False, "proven", "none")


def test_totals_count_what_is_wrong() -> None:
    from benchmarks.causesuite import totals

    row = {
        "port": "a/one",
        "planted": "x",
        "named": True,
        "as id": True,
        "ok": True,
        "status": "proven",
        "wrong": "none",
        "seconds": 1.0,
    }
    rows = [
        row,
        {**row, "port": "a/two", "ok": False, "wrong": "y"},
        {**row, "port": "b/clean", "planted": "none", "status": "none"},
    ]
    table = {line["group"]: line for line in totals(rows)}
    assert (table["a, planted"]["right"], table["a, planted"]["wrong proven"]) == (1, 1)
    assert (table["all, clean"]["ports"], table["all, clean"]["right"]) == (1, 1)
    assert table["all, planted"]["proven"] == 2
