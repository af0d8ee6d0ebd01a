"""The report's one job: a run folder in, summary.md and report.html beside its frames; for several, an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.report import tables
from harness.report.markdown import as_markdown
from harness.report.page import as_page
from harness.report.reading import HEADERS, header_of, read_run
from harness.report.templates import render_page


def write_report(folder: Path) -> list[Path]:
    """Write summary.md and report.html into a run folder; both are rendered before either is replaced.

    Raises ValueError where the folder is not a complete run folder.
    """
    run = read_run(folder)
    texts = {"summary.md": as_markdown(run), "report.html": as_page(run)}
    return [_replace(folder / name, text) for name, text in texts.items()]


def write_reports(folder: Path) -> list[Path]:
    """Rebuild the pages of a run folder, or of all run folders in a folder, with an index.html of them.

    Raises ValueError where there is none, or one is not complete.
    """
    if any((folder / name).is_file() for name in HEADERS) or not folder.is_dir():
        return write_report(folder)
    inside = sorted({path.parent for name in HEADERS for path in folder.glob(f"*/{name}")})
    if not inside:
        raise ValueError(f"{folder} is not a run folder and holds none: there is no {' or '.join(HEADERS)}")
    written = [path for run in inside for path in write_report(run)]
    return [*written, write_index(folder, [run.name for run in inside])]


def write_index(folder: Path, runs: Sequence[str]) -> Path:
    """Write the index.html of these run folders in a folder, by their names."""
    headers = {name: header_of(folder / name) for name in runs}
    return _replace(folder / "index.html", render_page("index.html.j2", tables=tables, runs=headers))


def _replace(path: Path, text: str) -> Path:
    """Write aside, then rename: a reader never sees half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _ = aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path
