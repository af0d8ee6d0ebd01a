"""Why a block's output differs: what it computes on both sides from the reference's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from harness.blocks import Block
from harness.calls import Call
from harness.case import PRECISIONS, Precision
from harness.cause import Near
from harness.comparing import EPS32, EPS64, SHRINK
from harness.editing import UNFIT, Parts, differing
from harness.elsewhere import Moment
from harness.following import Compared, Taken, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.ops import Scale
from harness.ops_standard import ACTIVATIONS
from harness.owning import Own
from harness.questions.chains import Arrays, Chain, beside, chains, run
from harness.questions.folding import folded
from harness.questions.layouts import laid_out
from harness.questions.merging import Pair, evaluated, merged
from harness.questions.products import has_attention, spelled_out
from harness.questions.trees import Tree, expanded, leaves, tree_of, within
from harness.solving import Question
from harness.views import put
from reference.kinds import apply

BEFORE, BEHIND = 20, 3
"""Blocks around the one in question that are read."""

Calls = tuple[Mapping[str, Call], Mapping[str, Call]]
"""The blocks of either side, by the activation that shows them."""

Shown = dict[Precision, tuple[np.ndarray, np.ndarray]]
"""Both sides' values, in either precision."""

WHOLE = 4
"""Fields that a whole op counts for."""

REPRODUCED = 1e-12
"""Of the output's size: how far the reference may be from a block that it knows."""

PAIRS = 10
"""Pairs of chains that are tried."""


def calls_near(moment: Moment, names: tuple[str, str]) -> Calls:
    """The blocks around an activation (by its name on either side), the candidate's fed what the reference's was."""
    forced = forced_by(moment.plan, moment.reference, moment.candidate)["float64"]
    states = moment.reference.before, mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before)
    takens = moment.reference, moment.candidate
    found = []
    for side, taken, state, given, name in zip(moment.sides, takens, states, (None, forced), names, strict=True):
        recorded = list(taken.records["float64"].activations)
        if name not in recorded:
            found.append({})
            continue
        at = recorded.index(name)
        watched = side.watched["float64"]
        watched.load(state["float64"])
        batch = side.feed.batch(moment.step, "float64")
        found.append(watched.calls(batch, recorded[max(0, at - BEFORE) : at + 1 + BEHIND], given))
    return found[0], found[1]


def questions(moment: Moment, own: Own, alone: Taken, i: int, calls: Calls) -> Iterator[Question]:
    """What may tell why activation i differs: the block alone on both sides, with those before it, or of one side;
    where a side lies on the float32 grid in its float64 run, then to within float32's rounding."""
    quantity = moment.plan.compared[i]
    shown_by: Shown = {p: shown(quantity, moment.reference, alone, p) for p in PRECISIONS}
    around = near(calls, (quantity.reference, quantity.candidate))
    for question in _questions(moment, quantity, alone, calls, shown_by, K * own.measures.budget[0, i]):
        yield replace(question, near=around)
    if any(values.any() and (values == values.astype(np.float32)).all() for values in shown_by["float64"]):
        coarse = K * EPS32 * float(own.measures.size[0, i])
        for question in _questions(moment, quantity, alone, calls, shown_by, coarse):
            yield replace(question, of=(*question.of, ("float32",)), near=around)


def _questions(
    moment: Moment,
    quantity: Compared,
    alone: Taken,
    calls: Calls,
    shown_by: Shown,
    enough: float,
) -> Iterator[Question]:
    values, rounded = shown_by["float64"], shown_by["float32"]
    names = quantity.reference, quantity.candidate
    yield from _spanning(moment, calls, names, (values, rounded), enough)
    theirs = [list(chains(of, name)) for of, name in zip(calls, names, strict=True)]
    pairs = sorted(((one, other) for one in theirs[0] for other in theirs[1]), key=_unlike)
    for one, other in islice(pairs, PAIRS):
        asked = _asked(one, other, values, enough)
        yield replace(asked, values32=([one.canonical(rounded[0])], [one.canonical(rounded[1])]))
    for chain in theirs[0][:1]:
        if len(chain.inputs) > 1 and len(chain.ops) == 1:
            yield _scaled_inputs(chain, [chain.canonical(value) for value in values], enough)
        asked = _one_sided(chain, 0, [chain.canonical(value) for value in values], enough)
        yield replace(asked, values32=([chain.canonical(rounded[0])], [chain.canonical(rounded[1])]))
    if theirs[1] and quantity.aligned is not None:
        own_layout = np.empty(alone.records["float64"].activations[quantity.candidate].shape)
        put(quantity.aligned.view, own_layout, values[0])
        chain = theirs[1][0]
        yield _one_sided(chain, 1, [chain.canonical(own_layout), chain.output], enough)


