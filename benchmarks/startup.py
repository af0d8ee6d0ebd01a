"""A whole `gradparity run` beside importing its frameworks, which costs seconds that nobody can spare.

python -m benchmarks.startup [--breakdown]. Both are whole processes with the same settings and a warm file cache, and
take turns; times are medians.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.tables import Row, median, show
from frameworks import FRAMEWORKS, installed


@click.command(help=__doc__)
@click.option("--frameworks", help="Comma-separated; all installed ones by default.")
@click.option("--steps", type=int, help="Updates of each case, instead of its own number.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--breakdown", is_flag=True, help="Also run once with clocks inside.")
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-startup.md too.")
def main(frameworks: str | None, steps: int | None, rounds: int, breakdown: bool, save: bool) -> None:
    names = frameworks.split(",") if frameworks else installed()
    packages = dict.fromkeys(package for name in names for package in FRAMEWORKS[name].packages)
    with tempfile.TemporaryDirectory() as scratch:
        run = ["run", "--frameworks", ",".join(names), "--out", f"{scratch}/run"]
        run += ["--steps", str(steps)] if steps else []
        contenders = {
            "importing " + ", ".join(packages): ["-c", f"import {', '.join(packages)}"],
            "gradparity run": ["-m", "harness.cli", *run],
            "gradparity --help": ["-m", "harness.cli", "--help"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for counts in [False, *[True] * rounds]:
            for name, arguments in contenders.items():
                took = timed(arguments)
                if counts:
                    seconds[name].append(took)
        importing, *_ = (median(each) for each in seconds.values())
        rows: list[Row] = [
            {
                "process": name,
                "seconds, median": median(each),
                "fastest": min(each),
                "slowest": max(each),
                "times importing": median(each) / importing,
            }
            for name, each in seconds.items()
        ]
        remark = (
            f"Medians of {rounds} processes each. Targets: the run at most 2.0 times importing, --help below 0.15 s."
        )
        show("A whole run beside importing its frameworks", rows, [remark], save_as="startup" if save else None)
        if breakdown:
            inside = Path(scratch) / "inside.json"
            _ = timed(["-m", "benchmarks.inside", str(inside), *run])
            spent = json.loads(inside.read_text(encoding="utf-8"))
            parts: list[Row] = [
                {"part": part, "seconds": spent[part]} for part in sorted(spent, key=spent.get, reverse=True)
            ]
            parts.append({"part": "together", "seconds": sum(spent.values())})
            show("Inside one run", parts, save_as="startup-parts" if save else None)


def timed(arguments: Sequence[str]) -> float:
    """Seconds that a Python process takes, start to end; its output is dropped unless it fails."""
    began = time.perf_counter()
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if ended.returncode:
        raise click.ClickException(f"python {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stderr}")
    return took


if __name__ == "__main__":
    main()
