"""A run folder: tidy frames and one JSON header, written aside and renamed, so that no half-written run is ever seen.

Rows go to disk as they come; memory holds one row group.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from harness.case import CannotRun, HarnessError
from harness.comparing import EPS64, worst_index
from harness.judging import BECAUSE, DIFFERENT, VERDICTS
from harness.layout import Layout
from harness.report.writing import write_report
from harness.watching import Watched

SCHEMA_VERSION = 1
ROWS_IN_MEMORY = 1_000_000
"""A frame handed back is thinned above this many rows."""

GROUP_ROWS = 2**16

WORDS = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        *((name, WORDS) for name in ("case", "framework", "mode")),
        *((name, pa.int32()) for name in ("step", "epoch")),
        *((name, WORDS) for name in ("kind", "tensor", "name", "shape")),
        *((name, pa.float64()) for name in ("reference", "candidate", "d32", "d64", "noise_reference")),
        *((name, pa.float64()) for name in ("noise_candidate", "budget", "ratio", "ulp", "digits")),
        ("worst_index", pa.string()),
        *((name, WORDS) for name in ("verdict", "because", "detail")),
    ]
)
"""One row per case, framework, step and quantity; the README's table says what each column holds."""


SCHEMA_CSV = pa.schema([(field.name, pa.string() if field.type == WORDS else field.type) for field in SCHEMA])


def tidy(watched: Watched, labels: dict[str, str], missing: Mapping[str, str], steps_per_epoch: int) -> pa.Table:
    """Judged steps as rows of the tidy frame, step by step, quantities in report order."""
    layout, shown = watched.chunk.layout, watched.judgement.shown
    steps, quantities = watched.judgement.verdict.shape
    step = np.repeat(np.arange(watched.chunk.first, watched.chunk.first + steps, dtype=np.int32), quantities)
    size = np.where(shown.size > 0, shown.size, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = np.clip(-np.log10(shown.d32 / size), 0, None)
    columns: dict[str, Any] = {
        **{name: _coded(np.zeros(len(step), np.int32), [word]) for name, word in labels.items()},
        "step": step,
        "epoch": (step // steps_per_epoch).astype(np.int32),
    }
    for name, words in (
        ("kind", [q.kind for q in layout.quantities]),
        ("tensor", [q.tensor for q in layout.quantities]),
        ("name", [q.name for q in layout.quantities]),
        ("shape", ["x".join(map(str, q.shape)) for q in layout.quantities]),
        ("detail", [missing.get(q.name, "") for q in layout.quantities]),
    ):
        columns[name] = _coded(np.tile(np.arange(quantities), steps), words)
    columns |= {
        "reference": _scalars(layout, watched.reference["float64"], shown.size_reference),
        "candidate": _scalars(layout, watched.candidate["float64"], shown.size_candidate),
        "d32": shown.d32,
        "d64": shown.d64,
        "noise_reference": shown.noise_reference,
        "noise_candidate": shown.noise_candidate,
        "budget": shown.budget,
        "ratio": shown.ratio,
        "ulp": shown.d64 / (EPS64 * size),
        "digits": digits,
    }
    columns["worst_index"] = _worst(watched)
    columns["verdict"] = _coded(watched.judgement.verdict.ravel(), VERDICTS)
    columns["because"] = _coded(watched.judgement.because.ravel(), BECAUSE)
    arrays = [values.ravel() if isinstance(values := columns[name], np.ndarray) else values for name in SCHEMA.names]
    return pa.Table.from_arrays([pa.array(a) if isinstance(a, np.ndarray) else a for a in arrays], schema=SCHEMA)


def _coded(codes: np.ndarray, words: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(words), pa.string()))


def _scalars(layout: Layout, rows: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Max norms, but a scalar's own value with its sign."""
    shown = size.copy()
    for i, quantity in enumerate(layout.quantities):
        if quantity.shape == ():
            shown[:, i] = rows[:, quantity.start]
    return shown


def _worst(watched: Watched) -> pa.Array:
    different = watched.judgement.verdict == DIFFERENT
    cells = np.full(different.shape, "", dtype=object)
    layout, reference, candidate = watched.chunk.layout, watched.reference["float64"], watched.candidate["float64"]
    for step, i in zip(*np.nonzero(different), strict=True):
        index = worst_index(layout, i, reference[step], candidate[step])
        cells[step, i] = ",".join(map(str, index))
    return pa.array(cells.ravel(), pa.string())


class Recorder:
    """Writes a run folder: `add` rows as they come, `finish` with the rest; an error leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise HarnessError(f"--out {folder} is a file; name a new or an empty folder")
        if folder.exists() and any(folder.iterdir()) and not (folder / "run.json").exists():
            raise HarnessError(f"--out {folder} is not empty and holds no earlier run; name a new or an empty folder")
        self.aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
        try:
            shutil.rmtree(self.aside, ignore_errors=True)
            self.aside.mkdir(parents=True)
        except OSError as error:
            raise CannotRun(f"cannot write to {folder.parent}: {error.strerror}; choose another --out") from error
        repetitive: Any = [field.name for field in SCHEMA if field.type != pa.float64()]
        self.parquet = pq.ParquetWriter(
            self.aside / "frame.parquet", SCHEMA, compression="zstd", use_dictionary=repetitive
        )
        self.csv = pyarrow.csv.CSVWriter(self.aside / "frame.csv", SCHEMA_CSV)
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.rows += len(table)
        if sum(map(len, self.waiting)) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            table = pa.concat_tables(self.waiting).unify_dictionaries()
            self.parquet.write_table(table)
            self.csv.write_table(table.cast(SCHEMA_CSV))
            self.waiting = []

    def finish(self, convergence: pd.DataFrame, header: dict[str, Any]) -> None:
        """Complete the folder and move it to its place, replacing an earlier run there."""
        self._close()
        convergence.to_parquet(self.aside / "convergence.parquet", index=False)
        convergence.to_csv(self.aside / "convergence.csv", index=False)
        text = json.dumps({"schema": SCHEMA_VERSION, **header}, indent=1, allow_nan=True, ensure_ascii=False)
        (self.aside / "run.json").write_text(text, encoding="utf-8")
        write_report(self.aside)
        old = self.folder.with_name(f".{self.folder.name}.old-{os.getpid()}")
        if self.folder.exists():
            os.replace(self.folder, old)
        os.replace(self.aside, self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        shutil.rmtree(self.aside, ignore_errors=True)

    def _close(self) -> None:
        if self.parquet.is_open:
            self._flush()
            self.parquet.close()
            self.csv.close()


def read_frame(path: Path, limit: int = ROWS_IN_MEMORY) -> pd.DataFrame:
    """The tidy frame of a run. Above `limit` rows it is thinned to every n-th step; the rows that are `different` for
    the first time and the worst row of each quantity are always kept. `frame.attrs["thinned_to_every"]` says n."""
    file = pq.ParquetFile(path)
    every = -(-file.metadata.num_rows // limit)
    if every <= 1:
        frame = file.read().to_pandas()
        frame.attrs["thinned_to_every"] = 1
        return frame
    kept: list[Any] = []
    extremes: Any = pd.DataFrame()
    quantity = ["case", "framework", "name"]
    for group in range(file.num_row_groups):
        part: Any = file.read_row_group(group).to_pandas()
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
