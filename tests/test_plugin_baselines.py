"""The fixture gradparity_baseline: a missing one fails and is written, a change is found, only asking replaces it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import frameworks as registry
from harness.plugin.witness import file_name
from tests.plugin_sessions import Imports, session
from tests.plugin_sessions import imports as imports

NAME = registry.installed()[-1] if registry.installed() else ""
"""One that starts fast."""

pytestmark = pytest.mark.skipif(not NAME, reason=f"no framework is installed; run: {registry.pip_line('jax')}")

SUITE = f"""
import pytest
import harness
from harness.trace import Run

CASE = harness.CASES["toy-animals"]

@pytest.mark.gradparity_framework({NAME!r})
def test_run(gradparity_baseline, gradparity_framework):
    gradparity_baseline(Run(case=CASE, framework=gradparity_framework), steps=3)

class TestClass:
    @pytest.mark.parametrize("name", ["../../c", "../../C"], ids=str)
    def test_reference(self, gradparity_baseline, name):
        gradparity_baseline(CASE, steps=2)
        gradparity_baseline(CASE, steps=3)
"""

TESTS = 3

PLANTED = f"""
import importlib
import frameworks

native = importlib.import_module(frameworks.FRAMEWORKS[{NAME!r}].module)
plain = native.start

class Wrong:
    def __init__(self, stepper):
        self.stepper = stepper

    def load(self, state, step):
        self.stepper.load(state, step)

    def run(self, x, y, rows):
        self.stepper.run(x, y, rows)
        rows *= 1 + 1e-6

native.start = lambda case, precision: Wrong(plain(case, precision))

def pytest_unconfigure():
    native.start = plain
"""


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_from_the_first_run_to_a_change_that_is_meant(pytester: pytest.Pytester, imports: Imports) -> None:
    _ = pytester.makepyfile(test_suite=SUITE)
    folder = pytester.path / "test_suite"

    first = session(pytester, imports)
    first.assert_outcomes(failed=TESTS)
    first.stdout.fnmatch_lines([f"there was no baseline, now there is: look at it, and add {folder}/test_run-*"])
    assert len(list(folder.iterdir())) == 3, "the second call of a test is not reached"
    _ = session(pytester, imports)
    assert len(list(folder.iterdir())) == 5
    assert {path.parent for path in pytester.path.rglob("header.json")} == set(folder.iterdir()), "nothing elsewhere"

    stored = contents(folder)
    second = session(pytester, imports, "--gradparity-regen")
    second.assert_outcomes(passed=TESTS)
    second.stdout.fnmatch_lines(["5 compared: 5 identical"])
    assert contents(folder) == stored, "nothing has changed"

    _ = pytester.makeconftest(PLANTED)
    third = session(pytester, imports)
    third.assert_outcomes(passed=TESTS - 1, failed=1)
    third.stdout.fnmatch_lines(
        [
            "E*AssertionError: different: the baseline and now, 3 steps, * quantities compared",
            "E*first divergence: z1 at step 0",
            "E*Mismatched elements: *",
            f"E*baseline: {folder}/test_run-*",
            f"E*if that is meant: pytest 'test_suite.py::test_run[[]{NAME}[]]' --gradparity-regen",
        ]
    )
    assert contents(folder) == stored, "a failure replaces nothing"

    fourth = session(pytester, imports, "--gradparity-regen")
    fourth.assert_outcomes(passed=TESTS - 1, failed=1)
    fourth.stdout.fnmatch_lines(["E*different: the baseline and now*", "E*the baseline was replaced"])
    changed = {
        path.parent.name.split("-")[0] for path in folder.rglob("header.json") if stored[path] != path.read_bytes()
    }
    assert changed == {"test_run"}
    pytester.runpytest_subprocess("-n", "1").assert_outcomes(passed=TESTS)


def test_file_names_are_safe_and_each_its_own() -> None:
    tests = [
        "test_x[a/b]",
        "test_x[a:b]",
        "test_x[A/B]",
        "test_x[../../c]",
        "test_x[ä]",
        "test_x[]",
        "ä",
        "." * 90 + "/x",
        "x" * 300,
        "y" + "x" * 300,
    ]
    names = [file_name(test) for test in tests]
    assert len({name.lower() for name in names}) == len(tests)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{,99}", name) for name in names)


def test_a_baseline_that_is_damaged_or_of_another_case_is_said(pytester: pytest.Pytester, imports: Imports) -> None:
    _ = pytester.makepyfile(test_suite=SUITE.replace("toy-animals", "tutorial-batch"))
    _ = session(pytester, imports, "-k", "test_run")
    _ = pytester.makepyfile(test_suite=SUITE)
    other = session(pytester, imports, "-k", "test_run")
    other.assert_outcomes(failed=1, deselected=TESTS - 1)
    other.stdout.fnmatch_lines(["E*HarnessError: these are traces of other cases, *"])
    other = session(pytester, imports, "-k", "test_run", "--gradparity-regen")
    other.stdout.fnmatch_lines(
        ["the baseline was replaced; it could not be compared: these are traces of other cases, *"]
    )
    (header,) = pytester.path.rglob("header.json")
    _ = header.write_text(header.read_text()[:-20])
    damaged = session(pytester, imports, "-k", "test_run")
    damaged.assert_outcomes(failed=1, deselected=TESTS - 1)
    damaged.stdout.fnmatch_lines(["E*HarnessError: */header.json *"])


def test_a_change_can_be_waived(pytester: pytest.Pytester, imports: Imports) -> None:
    """As proposed by the failure itself, with a reason."""
    _ = pytester.makepyfile(test_suite=SUITE)
    _ = session(pytester, imports, "-k", "test_run")
    _ = pytester.makeconftest(PLANTED)
    lines = session(pytester, imports, "-k", "test_run").outlines
    start = lines.index("[[waiver]]")
    proposal = "\n".join(lines[start : start + 7])
    _ = (pytester.path / "gradparity-waivers.toml").write_text(proposal.replace('reason = ""', 'reason = "meant"'))
    done = session(pytester, imports, "-k", "test_run")
    done.assert_outcomes(passed=1, deselected=TESTS - 1)
    done.stdout.fnmatch_lines(["waived: test_suite.py::test_run*: z1 at step 0; until *: meant"])
