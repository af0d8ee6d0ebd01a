"""A run as one Markdown file: what a pull request or a terminal shows."""

from __future__ import annotations

import html

import pandas as pd

from harness.report import background, tables
from harness.report.reading import Run


def as_markdown(run: Run) -> str:
    """The verdicts, first divergences, skips and environment of a run."""
    parts = ["# gradparity", f"**{tables.answer(run.header)}**"]
    sections = {
        "Verdicts": tables.verdicts(run.header),
        "First divergence": tables.divergences(run),
        "Causes": _causes(run),
        "Skipped": background.skips(run),
        "Notes": tables.notes(run.header),
        "Environment": background.environment(run),
    }
    for heading, table in sections.items():
        if table:
            parts += [f"## {heading}", _markdown(table)]
    parts += ["## Reproduce", _code(run.header["command"])]
    parts += [f"Run of {run.header['created']}, {tables.duration(run.header['seconds'])}."]
    return "\n\n".join(parts) + "\n"


def _causes(run: Run) -> tables.Table:
    """Each cause with its proof."""
    return [
        {
            "cause": cause["id"],
            "status": cause["status"],
            "place": f"{cause['where']} at step {cause['step']}",
            "edit": cause.get("edit") or "",
            "difference in float64": f"{tables.number(cause.get('before64'))} → {tables.number(cause.get('after64'))}",
            "in float32": f"{tables.number(cause.get('before32'))} → {tables.number(cause.get('after32'))}",
        }
        for cause in tables.causes(run.header)
    ]


def _markdown(table: tables.Table) -> str:
    cells = [{heading: _cell(text) for heading, text in row.items()} for row in table]
    return pd.DataFrame(cells).to_markdown(index=False, disable_numparse=True)


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _code(text: str) -> str:
    """A code block that its content cannot close: indented."""
    return "\n".join(f"    {line}" for line in text.splitlines())
