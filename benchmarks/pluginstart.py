"""What the pytest plugin adds to a session: one that holds no test, and one whose test compares nothing.

python -m benchmarks.pluginstart. Whole processes, with the plugin and without it in turn, in a warm file cache. Times
are the processor's, and what is added is the median of the pairs' differences. The target is 20 ms.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.tables import Row, median, show

SESSIONS = {"no test": "", "one test": "def test_nothing():\n    pass\n"}


@click.command(help=__doc__)
@click.option("--rounds", default=20, show_default=True)
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-pluginstart.md too.")
def main(rounds: int, save: bool) -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, source in SESSIONS.items():
            _ = (folder / "test_session.py").write_text(source, encoding="utf-8")
            pairs = [(took(folder, "no:gradparity"), took(folder, "gradparity")) for _ in range(rounds + 1)][1:]
            without, with_it = (median(each) for each in zip(*pairs, strict=True))
            rows.append(
                {
                    "session": name,
                    "without, ms": 1e3 * without,
                    "with, ms": 1e3 * with_it,
                    "added, ms": 1e3 * median(b - a for a, b in pairs),
                }
            )
    remark = f"Medians of {rounds} pairs of processes. Target: at most 20 ms added."
    show("What the plugin adds to a session of pytest", rows, [remark], save_as="pluginstart" if save else None)


def took(folder: Path, plugin: str) -> float:
    """Seconds of the processor for a whole session; one without a test ends with 5."""
    began = _of_children()
    ended = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", plugin], cwd=folder, capture_output=True)
    seconds = _of_children() - began
    if ended.returncode not in (0, 5):
        raise click.ClickException(f"pytest ended with {ended.returncode}:\n{ended.stdout.decode()}")
    return seconds


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
