"""Trees of ops: what is read between shared values, folded to the shortest, merged with the fewest differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.calls import Call
from harness.case import Sigmoid, Tanh
from harness.editing import Parts, differing
from harness.ops import (
    Affine,
    ClippedLinear,
    Combine,
    Conv,
    HardSwish,
    MaxPool,
    Pad,
    Permute,
    Rectifier,
    Scale,
    SoftmaxOver,
    Swish,
)
from harness.questions.folding import folded
from harness.questions.merging import Exchanged, Mask, Reads, evaluated, merged
from harness.questions.trees import Leaf, Node, Tree, nodes, tree_of, within
from reference.kinds import apply

RNG = np.random.default_rng(0)
X, Z = RNG.standard_normal((4, 5)), RNG.standard_normal((4, 5))
ADD, TIMES = Combine(kind="add", tie="first"), Combine(kind="multiply", tie="first")
RELU = Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)


def clip(low: float, high: float) -> ClippedLinear:
    return ClippedLinear(
        slope=1.0,
        offset=0.0,
        minimum=low,
        maximum=high,
        derivative=1.0,
        slope_at_minimum=1.0,
        slope_at_maximum=1.0,
    )


def chain(*ops: Any, of: Tree | None = None) -> Tree:
    tree = of or Leaf(X, "x")
    for op in ops:
        tree = Node(op, (tree,))
    return tree


def value(tree: Tree) -> np.ndarray:
    return tree.value if isinstance(tree, Leaf) else apply(tree.op, tuple(map(value, tree.inputs)), tree.parameters)


# --- folding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ops", "kinds"),
    [
        ((Scale(factor=0.2, offset=0.0), Scale(factor=1.0, offset=0.5), clip(0.0, 1.0)), [ClippedLinear]),
        ((Scale(factor=1.0, offset=3.0), clip(0.0, 6.0), Scale(factor=1 / 6, offset=0.0)), [ClippedLinear]),
        ((clip(0.0, math.inf),), [Rectifier]),
        ((Permute(axes=(1, 0)), Permute(axes=(1, 0)), Tanh()), [Tanh]),
        ((Scale(factor=1.0, offset=0.0), RELU), [Rectifier]),
        ((Tanh(), Scale(factor=2.0, offset=0.0), Tanh()), [Tanh, Scale, Tanh]),
        ((Scale(factor=-1.0, offset=0.0), RELU), [Scale, Rectifier]),
    ],
)
def test_folding_keeps_the_function(ops: tuple[Any, ...], kinds: list[type]) -> None:
    tree = chain(*ops)
    short = folded(tree)
    assert [type(node.op) for node in nodes(short)] == kinds
    np.testing.assert_allclose(value(short), value(tree), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("gate", "op"),
    [
        ((Sigmoid(),), Swish(beta=1.0)),
        ((Scale(factor=1.702, offset=0.0), Sigmoid()), Swish(beta=1.702)),
        ((Scale(factor=1 / 6, offset=0.5), clip(0.0, 1.0)), HardSwish),
    ],
)
def test_a_gate_times_what_it_reads_is_an_activation(gate: tuple[Any, ...], op: Any) -> None:
    z = chain(Tanh())
    tree = Node(TIMES, (chain(*gate, of=z), z))
    short = folded(tree)
    assert isinstance(short, Node)
    assert short.op == op or type(short.op) is op
    np.testing.assert_allclose(value(short), value(tree), rtol=0, atol=1e-15)


def test_a_gate_times_another_value_is_none() -> None:
    tree = Node(TIMES, (chain(Sigmoid()), Leaf(Z)))
    assert [type(node.op) for node in nodes(folded(tree))] == [Sigmoid, Combine]


@pytest.mark.parametrize("padded", [0.0, 1.5])
def test_padding_before_a_window_belongs_to_it(padded: float) -> None:
    images, kernel = RNG.standard_normal((2, 3, 5, 5)), RNG.standard_normal((4, 3, 3, 3))
    pad = Pad(widths=((0, 0), (0, 0), (1, 0), (0, 1)), mode="constant", value=padded)
    window: dict[str, Any] = {"stride": (1, 1), "dilation": (1, 1), "padding": ((0, 0), (0, 0))}
    pool = MaxPool(size=(2, 2), padding_value=-math.inf, ceil_mode=False, tie="first", **window)
    conv = Conv(
        groups=1,
        group_order="blocks",
        padding_mode="constant",
        padding_value=0.0,
        bias=False,
        kernel_axes=(0, 1, 2, 3),
        **window,
    )
    for op, parameters in ((pool, ()), (conv, (kernel,))):
        tree = Node(op, (Node(pad, (Leaf(images),)),), parameters)
        short = folded(tree)
        assert [type(node.op) for node in nodes(short)] == [type(op)]
        np.testing.assert_allclose(value(short), value(tree), rtol=0, atol=1e-13)


# --- merging ----------------------------------------------------------------------------------------------------


def edits(one: Tree, other: Tree) -> list[tuple[Any, Any]]:
    """What differs between two trees; either side's parts must compute what its tree does."""
    pair = merged(one, other, {"x": X, "z": Z})
    assert pair is not None
    for tree, parts in zip((one, other), pair.parts, strict=True):
        np.testing.assert_array_equal(evaluated(pair, parts), value(tree))
    return [(edit.before, edit.after) for edit in differing(*pair.parts)]


