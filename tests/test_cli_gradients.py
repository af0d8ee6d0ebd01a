"""`gradparity check` on functions in a module of the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from frameworks import FRAMEWORKS
from harness.cli import main

MODULE = """
import numpy as np

def cube(x):
    return x * x * x

right = (np.sin, lambda v, x: v * np.cos(x))
wrong = (np.sin, lambda v, x: -v * np.cos(x))
noisy = (lambda x: x + np.random.default_rng().random(), lambda v, x: v)
"""
KINDS = [name for name, registered in FRAMEWORKS.items() if registered.functions]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"ops_{tmp_path.name.replace('-', '_')}"
    _ = (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    ("name", "code", "words"), [("right", 0, "pass"), ("wrong", 1, "sign"), ("noisy", 3, "repeat")]
)
def test_verdicts_and_exit_codes(module: str, name: str, code: int, words: str) -> None:
    done = CliRunner().invoke(main, ["check", f"{module}:{name}", "--shapes", "4x3"])
    assert (done.exit_code, words in done.output) == (code, True), done.output


def test_one_function_for_every_framework(module: str) -> None:
    done = CliRunner().invoke(main, ["check", f"{module}:cube", "--shapes", "3", "--frameworks", ",".join(KINDS)])
    assert done.exit_code == 0, done.output
    assert [line.split(":")[0] for line in done.output.splitlines() if ": pass" in line] == KINDS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["right", "--shapes", "4xx3"], "a shape is sizes joined by x"),
        (["absent", "--shapes", "4"], "name a function"),
        (["right", "--shapes", "4", "--frameworks", "torch"], "did you mean"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(module: str, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, ["check", f"{module}:{arguments[0]}", *arguments[1:]])
    assert done.exit_code == 2
    assert words in done.output
    assert len(done.output.splitlines()) == 1
