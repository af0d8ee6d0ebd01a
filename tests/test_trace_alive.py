"""A recorded model beside the model itself: the cause is found, and is the one that two live models show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness
from harness.trace import Difference, diff, record
from tests.test_trace_models import HOW, MODELS, SIDES, X, Y, keras_side, torch_side
from tests.test_trace_models import side as side
from tests.test_traces import altered


def changed_torch(what: str) -> Any:
    import torch
    from torch import nn

    net = torch_side().model
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.5}
    loss: Any = nn.MSELoss(reduction="sum") if what == "loss-reduction" else nn.MSELoss()
    if what == "learning-rate":
        options["lr"] = 0.11
    return harness.side(net, loss=loss, optimizer=torch.optim.SGD(net.parameters(), **options))


def changed_keras(what: str) -> Any:
    import keras

    model = keras_side(0.11 if what == "learning-rate" else 0.1)
    if what == "loss-reduction":
        loss = keras.losses.MeanSquaredError(reduction="sum")
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), loss)
    return model


CHANGED = {"pytorch": changed_torch, "keras": changed_keras}


@pytest.mark.parametrize("name", [name for name in CHANGED if name in MODELS])
@pytest.mark.parametrize("what", ["learning-rate", "loss-reduction"])
def test_one_live_side_is_enough_to_prove_a_cause(name: str, what: str, tmp_path: Path) -> None:
    trace = record(SIDES[name](), tmp_path / "trace", X, Y, **HOW)
    side = CHANGED[name](what)
    found = diff(trace, side, X, Y)
    assert isinstance(found, Difference)
    assert (what, "proven") in {(cause.id, cause.status) for cause in found.causes}, str(found)
    live = harness.compare(SIDES[name](), CHANGED[name](what), X, Y, **HOW)
    assert {cause.id for cause in found.causes} == {cause.id for cause in live.causes}
    there = diff(side, trace, X, Y)
    assert isinstance(there, Difference)
    assert {(cause.id, cause.status) for cause in there.causes} == {(cause.id, cause.status) for cause in found.causes}
    one, other = found.causes[0].advice, there.causes[0].advice
    assert [one.get("reference"), one.get("candidate")] == [other.get("candidate"), other.get("reference")]


@pytest.mark.parametrize("name", [name for name in CHANGED if name in MODELS])
def test_what_explains_one_step_alone_is_not_proven(name: str, tmp_path: Path) -> None:
    short = {**HOW, "steps": 1}
    trace = record(SIDES[name](), tmp_path / "trace", X, Y, **short)
    found = diff(trace, CHANGED[name]("learning-rate"), X, Y)
    assert isinstance(found, Difference)
    assert {(cause.id, cause.status) for cause in found.causes} == {("learning-rate", "likely")}


def test_a_wrong_number_in_a_record_is_no_cause(side: Any, tmp_path: Path) -> None:
    sound = record(side(), tmp_path / "sound", X, Y, **HOW)
    for kind in ("activation", "gradient", "loss"):
        name = next(block.name for block in sound.blocks(1, 1) if block.kind == kind)
        found = diff(altered(sound, tmp_path / kind, 1, kind, name, 1.5), side(), X, Y)
        assert isinstance(found, Difference)
        assert found.verdict == "different"
        assert not [cause for cause in found.causes if cause.status == "proven"], str(found)


def test_two_records_say_why_they_name_no_cause(side: Any, tmp_path: Path) -> None:
    one, other = (record(side(rate=rate), tmp_path / str(rate), X, Y, **HOW) for rate in (0.1, 0.2))
    found = diff(one, other)
    assert found.verdict == "different"
    assert any(f"gradparity diff {one.folder} MODULE:SIDE" in note for note in found.notes)


@pytest.mark.skipif("pytorch" not in MODELS, reason="a torch optimizer's fields")
@pytest.mark.parametrize(
    ("changes", "cause", "step"),
    [
        ({"betas": (0.8, 0.999)}, "momentum-value", 1),
        ({"betas": (0.9, 0.99)}, "momentum-value", 1),
        ({"eps": 1e-4}, "adam-epsilon", 0),
        ({"lr": 0.02}, "learning-rate", 0),
    ],
)
def test_what_shows_in_the_slots_first_is_found_where_the_update_shows_it(
    changes: dict[str, Any], cause: str, step: int, tmp_path: Path
) -> None:
    import torch

    def adam(**options: Any) -> Any:
        net = torch_side().model
        optimizer = torch.optim.Adam(net.parameters(), **{"lr": 0.01, **options})
        return harness.side(net, loss=torch.nn.MSELoss(), optimizer=optimizer)

    found = diff(record(adam(), tmp_path / "trace", X, Y, **HOW), adam(**changes), X, Y)
    assert isinstance(found, Difference)
    assert found.first
    assert (str(found.first["name"]).partition(":")[0], found.first["step"]) == ("update", step)
    assert cause in {id for of in found.causes if of.status == "proven" for id in (of.id, *of.same)}, str(found)


@pytest.mark.parametrize("name", [name for name in CHANGED if name in MODELS])
def test_a_record_of_any_framework_will_do(name: str, tmp_path: Path) -> None:
    for other in MODELS:
        found = diff(record(SIDES[other](), tmp_path / other, X, Y, **HOW), CHANGED[name]("learning-rate"), X, Y)
        assert isinstance(found, Difference)
        assert {(cause.id, cause.status) for cause in found.causes} == {("learning-rate", "proven")}, str(found)
