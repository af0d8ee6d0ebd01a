"""The README's tables of default differences are what the readers say of the installed frameworks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
_ = pytest.importorskip("jax")

from benchmarks import defaults  # noqa: E402 (what comes before may skip the whole file)


def test_the_readme_says_what_the_readers_say() -> None:
    readme = defaults.README.read_text(encoding="utf-8")
    assert defaults.rewritten(readme, defaults.section()) == readme, "run: python -m benchmarks.defaults --write"


def test_a_default_that_changes_is_another_table(monkeypatch: pytest.MonkeyPatch) -> None:
    adam = keras.optimizers.Adam
    found: list[Any] = []
    for epsilon in (1e-7, 1e-8):
        changed = {"Adam": (torch.optim.Adam, partial(adam, epsilon=epsilon))}
        monkeypatch.setattr(defaults, "OPTIMIZERS", changed)
        parts = defaults.optimizer_parts()["Adam"]
        found.append([(of.field, of.values["keras"], of.cause) for of in defaults.differences(parts, alone=True)])
    assert ("epsilon", "1e-07", "`adam-epsilon`") in found[0]
    assert [row for row in found[0] if row[0] != "epsilon"] == found[1]


def test_only_what_stands_between_the_marks_is_written() -> None:
    readme = f"before\n{defaults.BEGIN}old\n{defaults.END}behind\n"
    assert defaults.rewritten(readme, "new\\1\n") == f"before\n{defaults.BEGIN}new\\1\n{defaults.END}behind\n"
