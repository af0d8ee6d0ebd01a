"""The answer in the terminal, in at most 25 lines: is it the same, where does it start, why, what to do next.

Plain text when piped; colours follow NO_COLOR, as rich does.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.judging import VERDICTS, K
from harness.report.tables import answer, clipped, duration
from harness.report.templates import MARKS

if TYPE_CHECKING:
    from harness.comparison import Comparison
    from harness.investigating import Result

LINES = 25
COLOURS = {"identical": "cyan", "rounding": "green", "undecided": "magenta", "different": "bold red"}
COLUMNS = ("case", "framework", "mode", "verdict", "worst quantity", "ratio", "digits", "loss", "accuracy", "time/step")
NARROW = ("case", "framework", "verdict", "ratio", "digits")
WIDTH = 120
"""Columns of a terminal that the whole table needs; a narrower one shows the most telling columns."""


def console() -> Console:
    """As wide as the lines need to be when piped; brackets are no markup."""
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)


def table(*columns: str) -> Table:
    """A table whose cells stay on their lines."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=True)
    return made


def show_result(result: Result) -> None:
    """A run: the answer, a row for each case and framework (too many: the worst), differences, notes, the report."""
    out = console()
    rows: list[dict[str, Any]] = result.summary.to_dict("records")
    details = [*_differences(rows), *_notes(rows, result.skipped)]
    last = [*_next(rows), f"{result.verdict}; report: {result.folder}/report.html"]
    room = LINES - len(details) - len(last) - 5
    _say(out, Text(f"{MARKS[result.verdict]} {answer({'summary': rows})}", style=COLOURS[result.verdict]))
    if rows:
        shown = _worst_first(rows) if len(rows) > room else rows
        out.print()
        out.print(_verdicts(shown[:room], COLUMNS if out.width >= WIDTH else NARROW))
        if len(rows) > room:
            _say(out, f"and {len(rows) - room} more, none worse: the report has all")
    for line in [*details, *last]:
        _say(out, line)


def show_comparison(result: Comparison) -> None:
    """Two models: their own words, the verdict coloured."""
    out = console()
    for i, line in enumerate(str(result).splitlines()):
        _say(out, Text(line, style=COLOURS[result.verdict]) if i == 0 else line)


def _say(out: Console, line: str | Text) -> None:
    """One line: what does not fit a terminal goes on behind an ellipsis in the report."""
    out.print(line, no_wrap=True, overflow="ellipsis", crop=False, soft_wrap=not sys.stdout.isatty())


def _worst_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-VERDICTS.index(row["verdict"]), -(row["ratio"] or 0.0)))


def _verdicts(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Table:
    made = table(*columns)
    made.show_edge = False
    for row in rows:
        because = f" ({row['because']})" if row["because"] else ""
        cells = {
            "case": clipped(row["case"]),
            "framework": row["framework"],
            "mode": row["mode"],
            "verdict": Text(row["verdict"] + because, style=COLOURS[row["verdict"]]),
            "worst quantity": clipped(row["worst"]),
            "ratio": f"{row['ratio']:.2g}",
            "digits": f"{row['digits']:.1f}",
            "loss": f"{row['final_loss']:.4g}",
            "accuracy": "-" if row["accuracy"] != row["accuracy"] else f"{row['accuracy']:.3f}",
            "time/step": duration(row["seconds_per_step"]),
        }
        made.add_row(*(cells[column] for column in columns))
    return made


def _differing(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["first_divergence"]]


def _differences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The first difference as torch.testing says it, with budget, verdict and cause; the others by name."""
    if not _differing(rows):
        return []
    row, *others = _differing(rows)
    first = row["first_divergence"]
    proven = [note for note in row["notes"] if note.endswith("(proven)")]
    lines = [
        f"{row['case']} in {row['framework']}: first differs at {first['name']}, step {first['step']}",
        *(f"  {line}" for line in first["lines"]),
        f"  Verdict: different, up to {row['ratio']:.2g} times what rounding explains (up to {K:g} is rounding)",
        f"  Cause: {'; '.join(proven) or 'unknown; the report shows where in the tensor'}",
    ]
    if others:
        named = ", ".join(f"{other['case']} in {other['framework']}" for other in others[:4])
        lines.append(f"and in {named}" + (f" and {len(others) - 4} more" if len(others) > 4 else ""))
    return lines


def _next(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The command that looks closer at the first difference."""
    return [
        f"next: gradparity explain {shlex.quote(row['case'])} --frameworks {row['framework']}"
        for row in _differing(rows)[:1]
    ]


def _notes(rows: Sequence[dict[str, Any]], skipped: Any) -> list[str]:
    lines = [f"{row['case']} in {row['framework']}: {note}" for row in rows for note in row["notes"]]
    ends: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["end_point"] != "still moving":
            ends.setdefault((row["case"], row["end_point"]), []).append(row["framework"])
    lines += [f"{case} ends at {end} in {', '.join(names)}" for (case, end), names in ends.items()]
    lines += [
        f"{case} in {framework}: skipped, {reason}"
        for case, reasons in skipped.items()
        for framework, reason in reasons.items()
    ]
    return lines if len(lines) <= 5 else [*lines[:4], f"and {len(lines) - 4} more notes: summary.md beside the report"]
