"""On which frameworks the plugin runs a test: option over environment variable over ini over what is installed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import frameworks as registry
from harness.plugin.selecting import VARIABLE

NAMES = list(registry.FRAMEWORKS)
FIRST, SECOND, *_, LAST = NAMES

SUITE = """
import pytest

def test_all(gradparity_framework):
    print("on", gradparity_framework)

class TestClass:
    @pytest.mark.parametrize("size", [1, 2])
    def test_method(self, gradparity_framework, size):
        pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite on a machine that has all frameworks, wherever it runs."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(registry, "installed", lambda: NAMES)
    _ = pytester.makepyfile(test_suite=SUITE)
    return pytester


def ran_on(done: pytest.RunResult) -> list[str]:
    return [line.partition("on ")[2] for line in done.outlines if line.startswith("on ")]


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-rA", "--strict-markers", *arguments)


def test_a_test_runs_on_every_framework_that_is_installed(suite: pytest.Pytester) -> None:
    done = run(suite)
    done.assert_outcomes(passed=3 * len(NAMES))
    assert ran_on(done) == NAMES
    done.stdout.fnmatch_lines([f"PASSED test_suite.py::test_all[[]{FIRST}[]]"])


def test_one_that_is_not_installed_is_skipped_and_says_how_to_install_it(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "installed", lambda: [FIRST])
    done = run(suite, "-k", "test_all")
    done.assert_outcomes(passed=1, skipped=len(NAMES) - 1, deselected=2 * len(NAMES))
    done.stdout.fnmatch_lines(
        [f"SKIPPED*: {LAST} is not installed; run: {registry.pip_line(LAST).replace('[', '[[]')}"]
    )
    done = run(suite, "-k", "test_all", f"--gradparity-frameworks={LAST}")
    done.assert_outcomes(skipped=1, deselected=2)


@pytest.mark.parametrize(
    ("option", "variable", "ini", "expected"),
    [
        ("", "", FIRST, [FIRST]),
        ("", SECOND, FIRST, [SECOND]),
        (LAST, SECOND, FIRST, [LAST]),
        (f"{LAST}, {FIRST},{LAST}", "", "", [LAST, FIRST]),
    ],
)
def test_option_over_variable_over_ini(
    suite: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    variable: str,
    ini: str,
    expected: Sequence[str],
) -> None:
    _ = suite.makeini(f"[pytest]\ngradparity_frameworks = {ini}")
    monkeypatch.setenv(VARIABLE, variable)
    done = run(suite, *([f"--gradparity-frameworks={option}"] if option else []))
    assert ran_on(done) == expected
    done.assert_outcomes(passed=3 * len(expected))


@pytest.mark.parametrize("where", ["--gradparity-frameworks", VARIABLE, "gradparity_frameworks"])
def test_an_unknown_name_is_refused_in_one_line(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    wrong = f"{FIRST},{LAST}x"
    if where == VARIABLE:
        monkeypatch.setenv(VARIABLE, wrong)
    if where == "gradparity_frameworks":
        _ = suite.makeini(f"[pytest]\ngradparity_frameworks = {wrong}")
    done = run(suite, *([f"{where}={wrong}"] if where.startswith("--") else []))
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    said = [line for line in done.errlines if line]
    assert said == [f"ERROR: unknown framework in {where} '{LAST}x'; did you mean {LAST}?"]


def test_a_marker_limits_a_test(suite: pytest.Pytester) -> None:
    _ = suite.makepyfile(
        test_suite=f"""
        import pytest

        @pytest.mark.gradparity_framework({FIRST!r}, {LAST!r})
        def test_two(gradparity_framework):
            print("on", gradparity_framework)
        """
    )
    assert ran_on(run(suite)) == [FIRST, LAST]
    assert ran_on(run(suite, f"--gradparity-frameworks={SECOND},{LAST}")) == [LAST]
    done = run(suite, f"--gradparity-frameworks={SECOND}")
    done.assert_outcomes(skipped=1)


def test_an_unknown_name_in_a_marker_is_an_error_of_that_file(suite: pytest.Pytester) -> None:
    _ = suite.makepyfile(
        test_suite=f"""
        import pytest

        @pytest.mark.gradparity_framework("{FIRST}x")
        def test_wrong(gradparity_framework):
            pass
        """
    )
    done = run(suite)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(
        [f"*unknown framework in pytest.mark.gradparity_framework '{FIRST}x'; did you mean {FIRST}?"]
    )


def test_options_and_fixture_are_documented(pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest_inprocess("--help").stdout
    shown.fnmatch_lines(["gradparity:*", "*--gradparity-frameworks=NAMES*", "*--gradparity-report=DIR*"])
    pytester.runpytest_inprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.gradparity_framework(?names): *"])
    pytester.runpytest_inprocess("--fixtures").stdout.fnmatch_lines(["gradparity_framework *"])
