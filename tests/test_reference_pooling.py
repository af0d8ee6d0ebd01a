import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, distinct, few

from harness import ops
from harness.ops_shapes import Tie
from reference import pooling
from reference.kinds import apply, pull_back

seeds = st.integers(0, 10**6)
Widths = tuple[tuple[int, int], ...]


def maximum(**changes: Any) -> ops.MaxPool:
    settings: dict[str, Any] = {
        "size": (2, 2),
        "stride": (2, 2),
        "dilation": (1, 1),
        "padding": ((0, 0), (0, 0)),
        "padding_value": -math.inf,
        "ceil_mode": False,
        "tie": "first",
    }
    return ops.MaxPool(**{**settings, **changes})


def average(**changes: Any) -> ops.AveragePool:
    settings: dict[str, Any] = {
        "size": (2, 2),
        "stride": (2, 2),
        "padding": ((0, 0), (0, 0)),
        "ceil_mode": False,
        "count_include_pad": False,
        "divisor": None,
    }
    return ops.AveragePool(**{**settings, **changes})


@few
@given(seed=seeds, rank=st.integers(1, 3), ceil=st.booleans(), value=st.sampled_from([-math.inf, 0.0]), data=st.data())
def test_max_pool(seed: int, rank: int, ceil: bool, value: float, data: st.DataObject) -> None:
    size = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    op = maximum(
        size=size,
        stride=tuple(data.draw(st.integers(1, 3)) for _ in range(rank)),
        dilation=tuple(data.draw(st.integers(1, 2)) for _ in range(rank)),
        padding=tuple((data.draw(st.integers(0, k // 2)), data.draw(st.integers(0, k // 2))) for k in size),
        padding_value=value,
        ceil_mode=ceil,
    )
    check_op(op, [distinct(np.random.default_rng(seed), (2, 2, *(5, 6, 5)[:rank]))])


@few
@given(seed=seeds, rank=st.integers(1, 3), ceil=st.booleans(), include=st.booleans(), data=st.data())
def test_average_pool(seed: int, rank: int, ceil: bool, include: bool, data: st.DataObject) -> None:
    size = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    op = average(
        size=size,
        stride=tuple(data.draw(st.integers(1, 3)) for _ in range(rank)),
        padding=tuple((data.draw(st.integers(0, k // 2)), data.draw(st.integers(0, k // 2))) for k in size),
        ceil_mode=ceil,
        count_include_pad=include,
        divisor=data.draw(st.sampled_from([None, 3])),
    )
    check_op(op, [np.random.default_rng(seed).normal(size=(2, 2, *(5, 6, 5)[:rank]))])


@few
@given(seed=seeds, ceil=st.booleans(), power=st.sampled_from([1.0, 2.0, 3.0, 2.5]))
def test_lp_pool(seed: int, ceil: bool, power: float) -> None:
    x = np.random.default_rng(seed).uniform(0.3, 1.5, (2, 2, 5, 6))
    check_op(ops.LpPool(power=power, size=(2, 3), stride=(2, 2), ceil_mode=ceil), [x])


@few
@given(seed=seeds, kind=st.sampled_from(["mean", "max"]), size=st.sampled_from([(1, 1), (3, 2), (4, None), (7, 8)]))
def test_adaptive_pool(seed: int, kind: str, size: tuple[int | None, ...]) -> None:
    op = ops.AdaptivePool(kind=kind, size=size, tie="first")  # type: ignore[arg-type]
    check_op(op, [distinct(np.random.default_rng(seed), (2, 2, 5, 6))])


# --- what the fields say ----------------------------------------------------------------------------------------

RAMP = np.arange(1.0, 6.0).reshape(1, 1, 5)


def along(op: Any) -> list[float]:
    return apply(op, [RAMP], [])[0, 0].tolist()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1.5, 3.5]),
        ({"ceil_mode": True}, [1.5, 3.5, 5.0]),
        ({"padding": ((1, 1),)}, [1.0, 2.5, 4.5]),
        ({"padding": ((1, 1),), "count_include_pad": True}, [0.5, 2.5, 4.5]),
        ({"padding": ((0, 1),), "count_include_pad": True}, [1.5, 3.5, 2.5]),
        ({"size": (3,), "ceil_mode": True, "count_include_pad": True}, [2.0, 4.0]),
        ({"divisor": 4}, [0.75, 1.75]),
    ],
)
def test_what_an_average_is_divided_by(changes: dict[str, Any], expected: list[float]) -> None:
    op = average(**{"size": (2,), "stride": (2,), "padding": ((0, 0),), **changes})
    assert along(op) == expected


def test_a_window_that_begins_in_the_high_padding_is_none() -> None:
    op = average(size=(2,), stride=(3,), padding=((1, 1),), ceil_mode=True, count_include_pad=True)
    assert len(along(op)) == 2  # room for three by the formula, but the third begins at place 6 of 1 + 5


def test_padding_value_of_a_maximum() -> None:
    op: dict[str, Any] = {"size": (2,), "stride": (2,), "dilation": (1,), "padding": ((1, 0),)}
    x = [-RAMP]
    assert apply(maximum(**op), x, [])[0, 0].tolist() == [-1, -2, -4]
    assert apply(maximum(**op, padding_value=0.0), x, [])[0, 0].tolist() == [0, -2, -4]


@pytest.mark.parametrize(
    ("tie", "expected"),
    [("first", [1, 0, 0, 0]), ("last", [0, 0, 0, 1]), ("split", [1 / 3, 0, 1 / 3, 1 / 3]), ("each", [1, 0, 1, 1])],
)
def test_ties_of_a_window(tie: Tie, expected: list[float]) -> None:
    x = np.array([[[[2.0, 1], [2, 2]]]])
    for op in (maximum(tie=tie), ops.AdaptivePool(kind="max", size=(1, 1), tie=tie)):
        (dx,), _ = pull_back(op, np.ones((1, 1, 1, 1)), apply(op, [x], []), [x], [])
        assert dx is not None
        np.testing.assert_allclose(dx.ravel(), expected, rtol=1e-15)


# --- planted ----------------------------------------------------------------------------------------------------

real_tied = pooling.tied


@pytest.mark.parametrize("op", [maximum(), average(padding=((1, 0), (0, 1)), ceil_mode=True)])
def test_an_off_by_one_window_is_found(monkeypatch: pytest.MonkeyPatch, op: Any) -> None:
    x = distinct(np.random.default_rng(0), (1, 2, 5, 6))

    def back(op: Any, dy: Array, y: Array, inputs: Any, parameters: Any) -> Any:
        with monkeypatch.context() as patch:
            if isinstance(op, ops.MaxPool):
                patch.setattr(
                    pooling, "tied", lambda best, dy, axes, tie: np.roll(real_tied(best, dy, axes, tie), 1, 0)
                )
            else:
                patch.setattr(pooling, "_count", lambda *_: np.ones((1, 1, 1, 1)) * 4)
            return pull_back(op, dy, y, inputs, parameters)

    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [x], back=back)
