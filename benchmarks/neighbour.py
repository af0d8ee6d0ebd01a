"""A run beside a busy neighbour: python -m benchmarks.neighbour.

The neighbour multiplies matrices in as many threads as it likes. Quiet and disturbed runs take turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import click

from benchmarks.startup import timed
from benchmarks.tables import Row, median, show
from harness.cli import SETTINGS

SPIN = "import numpy as np; a = np.ones((1000, 1000)); print('spinning', flush=True)\nwhile True: a @ a"


@click.command(help=__doc__)
@click.option("--frameworks", default="pytorch,tensorflow", show_default=True)
@click.option("--steps", type=int, help="Updates of each case, instead of its own number.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-neighbour.md too.")
def main(frameworks: str, steps: int | None, rounds: int, save: bool) -> None:
    quiet, disturbed = [], []
    with tempfile.TemporaryDirectory() as scratch:
        run = ["-m", "harness.cli", "run", "--frameworks", frameworks, "--out", f"{scratch}/run"]
        run += ["--steps", str(steps)] if steps else []
        _ = timed(run)  # warms the file cache
        for _ in range(rounds):
            quiet.append(timed(run))
            with neighbour():
                disturbed.append(timed(run))
    ratio = median(disturbed) / median(quiet)
    row: Row = {"quiet, s": median(quiet), "beside a neighbour, s": median(disturbed), "times as long": ratio}
    remark = (
        f"`gradparity run --frameworks {frameworks}`, medians of {rounds} runs each. Target: at most 3 times as long."
    )
    show("A run beside a busy neighbour", [row], [remark], save_as="neighbour" if save else None)


@contextmanager
def neighbour() -> Iterator[None]:
    """A process that multiplies matrices with default settings until the block ends."""
    theirs = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    process = subprocess.Popen([sys.executable, "-c", SPIN], env=theirs, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        _ = process.stdout.readline()  # it has begun
        yield
    finally:
        process.kill()
        _ = process.communicate()


if __name__ == "__main__":
    main()
