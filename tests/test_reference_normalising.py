from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, few

from harness import ops
from reference import normalising
from reference.kinds import apply, pull_back
from reference.normalising import moved

seeds = st.integers(0, 10**6)
placements = st.sampled_from(["inside", "outside", "max"])


def batch(**changes: Any) -> ops.BatchNorm:
    settings: dict[str, Any] = {
        "axis": 1,
        "training": True,
        "epsilon": 1e-3,
        "momentum": 0.9,
        "moving_variance": "biased",
        "tracks": True,
        "scale": False,
        "offset": False,
        "masked": False,
        "mask_epsilon": 0.0,
    }
    return ops.BatchNorm(**{**settings, **changes})


def layer(**changes: Any) -> ops.LayerNorm:
    settings: dict[str, Any] = {
        "axes": (-1,),
        "center": True,
        "ddof": 0,
        "epsilon": 1e-3,
        "epsilon_placement": "inside",
        "scale": False,
        "offset": False,
    }
    return ops.LayerNorm(**{**settings, **changes})


def weights(rng: np.random.Generator, shape: tuple[int, ...], *present: bool) -> list[Array]:
    return [rng.uniform(0.5, 1.5, shape) for given in present if given]


@few
@given(
    seed=seeds,
    training=st.booleans(),
    scale=st.booleans(),
    offset=st.booleans(),
    masked=st.booleans(),
    shape=st.sampled_from([(6, 3), (4, 3, 5), (2, 3, 3, 2)]),
    last=st.booleans(),
)
def test_batch_norm(
    seed: int, training: bool, scale: bool, offset: bool, masked: bool, shape: tuple[int, ...], last: bool
) -> None:
    rng = np.random.default_rng(seed)
    axis = len(shape) - 1 if last or masked else 1
    op = batch(axis=axis, training=training, scale=scale, offset=offset, masked=masked, mask_epsilon=0.01)
    mask = rng.random(shape[:-1]) < 0.6
    mask[0] = True
    parameters = [*weights(rng, (shape[axis],), scale, offset), *weights(rng, (shape[axis],), True, True)]
    inputs = [rng.normal(size=shape), mask][: 1 + masked]
    buffers = [len(inputs) + len(parameters) - 2, len(inputs) + len(parameters) - 1]
    check_op(op, inputs, parameters, constant=buffers, step=0.01)


def test_batch_norm_by_hand() -> None:
    x = np.array([[1.0, 10], [3, 10], [5, 40]])
    mean, variance = np.array([3.0, 20]), np.array([8 / 3, 200.0])
    trained = apply(batch(), [x], [np.zeros(2), np.ones(2)])
    np.testing.assert_allclose(trained, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-14)
    used = apply(batch(training=False), [x], [np.array([1.0, 2]), np.array([4.0, 9])])
    np.testing.assert_allclose(used, (x - [1, 2]) / np.sqrt(np.array([4, 9]) + 1e-3), rtol=1e-14)


@pytest.mark.parametrize(
    ("changes", "batches", "mean", "variance"),
    [
        ({}, 0, 0.9 * 1 + 0.1 * 3, 0.9 * 2 + 0.1 * 8 / 3),
        ({"moving_variance": "unbiased"}, 0, 0.9 * 1 + 0.1 * 3, 0.9 * 2 + 0.1 * 4),
        ({"momentum": 0.1}, 0, 0.1 * 1 + 0.9 * 3, 0.1 * 2 + 0.9 * 8 / 3),
        ({"momentum": None}, 0, 3, 8 / 3),
        ({"momentum": None}, 3, 0.75 * 1 + 0.25 * 3, 0.75 * 2 + 0.25 * 8 / 3),
        ({"tracks": False}, 0, 1, 2),
        ({"training": False}, 0, 1, 2),
    ],
)
def test_moving_statistics(changes: dict[str, Any], batches: int, mean: float, variance: float) -> None:
    x = np.array([[1.0], [3], [5]])
    m, v = moved(batch(**changes), x, np.array([1.0]), np.array([2.0]), batches)
    np.testing.assert_allclose([m[0], v[0]], [mean, variance], rtol=1e-14)


def test_moving_statistics_of_a_masked_batch_leave_out_the_rest() -> None:
    x, mask = np.array([[[1.0], [3], [5], [99]]]), np.array([[True, True, True, False]])
    op = batch(axis=2, masked=True, moving_variance="unbiased", momentum=0.0)
    m, v = moved(op, x, np.zeros(1), np.ones(1), 0, mask)
    np.testing.assert_allclose([m[0], v[0]], [3, 4], rtol=1e-14)


@few
@given(
    seed=seeds,
    axes=st.sampled_from([(-1,), (1,), (1, 2), (-2, -1)]),
    center=st.booleans(),
    ddof=st.sampled_from([0, 1]),
    placement=placements,
    scale=st.booleans(),
    offset=st.booleans(),
)
def test_layer_norm(
    seed: int, axes: tuple[int, ...], center: bool, ddof: int, placement: str, scale: bool, offset: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 4, 5))
    shape = tuple(n if axis in axes or axis - 3 in axes else 1 for axis, n in enumerate(x.shape))
    op = layer(
        axes=axes, center=center, ddof=ddof, epsilon=0.01, epsilon_placement=placement, scale=scale, offset=offset
    )
    check_op(op, [x], weights(rng, shape, scale, offset), step=0.01)


