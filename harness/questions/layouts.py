"""Axes that a side moves before or behind an op, in one place: behind it, as each side has its own layout.

Not behind a softmax: scores that are transposed before it are another function than one over another axis."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np

from harness.cause import GROUPS
from harness.ops import Deviation, Extremum, LogSumExp, Norm, Permute, Reduce, Reshape
from harness.questions.trees import RANK, Node, Tree

ELEMENTWISE = {*GROUPS["activation"], "Scale", "Combine"} - {"Softmax", "SoftmaxOver", "PReLU", "Gated"}


def moved_behind(tree: Node) -> tuple[Node, tuple[int, ...]] | None:
    """An op that reads values whose axes were moved alike, as it would read them unmoved, and how its result is then
    to be moved; None where that is another op."""
    moves = {read.op.axes for read in tree.inputs if isinstance(read, Node) and isinstance(read.op, Permute)}
    if len(moves) != 1 or tree.parameters or not all(_is_moved(read) for read in tree.inputs):
        return None
    (axes,) = moves
    reads = tuple(read.inputs[0] for read in tree.inputs if isinstance(read, Node))
    if type(tree.op).__name__ in ELEMENTWISE:
        return _reading(tree, tree.op, reads), axes
    match tree.op:
        case Reduce(masked=False) | Extremum() | LogSumExp() | Deviation() | Norm():
            made = _reading(tree, replace(tree.op, axes=_mapped(tree.op.axes, axes)), reads)
            if tree.op.keep:
                return made, axes
            kept = [axis for k, axis in enumerate(axes) if k not in tree.op.axes]
            return made, tuple(sorted(kept).index(axis) for axis in kept)
    return None


def _is_moved(tree: Tree) -> bool:
    return isinstance(tree, Node) and isinstance(tree.op, Permute)


def _mapped(over: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(axes[k] for k in over))


def _reading(tree: Node, op: object, reads: tuple[Tree, ...]) -> Node:
    return Node(op, reads, (), tree.block)


def laid_out(tree: Tree, has: np.ndarray, wanted: np.ndarray) -> Tree:
    """What makes a value that the other side has in another layout, with the move that brings it there."""
    if has.shape == wanted.shape and np.array_equal(has, wanted):
        return tree
    if has.ndim == wanted.ndim <= RANK:
        for axes in permutations(range(has.ndim)):
            if has.transpose(axes).shape == wanted.shape and np.array_equal(has.transpose(axes), wanted):
                return Node(Permute(axes=axes), (tree,))
    if has.size == wanted.size and len(has) == len(wanted) and np.array_equal(has.ravel(), wanted.ravel()):
        return Node(Reshape(shape=wanted.shape[1:]), (tree,))
    return tree