def _spanning(
    moment: Moment,
    calls: Calls,
    names: tuple[str, str],
    shown: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    enough: float,
) -> Iterator[Question]:
    """All that either side does between the values that both share and this one; where one of them reads a shared value
    that the other does not, also what makes that."""
    pairs = [a.reference for a in moment.plan.alignment if a.reference in calls[0] and a.reference != names[0]]
    shared = {name: calls[0][name].output for name in pairs}
    one, other = (tree_of(of, name, shared) for of, name in zip(calls, names, strict=True))
    if one is None or other is None:
        return
    canonical = calls[0][names[0]].canonical
    values, rounded = (([canonical(of[0])], [canonical(of[1])]) for of in shown)
    other = laid_out(other, calls[1][names[1]].output, values[1][0])
    for trees in ((one, other), *_further(calls[0], one, other, shared)):
        if has_attention(trees[0]) != has_attention(trees[1]):
            trees = spelled_out(trees[0]), spelled_out(trees[1])
        pair = merged(folded(trees[0]), folded(trees[1]), shared)
        if pair is not None:
            yield Question(
                parts=pair.parts,
                values=values,
                values32=rounded,
                compute=partial(_computed, pair),
                enough=[enough],
                of=(within(trees[0]), within(trees[1]), tuple(str(part) for parts in pair.parts for part in parts)),
            )


def _further(
    calls: Mapping[str, Call], one: Tree, other: Tree, shared: Mapping[str, np.ndarray]
) -> Iterator[tuple[Tree, Tree]]:
    """Two trees with what makes the last shared value that one of them reads alone, until they read the same."""
    order = list(calls)
    while names := set(leaves(one)) ^ set(leaves(other)):
        last = max(names, key=order.index)
        tree = tree_of(calls, last, {name: value for name, value in shared.items() if name != last})
        if tree is None:
            return
        one, other = expanded(one, {last: tree}), expanded(other, {last: tree})
        yield one, other


def _computed(pair: Pair, parts: Parts) -> list[np.ndarray]:
    return [evaluated(pair, parts)]


def _unlike(pair: tuple[Chain, Chain]) -> tuple[int, int]:
    """How much of two chains differs, a whole op for more than a field; and how many blocks they take."""
    edits = differing(*beside(*pair))
    return sum(1 if edit.field else WHOLE for edit in edits), sum(len(chain.blocks) for chain in pair)


def _scaled_inputs(chain: Chain, values: list[np.ndarray], enough: float) -> Question:
    """An op of several inputs, one of which the other side may scale first."""
    held = [[parameters] for parameters in chain.parameters]

    def compute(parts: Parts) -> list[np.ndarray]:
        inputs = tuple(
            x if scale is None else apply(scale, (x,), ()) for scale, x in zip(parts[1:], chain.inputs, strict=True)
        )
        return [run(parts[:1], replace(chain, inputs=inputs), held)]

    return Question(
        parts=((*chain.ops, *[None] * len(chain.inputs)), ()),
        values=([values[0]], [values[1]]),
        compute=compute,
        enough=[enough],
        of=(("scaled",), chain.blocks),
        alternatives={k + 1: (Scale(factor=2.0, offset=0.0),) for k in range(len(chain.inputs))},
    )


def _asked(one: Chain, other: Chain, values: tuple[np.ndarray, np.ndarray], enough: float) -> Question:
    parts = beside(one, other)
    held = held_by(one, other, parts)
    return Question(
        parts=parts,
        values=([one.canonical(values[0])], [one.canonical(values[1])]),
        compute=lambda ops: [run(ops, one, held)],
        enough=[enough],
        of=(one.blocks, other.blocks),
    )


