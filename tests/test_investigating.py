"""The main job from Python: frames, streaming, thinning, skips, and what it must leave alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import frameworks as registry
from harness.case import Adam, CannotRun, HarnessError
from harness.cases import CASES
from harness.folder import SCHEMA
from harness.investigating import investigate as _investigate
from harness.report.frames import read_frame
from reference import training, updates

TOY = CASES["toy-animals"]


def investigate(*arguments: Any, **named: Any) -> Any:
    """The result untyped: pandas' own annotations make each column a union that no checker can follow."""
    return _investigate(*arguments, **named)


@pytest.fixture(scope="module")
def one() -> str:
    if not registry.installed():
        pytest.skip("no framework is installed")
    return registry.installed()[0]


def test_a_row_for_every_quantity_of_every_step(one: str) -> None:
    result = investigate(TOY, frameworks=[one], steps=20)
    quantities = 6 + 1 + 12 + 6 + 6
    assert len(result.frame) == 20 * quantities
    assert not result.frame.duplicated(["case", "framework", "step", "name"]).any()
    assert list(result.frame.columns) == SCHEMA.names
    assert result.verdict == result.summary["verdict"][0]
    assert result.exit_code == 0
    assert result.folder is None
    assert result.frame["epoch"].tolist() == [step // 8 for step in range(20) for _ in range(quantities)]


def test_the_numbers_in_the_frame_are_the_rule(one: str) -> None:
    frame = investigate(TOY, frameworks=[one], steps=5).frame
    size = np.maximum(frame["reference"].abs(), frame["candidate"].abs())
    plain = frame[~frame["kind"].isin(["update"])]
    noise = plain["noise_reference"] + plain["noise_candidate"] + np.finfo(np.float32).tiny
    budget = noise * 2**-29 + 2**-52 * size[plain.index]
    assert np.allclose(plain["budget"], budget, rtol=1e-12, atol=0)
    judged = plain[plain["d64"] > 0]
    assert np.allclose(judged["ratio"], judged["d64"] / judged["budget"], rtol=1e-12)
    assert (plain.loc[plain["d64"] == 0, "ratio"] == 0).all()
    identical = frame[frame["verdict"] == "identical"]
    assert (identical[["d32", "d64"]] == 0).all(axis=None)


def test_the_frame_is_the_parquet_and_the_csv(one: str, tmp_path: Path) -> None:
    result = investigate(TOY, frameworks=[one], steps=5, out=tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "frame.csv", keep_default_na=False)
    assert list(table.columns) == list(result.frame.columns)
    assert (table["name"].to_numpy() == result.frame["name"].astype(str).to_numpy()).all()
    assert np.array_equal(table["d64"].to_numpy(dtype=float), result.frame["d64"].to_numpy())
    assert result.folder == tmp_path / "run"


def test_a_thinned_frame_says_so_and_keeps_what_matters(one: str, tmp_path: Path) -> None:
    result = investigate(TOY, frameworks=[one], steps=200, out=tmp_path / "run")
    thinned: Any = read_frame(tmp_path / "run" / "frame.parquet", limit=1000)
    assert result.frame.attrs["thinned_to_every"] == 1
    assert thinned.attrs["thinned_to_every"] == 7
    assert len(thinned) < 1300
    worst = result.frame.groupby("name", observed=True)["ratio"].max()
    assert worst.equals(thinned.groupby("name", observed=True)["ratio"].max())


def test_first_differences_survive_thinning(tmp_path: Path, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = updates.sgd

    def wrong(optimizer, t, W, g, v=None):
        plain(optimizer, t, W, g * (1 + 1e-6 * (t > 17)), v)

    monkeypatch.setattr(updates, "sgd", wrong)
    result = investigate(TOY, frameworks=[one], steps=100, out=tmp_path / "run")
    first = result.summary["first_divergence"][0]
    assert first["step"] == 17
    assert first["name"].startswith("update:")
    assert result.verdict == "different"
    assert result.exit_code == 1
    thinned: Any = read_frame(tmp_path / "run" / "frame.parquet", limit=310)
    kept = thinned[(thinned["step"] == 17) & (thinned["name"] == first["name"])]
    assert kept["verdict"].tolist() == ["different"]
    assert kept["worst_index"].iloc[0] != ""


def test_memory_does_not_grow_with_the_steps(one: str) -> None:
    script = """
import resource, sys, tempfile
from dataclasses import replace
import numpy as np
from harness.cases import CASES
from harness.investigating import investigate
case = replace(CASES["toy-animals"], steps=int(sys.argv[2]))
with tempfile.TemporaryDirectory() as out:
    import harness.investigating as i
    i.read_frame = lambda path: None
    investigate(case, frameworks=[sys.argv[1]], out=out + "/run")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

    def peak_mib(steps: int) -> float:
        command = [sys.executable, "-c", script, one, str(steps)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024

    rows_of_8000_more_steps = 8000 * 62 * 8 * 4 / 2**20  # float64 rows of both sides and precisions: 15 MiB, at least
    assert peak_mib(9000) - peak_mib(3000) < rows_of_8000_more_steps


def test_a_case_that_a_framework_cannot_express_is_a_visible_skip(tmp_path: Path) -> None:
    optimizer = CASES["tutorial-adam"].optimizer
    assert isinstance(optimizer, Adam)
    outcomes = set()
    for placement in ("after_correction", "before_correction"):
        case = replace(TOY, optimizer=replace(optimizer, epsilon_placement=placement))
        result = investigate(case, steps=2)
        for reason in result.skipped[TOY.name].values():
            assert "Adam.epsilon_placement" in reason
        outcomes |= {len(result.skipped[TOY.name])}
        assert len(result.summary) + len(result.skipped[TOY.name]) == len(registry.installed())
    assert outcomes != {0}


def test_only_skips_decide_nothing(one: str) -> None:
    other = {"before_correction": "after_correction", "after_correction": "before_correction"}
    native = registry.adapter(one).CONVENTIONS["Adam"]["epsilon_placement"]
    optimizer = CASES["tutorial-adam"].optimizer
    assert isinstance(optimizer, Adam)
    case = replace(TOY, optimizer=replace(optimizer, epsilon_placement=other[native]))
    result = investigate(case, frameworks=[one], steps=2)
    assert result.exit_code == 3
    assert result.frame.empty


def test_own_data_and_parameters(one: str) -> None:
    from harness.data import toy

    parameters = training.initial_parameters(
        TOY, {"W1": (4, 3), "b1": (4,), "W2": (3, 4), "b2": (3,), "W3": (1, 3), "b3": (1,)}
    )
    given = investigate(
        replace(TOY, initialization="given"), frameworks=[one], steps=3, data=toy(), parameters=parameters
    )
    drawn = investigate(TOY, frameworks=[one], steps=3)
    pd.testing.assert_frame_equal(given.frame, drawn.frame)
    with pytest.raises(HarnessError):
        _ = investigate(TOY, frameworks=[one], parameters={})


def test_the_random_state_is_left_alone(one: str) -> None:
    np.random.seed(3)
    before: Any = np.random.get_state()
    _ = investigate(TOY, frameworks=[one], steps=2)
    after: Any = np.random.get_state()
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_missing_framework_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "versions", lambda name: {"nothing": None})
    name = next(iter(registry.FRAMEWORKS))
    with pytest.raises(CannotRun, match="pip install"):
        _ = investigate(TOY, frameworks=[name])
    with pytest.raises(CannotRun, match="no framework is installed"):
        _ = investigate(TOY)


def test_convergence_frame(one: str) -> None:
    result = investigate(CASES["tutorial-minibatch"], frameworks=[one], steps=48)
    frame = result.convergence
    assert set(frame["framework"]) == {"numpy", one}
    reference, candidate = (frame[frame["framework"] == name] for name in ("numpy", one))
    assert reference["step"].tolist() == candidate["step"].tolist()
    assert {0, 16, 32, 48} <= set(reference["step"])
    assert (reference[["distance32", "distance64"]] == 0).all(axis=None)
    assert (candidate["distance64"] < 1e-12).all()
    assert candidate["loss"].iloc[-1] < candidate["loss"].iloc[0] / 2
    row = result.summary.iloc[0]
    half = next(step for goal, step in row["steps_to_loss"].items() if step is not None)
    reached = candidate[candidate["loss"] <= candidate["loss"].iloc[0] / 2]["step"].iloc[0]
    assert half == reached
    assert row["end_point"] == "still moving"


def test_landscapes_end_where_the_reference_says(framework_name: str) -> None:
    from reference.landscapes import LANDSCAPES

    result = investigate(*(CASES[name] for name in LANDSCAPES), frameworks=[framework_name])
    for row in result.summary.to_dict("records"):
        assert row["end_point"].split(", ") == list(LANDSCAPES[row["case"]].starts.values()), row["case"]
