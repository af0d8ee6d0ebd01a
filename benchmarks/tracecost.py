"""What recording costs: python -m benchmarks.tracecost.

A case's run by one side, in both precisions, with and without writing all of it to disk. The two take turns in one
process, so that a busy machine slows both; ratios are of medians over the rounds, of which the first does not count.
The waits for the disk (fsync) are the disk's own: `with fsync` has them too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click

from benchmarks.tables import Row, median, show
from frameworks import installed
from harness.case import PRECISIONS
from harness.cases import CASES
from harness.investigating import Job, pair_up, prepare
from harness.running import Rows, Side, chunks
from harness.trace.recorded import FULL, write_chunk
from harness.trace.writing import Writer


@click.command(help=__doc__)
@click.option("--frameworks", help="Comma-separated; the reference and all installed ones by default.")
@click.option("--cases", default="tutorial-stochastic,tutorial-minibatch,tutorial-batch", show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-tracecost.md too.")
def main(frameworks: str | None, cases: str, rounds: int, save: bool) -> None:
    names = frameworks.split(",") if frameworks else installed()
    rows = [measured(name, case, rounds) for name in names for case in cases.split(",")]
    columns = "plain, ms", "recorded, ms", "with fsync, ms"
    total = {column: sum(float(row[column]) for row in rows) for column in columns}
    rows.append({"framework": "all", "case": "", **total})
    for row in rows:
        row["ratio"] = float(row["recorded, ms"]) / float(row["plain, ms"])
        row["ratio with fsync"] = float(row["with fsync, ms"]) / float(row["plain, ms"])
    remark = (
        "Milliseconds of a whole run in both precisions, without and with recording. Target: at most 1.3 times. "
        f"Medians of {rounds} rounds in turns."
    )
    show("What recording costs", rows, [remark], save_as="tracecost" if save else None)


def measured(framework: str, case: str, rounds: int) -> Row:
    """A row of the table: medians in milliseconds."""
    job = prepare(CASES[case], None, None, None)
    pair = pair_up(job, framework)
    start: Rows = {precision: pair.start.astype(precision) for precision in PRECISIONS}
    contenders: dict[str, Callable[[Path], None]] = {
        "plain, ms": lambda folder: plain(pair.candidate, job),
        "recorded, ms": lambda folder: recorded(pair.candidate, job, folder),
        "with fsync, ms": lambda folder: recorded(pair.candidate, job, folder, fsync=os.fsync),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counts in [False, *[True] * rounds]:
        for name, run in contenders.items():
            pair.candidate.restart(start, 0)
            with tempfile.TemporaryDirectory() as scratch:
                began = time.perf_counter()
                run(Path(scratch) / "trace")
                spent = time.perf_counter() - began
            if counts:
                seconds[name].append(spent)
    return {"framework": framework, "case": case, **{name: 1e3 * median(of) for name, of in seconds.items()}}


def plain(side: Side, job: Job) -> None:
    for chunk in chunks(side.case, job.data):
        _ = side.advance(chunk)


def recorded(side: Side, job: Job, folder: Path, fsync: Callable[[int], None] = lambda descriptor: None) -> None:
    fields = {"name": side.name, "framework": side.name, "data": "0" * 32, "seed": 0, "steps": side.case.steps}
    with mock.patch("harness.trace.writing.os.fsync", fsync), Writer(folder) as writer:
        for chunk in chunks(side.case, job.data):
            before = side.states
            write_chunk(writer, chunk, before, side.advance(chunk), FULL)
        writer.finish(environment={}, **fields)


if __name__ == "__main__":
    main()
