"""The pytest plugin, by running pytest on generated files: exit code and text, of what passes and what does not."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import pytest

import frameworks as registry
from tests.plugin_sessions import Imports, session
from tests.plugin_sessions import imports as imports

MODELS = """
import numpy as np
import torch
from torch import nn

X = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)

def net(epsilon=1e-5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12, eps=epsilon), nn.ReLU(), nn.Linear(12, 3))
"""

SUITE = """
import unittest
import numpy as np
import pytest
import harness
from models import X, net

def test_same():
    harness.assert_equivalent(net(), net(), X)

def test_other():
    harness.assert_equivalent(net(), net(1e-3), X)

def test_no_comparison():
    pass

def test_raises():
    with pytest.raises(AssertionError):
        harness.assert_equivalent(net(), net(1e-3), X)

@pytest.fixture
def compared():
    harness.assert_equivalent(net(), net(1e-3), X)

def test_setup(compared):
    pass

class TestClass:
    @pytest.mark.parametrize("epsilon", [1e-5, 1e-4])
    def test_method(self, epsilon):
        harness.assert_equivalent(net(), net(epsilon), X)

class TestCase(unittest.TestCase):
    def test_same(self):
        harness.assert_equivalent(net(), net(), X)

    def test_other(self):
        harness.assert_equivalent(net(), net(1e-3), X)

    def test_subtests(self):
        for epsilon in (1e-5, 1e-3):
            with self.subTest(epsilon=epsilon):
                harness.assert_equivalent(net(), net(epsilon), X)

    def test_gradient(self):
        harness.assert_gradient((np.sin, lambda v, x: -v * np.cos(x)), np.ones(3))
"""

SUMMARY = {
    "11 compared: 4 identical, 6 different, 1 gradient fail",
    "different: test_suite.py::test_other: forward:1 at step 0, layernorm-eps (proven)",
    "different: test_suite.py::test_raises: forward:1 at step 0, layernorm-eps (proven); the test passed all the same",
    "different: test_suite.py::test_setup: forward:1 at step 0, layernorm-eps (proven)",
    "different: test_suite.py::TestClass::test_method[0.0001]: forward:1 at step 0, layernorm-eps (proven)",
    "different: test_suite.py::TestCase::test_other: forward:1 at step 0, layernorm-eps (proven)",
    "different: test_suite.py::TestCase::test_subtests: forward:1 at step 0, layernorm-eps (proven)",
    "gradient fail: test_suite.py::TestCase::test_gradient: input 0 [0], output 0, sign",
}

needs_torch = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    _ = pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config")
    _ = pytester.makepyfile(models=MODELS, test_suite=SUITE)
    return pytester


@needs_torch
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_session_shows_all_that_was_found(suite: pytest.Pytester, imports: Imports, workers: tuple[str, ...]) -> None:
    """In functions, fixtures, classes, parameters, unittest and subtests, with xdist and without: the same words."""
    run = suite.runpytest_subprocess if workers else partial(session, suite, imports)
    done = run(*workers, "--junitxml=junit.xml", "--gradparity-report=pages")
    done.assert_outcomes(passed=6, failed=5, errors=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "E*AssertionError: different: pytorch (reference) and pytorch (candidate)*",
            "E*first divergence: forward:1 at step 0",
            "E*Mismatched elements: 192 / 192 (100.0%)",
            "E*Greatest absolute difference: 0.0108 at index (2, 4) (rounding explains *)",
            "E*cause proven: layernorm-eps: LayerNorm.epsilon 1e-05 in *, 0.001 in *",
            "E*page: */pages/test_suite-test_other-*/report.html",
        ],
        consecutive=False,
    )
    text = done.stdout.str()
    written = text.partition(" gradparity ==")[2].partition("=== short test summary")[0].splitlines()[1:-1]
    assert written[-1].endswith("pages/index.html")
    assert set(written[:-1]) == SUMMARY
    assert len(written[:-1]) == len(SUMMARY)
    _check_pages(suite.path / "pages")
    _check_junit(suite.path / "junit.xml")


def _check_pages(folder: Path) -> None:
    """A page for each failed comparison, all of them in the index."""
    runs = sorted(path.parent.name for path in folder.glob("*/report.html"))
    assert [name.rpartition("-")[0] for name in runs] == [
        "test_suite-TestCase-test_other",
        "test_suite-TestCase-test_subtests",
        "test_suite-TestClass-test_method-0.0001",
        "test_suite-test_other",
        "test_suite-test_raises",
        "test_suite-test_setup",
    ]
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}/report.html"' in index for name in runs)
    assert "layernorm-eps" in (folder / runs[0] / "report.html").read_text(encoding="utf-8")


def _check_junit(path: Path) -> None:
    properties = {
        case.get("name"): {each.get("name"): each.get("value") for each in case.iter("property")}
        for case in ET.parse(path).iter("testcase")
        if case.get("classname") == "test_suite"
    }
    assert properties["test_same"] == {"gradparity.verdict": "identical"}
    assert properties["test_other"] == {
        "gradparity.verdict": "different",
        "gradparity.first_divergence": "forward:1 at step 0",
        "gradparity.cause": "layernorm-eps (proven)",
    }
    assert properties["test_no_comparison"] == {}


@needs_torch
def test_without_the_plugin_assertions_raise_all_the_same(suite: pytest.Pytester) -> None:
    done = suite.runpytest_subprocess("-p", "no:gradparity")
    done.assert_outcomes(passed=6, failed=5, errors=1)
    assert "= gradparity =" not in done.stdout.str()
    assert "[[waiver]]" not in done.stdout.str()
    done.stdout.fnmatch_lines(["E*AssertionError: different: *", "E*cause proven: layernorm-eps: *"])


@needs_torch
def test_a_failure_can_be_looked_into(suite: pytest.Pytester, imports: Imports) -> None:
    """The line that gets the page, as it is printed, gets it."""
    done = session(suite, imports, "test_suite.py::TestClass::test_method")
    line = next(line for line in done.outlines if "page: pytest" in line)
    assert line.endswith(
        "page: pytest 'test_suite.py::TestClass::test_method[0.0001]' --gradparity-report=DIR writes one"
    )
    done = session(suite, imports, "test_suite.py::TestClass::test_method[0.0001]", "--gradparity-report=DIR")
    done.assert_outcomes(failed=1)
    assert len(list((suite.path / "DIR").glob("*/report.html"))) == 1


def test_a_report_folder_that_cannot_be_written_is_an_error(pytester: pytest.Pytester, imports: Imports) -> None:
    _ = pytester.makepyfile("def test_nothing(): pass")
    _ = (pytester.path / "taken").write_text("")
    done = session(pytester, imports, "--gradparity-report=taken")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --gradparity-report taken is a file; name a folder"])


HEAVY = {"numpy", "pandas", "pydantic", "torch", "tensorflow", "keras", "jax", "pyarrow", "matplotlib"}


def test_an_empty_session_imports_nothing_heavy(pytester: pytest.Pytester, imports: Imports) -> None:
    """Nor does one whose tests compare nothing."""
    _ = pytester.makepyfile("def test_nothing(): pass")
    script = "import sys, pytest; code = pytest.main(['-q']); print('loaded', code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=pytester.path)
    _, code, *modules = next(line for line in done.stdout.splitlines() if line.startswith("loaded")).split()
    assert code == "0"
    assert "harness.plugin" in modules
    assert not set(modules) & HEAVY
    assert "gradparity" not in done.stdout.partition("loaded")[0]
