import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import check_op, distinct, few, planted
from reference_checks import away_from_zero

from harness import ops
from harness.ops_shapes import Tie
from reference.kinds import apply, pull_back

options: dict[str, Any] = {
    "seed": st.integers(0, 10**6),
    "axes": st.sampled_from([(0,), (1,), (-1,), (1, 2), (-1, 1), (0, 1, 2)]),
    "keep": st.booleans(),
}
Axes = tuple[int, ...]
SHAPE = (3, 4, 2)


@few
@given(kind=st.sampled_from(["sum", "mean"]), **options)
def test_sums(kind: str, seed: int, axes: Axes, keep: bool) -> None:
    rng = np.random.default_rng(seed)
    check_op(ops.Reduce(kind=kind, axes=axes, keep=keep, masked=False), [rng.normal(size=SHAPE)])  # type: ignore[arg-type]
    mask = rng.random((3, 4)) < 0.5
    mask[:, 0] = True
    mask[0] = True
    mask |= axes == (-1,)  # or there were means of nothing
    op = ops.Reduce(kind=kind, axes=axes, keep=keep, masked=True)  # type: ignore[arg-type]
    check_op(op, [rng.normal(size=SHAPE), mask])


def test_a_masked_mean_counts_what_the_mask_lets_through() -> None:
    x, mask = np.arange(6.0).reshape(1, 3, 2), np.array([[True, False, True]])
    op = ops.Reduce(kind="mean", axes=(1,), keep=False, masked=True)
    assert apply(op, [x, mask], []).tolist() == [[2, 3]]


@few
@given(kind=st.sampled_from(["max", "min"]), tie=st.sampled_from(["first", "last", "split", "each"]), **options)
def test_extremes(kind: str, tie: Tie, seed: int, axes: Axes, keep: bool) -> None:
    x = distinct(np.random.default_rng(seed), SHAPE)
    check_op(ops.Extremum(kind=kind, axes=axes, keep=keep, tie=tie), [x])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tie", "expected"),
    [("first", [1, 0, 0]), ("last", [0, 0, 1]), ("split", [0.5, 0, 0.5]), ("each", [1, 0, 1])],
)
def test_ties(tie: Tie, expected: list[float]) -> None:
    x = np.array([[4.0, 1, 4]])
    (dx,), _ = pull_back(ops.Extremum(kind="max", axes=(1,), keep=False, tie=tie), np.ones(1), np.full(1, 4.0), [x], [])
    assert dx is not None
    assert dx[0].tolist() == expected


@few
@given(kind=st.sampled_from(["variance", "standard_deviation"]), ddof=st.sampled_from([0, 1]), **options)
def test_deviations(kind: str, ddof: int, seed: int, axes: Axes, keep: bool) -> None:
    op = ops.Deviation(kind=kind, axes=axes, keep=keep, ddof=ddof, epsilon=0.1, slope_at_zero="zero")  # type: ignore[arg-type]
    x = np.random.default_rng(seed).normal(size=SHAPE)
    check_op(op, [x])
    v = np.var(x, axis=axes, ddof=ddof, keepdims=keep)
    np.testing.assert_allclose(apply(op, [x], []), v if kind == "variance" else np.sqrt(v + 0.1), rtol=1e-13)


@few
@given(power=st.sampled_from([1.0, 2.0, 3.0, 2.5, math.inf]), epsilon=st.sampled_from([0.0, 0.2]), **options)
def test_norms(power: float, epsilon: float, seed: int, axes: Axes, keep: bool) -> None:
    op = ops.Norm(power=power, axes=axes, keep=keep, epsilon=epsilon, slope_at_zero="zero")
    rng = np.random.default_rng(seed)
    check_op(op, [distinct(rng, SHAPE) if power == math.inf else away_from_zero(rng, SHAPE)])


@pytest.mark.parametrize(("at_zero", "expected"), [("zero", 0.0), ("nan", math.nan)])
def test_slopes_at_a_root_of_zero(at_zero: str, expected: float) -> None:
    x = np.full((1, 3), 0.0)
    norm = ops.Norm(power=2.0, axes=(1,), keep=False, epsilon=0.0, slope_at_zero=at_zero)  # type: ignore[arg-type]
    deviation = ops.Deviation(
        kind="standard_deviation",
        axes=(1,),
        keep=False,
        ddof=1,
        epsilon=0.0,
        slope_at_zero=at_zero,  # type: ignore[arg-type]
    )
    for op in (norm, deviation):
        (dx,), _ = pull_back(op, np.ones(1), apply(op, [x], []), [x], [])
        np.testing.assert_array_equal(dx, np.full((1, 3), expected))  # type: ignore[arg-type]


@few
@given(log=st.booleans(), **options)
def test_softmax_and_log_sum_exp(log: bool, seed: int, axes: Axes, keep: bool) -> None:
    z = np.random.default_rng(seed).normal(size=SHAPE)
    check_op(ops.SoftmaxOver(axes=axes, log=log), [z])
    check_op(ops.LogSumExp(axes=axes, keep=keep), [z])
    p = apply(ops.SoftmaxOver(axes=axes, log=False), [z], [])
    np.testing.assert_allclose(p.sum(axis=axes), 1, rtol=1e-14)


def test_exponentials_do_not_overflow() -> None:
    z = np.array([[-2000.0, 0, 2000]])
    assert apply(ops.LogSumExp(axes=(1,), keep=False), [z], []).tolist() == [2000]
    assert apply(ops.SoftmaxOver(axes=(1,), log=True), [z], []).tolist() == [[-4000, -2000, 0]]


@few
@given(
    placement=st.sampled_from(["max", "max_square", "inside", "outside"]),
    epsilon=st.sampled_from([0.0, 0.3, 50.0]),
    **options,
)
def test_unit_norm(placement: str, epsilon: float, seed: int, axes: Axes, keep: bool) -> None:
    op = ops.UnitNorm(axes=axes, epsilon=epsilon, epsilon_placement=placement)  # type: ignore[arg-type]
    check_op(op, [away_from_zero(np.random.default_rng(seed), SHAPE)], step=0.02)


def test_cumulative_sums() -> None:
    x = np.array([[1.0, 2, 4], [8, 16, 32]])
    op = ops.CumulativeSum(axis=1, reverse=False)
    assert apply(op, [x], []).tolist() == [[1, 3, 7], [8, 24, 56]]
    assert apply(replace(op, reverse=True), [x], []).tolist() == [[7, 6, 4], [56, 48, 32]]
    check_op(op, [x])
    check_op(replace(op, axis=0, reverse=True), [x])


def test_softmax_without_its_inner_product_is_found() -> None:
    z = np.random.default_rng(0).normal(size=(3, 4))
    op = ops.SoftmaxOver(axes=(1,), log=False)
    p = apply(op, [z], [])
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [z], back=lambda op, dy, y, *_: ((p * dy,), ()))


def test_a_mean_taken_for_a_sum_is_found() -> None:
    op = ops.Reduce(kind="mean", axes=(1,), keep=False, masked=False)
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [np.ones((2, 3))], back=planted(0, lambda dx: dx * 3))
