"""The README's section "In your tests": its example does what is shown, its waiver waives, its workflow can run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import frameworks as registry
from tests.plugin_sessions import Imports, session
from tests.plugin_sessions import imports as imports

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## In your tests\n")[2].partition("\n## ")[0]


def block(language: str) -> str:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    return next(text for found, text in blocks if found == language)


@pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))
def test_the_example_fails_as_shown_and_passes_waived(pytester: pytest.Pytester, imports: Imports) -> None:
    shown = block("").splitlines()
    _ = pytester.makepyfile(test_port=block("python"))
    count = 3 + len(registry.installed())
    absent = len(registry.FRAMEWORKS) - len(registry.installed())
    first = session(pytester, imports)
    first.assert_outcomes(passed=count - 2, failed=2, skipped=absent)
    told = [*(re.split(r" \(rounding|, \d\S+ ulp|; float64", line)[0] for line in shown[:8]), shown[-1]]
    first.stdout.fnmatch_lines([f"{line}*" for line in told])
    waiver = re.sub(r"expires = .*", "expires = 2999-01-01", block("toml"))
    _ = (pytester.path / "gradparity-waivers.toml").write_text(waiver)
    second = session(pytester, imports)
    second.assert_outcomes(passed=count, skipped=absent)
    second.stdout.fnmatch_lines(
        ["waived: test_port.py::test_port: forward:1 at step 0, *the port is to be trained again *"]
    )
    if not absent:
        assert shown[-2].replace("1 different", "1 waived") in second.outlines


def test_the_workflow_names_all_frameworks_and_options_that_are_there(pytester: pytest.Pytester) -> None:
    workflow = block("yaml")
    (names,) = re.findall(r"framework: \[(.*)\]", workflow)
    assert names.split(", ") == list(registry.FRAMEWORKS)
    options = re.findall(r"(--gradparity-\w+)=", workflow)
    assert len(options) == 2
    text = pytester.runpytest_inprocess("--help").stdout.str()
    assert all(option in text for option in options)
