from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import check_op, few, planted

from harness import ops
from reference.kinds import apply
from reference.resizing import interpolation


def resize(size: tuple[int, ...], lengths: tuple[int, ...], **changes: Any) -> ops.Resize:
    settings: dict[str, Any] = {
        "size": size,
        "step": tuple(length / n for n, length in zip(size, lengths, strict=True)),
        "grid": "half_pixel",
        "interpolation": "linear",
        "cubic_a": -0.75,
        "nearest_rounding": "floor",
        "antialias": False,
        "border": "clamp",
    }
    return ops.Resize(**{**settings, **changes})


@few
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([(3, 9), (10, 4), (1, 6), (5, 5)]),
    grid=st.sampled_from(["half_pixel", "align_corners", "asymmetric"]),
    how=st.sampled_from(["nearest", "linear", "cubic"]),
    rounding=st.sampled_from(["floor", "round"]),
    antialias=st.booleans(),
    border=st.sampled_from(["clamp", "renormalise"]),
)
def test_resizing(seed: int, size: tuple[int, int], grid: str, how: str, rounding: str, antialias: bool, border: str):
    op = resize(
        size,
        (5, 6),
        grid=grid,
        interpolation=how,
        nearest_rounding=rounding,
        antialias=antialias,
        border=border,
    )
    x = np.random.default_rng(seed).normal(size=(2, 3, 5, 6))
    check_op(op, [x])
    for axis, length in enumerate((5, 6)):
        np.testing.assert_allclose(interpolation(op, axis, length).sum(axis=1), 1, rtol=1e-14)


def line(op: ops.Resize, *values: float) -> list[float]:
    return apply(op, [np.array(values, float).reshape(1, 1, -1)], [])[0, 0].tolist()


def test_grids() -> None:
    twice = resize((4,), (2,))
    assert line(twice, 0, 1) == [0, 0.25, 0.75, 1]
    assert line(replace(twice, grid="align_corners"), 0, 3) == pytest.approx([0, 1, 2, 3])
    assert line(replace(twice, grid="asymmetric"), 0, 1) == [0, 0.5, 1, 1]


def test_nearest_rounding() -> None:
    op = resize((2,), (5,), grid="asymmetric", interpolation="nearest")
    assert line(op, 0, 1, 2, 3, 4) == [0, 2]  # u = 0, 2.5
    assert line(replace(op, nearest_rounding="round"), 0, 1, 2, 3, 4) == [0, 3]
    assert line(replace(op, grid="half_pixel", nearest_rounding="round"), 0, 1, 2, 3, 4) == [1, 3]


def test_antialias_averages_what_is_skipped() -> None:
    op = resize((1,), (4,), border="renormalise")
    assert line(op, 0, 1, 2, 7) == [1.5]
    assert line(replace(op, antialias=True), 0, 1, 2, 7) == pytest.approx([(0 * 5 + 1 * 7 + 2 * 7 + 7 * 5) / 24])


def test_a_linear_image_stays_one_inside() -> None:
    x = np.arange(8.0)
    for op in (resize((20,), (8,)), resize((20,), (8,), interpolation="cubic", cubic_a=-0.5)):
        y = np.array(line(op, *x))
        inner = slice(4, -4)
        u = (np.arange(20) + 0.5) * 0.4 - 0.5
        np.testing.assert_allclose(y[inner], u[inner], rtol=1e-13)


def test_a_gradient_resized_the_wrong_way_is_found() -> None:
    op = resize((3, 9), (5, 6))
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [np.random.default_rng(0).normal(size=(1, 1, 5, 6))], back=planted(0, lambda dx: dx[..., ::-1]))
