"""Wrong input from Python: one line that says what, where and what is allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.case import SGD, Batching, Case, HarnessError, Linear, Node
from harness.cases import CASES
from harness.checking import check_case, check_data, check_parameters, choose
from harness.data import Data, toy
from harness.investigating import prepare

CASE = CASES["toy-animals"]
DATA = toy()


def with_rate(rate: float) -> Case:
    assert isinstance(CASE.optimizer, SGD)
    return replace(CASE, optimizer=replace(CASE.optimizer, learning_rate=rate))


WRONG_CASES = {
    "negative rate": (with_rate(-0.1), r"optimizer.*learning_rate.*greater than or equal to 0 \(is -0\.1\)"),
    "rate not a number": (with_rate(float("nan")), r"learning_rate.*greater than or equal to 0"),
    "empty batch": (replace(CASE, batching=Batching(size=0)), r"batching\.size.*greater than 0 \(is 0\)"),
    "no steps": (replace(CASE, steps=0), r"steps.*greater than 0"),
    "no nodes": (replace(CASE, nodes=()), r"nodes.*at least 1"),
    "text for a number": (replace(CASE, steps="many"), r"steps.*valid integer \(is 'many'\)"),  # type: ignore[arg-type]
    "a leak from outside": (replace(CASE, float32_constants=("momentum",)), "float32_constants"),
}


@pytest.mark.parametrize("wrong", WRONG_CASES)
def test_a_wrong_case_is_refused(wrong: str) -> None:
    case, words = WRONG_CASES[wrong]
    with pytest.raises(HarnessError, match=words) as error:
        _ = check_case(case)
    assert "\n" not in str(error.value)


def test_all_mistakes_come_in_one_go() -> None:
    with pytest.raises(HarnessError, match=r"steps.*seed"):
        _ = check_case(replace(CASE, steps=0, seed=-1))


@pytest.mark.parametrize("name", CASES)
def test_named_cases_are_right(name: str) -> None:
    assert check_case(CASES[name]) == CASES[name]


def changed(**arrays: np.ndarray) -> Data:
    return replace(DATA, **arrays)


def holed(x: np.ndarray, value: float) -> np.ndarray:
    y = x.copy()
    y[2, 1] = value
    return y


WRONG_DATA = {
    "nan": (changed(x=holed(DATA.x, np.nan)), r"x of toy holds nan at \(2, 1\)"),
    "infinity": (changed(x_test=holed(DATA.x, np.inf)), r"x_test of toy holds inf at \(2, 1\)"),
    "no example": (changed(x=DATA.x[:0], y=DATA.y[:0]), "x of toy holds no example"),
    "fewer targets": (changed(y=DATA.y[:3]), "8 inputs but 3 targets"),
    "flat targets": (changed(y=DATA.y[:, 0]), r"targets of shape \(8,\).*need shape \(examples, 1\)"),
}


@pytest.mark.parametrize("wrong", WRONG_DATA)
def test_wrong_data_are_refused(wrong: str) -> None:
    data, words = WRONG_DATA[wrong]
    with pytest.raises(HarnessError, match=words):
        check_data(CASE, data)


def test_class_indices_must_fit_the_outputs() -> None:
    classes = CASES["digits-softmax"]
    inputs = np.zeros((8, 64))
    for labels in (np.full(8, 10), np.full(8, -1), np.zeros(8)):
        data = Data(x=inputs, y=labels, x_test=inputs, y_test=labels, task="classes")
        with pytest.raises(HarnessError, match="class indices below 10"):
            check_data(classes, data)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ((Node(name="a", op=Linear(), inputs=("nowhere",)),), "reads nowhere"),
        ((Node(name="a", op=Linear()), Node(name="a", op=Linear())), "a name of its own"),
        ((*CASE.nodes[:1], replace(CASE.nodes[2], parameters=("W1", "b1"))), "shared at shapes"),
        ((replace(CASE.nodes[0], parameters=("W1",)),), "needs 2 parameter names"),
    ],
)
def test_a_wrong_network_is_refused(nodes: tuple[Node, ...], words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        _ = prepare(replace(CASE, nodes=nodes), None, DATA, None)


def test_wrong_parameters_are_refused() -> None:
    arrays = {
        "W1": np.zeros((4, 3)),
        "b1": np.zeros(4),
        "W2": np.zeros((3, 4)),
        "b2": np.zeros(3),
        "W3": np.zeros((1, 3)),
    }
    with pytest.raises(HarnessError, match="no initial value for parameter b3"):
        check_parameters(CASE, DATA, arrays)
    with pytest.raises(HarnessError, match=r"b3 has shape \(2,\), needs \(1,\)"):
        check_parameters(CASE, DATA, {**arrays, "b3": np.zeros(2)})
    with pytest.raises(HarnessError, match="b3 is not finite"):
        check_parameters(CASE, DATA, {**arrays, "b3": np.array([np.nan])})


def test_unknown_data_set() -> None:
    with pytest.raises(HarnessError, match="unknown data set 'toi'; did you mean toy"):
        _ = prepare(replace(CASE, data="toi"), None, None, None)


def test_choose() -> None:
    assert choose("fruit", "pear", ["apple", "pear"]) == "pear"
    with pytest.raises(HarnessError, match=r"unknown fruit 'peer'; did you mean pear\?"):
        _ = choose("fruit", "peer", ["apple", "pear"])
    with pytest.raises(HarnessError, match="known: apple, pear"):
        _ = choose("fruit", "zzz", ["apple", "pear"])
