"""A run folder's frames given back, and written in the formats that papers, sheets and programs read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from harness.report.fragment import as_fragment
from harness.report.reading import header_of, read_arrays

ROWS_IN_MEMORY = 1_000_000
"""A frame handed back is thinned above this many rows."""

Frame = Any
"""A pandas DataFrame: pandas' own annotations make each column a union that no checker can follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run folder as frames; the README's tables say what their columns hold.

    header: the folder's JSON. frame: a row per case, framework, step and quantity (thinned above a million rows).
    convergence: a row per case, framework and evaluated step. summary: a row per case and framework. arrays: of the
    maps and paths.
    """

    folder: Path
    header: Mapping[str, Any]
    frame: Frame
    convergence: Frame
    summary: Frame
    arrays: Mapping[str, np.ndarray]

    def _repr_html_(self) -> str:
        return as_fragment(self.header)


def read_report(folder: Path | str) -> Report:
    """What a run or a comparison wrote, without running or importing a framework.

    Raises ValueError where the folder is not a complete run folder.
    """
    path = Path(folder)
    header = header_of(path)
    return Report(
        folder=path,
        header=header,
        frame=read_frame(path / "frame.parquet"),
        convergence=pd.read_parquet(path / "convergence.parquet"),
        summary=pd.DataFrame(header["summary"]),
        arrays=read_arrays(path),
    )


def read_frame(path: Path, limit: int = ROWS_IN_MEMORY) -> Frame:
    """The tidy frame of a run. Above `limit` rows it is thinned to every n-th step; the rows that are `different` for
    the first time and the worst row of each quantity are always kept. `frame.attrs["thinned_to_every"]` says n."""
    file = pq.ParquetFile(path)
    every = -(-file.metadata.num_rows // limit)
    if every <= 1:
        frame = file.read().to_pandas()
        frame.attrs["thinned_to_every"] = 1
        return frame
    kept: list[Frame] = []
    extremes: Frame = pd.DataFrame()
    quantity = ["case", "framework", "name"]
    for group in range(file.num_row_groups):
        part: Frame = file.read_row_group(group).to_pandas()
        kept.append(part[part["step"] % every == 0])
        worst = part.loc[part.groupby(quantity, observed=True)["ratio"].idxmax().dropna()]
        first = part[part["verdict"] == "different"].drop_duplicates(quantity)
        extremes = pd.concat([extremes, worst, first])
        ordered = extremes.sort_values(["step"])
        first = ordered[ordered["verdict"] == "different"].drop_duplicates(quantity)
        worst = ordered.sort_values("ratio", ascending=False, kind="stable").drop_duplicates(quantity)
        extremes = pd.concat([first, worst])
    key = ["case", "framework", "step", "name"]
    frame = pd.concat([*kept, extremes]).drop_duplicates(key)
    frame = frame.sort_values(["case", "framework", "step"], kind="stable").reset_index(drop=True)
    frame.attrs["thinned_to_every"] = every
    return frame


def write_frames(
    folder: Path, *, frame: Path | None, convergence: Path | None, summary: Path | None, query: str | None
) -> list[Path]:
    """Write the frames of a run folder to the files named; query: which rows of the tidy frame (pandas' words).

    Raises ValueError for a folder, an ending or a query that cannot be used.
    """
    report = read_report(folder)
    rows = report.frame
    if query:
        try:
            rows = rows.query(query)
        except Exception as error:  # pandas raises what the expression raises
            raise ValueError(f"--query {query}: {error}; columns: {', '.join(rows.columns)}") from error
    wanted = ((rows, frame), (report.convergence, convergence), (report.summary, summary))
    return [write_frame(table, path) for table, path in wanted if path]


def write_frame(frame: Frame, path: Path) -> Path:
    """A frame as a file; the ending says how: .parquet, .csv, .md, .json (a list of rows) or .tex (a longtable).

    Raises ValueError for another ending, and for more rows than a document can hold.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a frame is written as {', '.join(FORMATS)}; name the file with one of these endings")
    if path.suffix in READ and len(frame) > READ_ROWS:
        raise ValueError(
            f"{path}: {len(frame):,} rows are no table to read; choose up to {READ_ROWS:,} of them (--query)"
        )
    FORMATS[path.suffix](frame, path)
    return path


def _markdown(frame: Frame, path: Path) -> None:
    cells = frame.map(lambda cell: cell.replace("|", "\\|").replace("\n", " ") if isinstance(cell, str) else cell)
    _ = path.write_text(cells.to_markdown(index=False) + "\n", encoding="utf-8")


def _json(frame: Frame, path: Path) -> None:
    rows = [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    _ = path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null, and the words that Python and pandas read back."""
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def _latex(frame: Frame, path: Path) -> None:
    table = frame.style.hide(axis="index").format(escape="latex", precision=4, na_rep="--")
    table = table.format_index(escape="latex", axis="columns")
    _ = path.write_text(table.to_latex(environment="longtable", hrules=True), encoding="utf-8")


READ = (".md", ".tex")
READ_ROWS = 10_000

FORMATS: dict[str, Callable[[Frame, Path], None]] = {
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".md": _markdown,
    ".json": _json,
    ".tex": _latex,
}
