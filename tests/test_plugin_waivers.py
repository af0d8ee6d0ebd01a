"""Waivers cover what they say and nothing else: no worse difference, no other place or cause, and not for longer."""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import frameworks as registry
import harness
from harness.cases import CASES
from harness.plugin.discrepancy import Discrepancy, discrepancies
from harness.plugin.waivers import Waiver, needless, proposed, read, rule
from harness.trace import Run, diff
from tests.plugin_sessions import Imports, session
from tests.plugin_sessions import imports as imports

TODAY = datetime.date.today()
TOMORROW, YESTERDAY = (TODAY + datetime.timedelta(days=n) for n in (1, -1))

needs_torch = pytest.mark.skipif("pytorch" not in registry.installed(), reason=registry.pip_line("pytorch"))

FOUND = Discrepancy(quantity="forward:1", causes=("layernorm-eps",), size=0.01, step=0)


def waiver(**changes: Any) -> Waiver:
    fields: dict[str, Any] = {
        "test": "test_suite.py::test_other",
        "quantity": ["forward:1"],
        "cause": "layernorm-eps",
        "reason": "until the port is done",
        "bound": 0.01,
        "expires": TODAY,
    }
    return Waiver(**{**fields, **changes})


def test_a_waiver_that_says_it_all_covers() -> None:
    ruling = rule([FOUND], [waiver()])
    assert ruling.open == ()
    assert [quantity for _, quantity in ruling.used] == ["forward:1"]


@pytest.mark.parametrize(
    ("found", "given", "why"),
    [
        ({"size": 0.0101}, {}, "its bound is 0.01 of the largest element, this is 0.0101"),
        ({"size": math.inf}, {}, "its bound is 0.01 of the largest element, this is inf"),
        ({}, {"bound": math.inf}, "its bound inf is for what has no finite size, this is 0.01 of the largest element"),
        ({"causes": ("flatten-order",)}, {}, "it is for layernorm-eps, this is flatten-order"),
        ({"causes": ("unknown",)}, {}, "it is for layernorm-eps, this is unknown"),
        ({}, {"cause": "unknown"}, "it is for unknown, this is layernorm-eps"),
        ({}, {"expires": YESTERDAY}, f"it expired after {YESTERDAY} (until the port is done)"),
        ({"quantity": "forward:10"}, {}, ""),
        ({"quantity": "gradient:1"}, {}, ""),
        ({"quantity": "run"}, {}, ""),
    ],
)
def test_nothing_else_is_covered(found: dict[str, Any], given: dict[str, Any], why: str) -> None:
    ruling = rule([replace(FOUND, **found)], [waiver(**given)])
    assert len(ruling.open) == 1
    assert ruling.used == ()
    assert ruling.why == ((f"the waiver of forward:1 does not hold: {why}",) if why else ())


def test_infinite_sizes_can_be_waived_by_an_infinite_bound_alone() -> None:
    assert rule([replace(FOUND, size=math.inf)], [waiver(bound=math.inf)]).open == ()


def test_two_differences_need_two_waivers() -> None:
    second = replace(FOUND, quantity="forward:4")
    assert rule([FOUND, second], [waiver()]).open == (second,)
    assert rule([FOUND, second], [waiver(), waiver(quantity=["forward:4"])]).open == ()
    assert rule([FOUND, replace(FOUND, causes=("dropout-rate",))], [waiver()]).open != ()


def test_what_was_not_needed_is_named() -> None:
    both = waiver(quantity=["forward:1", "forward:4"])
    said = "no difference at forward:4 any more: take it out of the waiver for layernorm-eps (until the port is done)"
    assert needless([both], rule([FOUND], [both]).used) == [said]
    assert len(needless([both], ())) == 2
    twice = [waiver(), waiver()]
    assert len(needless(twice, rule([FOUND], twice).used)) == 1


