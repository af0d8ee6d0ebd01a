"""The same data in another order: examples, columns or batches that one side takes otherwise than the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.feeding import Feed


def reordered(one: Feed, other: Feed, names: tuple[str, str], step: int) -> Iterator[tuple[str, Feed]]:
    """The other's feed in the one's order, each way in which the two are the same data in another, and what that is in
    words."""
    if not np.array_equal(one.batches[step], other.batches[step]):
        first, second = (feed.batches[step][:4].tolist() for feed in (one, other))
        text = f"step {step} takes examples {first}... in {names[0]}, {second}... in {names[1]}"
        yield text, replace(other, batches=one.batches)
    inputs, targets = (_examples(*pair) for pair in ((one.inputs, other.inputs), (one.targets, other.targets)))
    if inputs is not None and targets is not None and np.array_equal(inputs, targets):
        fed = replace(other, inputs=_taken(other.inputs, inputs), targets=_taken(other.targets, targets))
        yield f"{names[1]} has the examples in another order: {inputs[:4].tolist()}... first", fed
    if inputs is not None:
        fed = replace(other, inputs=_taken(other.inputs, inputs))
        yield f"{names[1]} has the inputs in another order than their targets: {inputs[:4].tolist()}... first", fed
    if targets is not None:
        fed = replace(other, targets=_taken(other.targets, targets))
        yield f"{names[1]} has the targets in another order than their inputs: {targets[:4].tolist()}... first", fed
    for k, (meant, own) in enumerate(zip(one.inputs, other.inputs, strict=False)):
        for axis, order in _columns(meant, own):
            inputs = (*other.inputs[:k], np.take(own, order, axis), *other.inputs[k + 1 :])
            yield (
                f"input {k} has axis {axis} in another order: {order.tolist()[:8]} is meant",
                replace(other, inputs=inputs),
            )


def _taken(arrays: tuple[np.ndarray, ...], order: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(array[order] for array in arrays)


def _examples(meant: tuple[np.ndarray, ...], own: tuple[np.ndarray, ...]) -> np.ndarray | None:
    """Where each example of the one is in the other; by its sorted values, for the layouts may be others. None where
    they are in the same order, not the same, or not told apart."""
    if not meant or not own or all(np.array_equal(*pair) for pair in zip(meant, own, strict=False)):
        return None
    keys = [[np.sort(row, axis=None).tobytes() for row in side[0]] for side in (meant, own)]
    return _order(*keys)


def _columns(meant: np.ndarray, own: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The axes along which the one is the other in another order, and that order."""
    if meant.shape != own.shape or np.array_equal(meant, own):
        return
    for axis in range(1, meant.ndim):
        order = _order(*([part.tobytes() for part in np.moveaxis(side, axis, 0)] for side in (meant, own)))
        if order is not None:
            yield axis, order


def _order(meant: list[bytes], own: list[bytes]) -> np.ndarray | None:
    places = {key: place for place, key in enumerate(own)}
    if meant == own or len(places) != len(own) or set(meant) != set(own) or len(meant) != len(own):
        return None
    return np.array([places[key] for key in meant])
