"""Several numbers at once: found where there are some, and nothing made up where there are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.fitting import fitted

X = np.random.default_rng(0).standard_normal(200)


def adam_like(numbers: Sequence[float]) -> list[np.ndarray]:
    rate, epsilon = numbers
    return [rate * X / (np.abs(X) + epsilon), np.zeros((0,))]


def test_a_rate_and_an_epsilon() -> None:
    assert (0.02, 0.003) in fitted(adam_like, adam_like([0.02, 0.003]), [0.01, 1e-7])


def test_a_search_that_fails_finds_nothing_or_nothing_that_fits() -> None:
    wanted = [np.sin(X), np.zeros((0,))]
    found = fitted(adam_like, wanted, [0.01, 1e-7])
    assert all(np.abs(adam_like(numbers)[0] - wanted[0]).max() > 0.1 for numbers in found)
    assert fitted(adam_like, wanted, [np.nan, 1.0]) == []


def test_what_raises_where_numbers_do_not_fit_finds_nothing() -> None:
    def refusing(numbers: Sequence[float]) -> list[np.ndarray]:
        raise ValueError("no such shape")

    assert fitted(refusing, [X], [1.0]) == []
