"""A run folder as the few frames that a report needs, aggregated while reading: a long run has millions of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import dataset, parquet

Frame = Any
"""A pandas DataFrame: pandas' own annotations make each column a union that no checker can follow."""

SCHEMA = 1
REFERENCE = "numpy"
"""The name of the reference's own runs in convergence.parquet."""

GRADIENTS = ("activation_gradient", "gradient")
_TEXT = ["case", "framework", "kind", "name", "verdict", "because"]
_CONVERGENCE = ["case", "framework", "step", "loss", "distance32", "distance64"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run folder holds, as far as a report shows it.

    header: run.json.
    counts: (case, framework, verdict, because, rows): how the rows of the frame were judged.
    ratios: (case, framework, name, median, worst, different): d64 / budget of each gradient over the steps, in backward
    order; infinite where a value is not finite, NaN where a side cannot show the gradient.
    divergences: (case, framework) -> the frame's row where the two first differ, all columns.
    convergence: (case, framework, step, loss, distance32, distance64), in order of the steps.
    """

    header: Mapping[str, Any]
    counts: Frame
    ratios: Frame
    divergences: Mapping[tuple[str, str], Mapping[str, Any]]
    convergence: Frame


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises ValueError where a file or column is missing or the header is not one that this version reads.
    """
    header = _header(folder / "run.json")
    table = _table(folder / "frame.parquet", [*_TEXT, "step", "ratio"])
    return Run(
        header=header,
        counts=_counts(table),
        ratios=_ratios(table),
        divergences=_divergences(folder / "frame.parquet", table, header["summary"]),
        convergence=_table(folder / "convergence.parquet", _CONVERGENCE).sort_values("step", kind="stable"),
    )


def _header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(_present(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a run header of schema {SCHEMA}; run the case again with this version")
    absent = [key for key in ("created", "command", "seconds", "environment", "cases", "summary") if key not in header]
    if absent:
        raise ValueError(f"{path} has no {', '.join(absent)}")
    return header


def _table(path: Path, columns: list[str]) -> Frame:
    schema = parquet.read_schema(_present(path))
    absent = [column for column in columns if column not in schema.names]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}")
    text = [column for column in columns if column in _TEXT]
    table = parquet.read_table(path, columns=columns, read_dictionary=text)
    empty = [column for column in text if table[column].null_count]
    if empty:  # grouping would drop such rows without a word
        raise ValueError(f"{path} has empty cells in {', '.join(empty)}")
    return table.to_pandas()


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path.parent} is not a run folder: it has no {path.name}")
    return path


def _counts(table: Frame) -> Frame:
    keys = ["case", "framework", "verdict", "because"]
    return table.groupby(keys, observed=True, sort=False).size().reset_index(name="rows")


def _ratios(table: Frame) -> Frame:
    rows = table[table["kind"].isin(GRADIENTS)]
    ratio = rows["ratio"].where(rows["because"] != "missing").mask(rows["because"] == "nonfinite", np.inf)
    rows = rows.assign(ratio=ratio, different=rows["verdict"] == "different")
    grouped = rows.groupby(["case", "framework", "name"], observed=True, sort=False)
    return grouped.agg(median=("ratio", "median"), worst=("ratio", "max"), different=("different", "any")).reset_index()


def _divergences(
    path: Path, table: Frame, summary: list[Mapping[str, Any]]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The row that the summary states, else the earliest `different` one (slots are a note, never a divergence)."""
    places: dict[tuple[str, str], int] = {}
    different = table[table["verdict"] == "different"]
    for entry in summary:
        pair = entry["case"], entry["framework"]
        rows = different[(different["case"] == pair[0]) & (different["framework"] == pair[1])]
        if stated := entry.get("first_divergence"):
            rows = rows[(rows["name"] == stated["name"]) & (rows["step"] == stated["step"])]
        else:
            rows = rows[rows["kind"] != "slot"]
        if len(rows):
            places[pair] = int(rows["step"].idxmin())
    found = dataset.dataset(path).take(pa.array(list(places.values()), pa.int64())).to_pylist()
    return dict(zip(places, found, strict=True))
