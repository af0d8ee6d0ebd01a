"""How often is a verdict wrong? Random nets beside the frameworks (clean) and with a planted factor (to be found).

    python benchmarks/calibration.py --nets 2000 --seed 0 --out reports/calibration

Writes calibration.csv, a row per net and pair as they are measured, and tables.md, what they add up to.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import click
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no installed package

from benchmarks.measuring import EXPLAINED, OVER, Row, clean, job_of, planted
from benchmarks.nets import describe, draw
from frameworks import installed
from harness.cli import SETTINGS
from harness.judging import K

EXCESSES = (1e-3, 1e-6, 1e-9, 1e-12)
BLOCK = 200
"""Nets measured by one set of processes; fresh ones then give back what compiled functions have leaked."""

QUANTILES = ["ratio_before", "ratio_after", "proportion_run", "proportion_own", "shrink"]

COLUMNS = (
    *("net", "beside", "depth", "width", "features", "batch", "steps", "scale", "toy", "hidden", "loss", "optimizer"),
    *("excess", "planted", "found", "unfit", "relative_noise"),
    *("verdict", "because", "quantity", "step", "ratio", "ratio_before", "ratio_after", "cells", *OVER),
    *("confirmed", *EXPLAINED, "chaotic_from", "shrink", "proportion_run", "proportion_own", "proportion_at"),
    *("seconds", "note"),
)


@click.command()
@click.option("--nets", default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/calibration"), show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--every", default=8, show_default=True, help="Each n-th net runs beside a compiled framework as well.")
@click.option("--resume", is_flag=True, help="Keep the nets that --out holds already.")
def main(nets: int, seed: int, out: Path, workers: int, every: int, resume: bool) -> None:
    """Measure random nets and say how often clean pairs alarm and planted factors are missed."""
    for name, value in SETTINGS.items():
        _ = os.environ.setdefault(name, value)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "calibration.csv"
    done = set(pd.read_csv(path, usecols=["net"])["net"]) if resume and path.exists() else set()
    waiting = [index for index in range(nets) if index not in done]
    began = time.perf_counter()
    with path.open("a" if done else "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if not done:
            writer.writeheader()
        for start in range(0, len(waiting), BLOCK):
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                block = waiting[start : start + BLOCK]
                futures = [pool.submit(measure, seed, index, beside(index, every)) for index in block]
                for future in as_completed(futures):
                    writer.writerows(future.result())
                    file.flush()
            minutes = (time.perf_counter() - began) / 60
            click.echo(f"{len(done) + start + len(block)} of {nets} nets, {minutes:.1f} minutes", err=True)
    (out / "tables.md").write_text(tables(pd.read_csv(path)), encoding="utf-8")


def beside(index: int, every: int) -> list[str]:
    """The first framework, which is eager and cheap, and for each n-th net one of the others in turn."""
    first, *others = installed()
    return [first] if index % every or not others else [first, others[index // every % len(others)]]


def measure(seed: int, index: int, frameworks: Sequence[str]) -> list[Row]:
    """The rows of one net."""
    net = draw(seed, index)
    job = job_of(net)
    rows = [{"beside": name, **describe(net), **clean(job, name)} for name in frameworks]
    for excess in EXCESSES:
        rows.append({"beside": "planted", **planted(job, excess, np.random.default_rng((seed, index, 1)))})
    return [{"net": index, **{name: _short(value) for name, value in row.items()}} for row in rows]


def _short(value: object) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value


# --- what it adds up to -----------------------------------------------------------------------------------------


def tables(frame: pd.DataFrame) -> str:
    """Markdown tables of a calibration's rows."""
    words = ["because", "unfit", "note"]
    frame = frame.assign(**frame[words].astype(object).fillna(""))
    pairs = frame.query("beside != 'planted'")
    ran = pairs.query("verdict != 'skipped'")
    counts = pairs.groupby(["verdict", "because", "beside"]).size().unstack(fill_value=0)
    rounding = ran.query("verdict == 'rounding'")
    plain = rounding.query(" == 0 and ".join(EXPLAINED) + " == 0")
    alarms = ran.query("verdict == 'different' and because != 'nonfinite'")
    parts = {
        "Clean pairs by verdict": counts,
        "Clean pairs: steps with alarms that were confirmed to be rounding, or explained": ran.groupby("beside")[
            ["confirmed", *EXPLAINED]
        ].sum(),
        "Clean pairs that are rounding: quantiles over pairs": _quantiles(rounding, QUANTILES),
        "The same without pairs that needed an explanation": _quantiles(plain, QUANTILES),
        "Clean pairs: quantities above a ratio, before confirmation": ran.groupby("beside")[["cells", *OVER]].sum(),
        "Clean pairs that are different, NaN aside": alarms.set_index("net").filter(
            ["beside", "because", "quantity", "step", "ratio", "note"]
        ),
        "Planted factors": detection(frame.query("beside == 'planted'")),
    }
    return "\n\n".join(f"## {title}\n\n{table.to_markdown(floatfmt='.4g')}" for title, table in parts.items()) + "\n"


def detection(rows: pd.DataFrame) -> pd.DataFrame:
    """Per factor: how many gradients could show it, and of these the percentage found where it is, and above each K."""
    fit = rows.query("unfit == ''")
    counts = pd.crosstab(rows["excess"], rows["unfit"]).rename(columns={"": "fit"})
    shown = {"found": fit["found"], **{f"ratio > {k:g}": fit["ratio_after"] > k for k in (3, 10, K, 100)}}
    shares = pd.DataFrame({**shown, "excess": fit["excess"]}).pivot_table(index="excess", values=list(shown))
    return counts.join(100 * shares[list(shown)])


def _quantiles(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    words = {0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 1.0: "max"}
    quantiles = {name: rows[name].quantile(list(words), interpolation="higher") for name in names}
    return pd.DataFrame(quantiles).rename(index=words)


if __name__ == "__main__":
    main()
