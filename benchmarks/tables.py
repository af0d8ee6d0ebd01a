"""A benchmark's results as one table on the screen and, on request, as a dated file under reports/benchmarks."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent.parent / "reports" / "benchmarks"

Row = dict[str, Any]


def show(title: str, rows: Sequence[Row], remarks: Iterable[str] = (), *, save_as: str | None = None) -> None:
    """Print the table; with `save_as` write it to reports/benchmarks/DATE-save_as.md too."""
    table = pd.DataFrame(rows).to_markdown(index=False, floatfmt=",.2f", missingval="")
    text = "\n\n".join([f"# {title}", table, *remarks, _machine()]) + "\n"
    print(text)
    if save_as:
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{datetime.date.today()}-{save_as}.md"
        path.write_text(text, encoding="utf-8")
        print(f"written to {path}")


def _machine() -> str:
    names = ("numpy", "torch", "tensorflow", "keras", "jax", "optax")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names if _present(name))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {load}; Python "
        f"{platform.python_version()}, {versions}; one thread for each framework."
    )


def _present(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
