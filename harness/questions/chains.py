"""Blocks in a row on one side, as ops of the reference with what the first one reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from harness.calls import Call
from harness.cause import kind
from harness.editing import UNFIT, Parts
from harness.ops import ClippedLinear, Conv, MaxPool, Pad, Scale
from reference.kinds import apply, pull_back

Arrays = tuple[np.ndarray, ...]

Gradients = Sequence[np.ndarray | None]
Backward = tuple[Gradients, list[Gradients]]
"""The gradients of a chain's inputs, and of each op's parameters."""

LONGEST = 4
"""Blocks before the one in question that are read together with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Ops in a row. blocks: their names, the last one first. inputs: what the first op reads; parameters: each op's.

    canonical: as in `Call`, of the last block's output.
    """

    blocks: tuple[str, ...]
    ops: Parts
    inputs: Arrays
    parameters: tuple[Arrays, ...]
    names: tuple[tuple[str, ...], ...]
    output: np.ndarray
    canonical: Callable[[np.ndarray], np.ndarray]


def chains(calls: Mapping[str, Call], name: str) -> Iterator[Chain]:
    """A block alone, with the one before it, and so on, as far as they are known and each reads that one alone."""
    call = calls.get(name)
    if call is None or not call.ops:
        return
    chain = Chain(
        blocks=(name,),
        ops=call.ops,
        inputs=call.inputs,
        parameters=call.parameters,
        names=call.names,
        output=call.output,
        canonical=call.canonical,
    )
    yield chain
    for _ in range(LONGEST):
        before = _read_by(calls, chain)
        if before is None or not calls[before].ops:
            return
        call = calls[before]
        chain = Chain(
            blocks=(*chain.blocks, before),
            ops=(*call.ops, *chain.ops),
            inputs=call.inputs,
            parameters=(*call.parameters, *chain.parameters),
            names=(*call.names, *chain.names),
            output=chain.output,
            canonical=chain.canonical,
        )
        folded = _folded(chain)
        yield chain if folded is None else folded


def _folded(chain: Chain) -> Chain | None:
    """The chain with its first two ops as one, where one op says the same."""
    if len(chain.ops) < 2 or chain.parameters[0]:
        return None
    one = _as_one(chain.ops[0], chain.ops[1])
    if one is None:
        return None
    rest = chain.parameters[1:], chain.names[1:]
    return replace(chain, ops=(one, *chain.ops[2:]), parameters=rest[0], names=rest[1])


def _as_one(first: object, second: object) -> object | None:
    """Two ops as one: padding before a window that has none, a scale before a clipped line."""
    match first, second:
        case Pad(mode="constant", widths=((0, 0), (0, 0), *widths)), MaxPool() | Conv() if not np.any(second.padding):
            return replace(second, padding=tuple(widths), padding_value=first.value)
        case Scale(), ClippedLinear():
            slope, offset = second.slope * first.factor, second.slope * first.offset + second.offset
            return replace(second, slope=slope, offset=offset, derivative=slope)
    return None


def _read_by(calls: Mapping[str, Call], chain: Chain) -> str | None:
    """The block whose output is a chain's only input."""
    if len(chain.inputs) != 1:
        return None
    earlier = [name for name in calls if name not in chain.blocks]
    return next((name for name in reversed(earlier) if np.array_equal(calls[name].output, chain.inputs[0])), None)


def beside(one: Chain, other: Chain) -> tuple[Parts, Parts]:
    """Two chains' ops, those of a kind side by side, None where one lacks it."""
    kinds = [[kind(op) for op in chain.ops] for chain in (one, other)]
    left: list[object] = []
    right: list[object] = []
    for tag, a, b, c, d in SequenceMatcher(a=kinds[0], b=kinds[1], autojunk=False).get_opcodes():
        del tag
        length = max(b - a, d - c)
        left += [*one.ops[a:b], *[None] * (length - (b - a))]
        right += [*other.ops[c:d], *[None] * (length - (d - c))]
    return tuple(left), tuple(right)


def run(parts: Parts, chain: Chain, held: Sequence[Sequence[Arrays]]) -> np.ndarray:
    """What ops make of a chain's inputs; held: for each op, the parameters that it may have, the likeliest first."""
    values = chain.inputs
    for op, choices in zip(parts, held, strict=True):
        if op is not None:
            values = (applied(op, values, choices),)
    return values[0]


def applied(op: object, values: Arrays, choices: Sequence[Arrays]) -> np.ndarray:
    """An op with the first of several sets of parameters that fits it."""
    for parameters in choices[:-1]:
        try:
            return apply(op, values, parameters)
        except UNFIT:
            continue  # another number of parameters belongs to it
    return apply(op, values, choices[-1])


def run_back(parts: Parts, chain: Chain, held: Sequence[Sequence[Arrays]], dy: np.ndarray) -> Backward:
    """The gradients of a chain's inputs and of each op's parameters, from the cotangent of its output."""
    values, steps = chain.inputs, []
    for op, choices in zip(parts, held, strict=True):
        if op is not None:
            y = applied(op, values, choices)
            steps.append((op, values, choices[0], y))
            values = (y,)
    inputs: Gradients = (dy,)
    gradients: list[Gradients] = []
    for op, read, parameters, y in reversed(steps):
        cotangent = inputs[0]
        assert cotangent is not None
        inputs, of = pull_back(op, cotangent, y, read, parameters)
        gradients.insert(0, of)
    return inputs, gradients
