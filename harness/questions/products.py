"""Products of values and attention in one spelling, so that what is written by hand stands beside a layer."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from harness.ops import Attention, Einsum, Permute, Scale, SoftmaxOver
from harness.questions.trees import Leaf, Node, Tree, nodes
from reference.kinds import apply


def product(tree: Node) -> Tree:
    """A product that reads its values in their own order of axes and unscaled: the factor comes behind it."""
    written, _, out = tree.op.equation.partition("->")
    if "." in written:
        return tree
    terms, reads, factor = written.split(","), list(tree.inputs), 1.0
    for k, read in enumerate(reads):
        while isinstance(read, Node) and len(read.inputs) == 1:
            match read.op:
                case Permute(axes=axes):
                    terms[k] = "".join(terms[k][axes.index(axis)] for axis in range(len(axes)))
                case Scale(offset=0.0):
                    factor *= read.op.factor
                case _:
                    break
            read = read.inputs[0]
        reads[k] = read
    made = Node(Einsum(equation=_spelled(terms, out)), tuple(reads), tree.parameters, tree.block)
    return made if factor == 1.0 else Node(Scale(factor=factor, offset=0.0), (made,), (), tree.block)


def turned(moved: Node, of: Node) -> Tree:
    """A product whose result has its axes moved."""
    written, _, out = of.op.equation.partition("->")
    if "." in written:
        return moved
    result = "".join(out[axis] for axis in moved.op.axes)
    return Node(Einsum(equation=_spelled(written.split(","), result)), of.inputs, of.parameters, moved.block)


def _spelled(terms: Sequence[str], out: str) -> str:
    """An equation with its letters in the order in which they first come."""
    letters = dict(zip(dict.fromkeys("".join(terms)), ascii_lowercase, strict=False))
    return ",".join("".join(letters[c] for c in term) for term in terms) + "->" + "".join(letters[c] for c in out)


def has_attention(tree: Tree) -> bool:
    return isinstance(tree, Node) and any(isinstance(node.op, Attention) for node in nodes(tree))


def spelled_out(tree: Tree) -> Tree:
    """Attention that masks nothing as the two products and the softmax that it is."""
    if isinstance(tree, Leaf):
        return tree
    done: dict[int, Tree] = {}
    for node in nodes(tree):
        read = tuple(done.get(id(one), one) for one in node.inputs)
        made = Node(node.op, read, node.parameters, node.block)
        done[id(node)] = _products(made) if isinstance(node.op, Attention) else made
    return done[id(tree)]


def _products(tree: Node) -> Tree:
    op: Attention = tree.op
    if op.score != "dot" or op.mask != "none" or op.causal or len(tree.inputs) != 3:
        return tree
    rank = _value(tree.inputs[0]).ndim
    if any(_value(read).ndim != rank for read in tree.inputs):
        return tree
    *batch, i, j, d, e = ascii_lowercase[: rank + 2]
    q, k, v, scores, out = ("".join((*batch, *pair)) for pair in ((i, d), (j, d), (j, e), (i, j), (i, e)))

    def node(op: object, *inputs: Tree) -> Node:
        return Node(op, inputs, (), tree.block)

    made = node(Scale(factor=op.scale, offset=0.0), node(Einsum(equation=f"{q},{k}->{scores}"), *tree.inputs[:2]))
    weights = node(SoftmaxOver(axes=(rank - 1,), log=False), made)
    return node(Einsum(equation=f"{scores},{v}->{out}"), weights, tree.inputs[2])


def _value(tree: Tree) -> np.ndarray:
    if isinstance(tree, Leaf):
        return tree.value
    return apply(tree.op, tuple(map(_value, tree.inputs)), tree.parameters)
