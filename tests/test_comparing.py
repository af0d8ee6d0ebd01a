"""A step's tensors, however they lie in memory and are cut up, measure what the formulas say."""

from __future__ import annotations

import numpy as np
import pytest

from harness.comparing import BLOCK_NUMBERS, Measures, Parts, compare_tensors, together
from harness.layout import Layout, Quantity

NAMES = ("size_reference", "size_candidate", "d32", "d64", "noise_reference", "noise_candidate")
LARGE = (40, 50, 60)
assert np.prod(LARGE) > 1.5 * BLOCK_NUMBERS


def measured(tensors: list[list[Parts]]) -> Measures:
    quantities = [
        Quantity(name=str(i), kind="activation", tensor=str(i), shape=tensor[0][0].shape, start=0, batched=False)
        for i, tensor in enumerate(tensor for tensor in tensors for _ in tensor[0])
    ]
    nothing = slice(0, 0)
    layout = Layout(
        quantities=tuple(quantities),
        parameter_shapes={},
        activation_shapes={},
        gradients=nothing,
        parameters=nothing,
        state=nothing,
        updates=nothing,
        recorded=0,
        size=0,
    )
    return together(layout, list(compare_tensors(tensors)))


def four_of(shape: tuple[int, ...], seed: int = 0, order: tuple[int, ...] | None = None) -> list[np.ndarray]:
    """Reference and candidate in both precisions; the candidate's axes lie in memory in this order."""
    rng = np.random.default_rng(seed)
    exact = rng.standard_normal(shape)
    other = exact + 1e-9 * rng.standard_normal(shape)
    four = [exact.astype(np.float32), exact, other.astype(np.float32), other]
    if order:
        back = np.argsort(order)
        four[2:] = [np.ascontiguousarray(values.transpose(order)).transpose(back) for values in four[2:]]
    return four


def assert_formulas(measures: Measures, i: int, four: list[np.ndarray]) -> None:
    r32, r64, c32, c64 = four
    wanted = [abs(r64), abs(c64), abs(r32 - c32), abs(r64 - c64), abs(r32 - r64), abs(c32 - c64)]
    for name, values in zip(NAMES, wanted, strict=True):
        assert getattr(measures, name)[0, i] == values.max(initial=0), name
    assert measures.same[0, i] == ((r32 == c32).all() and (r64 == c64).all())


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (7, 5), LARGE, (200_000,), (1, 70_000), (2, 3, 5, 7, 11)])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_tensor_of_any_shape_and_layout(shape: tuple[int, ...], is_reversed: bool) -> None:
    four = four_of(shape, order=tuple(reversed(range(len(shape)))) if is_reversed else None)
    assert_formulas(measured([[(values,) for values in four]]), 0, four)


def test_small_and_large_ones_keep_their_order() -> None:
    shapes = [(3,), (4, 4), LARGE, (2, 2), (0,), (), (100, 100), *[(120, 130)] * 6]
    fours = [four_of(shape, seed) for seed, shape in enumerate(shapes)]
    measures = measured([[(values,) for values in four] for four in fours])
    for i, four in enumerate(fours):
        assert_formulas(measures, i, four)


@pytest.mark.parametrize("shape", [(7, 5), LARGE])
def test_of_two_their_difference_and_the_first(shape: tuple[int, ...]) -> None:
    order = tuple(reversed(range(len(shape))))
    after, before = four_of(shape, 0, order), four_of(shape, 1, order)
    measures = measured([list(zip(after, before, strict=True))])
    assert_formulas(measures, 0, [now - was for now, was in zip(after, before, strict=True)])
    assert_formulas(measures, 1, after)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("where", [0, -1])
def test_one_wrong_element_is_found(size: int, where: int) -> None:
    four = [np.ones(size, dtype) for dtype in (np.float32, np.float64) * 2]
    four[3][where] += 1e-12
    measures = measured([[(values,) for values in four]])
    assert measures.d64[0, 0] == four[3][where] - 1
    assert not measures.same[0, 0]


@pytest.mark.parametrize("size", [10, 100_000])
def test_nan_on_one_side_wins_and_equal_masks_are_no_difference(size: int) -> None:
    four = [np.ones(size, dtype) for dtype in (np.float32, np.float64) * 2]
    for values in four:
        values[0] = -np.inf
    masked = measured([[(values,) for values in four]])
    assert (masked.d64[0, 0], masked.size_reference[0, 0], masked.void[0, 0]) == (0, 1, False)
    four[3][-1] = np.nan
    assert np.isnan(measured([[(values,) for values in four]]).d64[0, 0])


def test_integers_are_measured_beside_floats() -> None:
    four = four_of((5,))
    counts = [np.array([3, 4]), np.array([3, 4]), np.array([3, 4]), np.array([3, 6])]
    measures = measured([[(values,) for values in some] for some in (four, counts, four)])
    assert measures.d64[0, 1] == 2
    assert_formulas(measures, 2, four)
