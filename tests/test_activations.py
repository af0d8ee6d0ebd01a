"""Activations of two models are matched by value, blind to layout and structure; behind a difference, by parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from harness.activations import align_activations, forced_values, matching_view
from harness.recipe import Record
from harness.views import put, see

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4, 6, 7))
W = RNG.standard_normal((3, 168))
V = RNG.standard_normal((3, 3))


def record(steps: Mapping[str, Callable], inputs: np.ndarray, forced: Mapping[str, np.ndarray]) -> Record:
    """Blocks that each read the one before, as an adapter shows them: the own value, and the forced one passed on."""
    activations, value = {}, inputs
    for name, block in steps.items():
        activations[name] = block(value)
        value = forced.get(name, activations[name])
    return Record(activations=activations, outputs=(list(steps)[-1],))


def relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0)


ONE = {  # channels first; a linear layer and its activation apart
    "conv": lambda x: x * 3 + 1,
    "relu": relu,
    "flatten": lambda a: a.reshape(len(a), -1),
    "fc1": lambda a: a @ W.T,
    "tanh": np.tanh,
    "fc2": lambda a: a @ V,
}


def other(first: Callable = lambda x: x * 3 + 1, kernel: np.ndarray = W, activation: Callable = np.tanh) -> dict:
    """Channels last; a layer with its activation inside, what comes before it shown as `/linear`."""
    order = np.arange(168).reshape(4, 6, 7).transpose(1, 2, 0).ravel()
    return {
        "conv2d/linear": first,
        "conv2d": relu,
        "flatten": lambda a: a.reshape(len(a), -1),
        "dense/linear": lambda a: a @ kernel[:, order].T,
        "dense": activation,
        "dense_1": lambda a: a @ V,
    }


ANCHORS = [("conv", "conv2d"), ("fc1", "dense"), ("fc2", "dense_1")]
ALL = [
    *(("conv", "conv2d/linear"), ("relu", "conv2d"), ("flatten", "flatten")),
    *(("fc1", "dense/linear"), ("tanh", "dense"), ("fc2", "dense_1")),
]


def aligned(candidate: Mapping[str, Callable], anchors: list = ANCHORS) -> list[tuple[str, str, str]]:
    last = X.transpose(0, 2, 3, 1)
    found = align_activations(
        record(ONE, X, {}), record(candidate, last, {}), lambda forced: record(candidate, last, forced), anchors
    )
    return [(pair.reference, pair.candidate, pair.by) for pair in found]


def test_equal_models_are_aligned_by_value_alone() -> None:
    assert aligned(other(), anchors=[]) == [(*pair, "value") for pair in ALL]


@pytest.mark.parametrize(
    ("planted", "apart"),
    [
        ({"first": lambda x: x * 5 - 2}, ["conv"]),
        ({"kernel": -3 * W}, ["fc1"]),
        ({"activation": lambda z: z**2 + 7}, ["tanh"]),
        ({"first": lambda x: x * 5 - 2, "activation": lambda z: z**2 + 7}, ["conv", "tanh"]),
    ],
)
def test_behind_a_difference_the_blocks_still_find_each_other(planted: dict, apart: list[str]) -> None:
    found = aligned(other(**planted))
    assert [pair[:2] for pair in found] == ALL
    assert [reference for reference, _, by in found if by == "structure"] == apart


def test_a_layer_that_one_side_lacks_has_no_partner() -> None:
    shorter = {name: block for name, block in other().items() if name != "dense"}
    found = dict(pair[:2] for pair in aligned(shorter))
    assert "tanh" not in found
    assert found["fc1"] == "dense/linear"
    assert found["fc2"] == "dense_1"


def test_zeros_are_not_matched_by_their_value() -> None:
    zeros = {"a": lambda x: 0 * x, "b": lambda x: 0 * x + 1, "out": lambda x: x + X}
    swapped = {"b2": zeros["b"], "a2": zeros["a"], "out2": lambda x: x + X + 1}
    found = align_activations(
        record(zeros, X, {}), record(swapped, X, {}), lambda forced: record(swapped, X, forced), []
    )
    assert ("a", "a2") not in [(pair.reference, pair.candidate) for pair in found if pair.by == "value"]


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 2, 1), (1, 0, 2, 3)])
def test_a_transposed_tensor_is_seen_and_written_in_the_other_layout(axes: tuple[int, ...]) -> None:
    candidate = X.transpose(axes)
    match = matching_view(X, candidate)
    assert match is not None
    assert match[0] == 0
    assert np.array_equal(see(match[1], candidate), X)
    written = np.empty_like(candidate)
    put(match[1], written, X)
    assert np.array_equal(written, candidate)


def test_permuted_features_are_found_and_hold_for_a_smaller_batch() -> None:
    order = RNG.permutation(168)
    flat = X.reshape(5, -1)
    match = matching_view(flat, flat[:, order])
    assert match is not None
    assert np.array_equal(see(match[1], flat[:2, order]), flat[:2])


def test_unrelated_values_do_not_match() -> None:
    match = matching_view(X, RNG.standard_normal(X.shape))
    assert match is not None
    assert match[0] > 0.1


def test_forced_values_arrive_in_the_candidates_layout() -> None:
    last = X.transpose(0, 2, 3, 1)
    records = record(ONE, X, {}), record(other(), last, {})
    found = align_activations(*records, lambda forced: record(other(), last, forced), ANCHORS)
    values = forced_values(found, records[0].activations, records[1].activations)
    assert np.array_equal(values["conv2d"], relu(X * 3 + 1).transpose(0, 2, 3, 1))


def test_dead_features_keep_the_place_that_the_flattened_axes_give_them() -> None:
    images = relu(X) * (np.arange(4) != 1)[:, None, None]
    flat, last = images.reshape(5, -1), images.transpose(0, 2, 3, 1).reshape(5, -1)
    match = matching_view(flat, last, [(6, 7, 4)])
    assert match is not None
    assert match[1].order is not None
    assert np.array_equal(match[1].order[1], np.arange(168).reshape(6, 7, 4).transpose(2, 0, 1).ravel())
