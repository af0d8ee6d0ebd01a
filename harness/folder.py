"""A run folder: tidy frames, one JSON header and small arrays, written aside and renamed, so that no half-written run
is ever seen. Rows go to disk as they come; memory holds one row group."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from harness.case import CannotRun, HarnessError
from harness.report.columns import CONVERGENCE, FRAME
from harness.report.reading import Frame
from harness.report.writing import write_report

SCHEMA_VERSION = 1
GROUP_ROWS = 2**16
WORDS = pa.dictionary(pa.int32(), pa.string())
_TYPES = {"category": WORDS, "int32": pa.int32(), "float64": pa.float64(), "string": pa.string()}
SCHEMA = pa.schema([(name, _TYPES[column.dtype]) for name, column in FRAME.items()])
"""One row per case, framework, step and quantity."""

SCHEMA_CSV = pa.schema([(field.name, pa.string() if field.type == WORDS else field.type) for field in SCHEMA])


class Recorder:
    """Writes a run folder: `add` rows as they come, `finish` with the rest; an error leaves nothing behind.

    header: the header's file name, run.json or comparison.json.
    """

    def __init__(self, folder: Path, header: str = "run.json") -> None:
        self.folder = folder
        self.header = header
        if folder.exists() and not folder.is_dir():
            raise HarnessError(f"--out {folder} is a file; name a new or an empty folder")
        if folder.exists() and any(folder.iterdir()) and not (folder / header).exists():
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
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.rows += len(table)
        if sum(map(len, self.waiting)) >= GROUP_ROWS:
            self._flush()

    def keep(self, array: np.ndarray) -> str:
        """Keep a small array for the report; returns the name by which the header is to call it."""
        name = f"array-{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def _flush(self) -> None:
        if self.waiting:
            table = pa.concat_tables(self.waiting).unify_dictionaries()
            self.parquet.write_table(table)
            self.csv.write_table(table.cast(SCHEMA_CSV))
            self.waiting = []

    def finish(self, convergence: Frame, header: Mapping[str, Any]) -> None:
        """Complete the folder and move it to its place, replacing an earlier run there."""
        self._close()
        convergence = convergence[list(CONVERGENCE)]
        convergence.to_parquet(self.aside / "convergence.parquet", index=False)
        convergence.to_csv(self.aside / "convergence.csv", index=False)
        np.savez_compressed(self.aside / "arrays.npz", **self.arrays)  # pyright: ignore[reportArgumentType]
        text = json.dumps({"schema": SCHEMA_VERSION, **header}, indent=1, allow_nan=True, ensure_ascii=False)
        (self.aside / self.header).write_text(text, encoding="utf-8")
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
