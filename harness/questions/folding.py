"""Ops that say in several what one says: a tree as short as it can be, so that two spellings of one thing are equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.case import Linear, Sigmoid
from harness.ops import (
    GRU,
    LSTM,
    AdaptivePool,
    AveragePool,
    ClippedLinear,
    Combine,
    Concat,
    Conv,
    Dropout,
    Einsum,
    Extremum,
    Flatten,
    HardSwish,
    MaxPool,
    Pad,
    Permute,
    Rectifier,
    Reduce,
    Scale,
    SimpleRNN,
    Slice,
    Stack,
    Swish,
)
from harness.questions.layouts import moved_behind
from harness.questions.products import product, turned
from harness.questions.trees import Arrays, Leaf, Node, Tree


def folded(tree: Tree, done: dict[int, Tree] | None = None) -> Tree:
    """The same function in fewer ops."""
    done = {} if done is None else done
    if isinstance(tree, Leaf):
        return tree
    if id(tree) not in done:
        read = tuple(folded(one, done) for one in tree.inputs)
        op, parameters = _in_order(_plain(tree.op), tree.parameters)
        done[id(tree)] = _shortened(Node(op, read, parameters, tree.block))
    return done[id(tree)]


def _shortened(tree: Node) -> Tree:
    if len(tree.inputs) == 1 and not tree.parameters and _is_identity(tree.op):
        return tree.inputs[0]
    if (found := moved_behind(tree)) is not None:
        made, axes = found
        return _shortened(Node(Permute(axes=axes), (_shortened(made),), (), tree.block))
    if isinstance(tree.op, Einsum):
        made = product(tree)
        return _shortened(made) if isinstance(made, Node) and isinstance(made.op, Scale) else made
    if len(tree.inputs) == 2:
        return _gated(tree) or _counted(tree) or tree
    before = tree.inputs[0] if len(tree.inputs) == 1 else None
    if isinstance(before, Node) and isinstance(before.op, SimpleRNN | LSTM | GRU):
        return _last_step(before, tree)
    if isinstance(before, Node) and isinstance(before.op, Stack | Concat):
        return _taken(before, tree)
    if isinstance(before, Node) and isinstance(before.op, Einsum) and isinstance(tree.op, Permute):
        return turned(tree, before)
    if not isinstance(before, Node) or before.parameters:
        return tree
    one = _as_one(before.op, tree.op)
    return tree if one is None else _shortened(Node(_plain(one), before.inputs, tree.parameters, tree.block))


def _plain(op: Any) -> Any:
    """A clipped line that is a rectifier, as one; pooling of all there is, as a reduction."""
    match op:
        case ClippedLinear(slope=1.0, offset=0.0, minimum=0.0):
            return Rectifier(
                negative_slope=0.0,
                threshold=0.0,
                maximum=op.maximum,
                slope_at_threshold=op.slope_at_minimum,
                slope_at_maximum=op.slope_at_maximum,
            )
        case AdaptivePool() if all(length == 1 for length in op.size):
            axes = tuple(range(2, 2 + len(op.size)))
            if op.kind == "max":
                return Extremum(kind="max", axes=axes, keep=True, tie=op.tie)
            return Reduce(kind="mean", axes=axes, keep=True, masked=False)
    return op


def _in_order(op: Any, parameters: Arrays) -> tuple[Any, Arrays]:
    """A recurrence with its gates in one order, and one bias where two are only added."""
    if not isinstance(op, SimpleRNN | LSTM | GRU):
        return op, parameters
    gates = "rzn" if isinstance(op, GRU) else "ifgo"
    if not isinstance(op, SimpleRNN) and op.gates != gates:
        blocks = [np.split(array, len(gates)) for array in parameters]
        parameters = tuple(np.concatenate([block[op.gates.index(gate)] for gate in gates]) for block in blocks)
        op = replace(op, gates=gates)
    if op.biases == 2 and not (isinstance(op, GRU) and op.reset_after):
        w, u, b, c = parameters
        op, parameters = replace(op, biases=1), (w, u, b + c)
    if op.returns == "last" and not op.reverse and not op.masked:
        op = replace(op, returns="final")
    return op, parameters


def _last_step(states: Node, taken: Node) -> Tree:
    """A recurrence of which the last step is taken."""
    match states.op, taken.op:
        case LSTM(returns="all") | GRU(returns="all") | SimpleRNN(returns="all"), Slice(axis=1, start=-1, squeeze=True):
            op, parameters = _in_order(replace(states.op, returns="last"), states.parameters)
            return Node(op, states.inputs, parameters, taken.block)
    return taken


def _taken(joined: Node, taken: Node) -> Tree:
    """One of several values that were stacked; the last step of each of several that stand side by side."""
    match joined.op, taken.op:
        case Stack(axis=0), Slice(axis=0, start=int(start), step=1, squeeze=True):
            return joined.inputs[start % len(joined.inputs)]
        case Concat(axis=2), Slice(axis=1, squeeze=True):
            each = tuple(_shortened(Node(taken.op, (one,), (), taken.block)) for one in joined.inputs)
            return Node(Concat(axis=1), each, (), taken.block)
    return taken


def _is_identity(op: Any) -> bool:
    match op:
        case Linear() | Scale(factor=1.0, offset=0.0) | Dropout(active=False, scaling="kept" | "none"):
            return True
        case Permute(axes=axes):
            return axes == tuple(range(len(axes)))
        case Pad(widths=widths):
            return not np.any(widths)
    return False


def _as_one(first: Any, second: Any) -> Any | None:
    """Two ops as one: a scale before or behind a clipped line, axes moved twice, padding before a window."""
    match first, second:
        case Scale(), Scale():
            return Scale(factor=first.factor * second.factor, offset=first.offset * second.factor + second.offset)
        case Reduce(keep=True, axes=(2, *_)) | Extremum(keep=True, axes=(2, *_)), Flatten(start=1):
            return replace(first, keep=False)  # nothing but the channels is left to be flattened
        case Permute(), Permute():
            return Permute(axes=tuple(first.axes[axis] for axis in second.axes))
        case Scale(), ClippedLinear():
            slope, offset = second.slope * first.factor, second.slope * first.offset + second.offset
            return replace(second, slope=slope, offset=offset, derivative=slope)
        case Scale(), Rectifier(negative_slope=0.0, threshold=0.0) if second.maximum < math.inf:
            return ClippedLinear(
                slope=first.factor,
                offset=first.offset,
                minimum=0.0,
                maximum=second.maximum,
                derivative=first.factor,
                slope_at_minimum=second.slope_at_threshold,
                slope_at_maximum=second.slope_at_maximum,
            )
        case ClippedLinear(), Scale() if second.factor > 0:
            return _scaled(first, second)
        case Pad(mode="constant", widths=((0, 0), (0, 0), *widths)), MaxPool() | Conv() if not np.any(second.padding):
            return replace(second, padding=tuple(widths), padding_value=first.value)
        case Pad(mode="constant", widths=((0, 0), (0, 0), *widths), value=0.0), AveragePool(divisor=None) if not np.any(
            second.padding
        ):
            return replace(second, padding=tuple(widths), count_include_pad=True)
    return None


def _scaled(line: ClippedLinear, scale: Scale) -> ClippedLinear:
    return replace(
        line,
        slope=line.slope * scale.factor,
        offset=line.offset * scale.factor + scale.offset,
        minimum=line.minimum * scale.factor + scale.offset,
        maximum=line.maximum * scale.factor + scale.offset,
        derivative=line.derivative * scale.factor,
    )


def _gated(tree: Node) -> Tree | None:
    """z times what a gate makes of it: swish, in either form."""
    match tree.op:
        case Combine(kind="multiply") if not tree.parameters:
            for z, gate in (tree.inputs, tree.inputs[::-1]):
                if isinstance(gate, Node) and len(gate.inputs) == 1 and not gate.parameters:
                    op = _GATES.get(type(gate.op), _no_gate)(gate.op, gate.inputs[0], z)
                    if op is not None:
                        return Node(op, (z,), (), tree.block)
    return None


def _counted(tree: Node) -> Tree | None:
    """Averages of padded windows by the averages of padded ones: the padding is not counted."""
    match tree:
        case Node(
            op=Combine(kind="divide"),
            inputs=(
                Node(op=AveragePool(divisor=None) as pool) as of,
                Node(op=AveragePool() as ones, inputs=(Leaf() as one,)),
            ),
        ) if pool == ones and (one.value == 1).all():
            return Node(replace(pool, count_include_pad=False), of.inputs, (), tree.block)
    return None


def _no_gate(op: Any, read: Tree, z: Tree) -> Any | None:
    return None


def _sigmoid_gate(op: Sigmoid, read: Tree, z: Tree) -> Any | None:
    if same(read, z):
        return Swish(beta=1.0)
    match read:
        case Node(op=Scale(offset=0.0) as scale) if same(read.inputs[0], z):
            return Swish(beta=scale.factor)
    return None


def _clipped_gate(op: ClippedLinear, read: Tree, z: Tree) -> Any | None:
    if not same(read, z) or (op.minimum, op.maximum) != (0.0, 1.0):
        return None
    return HardSwish(
        slope=op.slope,
        offset=op.offset,
        slope_at_minimum=op.slope_at_minimum,
        slope_at_maximum=op.slope_at_maximum,
    )


_GATES: Mapping[type, Any] = {Sigmoid: _sigmoid_gate, ClippedLinear: _clipped_gate}


def same(one: Tree, other: Tree) -> bool:
    """Two trees of one side are one value."""
    if isinstance(one, Leaf) or isinstance(other, Leaf):
        return isinstance(one, Leaf) and isinstance(other, Leaf) and np.array_equal(one.value, other.value)
    return one is other
