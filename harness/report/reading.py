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
HEADERS = ("run.json", "comparison.json")
REFERENCE = "numpy"
"""The name of the reference's own runs where the header has none."""

SAMPLE_ROWS = 60_000
"""Medians are taken over about so many rows, evenly spread over the steps; counts and extremes over all."""

BAD = {"identical": 1, "rounding": 2, "undecided": 3, "different": 4}
"""How bad a verdict is; what a side cannot show is 0."""

_TEXT = ["case", "framework", "kind", "name", "verdict", "because"]
_NUMBERS = ["step", "ratio", "reference", "candidate", "budget", "digits"]
_COUNTED = ["case", "framework", "verdict", "because"]
QUANTITY = ["case", "framework", "kind", "name"]
_CONVERGENCE = ["case", "framework", "mode", "epoch", "step", "loss", "distance32", "distance64", "seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run folder holds, as far as a report shows it.

    header: run.json or comparison.json.
    counts: (case, framework, verdict, because, rows): how the rows of the frame were judged.
    quantities: a row per case, framework and quantity, in the order of the computation: its worst verdict with
    because and step; median and worst d64 / budget over the steps (infinite where a value is not finite, NaN where a
    side cannot show it); median sizes of both sides; fewest digits; whether it ever was different.
    starts: (case, framework) -> verdict of each quantity (kind, name) at the step where the two first differ.
    divergences: (case, framework) -> the frame's row where the two first differ, all columns.
    convergence: in order of the steps; budget: what rounding explains of distance64, at most over the parameters.
    arrays: of the maps and paths.
    """

    header: Mapping[str, Any]
    counts: Frame
    quantities: Frame
    starts: Mapping[tuple[str, str], Mapping[tuple[str, str], str]]
    divergences: Mapping[tuple[str, str], Mapping[str, Any]]
    convergence: Frame
    arrays: Mapping[str, np.ndarray]

    @property
    def reference(self) -> str:
        """What the reference's runs are called."""
        return self.header.get("reference", REFERENCE)

    @property
    def two_models(self) -> bool:
        """Whether two models were compared, and not a case with frameworks."""
        return bool(self.header.get("two_models"))


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises ValueError where a file or column is missing or the header is not one that this version reads.
    """
    header = header_of(folder)
    path = folder / "frame.parquet"
    every = -(-_file(path).metadata.num_rows // SAMPLE_ROWS) or 1
    convergence = _table(folder / "convergence.parquet", _CONVERGENCE).sort_values("step", kind="stable")
    evaluated = np.unique(convergence["step"]) - 1  # a row stands behind its step
    counts, extremes, worst, sampled, different, budgets, starts = [], [], [], [], [], [], []
    for part in _groups(path, [*_TEXT, *_NUMBERS]):
        missing = part["because"] == "missing"
        ratio = part["ratio"].where(~missing).mask(part["because"] == "nonfinite", np.inf)
        bad = part["verdict"].astype("str").map(BAD).fillna(BAD["undecided"]).mask(missing, 0)
        part = part.assign(ratio=ratio, bad=bad, different=part["verdict"] == "different")
        counts.append(part.groupby(_COUNTED, observed=True, sort=False).size().reset_index(name="rows"))
        grouped = part.groupby(QUANTITY, observed=True, sort=False)
        extremes.append(
            grouped.agg(worst=("ratio", "max"), digits=("digits", "min"), different=("different", "any")).reset_index()
        )
        worst.append(part.loc[grouped["bad"].idxmax(), [*QUANTITY, "bad", "verdict", "because", "step"]])
        sampled.append(part.loc[part["step"] % every == 0, [*QUANTITY, "ratio", "reference", "candidate"]])
        different.append(part[part["different"]].drop_duplicates(QUANTITY))
        budgets.append(_budgets(part[(part["kind"] == "parameter") & part["step"].isin(evaluated)]))
        starts.append(_at_starts(part, header["summary"]))
    return Run(
        header=header,
        counts=_together(counts).groupby(_COUNTED, observed=True, sort=False)["rows"].sum().reset_index(),
        quantities=_quantities(_together(extremes), _together(worst), _together(sampled)),
        starts=_starts(_together(starts)),
        divergences=_divergences(path, _together(different, ignore_index=False), header["summary"]),
        convergence=convergence.merge(_together(budgets), on=["case", "framework", "step"], how="left"),
        arrays=read_arrays(folder),
    )


def header_of(folder: Path) -> dict[str, Any]:
    """The JSON header of a run folder. Raises ValueError where it is not one."""
    path = next((folder / name for name in HEADERS if (folder / name).is_file()), folder / HEADERS[0])
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


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The folder's small arrays, none where it was written without."""
    path = folder / "arrays.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


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
    """The frame one row group after another, each row indexed by its place in the file."""
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


def _quantities(extremes: Frame, worst: Frame, sampled: Frame) -> Frame:
    of = extremes.groupby(QUANTITY, sort=False)
    whole = of.agg(worst=("worst", "max"), digits=("digits", "min"), different=("different", "any"))
    medians = sampled.groupby(QUANTITY, sort=False)[["ratio", "reference", "candidate"]].median()
    whole.insert(0, "median", medians["ratio"])
    whole = whole.join(medians[["reference", "candidate"]])
    first = worst.sort_values(["bad", "step"], ascending=[False, True], kind="stable").drop_duplicates(QUANTITY)
    return whole.join(first.set_index(QUANTITY)[["bad", "verdict", "because", "step"]]).reset_index()


def _budgets(parameters: Frame) -> Frame:
    """What rounding explains of the distance of the parameters behind each step, relative to the largest."""
    grouped = parameters.groupby(["case", "framework", "step"], observed=True, sort=False)
    most = grouped[["budget", "reference"]].max().reset_index()
    most["budget"] /= most["reference"].where(most["reference"] > 0, 1.0)
    return most.assign(step=most["step"] + 1).drop(columns="reference")


def _at_starts(part: Frame, summary: list[Mapping[str, Any]]) -> Frame:
    """The rows of the steps that the summary names as the first that differ."""
    found = [part.iloc[:0]]
    for entry in summary:
        if stated := entry.get("first_divergence"):
            at = (part["step"] == stated["step"]) & (part["case"] == entry["case"])
            found.append(part[at & (part["framework"] == entry["framework"])])
    return pd.concat(found)[[*QUANTITY, "bad", "verdict"]]


def _starts(rows: Frame) -> dict[tuple[str, str], dict[tuple[str, str], str]]:
    starts: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for case, framework, kind, name, bad, verdict in rows.itertuples(index=False):
        starts.setdefault((case, framework), {})[kind, name] = verdict if bad else "missing"
    return starts


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
