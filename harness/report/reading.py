"""A run folder as the few frames that a report needs, aggregated while reading: a long run has millions of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import dataset, parquet

Frame = Any
"""A pandas DataFrame: pandas' own annotations make each column a union that no checker can follow."""

SCHEMA = 1
REFERENCE = "numpy"
"""The name of the reference's own runs in convergence.parquet."""

SAMPLE_ROWS = 60_000
"""Medians are taken over about so many rows, evenly spread over the steps; counts and extremes over all."""

GRADIENTS = ("activation_gradient", "gradient")
_TEXT = ["case", "framework", "kind", "name", "verdict", "because"]
_COUNTED = ["case", "framework", "verdict", "because"]
_QUANTITY = ["case", "framework", "name"]
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
    path = folder / "frame.parquet"
    counts, ratios, sampled, different = [], [], [], []
    every = -(-_file(path).metadata.num_rows // SAMPLE_ROWS) or 1
    for part in _groups(path, [*_TEXT, "step", "ratio"]):
        counts.append(part.groupby(_COUNTED, observed=True, sort=False).size().reset_index(name="rows"))
        gradients = _gradients(part)
        ratios.append(
            gradients.groupby(_QUANTITY, observed=True, sort=False).agg(
                worst=("ratio", "max"), different=("different", "any")
            )
        )
        sampled.append(gradients.loc[gradients["step"] % every == 0, [*_QUANTITY, "ratio"]])
        different.append(part[part["verdict"] == "different"].drop_duplicates(_QUANTITY))
    return Run(
        header=header,
        counts=_together(counts).groupby(_COUNTED, observed=True, sort=False)["rows"].sum().reset_index(),
        ratios=_ratios(_together([part.reset_index() for part in ratios]), _together(sampled)),
        divergences=_divergences(path, _together(different, ignore_index=False), header["summary"]),
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
    table = parquet.read_table(path, columns=columns)
    _refuse_empty(path, table)
    return table.to_pandas()


def _refuse_empty(path: Path, table: pa.Table) -> None:
    empty = [column for column in table.column_names if column in _TEXT and table[column].null_count]
    if empty:  # grouping would drop such rows without a word
        raise ValueError(f"{path} has empty cells in {', '.join(empty)}")


def _file(path: Path) -> parquet.ParquetFile:
    return parquet.ParquetFile(_present(path))


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path.parent} is not a run folder: it has no {path.name}")
    return path


def _groups(path: Path, columns: list[str]) -> Iterator[Frame]:
    """The frame one row group after another, as plain text columns, each row indexed by its place in the file."""
    file, place = _file(path), 0
    absent = [column for column in columns if column not in file.schema_arrow.names]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}")
    for group in range(max(file.num_row_groups, 1)):
        table = file.read_row_group(group, columns=columns) if file.num_row_groups else file.read(columns=columns)
        _refuse_empty(path, table)
        part = table.to_pandas()
        part.index += place
        place += len(part)
        yield part


def _together(parts: list[Frame], ignore_index: bool = True) -> Frame:
    """Parts as one frame; categories of different row groups become text."""
    text = [part.astype(dict.fromkeys(part.columns.intersection(_TEXT), "str")) for part in parts]
    return pd.concat(text, ignore_index=ignore_index)


def _gradients(part: Frame) -> Frame:
    rows = part[part["kind"].isin(GRADIENTS)]
    ratio = rows["ratio"].where(rows["because"] != "missing").mask(rows["because"] == "nonfinite", np.inf)
    return rows.assign(ratio=ratio, different=rows["verdict"] == "different")


def _ratios(parts: Frame, sampled: Frame) -> Frame:
    whole = parts.groupby(_QUANTITY, sort=False).agg(worst=("worst", "max"), different=("different", "any"))
    whole.insert(0, "median", sampled.groupby(_QUANTITY, sort=False)["ratio"].median())
    return whole.reset_index()


def _divergences(
    path: Path, different: Frame, summary: list[Mapping[str, Any]]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The row that the summary states, else the earliest `different` one (slots are a note, never a divergence)."""
    places: dict[tuple[str, str], int] = {}
    for entry in summary:
        pair = entry["case"], entry["framework"]
        rows = different[(different["case"] == pair[0]) & (different["framework"] == pair[1])]
        if stated := entry.get("first_divergence"):
            rows = rows[(rows["name"] == stated["name"]) & (rows["step"] == stated["step"])]
        else:
            rows = rows[rows["kind"] != "slot"]
        if len(rows):
            places[pair] = int(rows["step"].idxmin())
    if not places:  # taking no rows would still read the file
        return {}
    found = dataset.dataset(path).take(pa.array(list(places.values()), pa.int64())).to_pylist()
    return dict(zip(places, found, strict=True))