def test_layer_norm_by_hand() -> None:
    x = np.array([[1.0, 2, 6]])
    np.testing.assert_allclose(apply(layer(), [x], []), (x - 3) / np.sqrt(14 / 3 + 1e-3), rtol=1e-14)
    rms = apply(layer(center=False), [x], [])
    np.testing.assert_allclose(rms, x / np.sqrt(41 / 3 + 1e-3), rtol=1e-14)
    own = apply(layer(ddof=1, epsilon_placement="outside"), [x], [])
    np.testing.assert_allclose(own, (x - 3) / (np.sqrt(7) + 1e-3), rtol=1e-14)
    flat = apply(layer(epsilon_placement="max", epsilon=4.0), [x / 10], [])
    np.testing.assert_allclose(flat, (x / 10 - 0.3) / 2, rtol=1e-14)


def test_a_row_of_equal_numbers_gives_a_finite_gradient() -> None:
    x = np.full((1, 4), 2.0)
    for placement in ("inside", "outside", "max"):
        op = layer(epsilon_placement=placement)
        (dx,), _ = pull_back(op, np.array([[1.0, 0, 0, 0]]), apply(op, [x], []), [x], [])
        assert np.isfinite(dx).all()  # type: ignore[arg-type]


@few
@given(
    seed=seeds,
    groups=st.sampled_from([1, 2, 4]),
    order=st.sampled_from(["blocks", "interleaved"]),
    placement=placements,
    scale=st.booleans(),
    offset=st.booleans(),
)
def test_group_norm(seed: int, groups: int, order: str, placement: str, scale: bool, offset: bool) -> None:
    rng = np.random.default_rng(seed)
    op = ops.GroupNorm(
        groups=groups,
        group_order=order,  # type: ignore[arg-type]
        epsilon=0.01,
        epsilon_placement=placement,  # type: ignore[arg-type]
        scale=scale,
        offset=offset,
    )
    check_op(op, [rng.normal(size=(2, 4, 3, 2))], weights(rng, (4,), scale, offset), step=0.01)


def test_groups_are_blocks_or_interleaved() -> None:
    x = np.random.default_rng(0).normal(size=(1, 4, 3))
    settings: dict[str, Any] = {"epsilon": 0.0, "epsilon_placement": "inside", "scale": False, "offset": False}
    y = apply(ops.GroupNorm(groups=2, group_order="interleaved", **settings), [x], [])
    for channels in ([0, 2], [1, 3]):
        assert abs(y[0, channels].mean()) < 1e-15
        assert y[0, channels].var() == pytest.approx(1)


@few
@given(seed=seeds, below=st.integers(0, 3), above=st.integers(0, 3))
def test_response_norm(seed: int, below: int, above: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 5, 3))
    check_op(ops.ResponseNorm(below=below, above=above, alpha=0.3, beta=0.75, k=1.5), [x])


def test_response_norm_by_hand() -> None:
    x = np.array([[[1.0], [2], [3]]])
    y = apply(ops.ResponseNorm(below=1, above=0, alpha=0.5, beta=1.0, k=2.0), [x], [])
    np.testing.assert_allclose(y[0, :, 0], [1 / 2.5, 2 / 4.5, 3 / 8.5], rtol=1e-15)


@pytest.mark.parametrize(
    ("scaling", "active", "factor"),
    [
        ("kept", True, 4 / 3),
        ("none", True, 1),
        ("inference", True, 1),
        ("kept", False, 1),
        ("none", False, 1),
        ("inference", False, 0.75),
    ],
)
def test_dropout(scaling: Any, active: bool, factor: float) -> None:
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(4, 3)), rng.random((4, 1)) < 0.5
    op = ops.Dropout(rate=0.25, active=active, scaling=scaling)
    check_op(op, [x, mask][: 1 + active])
    y = apply(op, [x, mask][: 1 + active], [])
    np.testing.assert_allclose(y, factor * x * (mask if active else 1), rtol=1e-15)


# --- planted ----------------------------------------------------------------------------------------------------

real = normalising.standardised_backward


def without_the_variance(by: Any, g: Array, x: Array, m: Array, v: Array) -> Array:
    dd = g * normalising.inverse_root(by, v)[0]
    return dd - dd.mean(axis=by.axes, keepdims=True)


def without_the_mean(by: Any, g: Array, x: Array, m: Array, v: Array) -> Array:
    r, slope = normalising.inverse_root(by, v)
    return g * r + 2 * (x - m) / by.freedom * slope * (g * (x - m)).sum(axis=by.axes, keepdims=True)


def another_epsilon(by: Any, g: Array, x: Array, m: Array, v: Array) -> Array:
    return real(by, g, x, m, v + 1e-6)


@pytest.mark.parametrize("wrong", [without_the_variance, without_the_mean, another_epsilon])
@pytest.mark.parametrize("op", [layer(axes=(1, 2)), batch()])
def test_planted_mistakes_are_found(monkeypatch: pytest.MonkeyPatch, wrong: Any, op: Any) -> None:
    rng = np.random.default_rng(0)
    buffers = [np.zeros(3), np.ones(3)] if isinstance(op, ops.BatchNorm) else []
    monkeypatch.setattr(normalising, "standardised_backward", wrong)
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [rng.normal(size=(4, 3, 2))], buffers, constant=[1, 2], step=0.01)
