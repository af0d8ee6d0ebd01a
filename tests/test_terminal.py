"""The terminal's answer: the same in 25 lines at any width, plain where colours are not wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from report_folder import folder

from harness import terminal
from harness.investigating import Result

FIRST = {
    "name": "dL/dW1",
    "step": 4,
    "text": "differs",
    "lines": [
        "Mismatched elements: 3 / 12 (25.0%)",
        "Greatest absolute difference: 0.5 (rounding explains 1e-16)",
        "Largest",
    ],
}


def result(cases: int, verdict: str = "rounding", **changed: Any) -> Result:
    """A run of so many cases in four frameworks."""
    rows = folder(modes={f"case {i}": 4 for i in range(cases)}).header["summary"] if cases else []
    rows = [{**row, "verdict": verdict, "end_point": "still moving", **changed} for row in rows]
    nothing = pd.DataFrame()
    skipped = {"omega": {"alpha": "cannot express [bold]this[/bold]"}}
    return Result(
        frame=nothing,
        convergence=nothing,
        summary=pd.DataFrame(rows),
        skipped=skipped,
        verdict=verdict if rows else "undecided",
        folder=None,
    )


def shown(of: Result, capsys: pytest.CaptureFixture[str]) -> list[str]:
    terminal.show_result(of)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("cases", [0, 1, 3, 30])
@pytest.mark.parametrize("first", [None, FIRST])
def test_any_run_fits_a_screen(cases: int, first: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = "different" if first else "rounding"
    notes = [f"note {i}" for i in range(9)]
    lines = shown(result(cases, verdict, first_divergence=first, notes=notes, end_point="minimum"), capsys)
    assert len(lines) <= terminal.LINES
    assert lines[0].startswith(
        {"different": "≠ Not the same", "rounding": "≈ The same"}[verdict] if cases else "? Nothing"
    )
    assert "report: " in lines[-1]
    assert not any("\x1b" in line for line in lines)
    if first and cases:
        assert "  Mismatched elements: 3 / 12 (25.0%)" in lines
        assert "next: gradparity explain 'tutorial-case 0' --frameworks alpha" in lines


def test_the_worst_rows_are_those_shown(capsys: pytest.CaptureFixture[str]) -> None:
    of = result(30)
    of.summary.loc[77, ["ratio", "case"]] = [29.5, "the worst"]
    of.summary.loc[78, ["verdict", "case"]] = ["undecided", "not judged"]
    lines = shown(replace(of, verdict="undecided"), capsys)
    table = [line.split("  ")[0] for line in lines[4:]]
    assert table[:2] == ["not judged", "the worst"]
    assert any("more, none worse" in line for line in lines)


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert any("cannot express [bold]this[/bold]" in line for line in shown(result(1), capsys))


@pytest.mark.parametrize(("variable", "coloured"), [("NO_COLOR", False), ("UNUSED", True)])
def test_colours_of_a_narrow_terminal(
    variable: str, coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for name, value in {"TERM": "xterm", "COLUMNS": "60", variable: "1"}.items():
        monkeypatch.setenv(name, value)
    text = "\n".join(shown(result(3), capsys))
    assert ("\x1b[32m" in text) == coloured
    assert len(text.splitlines()) <= terminal.LINES
    if not coloured:
        assert all(len(line) <= 60 for line in text.replace("\x1b[0m", "").replace("\x1b[1m", "").splitlines()), text
