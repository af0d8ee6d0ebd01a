"""Frames come back as they were written, in every format; columns are documented; the same run, the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_folder import folder

import frameworks as registry
import harness
from harness.cases import CASES
from harness.folder import SCHEMA
from harness.report.columns import CONVERGENCE, FRAME
from harness.report.frames import FORMATS, read_report, write_frame, write_frames

HOSTILE = 'a|b & "c", 100% $x_1$ \\cmd{<b>}~^#\n🦊'


def test_read_report_gives_the_frames_back(tmp_path: Path) -> None:
    of = folder()
    of.arrays["array-0"] = np.arange(6.0).reshape(2, 3)
    of.header["summary"][0]["notes"] = [HOSTILE]
    report = harness.read_report(of.save(tmp_path))
    pd.testing.assert_frame_equal(report.frame, of.frame, check_dtype=False, check_categorical=False)
    pd.testing.assert_frame_equal(report.convergence, of.convergence, check_dtype=False)
    assert report.summary["notes"][0] == [HOSTILE]
    assert np.array_equal(report.arrays["array-0"], of.arrays["array-0"])
    assert report.header == of.header
    assert "rounding explains every difference" in report._repr_html_()


READERS: dict[str, Any] = {
    ".parquet": pd.read_parquet,
    ".csv": lambda path: pd.read_csv(path, keep_default_na=False),
    ".json": lambda path: pd.DataFrame(json.loads(path.read_text())),
}


@pytest.mark.parametrize("ending", READERS)
def test_numbers_and_names_survive_a_format(tmp_path: Path, ending: str) -> None:
    frame = folder(modes={"batch": 2}).frame
    frame.loc[3, "name"] = HOSTILE
    back = READERS[ending](write_frame(frame, tmp_path / f"frame{ending}"))
    assert list(back.columns) == list(frame.columns)
    assert back["name"].astype(str).tolist() == frame["name"].astype(str).tolist()
    assert np.array_equal(back["d64"].to_numpy(float), frame["d64"].to_numpy(float))


def test_json_has_no_nan(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.5, np.nan, np.inf, -np.inf]})
    text = write_frame(frame, tmp_path / "a.json").read_text()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse) == [{"a": 1.5}, {"a": None}, {"a": "inf"}, {"a": "-inf"}]


def test_documents_escape_what_they_would_read_as_their_own(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": [HOSTILE], "ratio": [2.5], "none": [np.nan]})
    markdown = write_frame(frame, tmp_path / "a.md").read_text()
    row = markdown.splitlines()[2]
    assert row.replace("\\|", "").count("|") == 4
    assert len(markdown.splitlines()) == 3
    latex = write_frame(frame, tmp_path / "a.tex").read_text()
    (cells,) = (line for line in latex.splitlines() if "2.5" in line)
    assert r"100\%" in latex
    assert r"\$x\_1\$" in latex
    assert r"\cmd{" not in latex
    assert re.findall(r"(?<!\\)&", cells)
    assert "longtable" in latex


def test_a_format_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.parquet, \.csv, \.md, \.json, \.tex"):
        _ = write_frame(pd.DataFrame(), tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match="20,000 rows are no table to read"):
        _ = write_frame(pd.DataFrame({"a": range(20_000)}), tmp_path / "a.tex")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", FORMATS)
def test_an_empty_frame_has_its_columns(tmp_path: Path, ending: str) -> None:
    path = write_frame(folder().frame[:0], tmp_path / f"frame{ending}")
    assert path.exists()
    if ending not in (".json", ".parquet"):
        assert "ratio" in path.read_text()


def test_rows_are_chosen_by_a_query(tmp_path: Path) -> None:
    _ = folder().save(tmp_path)
    nothing: dict[str, Any] = {"convergence": None, "summary": None}
    (path,) = write_frames(tmp_path, frame=tmp_path / "a.csv", query="kind == 'loss' and step == 3", **nothing)
    assert set(pd.read_csv(path)["step"]) == {3}
    with pytest.raises(ValueError, match="columns: case, framework"):
        _ = write_frames(tmp_path, frame=tmp_path / "b.csv", query="nothing == 3", **nothing)


def test_every_column_is_documented_and_stands_in_the_readme() -> None:
    assert list(FRAME) == SCHEMA.names
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    for name, column in (FRAME | CONVERGENCE).items():
        row = f"| `{name}` | {column.dtype} | {column.unit} | {column.meaning} |"
        assert row in readme, row


def test_a_real_run_has_the_documented_columns_and_the_same_bytes_twice(tmp_path: Path) -> None:
    if not registry.installed():
        pytest.skip("no framework is installed")
    case, one = CASES["himmelblau"], registry.installed()[0]
    folders = [tmp_path / "one", tmp_path / "two"]
    for path in folders:
        result = harness.investigate(case, frameworks=[one], steps=20, out=path)
        assert "himmelblau" in result._repr_html_()
        report = read_report(path)
        assert list(report.frame.columns) == list(FRAME)
        assert {name: str(dtype) for name, dtype in report.convergence.dtypes.items()} == {
            name: column.dtype.replace("string", "str") for name, column in CONVERGENCE.items()
        }
        assert report.arrays
    assert [p.name for p in sorted(folders[0].iterdir())] == [p.name for p in sorted(folders[1].iterdir())]
    for name in ("frame.parquet", "frame.csv", "arrays.npz"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    headers = [json.loads((path / "run.json").read_text()) for path in folders]
    for header in headers:
        assert header.pop("created")
        assert header.pop("seconds") > 0
        for entry in header["summary"]:
            assert entry.pop("seconds_per_step") > 0
            assert entry.pop("reference_seconds_per_step") > 0
            assert {"seconds_to_loss", "memory_growth"} <= set(entry)
            del entry["seconds_to_loss"], entry["memory_growth"]
    assert headers[0] == headers[1]
    curves: list[Any] = [read_report(path).convergence.drop(columns="seconds") for path in folders]
    pd.testing.assert_frame_equal(*curves)


def test_a_notebook_shows_what_is_said() -> None:
    check = harness.check_gradient((lambda x: x**3, lambda v, x: v * x**2), np.array([1.0, 2.0]))
    html = check._repr_html_()
    assert "<strong>fail" in html
    assert "<pre>pattern: factor" in html


def test_a_comparison_is_kept_and_given_back(tmp_path: Path) -> None:
    if "pytorch" not in registry.installed():
        pytest.skip(registry.pip_line("pytorch"))
    import torch

    def side(bend: Any) -> Any:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), bend, torch.nn.Linear(4, 2))
        return harness.side(net, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), 0.1))

    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    result = harness.compare(side(torch.nn.Tanh()), side(torch.nn.Sigmoid()), x, x[:, :2], steps=3)
    report = read_report(result.save(tmp_path / "kept"))
    assert list(report.frame.columns) == list(FRAME)
    frame: Any = result.frame
    for column in ("step", "name", "candidate_name", "d64", "ratio", "verdict"):
        assert report.frame[column].tolist() == frame[column].tolist(), column
    assert result.first is not None
    assert result.first.mismatch is not None
    (entry,) = report.summary.to_dict("records")
    assert entry["first_divergence"]["place"] == result.first.place == "forward:1"
    at = report.frame[(report.frame["name"] == result.first.name) & (report.frame["step"] == 0)]
    assert at["worst_index"].tolist() == [",".join(map(str, result.first.index))]
    assert result.cost is not None
    assert entry["seconds_per_step"] == min(candidate for _, candidate in result.cost.seconds)
    assert entry["reference_seconds_per_step"] == min(reference for reference, _ in result.cost.seconds)
    parameters, activations = 3 * 4 + 4 + 4 * 2 + 2, 8 * (4 + 4 + 2)
    assert entry["bytes_per_step"] == 2 * (4 + 8) * 2 * (parameters + activations)  # states, gradients; both ways
    (of,) = report.header["maps"]
    assert report.arrays[of["array"]].max() == result.first.mismatch.worst
    assert json.dumps(report.header["causes"]) == json.dumps(result.as_json()["causes"])
    losses = report.convergence.pivot(index="step", columns="framework", values="loss")
    assert losses.notna().all(axis=None)
    assert losses.iloc[0, 0] != losses.iloc[0, 1]
    spent = report.convergence.pivot(index="step", columns="framework", values="seconds")
    assert (spent.diff().dropna() > 0).all(axis=None)
    assert np.allclose(spent.iloc[-1].sort_values(), np.sort(np.sum(result.cost.seconds, axis=0)))
    html = result._repr_html_()
    assert "Not the same" in html
    assert "<table>" in html
