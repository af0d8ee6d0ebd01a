"""What makes an activation, back to the values that both sides share: ops that read each other, as a tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from harness.calls import Call
from harness.ops import Permute

Arrays = tuple[np.ndarray, ...]

RANK = 5
"""Axes of an array that a reader may have moved: each has its own layout."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A value that nothing here makes; name: of the activation that is shared, "" for any other."""

    value: np.ndarray
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An op, what it reads, and its parameters; block: the activation that it belongs to."""

    op: Any
    inputs: tuple[Tree, ...]
    parameters: Arrays = ()
    block: str = ""


Tree = Leaf | Node


def tree_of(calls: Mapping[str, Call], name: str, shared: Mapping[str, np.ndarray]) -> Tree | None:
    """What makes an activation of a side; shared: the values, by any name, at which it begins; None where unknown."""
    if name not in calls or not calls[name].ops:
        return None
    order = list(calls)
    made: dict[str, Tree] = {}

    def of(name: str) -> Tree:
        if name not in made:
            call = calls[name]
            read = tuple(source(array, name, _counted(call) if k == 0 else None) for k, array in enumerate(call.inputs))
            for op, parameters in zip(call.ops, call.parameters, strict=True):
                read = (Node(op, read, parameters, name),)
            (tree,) = read
            made[name] = tree
        return made[name]

    def source(array: np.ndarray, reader: str, counted: np.ndarray | None) -> Tree:
        earlier = {name: calls[name].output for name in reversed(order[: order.index(reader)]) if calls[name].ops}
        for values, tree in ((shared, lambda name: Leaf(shared[name], name)), (earlier, of)):
            for axes in permutations(range(array.ndim)) if array.ndim <= RANK else ():
                for name, value in values.items():
                    if value.ndim == array.ndim and _equal(value.transpose(axes), array, counted):
                        return Node(Permute(axes=axes), (tree(name),))
        return Leaf(array)

    return of(name)


def _counted(call: Call) -> np.ndarray | None:
    """Of what a call reads first, the steps that a mask lets count."""
    return call.inputs[1].astype(bool) if getattr(call.ops[0], "masked", False) else None


def _equal(value: np.ndarray, array: np.ndarray, counted: np.ndarray | None) -> bool:
    if counted is None or value.shape != array.shape:
        return np.array_equal(value, array)
    return np.array_equal(value[counted], array[counted])


def expanded(tree: Tree, made: Mapping[str, Tree]) -> Tree:
    """A tree that begins further up: what makes these of its values in their place."""
    if isinstance(tree, Leaf):
        return made.get(tree.name, tree)
    return Node(tree.op, tuple(expanded(read, made) for read in tree.inputs), tree.parameters, tree.block)


def nodes(tree: Tree) -> list[Node]:
    """Every op of a tree once, what is read before what reads it."""
    found: dict[int, Node] = {}

    def walk(tree: Tree) -> None:
        if isinstance(tree, Node) and id(tree) not in found:
            for read in tree.inputs:
                walk(read)
            found[id(tree)] = tree

    walk(tree)
    return list(found.values())


def leaves(tree: Tree) -> list[str]:
    """The shared values at which a tree begins."""
    read = [read for node in nodes(tree) for read in node.inputs] if isinstance(tree, Node) else [tree]
    return [leaf.name for leaf in read if isinstance(leaf, Leaf) and leaf.name]


def within(tree: Tree) -> tuple[str, ...]:
    """The activations that a tree is made of, those at which it begins among them."""
    made = nodes(tree)
    begins = leaves(tree)
    return tuple(name for name in dict.fromkeys([*begins, *(node.block for node in made)]) if name)


def size(tree: Tree) -> int:
    """How many ops and values a tree has, those used twice counted twice."""
    return 1 + sum(map(size, tree.inputs)) if isinstance(tree, Node) else 1
