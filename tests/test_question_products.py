"""Products, attention and moved axes: other spellings of one function become one tree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.editing import differing
from harness.ops import (
    Attention,
    Einsum,
    Extremum,
    LogSumExp,
    Permute,
    Rectifier,
    Reduce,
    Scale,
    SoftmaxOver,
)
from harness.questions.folding import folded
from harness.questions.layouts import laid_out
from harness.questions.merging import merged
from harness.questions.products import has_attention, spelled_out
from harness.questions.trees import Leaf, Node, Tree
from reference.kinds import apply

RNG = np.random.default_rng(0)
Q, K, V = (Leaf(RNG.standard_normal((2, 3, 4, 5)), name) for name in "qkv")
SWAP = Permute(axes=(0, 1, 3, 2))
RELU = Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)
LIBRARY = Attention(
    score="dot",
    weighted=False,
    scale=5**-0.5,
    mask="none",
    causal=False,
    causal_offset=0,
    masked_value=-math.inf,
    masking="fill",
    empty_row="formula",
)


def value(tree: Tree) -> np.ndarray:
    return tree.value if isinstance(tree, Leaf) else apply(tree.op, tuple(map(value, tree.inputs)), tree.parameters)


def by_hand(scale: float = 5**-0.5, axis: int = 3, first: bool = False) -> Tree:
    """Attention as people write it; first: the queries are scaled, not the scores."""
    factor = Scale(factor=scale, offset=0.0)
    q: Tree = Node(factor, (Q,)) if first else Q
    scores = Node(Einsum(equation="...ij,...jk->...ik".replace("...", "xy")), (q, Node(SWAP, (K,))))
    weights = Node(SoftmaxOver(axes=(axis,), log=False), (scores if first else Node(factor, (scores,)),))
    return Node(Einsum(equation="abij,abjk->abik"), (weights, V))


def edits(one: Tree, other: Tree) -> list[tuple[str, Any, Any]]:
    pair = merged(folded(spelled_out(one)), folded(spelled_out(other)), {of.name: of.value for of in (Q, K, V)})
    assert pair is not None
    return [(edit.field, edit.before, edit.after) for edit in differing(*pair.parts)]


@pytest.mark.parametrize("first", [False, True])
def test_attention_by_hand_is_the_layer(first: bool) -> None:
    layer = Node(LIBRARY, (Q, K, V))
    assert has_attention(layer)
    assert not has_attention(spelled_out(layer))
    np.testing.assert_allclose(value(folded(spelled_out(layer))), value(layer), rtol=1e-12)
    np.testing.assert_allclose(value(folded(by_hand(first=first))), value(layer), rtol=1e-12)
    assert edits(layer, by_hand(first=first)) == []


def test_attention_by_hand_with_a_mistake_differs_in_it_alone() -> None:
    layer = Node(LIBRARY, (Q, K, V))
    assert edits(layer, by_hand(axis=2)) == [("axes", (3,), (2,))]
    assert edits(layer, by_hand(scale=0.25)) == [("factor", 5**-0.5, 0.25)]


def test_causal_attention_stays_whole() -> None:
    causal = Node(Attention(**{**{f: getattr(LIBRARY, f) for f in LIBRARY.__slots__}, "causal": True}), (Q, K, V))
    assert has_attention(spelled_out(causal))


REDUCED = [
    *(Reduce(kind="mean", axes=axes, keep=keep, masked=False) for axes in ((1,), (1, 2)) for keep in (False, True)),
    Extremum(kind="max", axes=(3,), keep=False, tie="first"),
    LogSumExp(axes=(2,), keep=True),
    RELU,
]


@pytest.mark.parametrize("op", REDUCED, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_axes_move_behind_what_does_not_mind(op: Any, axes: tuple[int, ...]) -> None:
    tree = Node(op, (Node(Permute(axes=axes), (Q,)),))
    shorter = folded(tree)
    np.testing.assert_allclose(value(shorter), value(tree), rtol=1e-12)
    inner = shorter.inputs[0] if isinstance(shorter, Node) and isinstance(shorter.op, Permute) else shorter
    assert isinstance(inner, Node)
    assert inner.inputs == (Q,)


def test_a_value_that_the_other_side_has_in_another_layout() -> None:
    moved, flat = Q.value.transpose(0, 2, 1, 3), Q.value.reshape(2, 12, 5)
    for wanted in (Q.value, moved, flat):
        np.testing.assert_array_equal(value(laid_out(Q, Q.value, wanted)), wanted)
    assert laid_out(Q, Q.value, moved + 1) is Q
