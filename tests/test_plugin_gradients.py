"""Gradient checks are waived as comparisons are: what the waiver says and nothing else, and not for longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import harness
from harness.plugin.discrepancy import of_gradient
from tests.test_plugin_waivers import TOMORROW, YESTERDAY, entry

GRADIENTS = """
import harness
import numpy as np

X = np.random.default_rng(0).normal(size=(4, 3))

def tanh(factor):
    return np.tanh, lambda v, x: factor * v / np.cosh(x) ** 2

def test_waived():
    harness.assert_gradient(tanh(1.001), X)

def test_worse():
    harness.assert_gradient(tanh(1.1), X)

def test_another_kind():
    harness.assert_gradient(tanh(-1.0), X)

def test_another_input():
    harness.assert_gradient((lambda x, y: x * y, lambda v, x, y: (v * y, 1.001 * v * x)), X, X + 1)

def test_gone():
    harness.assert_gradient(tanh(1.0), X)

def test_expired():
    harness.assert_gradient(tanh(1.001), X)

def test_without_a_size():
    harness.assert_gradient((np.tanh, lambda v, x: v[0] / np.cosh(x[0]) ** 2), X)

def test_nothing_known():
    harness.assert_gradient(tanh(1.001), X)
"""


def test_gradients_are_waived_by_the_same_rules(pytester: pytest.Pytester) -> None:
    fields: dict[str, Any] = {"quantity": ["gradient of input 0"], "cause": "factor", "bound": 0.0011}
    known = ("test_waived", "test_worse", "test_another_kind", "test_another_input", "test_gone")
    entries = [entry(test, **fields) for test in known]
    entries.append(entry("test_expired", **fields, expires=YESTERDAY))
    entries.append(entry("test_without_a_size", quantity=["gradient"], cause="shape", bound=math.inf))
    _ = pytester.makepyfile(test_suite=GRADIENTS)
    _ = (pytester.path / "gradparity-waivers.toml").write_text("\n".join(entries))
    done = pytester.runpytest_inprocess()
    done.assert_outcomes(passed=2, failed=6)
    where, shape = "input 0 [3, 2], output 0", "the gradient of input 0 has shape (3,), the input (4, 3)"
    assert [line for line in done.outlines if line.startswith("waived: ")] == [
        f"waived: test_suite.py::test_waived: {where}, factor; until {TOMORROW}: because of test_waived",
        f"waived: test_suite.py::test_without_a_size: {shape}, shape; until {TOMORROW}: because of test_without_a_size",
    ]
    done.stdout.fnmatch_lines_random(
        [
            "E*the waiver of gradient of input 0 does not hold: its bound is 0.0011 of the gradient along *",
            "E*the waiver of gradient of input 0 does not hold: it is for factor, this is sign",
            f"E*does not hold: it expired after {YESTERDAY} (because of test_expired)",
            "no difference at gradient of input 0 any more: take it out of the waiver * (because of test_gone)",
            'quantity = ["gradient of input 1"]',
            "bound = 0.001*  # of the gradient along a direction",
        ]
    )


@pytest.mark.parametrize("factor", [1 + 1e-6, 1.001, 2.0, -1.0])
def test_the_size_of_a_wrong_gradient_is_what_it_is_wrong_by(factor: float) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    found = of_gradient(harness.check_gradient((np.tanh, lambda v, x: factor * v / np.cosh(x) ** 2), x))
    assert 0.1 * abs(factor - 1) < found.size <= 1.01 * abs(factor - 1)