def test_a_skip_connection_of_one_side() -> None:
    skip = Node(ADD, (chain(Tanh()), Leaf(X, "x")))
    assert edits(skip, chain(Tanh())) == [(ADD, None)]
    assert edits(chain(Tanh()), Node(ADD, (Leaf(X, "x"), chain(Tanh())))) == [(None, ADD)]


def test_a_sum_in_the_other_order_is_the_same() -> None:
    assert edits(Node(ADD, (Leaf(X, "x"), Leaf(Z, "z"))), Node(ADD, (Leaf(Z, "z"), Leaf(X, "x")))) == []


def test_a_branch_that_is_scaled() -> None:
    scale = Scale(factor=0.5, offset=0.0)
    one, other = Node(ADD, (chain(Tanh()), Leaf(Z, "z"))), Node(ADD, (chain(Tanh(), scale), Leaf(Z, "z")))
    assert edits(one, other) == [(None, scale)]


def test_inputs_that_are_exchanged_and_one_that_is_another() -> None:
    minus = Combine(kind="subtract", tie="first")
    one, other = Node(minus, (Leaf(X, "x"), Leaf(Z, "z"))), Node(minus, (Leaf(Z, "z"), Leaf(X, "x")))
    pair = merged(one, other, {"x": X, "z": Z})
    assert pair is not None
    assert [type(part) for part in pair.parts[0][:2]] == [Exchanged, Exchanged]
    np.testing.assert_array_equal(evaluated(pair, pair.parts[1]), Z - X)
    single = merged(chain(Tanh()), chain(Tanh(), of=Leaf(Z, "z")), {"x": X, "z": Z})
    assert single is not None
    assert single.parts[0][0] == Reads(source="x")


def test_masks_that_differ() -> None:
    masks = X > 0, X > 0.5
    soft = SoftmaxOver(axes=(1,), log=False)
    one, other = (Node(soft, (Leaf(mask),)) for mask in masks)
    pair = merged(one, other, {})
    assert pair is not None
    assert pair.parts[0][0] == Mask(source="reference")


def test_values_that_have_nothing_to_do_with_each_other_are_not_merged() -> None:
    assert merged(chain(Tanh(), of=Leaf(X)), chain(Tanh(), of=Leaf(Z)), {}) is None


# --- reading ----------------------------------------------------------------------------------------------------


def call(op: Any, *inputs: np.ndarray) -> Call:
    y = apply(op, inputs, ())
    return Call(
        kind="",
        ops=(op,),
        inputs=inputs,
        parameters=((),),
        names=((),),
        output=y,
        canonical=lambda array: array,
    )


def test_a_tree_ends_at_shared_values_and_finds_them_in_another_layout() -> None:
    first = call(Tanh(), X)
    second = call(Sigmoid(), first.output)
    last = call(ADD, second.output.T.copy(), X.T.copy())
    calls = {"first": first, "second": second, "last": last}
    tree = tree_of(calls, "last", {"first": first.output})
    assert tree is not None
    assert within(folded(tree)) == ("first", "second", "last")
    np.testing.assert_array_equal(value(tree), last.output)
    assert tree_of(calls, "nowhere", {}) is None


def test_parts_of_an_edit_compute_what_the_edit_says() -> None:
    pair = merged(chain(Scale(factor=2.0, offset=0.0), Tanh()), chain(Tanh()), {"x": X})
    assert pair is not None
    without: Parts = tuple(None if isinstance(part, Scale) else part for part in pair.parts[0])
    np.testing.assert_array_equal(evaluated(pair, without), np.tanh(X))


def dense(weights: np.ndarray) -> Node:
    return Node(Affine(bias=False, kernel_axes=(0, 1)), (Leaf(X, "x"),), (weights,))


def test_weights_that_two_layers_have_exchanged_are_an_edit_and_others_are_not() -> None:
    one, two, third = (RNG.standard_normal((3, 5)) for _ in range(3))
    join = Combine(kind="subtract", tie="first")
    pair = merged(Node(join, (dense(one), dense(two))), Node(join, (dense(two), dense(one))), {"x": X})
    assert pair is not None
    assert [edit.field for edit in differing(*pair.parts)] == ["source", "source"]
    np.testing.assert_allclose(evaluated(pair, pair.parts[1]), X @ (two - one).T, atol=1e-13)
    other = merged(Node(join, (dense(one), dense(two))), Node(join, (dense(third), dense(one))), {"x": X})
    assert other is not None
    assert differing(*other.parts) == []
