"""Presets and how they fill what a case leaves native."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.case import NATIVE, HarnessError, fields_of
from harness.cases import CASES
from harness.conventions import PRESETS, resolve
from harness.investigating import investigate


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CASES)
def test_a_preset_fills_every_native_field_of_every_case(preset: str, name: str) -> None:
    resolved = resolve(CASES[name], PRESETS[preset])
    parts = (resolved.loss, resolved.optimizer, *(node.op for node in resolved.nodes))
    assert NATIVE not in [value for part in parts for value in fields_of(part).values()]


def test_what_a_case_says_itself_stays() -> None:
    case = CASES["tutorial-adam"]
    own = replace(case, optimizer=replace(case.optimizer, epsilon=1e-3))  # type: ignore[type-var]
    for preset in PRESETS.values():
        assert fields_of(resolve(own, preset).optimizer)["epsilon"] == 1e-3


def test_the_presets_differ_where_the_frameworks_do() -> None:
    placements = {name: preset["Adam"]["epsilon_placement"] for name, preset in PRESETS.items()}
    assert placements == {"torch": "after_correction", "keras": "before_correction", "paper": "after_correction"}
    assert {preset["SGD"]["velocity"] for preset in PRESETS.values()} == {"gradient", "step"}


def test_a_field_nobody_declares_is_refused() -> None:
    with pytest.raises(HarnessError, match=r"Adam\.epsilon is 'native'"):
        _ = resolve(CASES["tutorial-adam"], {**PRESETS["torch"], "Adam": {}})


def test_a_preset_runs_where_the_framework_can_express_it_and_is_skipped_elsewhere(framework_name: str) -> None:
    for preset in PRESETS.values():
        case = resolve(CASES["tutorial-adam"], preset)
        result = investigate(case, frameworks=[framework_name], steps=2)
        reason = result.skipped[case.name].get(framework_name)
        assert reason or result.verdict in ("identical", "rounding")
        assert reason is None or "the case " in reason
