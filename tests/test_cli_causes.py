"""`gradparity causes` and `gradparity why` as their users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import frameworks as registry
from harness.causes import TABLE
from tests.test_cli import gradparity


@pytest.fixture(scope="module")
def two() -> list[str]:
    """Two installed frameworks, the first."""
    if len(registry.installed()) < 2:
        pytest.skip("needs two frameworks")
    return registry.installed()[:2]


def test_causes_lists_the_table(tmp_path: Path) -> None:
    done = gradparity("causes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(" ") and line.strip()]
    assert shown[2:] == [*TABLE]  # behind the head and its rule
    assert next(cause.meaning for cause in TABLE.values()) in done.stdout
    assert "not proven by an edit: no edit: the step taken twice" in done.stdout


def test_causes_shows_all_of_a_row(tmp_path: Path) -> None:
    done = gradparity("causes", "learning-rate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "edits: optimizer.learning_rate" in done.stdout
    assert "same: optimizer-default-lr" in done.stdout
    assert "unproven" not in done.stdout


def test_causes_as_json(tmp_path: Path) -> None:
    rows = json.loads(gradparity("causes", "--json", cwd=tmp_path).stdout)
    assert [row["id"] for row in rows] == [*TABLE]
    row = json.loads(gradparity("causes", "adam-epsilon", "--json", cwd=tmp_path).stdout)
    assert row == rows[[*TABLE].index("adam-epsilon")]
    assert row["edits"] == [*TABLE["adam-epsilon"].edits]


def test_an_unknown_cause_is_refused_in_one_line(tmp_path: Path) -> None:
    done = gradparity("causes", "adam-epsilom", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "gradparity: unknown cause 'adam-epsilom'; did you mean adam-epsilon?\n"
    assert done.stdout == ""


PLANT = """
import frameworks
plain = frameworks.adapter
def adapter(name):
    module = plain(name)
    own = plain({own!r}).CONVENTIONS
    if name != {own!r}:
        module.CONVENTIONS = {{**own, "Adam": {{**own["Adam"], "epsilon": 1e-5}}}}
    return module
frameworks.adapter = adapter
"""


def test_why_names_the_convention_and_exits_1(two: list[str], tmp_path: Path) -> None:
    own, against = two
    arguments = ("why", "tutorial-adam", "--frameworks", own, "--against", against, "--steps", "3")
    done = gradparity(*arguments, cwd=tmp_path, code=PLANT.format(own=own))
    assert done.returncode == 1, done.stderr
    first, second, numbers, *_ = done.stdout.splitlines()
    assert first == f"different: tutorial-adam in {own} against {against}'s conventions, 3 steps"
    assert second.startswith("proven: adam-epsilon, first at update:W1, step 0: Adam.epsilon 1e-05 in ")
    assert numbers.startswith("  without this edit ")
    assert list(tmp_path.iterdir()) == []
    (found,) = json.loads(gradparity(*arguments, "--json", cwd=tmp_path, code=PLANT.format(own=own)).stdout)
    assert [(cause["id"], cause["status"]) for cause in found["causes"]] == [("adam-epsilon", "proven")]
    assert found["causes"][0]["before64"] > 1e5 * found["causes"][0]["after64"]


def test_why_says_that_nothing_differs_and_exits_0(two: list[str], tmp_path: Path) -> None:
    own, against = two
    done = gradparity("why", "tutorial-minibatch", "--frameworks", own, "--against", against, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"rounding: tutorial-minibatch in {own} against {against}'s conventions, 5 steps; ")
    assert "nothing differs beyond rounding" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("tutorial-adm", "did you mean tutorial-adam?"),
        ("tutorial-adam --frameworks ONE --against ONE", "name one other than --against"),
        ("tutorial-adam --frameworks ONE --against ONEE", "unknown framework"),
        ("tutorial-adam --frameworks ONE --steps 0", "is not in the range x>=1"),
    ],
)
def test_why_refuses_what_it_cannot_ask(two: list[str], tmp_path: Path, wrong: str, words: str) -> None:
    done = gradparity("why", *wrong.replace("ONE", two[0]).split(), cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""