def held_by(one: Chain, other: Chain, parts: tuple[Parts, Parts]) -> list[list[Arrays]]:
    """For each place the parameters of either side's op there; parameters that both have are equal."""
    sides = iter(one.parameters), iter(other.parameters)
    held = []
    for ops in zip(*parts, strict=True):
        held.append([next(of) for op, of in zip(ops, sides, strict=True) if op is not None])
    return held


def _one_sided(chain: Chain, side: int, values: list[np.ndarray], enough: float) -> Question:
    """One side alone is known: which edit of it gives the other's values?"""
    parts: tuple[Parts, Parts] = (chain.ops, ()) if side == 0 else ((), chain.ops)
    held = [[parameters] for parameters in chain.parameters]
    return Question(
        parts=parts,
        values=([values[0]], [values[1]]),
        compute=lambda ops: [run(ops, chain, held)],
        enough=[enough],
        of=(chain.blocks, ()) if side == 0 else ((), chain.blocks),
        alternatives={i: ACTIVATIONS for i, op in enumerate(chain.ops) if type(op) in {type(a) for a in ACTIVATIONS}},
    )


def unpaired(moment: Moment, alone: Taken, calls: Calls, names: tuple[str, str]) -> Question | None:
    """Two blocks that no value has paired: what either computes, as the reference has it."""
    one, other = (next(chains(of, name), None) for of, name in zip(calls, names, strict=True))
    if one is None or other is None or one.output.shape != other.output.shape:
        return None
    records = (moment.reference.records, alone.records)
    noise = sum(
        float(np.abs(of["float32"].activations[name] - of["float64"].activations[name]).max(initial=0.0))
        for of, name in zip(records, names, strict=True)
    )
    values = tuple(
        chain.canonical(of["float64"].activations[name])
        for chain, of, name in zip((one, other), records, names, strict=True)
    )
    enough = K * (noise * SHRINK + EPS64 * float(np.abs(one.output).max(initial=0.0)))
    parts = beside(one, other)
    held = held_by(one, other, parts)
    return Question(
        parts=parts,
        values=([values[0]], [values[1]]),
        compute=lambda ops: [run(ops, one, held)],
        enough=[enough],
        of=(one.blocks, other.blocks),
    )


def near(calls: Calls, names: tuple[str, str]) -> Near:
    """What makes what a block reads, and what reads its output, on either side, as far as values pass through ops
    without parameters."""
    makers, readers = [], []
    for of, name in zip(calls, names, strict=True):
        order, at = list(of.values()), list(of).index(name) if name in of else None
        if at is not None:
            makers += _connected(order[:at][::-1], of[name].inputs, back=True)[::-1]
            readers += _connected(order[at + 1 :], (of[name].output,), back=False)
    return tuple(makers), tuple(readers)


def _connected(calls: Sequence[Call], reached: Sequence[np.ndarray], back: bool) -> list[object]:
    """The ops of calls that some values reach, one call after the other; back: from what reads to what makes."""
    found: list[object] = []
    for call in calls:
        ends, others = ((call.output,), call.inputs) if back else (call.inputs, (call.output,))
        if call.ops and any(np.array_equal(one, other) for one in ends for other in reached):
            found += call.ops[::-1] if back else call.ops
            if not any(call.parameters):
                reached = (*reached, *others)
    return found


def only_there(calls: Calls, block: Block) -> Parts:
    """The op of a block that one side has alone, and the one that reads it; () where it is not known for sure."""
    if block.alone is None:
        return ()
    side = block.alone
    call = calls[side].get(block.candidate if side else block.reference)
    if call is None or len(call.ops) != 1 or len(call.inputs) != 1 or not reproduced(call):
        return ()
    readers = [
        of.ops[0] for of in calls[side].values() if of.ops and any(np.array_equal(x, call.output) for x in of.inputs)
    ]
    return (call.ops[0], *readers[:1])


def reproduced(call: Call) -> bool:
    """The reference computes what a block of one op gives."""
    try:
        made = apply(call.ops[0], call.inputs, call.parameters[0])
    except UNFIT:
        return False
    limit = REPRODUCED * float(np.abs(call.output).max(initial=0.0))
    return made.shape == call.output.shape and float(np.abs(made - call.output).max(initial=0.0)) <= limit
