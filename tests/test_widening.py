"""Decimals that were typed are told from numbers that were computed, and those are moved by what float32 rounds."""

from __future__ import annotations

import numpy as np
import pytest

from harness.widening import moved, typed

RNG = np.random.default_rng(0)

SHORT = [0.485, -0.456, 1e-6, 255.0, 0.0, 123456.0, 9.99999, 7.7e-12, -1e9, 0.1, 3e-8]


def test_decimals_come_back_as_typed() -> None:
    assert typed(np.array(SHORT, np.float32)).tolist() == SHORT
    for number in SHORT:
        assert typed(np.array([number], np.float32)).tolist() == [number]


@pytest.mark.parametrize("number", [1 / 3, 0.4850005, 14.285714285714286, 1e-30, 3.4028235e38])
def test_an_array_with_one_number_of_more_digits_stays_as_it_is(number: float) -> None:
    values = np.array([*SHORT, number], np.float32)
    assert (typed(values) == values).all()
    assert typed(values).dtype == np.float64


def test_a_single_number_is_its_shortest_decimal() -> None:
    assert typed(np.array(0.4850005, np.float32)) == 0.4850005
    assert typed(np.array(1 / 3, np.float32)) == 0.33333334


def test_infinities_and_nan_stay() -> None:
    values = np.array([np.inf, -np.inf, 0.1, np.nan], np.float32)
    assert np.array_equal(typed(values), [np.inf, -np.inf, 0.1, np.nan], equal_nan=True)
    values[2] = 1 / 3
    assert np.array_equal(moved(0)(values)[[0, 1, 3]], [np.inf, -np.inf, np.nan], equal_nan=True)


def test_what_was_not_typed_moves_by_half_a_unit_of_its_last_place() -> None:
    values = RNG.standard_normal((100, 100)).astype(np.float32)
    apart = moved(0)(values) - values
    assert (np.abs(apart) == np.spacing(np.abs(values)) / 2).all()
    assert 0.45 < (apart > 0).mean() < 0.55
    assert (moved(0)(values) != moved(1)(values)).any()
    assert (np.abs(moved(0, of_largest=True)(values) - values) == np.spacing(np.abs(values).max()) / 2).all()


def test_what_was_typed_does_not_move() -> None:
    assert moved(0)(np.array(SHORT, np.float32)).tolist() == SHORT


def test_nothing_is_no_number() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert typed(empty).shape == moved(0)(empty).shape == moved(0, of_largest=True)(empty).shape == (0, 3)