def test_the_proposed_waiver_covers_once_a_reason_is_written(tmp_path: Any) -> None:
    names = ['forward:"a\\b"', "forward:ä\n"]
    found = [replace(FOUND, quantity=name, size=size) for name, size in zip(names, (0.012345, 0.0), strict=True)]
    found.append(replace(FOUND, causes=("nonfinite",), size=math.inf))
    text = proposed("test_x.py::test_y[a-\\b]", found)
    path = tmp_path / "waivers.toml"
    _ = path.write_text(text, encoding="utf-8")
    with pytest.raises(pytest.UsageError, match="waiver 1: reason: string should have at least 1 character"):
        _ = read(path)
    _ = path.write_text(text.replace('reason = ""', 'reason = "known"'), encoding="utf-8")
    waivers = read(path)
    assert rule(found, waivers).open == ()
    assert needless(waivers, rule(found, waivers).used) == []
    assert {w.test for w in waivers} == {"test_x.py::test_y[a-\\b]"}
    assert tomllib.loads(text)["waiver"][0]["bound"] == 0.013


WRONG = {
    "no TOML": ("[[waiver", "Expected"),
    "unknown table": ("[waivers]", "waivers: unexpected keyword argument"),
    "unknown field": ("{valid}size = 1", "waiver 1: size: unexpected keyword argument"),
    "missing field": ("[[waiver]]\ntest = 'a'", "waiver 1: quantity: field required; waiver 1: cause: field required"),
    "no list": ("{valid}", "waiver 1: quantity: input should be a valid list"),
    "no date": ("{valid}", "waiver 1: expires: input should be a valid date"),
    "bound 0": ("{valid}", "waiver 1: bound: input should be greater than 0"),
    "bound nan": ("{valid}", "waiver 1: bound: input should be greater than 0"),
}
VALID = """
[[waiver]]
test = "test_suite.py::test_other"
quantity = ["forward:1"]
cause = "layernorm-eps"
reason = "known"
bound = 0.01
expires = 2999-01-01
"""
CHANGED = {
    "no list": ('["forward:1"]', '"forward:1"'),
    "no date": ("2999-01-01", "true"),
    "bound 0": ("0.01", "0.0"),
    "bound nan": ("0.01", "nan"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_stops_the_session_with_one_line(pytester: pytest.Pytester, wrong: str) -> None:
    _ = pytest.importorskip("pydantic")  # else it is loaded in there, and then forgotten with the session
    text, said = WRONG[wrong]
    _ = pytester.makepyfile("def test_nothing(): pass")
    content = text.replace("{valid}", VALID.replace(*CHANGED.get(wrong, ("", ""))))
    _ = (pytester.path / "gradparity-waivers.toml").write_text(content)
    done = pytester.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in done.errlines if line]
    assert len(lines) == 1
    assert lines[0].startswith("ERROR: gradparity-waivers.toml: ")
    assert said in lines[0]


def test_a_file_that_is_named_must_be_there(pytester: pytest.Pytester) -> None:
    _ = pytester.makeini("[pytest]\ngradparity_waivers = known.toml")
    done = pytester.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: cannot read */known.toml: No such file or directory; write it or take out *"])


MODELS = """
import numpy as np
import torch
from torch import nn

X = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
DICE = np.random.default_rng(1)

def net(epsilon=1e-5, factor=1.0, noisy=False):
    class Last(nn.Linear):
        def forward(self, input):
            noise = torch.tensor(DICE.random(3) * 1e-3, dtype=input.dtype) if noisy else 0.0
            return super().forward(input) * factor + noise

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12, eps=epsilon), nn.ReLU(), Last(12, 3))
"""


@pytest.fixture(scope="module")
def made() -> Callable[..., harness.Comparison]:
    """The models of the generated suites."""
    space: dict[str, Any] = {}
    exec(MODELS, space)

    def compared(epsilon: float = 1e-5, factor: float = 1.0, noisy: bool = False) -> harness.Comparison:
        return harness.compare(space["net"](noisy=noisy), space["net"](epsilon, factor, noisy), space["X"])

    return compared


@needs_torch
def test_every_own_error_must_be_answered_for(made: Callable[..., harness.Comparison]) -> None:
    """A second error behind a first one, in the same comparison."""
    one = {d.quantity: d for d in discrepancies(made(1e-3))}
    assert set(one) == {"forward:1", "gradient:1.weight", "gradient:0.weight"}
    assert all(d.causes == ("layernorm-eps",) for d in one.values())
    assert one["forward:1"].size == pytest.approx(0.0108 / 2.76, rel=0.01)
    two = {d.quantity: d for d in discrepancies(made(1e-3, 1.001))}
    assert "forward:3/mul" in two
    assert "layernorm-eps" not in two["forward:3/mul"].causes
    larger = {d.quantity: d for d in discrepancies(made(1e-1))}
    assert larger["forward:1"].size > 20 * one["forward:1"].size
    assert discrepancies(made()) == []


@needs_torch
def test_what_is_undecided_or_not_finite_must_be_answered_for(made: Callable[..., harness.Comparison]) -> None:
    result = made(noisy=True)
    assert result.verdict == "undecided"
    (found,) = discrepancies(result)
    assert (found.quantity, found.causes) == ("run", ("nondeterministic",))
    nan = discrepancies(made(factor=math.nan))
    assert any(math.isinf(d.size) for d in nan)
    assert not any(math.isnan(d.size) for d in nan)


def test_what_differs_between_traces_is_waived_by_its_cause() -> None:
    case = replace(CASES["tutorial-adam"], steps=3)
    told = discrepancies(diff(Run(case=case, conventions="torch"), Run(case=case, conventions="keras")))
    found = [discrepancy for discrepancy in told if discrepancy.causes != ("one precision",)]
    assert len(found) > 10
    quantities = [discrepancy.quantity for discrepancy in found]
    for cause, covered in (("adam-epsilon", True), ("adam-epsilon-placement", True), ("batchnorm-eps", False)):
        ruling = rule(found, [waiver(quantity=quantities, cause=cause, bound=1e9)])
        assert (ruling.open == ()) is covered
    assert rule(found, [waiver(quantity=quantities, cause="adam-epsilon", bound=1e-15)]).open


def test_a_difference_without_an_own_error_is_not_lost() -> None:
    """Rows of the frame stand for themselves where nothing was found to differ by itself."""
    pd = pytest.importorskip("pandas")
    row = {"step": 3, "kind": "parameter", "name": "w", "d32": 1.0, "d64": 1.0, "reference": 2.0, "candidate": 4.0}
    rows = [{**row, "verdict": "different", "because": ""}, {**row, "kind": "slot", "verdict": "different"}]
    result: Any = type("Found", (), {"frame": pd.DataFrame(rows), "own": (), "causes": ()})
    assert discrepancies(result) == [Discrepancy(quantity="w", causes=("unknown",), size=0.25, step=3)]


SUITE = """
import pytest
import threading
import unittest
import harness
from models import X, net

def test_waived():
    harness.assert_equivalent(net(), net(1e-3), X)

def test_thread():
    errors = []

    def compare():
        try:
            harness.assert_equivalent(net(), net(1e-3), X)
        except AssertionError as error:
            errors.append(error)

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join()
    assert not errors

def test_worse():
    harness.assert_equivalent(net(), net(1e-1), X)

def test_another():
    harness.assert_equivalent(net(), net(1e-3, 1.001), X)

def test_expired():
    harness.assert_equivalent(net(), net(1e-3), X)

def test_gone():
    harness.assert_equivalent(net(), net(), X)

def test_undecided():
    harness.assert_equivalent(net(noisy=True), net(noisy=True), X)

@pytest.mark.skip
def test_skipped():
    pass

class TestCase(unittest.TestCase):
    def test_waived(self):
        harness.assert_equivalent(net(), net(1e-3), X)

    def test_gone(self):
        harness.assert_equivalent(net(), net(), X)
"""


def entry(test: str, **changes: Any) -> str:
    fields = {
        "quantity": ["forward:1", "gradient:1.weight", "gradient:0.weight"],
        "cause": "layernorm-eps",
        "bound": 0.0068,
        "expires": TOMORROW,
        **changes,
    }
    lines = [f"{name} = {value!r}" if name != "expires" else f"{name} = {value}" for name, value in fields.items()]
    return "\n".join(["[[waiver]]", f'test = "test_suite.py::{test}"', f'reason = "because of {test}"', *lines, ""])


@needs_torch
@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadgroup")], ids=["alone", "xdist"])
def test_in_a_session(pytester: pytest.Pytester, imports: Imports, workers: tuple[str, ...]) -> None:
    entries = [
        *(
            entry(test)
            for test in ("test_waived", "test_thread", "test_worse", "test_another", "test_gone", "test_skipped")
        ),
        entry("test_expired", expires=YESTERDAY),
        entry("test_undecided", quantity=["run"], cause="nondeterministic", bound=1.0),
        entry("test_no_more"),
        *(entry(test) for test in ("TestCase::test_waived", "TestCase::test_gone")),
    ]
    _ = pytester.makepyfile(models=MODELS, test_suite=SUITE)
    _ = (pytester.path / "gradparity-waivers.toml").write_text("\n".join(entries))
    run = pytester.runpytest_subprocess if workers else partial(session, pytester, imports)
    done = run(*workers)
    done.assert_outcomes(passed=4, failed=6, skipped=1)
    lines = done.outlines
    assert [line for line in sorted(lines) if line.startswith("waived: test_suite")] == [
        f"waived: test_suite.py::{test}: {found}; until {TOMORROW}: because of {test}"
        for test, found in (
            ("TestCase::test_waived", "forward:1 at step 0, layernorm-eps (proven)"),
            ("test_thread", "forward:1 at step 0, layernorm-eps (proven)"),
            ("test_undecided", "run at step 0, nondeterministic"),
            ("test_waived", "forward:1 at step 0, layernorm-eps (proven)"),
        )
    ]
    done.stdout.fnmatch_lines_random(
        [
            "E*does not hold: its bound is 0.0068 of the largest element, this is 0.*",
            "E*waived: forward:1, gradient:1.weight, gradient:0.weight; not waived: forward:3/mul*",
            f"E*does not hold: it expired after {YESTERDAY} (because of test_expired)",
            "no difference at forward:1 any more: take it out of the waiver for layernorm-eps (because of test_gone)",
            "no difference at forward:1 any more: * (because of TestCase::test_gone)",
            "there is no test test_suite.py::test_no_more to be waived (because of test_no_more); take the waiver out*",
        ]
    )


@needs_torch
def test_a_part_of_a_session_leaves_other_waivers_alone(pytester: pytest.Pytester, imports: Imports) -> None:
    _ = pytester.makepyfile(models=MODELS, test_suite=SUITE, test_other="def test_nothing(): pass")
    _ = (pytester.path / "gradparity-waivers.toml").write_text(entry("test_waived") + entry("test_no_more"))
    for chosen in (["test_other.py"], ["test_suite.py::test_waived"], ["-k", "test_nothing"]):
        assert session(pytester, imports, *chosen).ret == pytest.ExitCode.OK, chosen


def test_a_waiver_of_a_file_that_is_gone_fails(pytester: pytest.Pytester) -> None:
    _ = pytester.makepyfile("def test_nothing(): pass")
    _ = (pytester.path / "gradparity-waivers.toml").write_text(entry("test_waived"))
    done = pytester.runpytest_inprocess()
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["there is no test test_suite.py::test_waived to be waived (because of test_waived); *"])
