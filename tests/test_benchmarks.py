"""Each benchmark's command runs on a tiny setting and prints its table; how fast things are, the full runs say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import frameworks as registry

ROOT = Path(__file__).parent.parent
TINY = {
    "reference": ("benchmarks.steps", "--reference", "--steps", "3", "--rounds", "1"),
    "recording": ("benchmarks.steps", "--recording", "--simple", "--batches", "2", "--steps", "3", "--rounds", "1"),
    "startup": ("benchmarks.startup", "--steps", "2", "--rounds", "1"),
    "portcost": ("benchmarks.portcost", "--only", "perceptron torch torch", "--steps", "2", "--rounds", "1"),
    "tracecost": ("benchmarks.tracecost", "--cases", "toy-animals", "--rounds", "1"),
    "pluginstart": ("benchmarks.pluginstart", "--rounds", "1"),
}


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_prints_its_table(name: str) -> None:
    if registry.versions("pytorch")["torch"] is None:
        pytest.skip(registry.pip_line("pytorch"))
    chosen = () if name in ("reference", "portcost", "pluginstart") else ("--frameworks", "pytorch")
    command = [sys.executable, "-m", *TINY[name], *chosen]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "|" in done.stdout
    assert "Medians of 1 " in done.stdout
