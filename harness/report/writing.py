"""The report's one job: a run folder in, summary.md and report.html beside its frames."""

from __future__ import annotations

import os
from pathlib import Path

from harness.report.markdown import as_markdown
from harness.report.page import as_page
from harness.report.reading import read_run


def write_report(folder: Path) -> list[Path]:
    """Write summary.md and report.html into a run folder; both are rendered before either is replaced.

    Raises ValueError where the folder is not a complete run folder.
    """
    run = read_run(folder)
    texts = {"summary.md": as_markdown(run), "report.html": as_page(run)}
    return [_replace(folder / name, text) for name, text in texts.items()]


def _replace(path: Path, text: str) -> Path:
    """Write aside, then rename: a reader never sees half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _ = aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path
