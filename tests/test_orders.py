"""The same data in another order is recognised, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.feeding import Feed
from harness.orders import reordered

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5, 3)).astype(np.float32), RNG.standard_normal((12, 2)).astype(np.float32)
FEED = Feed(inputs=(X,), targets=(Y,), weights=None, batches=(np.arange(6), np.arange(6, 12)), steps_per_epoch=2)
ORDER = RNG.permutation(12)
NAMES = ("one", "other")


def found(**changes: Any) -> list[tuple[str, Feed]]:
    return list(reordered(FEED, replace(FEED, **changes), NAMES, 0))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"inputs": (X[ORDER],), "targets": (Y[ORDER],)}, "examples in another order"),
        ({"inputs": (X[ORDER],)}, "inputs in another order than their targets"),
        ({"targets": (Y[ORDER],)}, "targets in another order than their inputs"),
        ({"inputs": (X[:, [4, 0, 1, 2, 3]],)}, "axis 1"),
        ({"inputs": (X[..., ::-1],)}, "axis 2"),
        ({"batches": (np.arange(5, -1, -1), np.arange(6, 12))}, "step 0 takes examples [0, 1, 2, 3]"),
    ],
)
def test_an_order_is_found_and_righted(changes: dict[str, Any], word: str) -> None:
    text, feed = found(**changes)[0]
    assert word in text
    for one, other in zip((*FEED.inputs, *FEED.targets), (*feed.inputs, *feed.targets), strict=True):
        np.testing.assert_array_equal(other[feed.batches[0]], one[FEED.batches[0]])


def test_the_order_is_found_though_the_layout_is_another() -> None:
    moved = np.moveaxis(X[ORDER], 1, 2)
    text, feed = found(inputs=(moved,), targets=(Y[ORDER],))[0]
    assert "examples in another order" in text
    np.testing.assert_array_equal(feed.inputs[0], np.moveaxis(X, 1, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"inputs": (X * 2,)},
        {"inputs": (np.where(X[3] == X, 0, X),)},
        {"inputs": (X[:, :4],)},
        {"targets": (Y + 1,)},
        {"targets": ()},
    ],
)
def test_other_data_is_no_other_order(changes: dict[str, Any]) -> None:
    assert found(**changes) == []


def test_examples_that_are_alike_tell_no_order() -> None:
    feed = replace(FEED, targets=(np.zeros((12, 1), np.float32),))
    assert list(reordered(feed, replace(feed, targets=(np.zeros((12, 1), np.float32),)), NAMES, 0)) == []
    coins = np.array([0, 1] * 6, np.float32)[:, None]
    assert list(reordered(replace(FEED, targets=(coins,)), replace(FEED, targets=(coins[::-1],)), NAMES, 0)) == []
