"""Why a gradient differs: what the blocks behind it make of the reference's cotangents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.case import PRECISIONS, Precision
from harness.editing import Parts
from harness.elsewhere import Moment
from harness.following import Compared, Taken, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.ops import Detach
from harness.owning import Own
from harness.questions.blocks import Calls, held_by
from harness.questions.buffers import layer_of
from harness.questions.chains import Backward, Chain, beside, chains, run, run_back
from harness.questions.scopes import is_frozen
from harness.solving import Question

Values = Mapping[Precision, Sequence[np.ndarray]]
"""What both sides have of a gradient, in either precision."""

Found = tuple[Sequence["Branch"], np.ndarray, Values]
"""The ways back to a gradient, an array like it, and both sides' values of it; canonical."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A gradient and what it comes from, as one side has them: both sides' values and the cotangents, in its layout."""

    name: str
    partners: Mapping[str, str]
    values: Values
    cotangents: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One way back to a gradient: a chain, its output's cotangent (canonical), and which of its gradients is meant.

    may_stop: whether it can be that nothing flows back here on the other side.
    """

    chain: Chain
    cotangent: np.ndarray
    read: Callable[[Backward], np.ndarray | None]
    may_stop: bool


def questions(moment: Moment, own: Own, alone: Taken, i: int, calls: Calls) -> Iterator[Question]:
    """The gradient of a parameter from the cotangents of its layer's calls, or of an activation from those of the
    blocks that read it; of both sides where both are known, else of one."""
    quantity, enough = moment.plan.compared[i], K * own.measures.budget[0, i]
    if quantity.link is not None and is_frozen(moment, quantity.link):
        return  # that nothing flows back into it says nothing about the blocks
    for side in (0, 1):
        seen = _seen(moment, alone, quantity, side)
        both = calls if side == 0 else calls[::-1]
        if seen is None:
            continue
        pair = (both[0], both[1])
        made = _of_parameter if quantity.kind == "gradient" else _of_activation
        found = made(moment, i, pair, side, seen)
        if found is None:
            continue
        branches, like, values = found
        limits = [_limit(moment, own, side, branch.chain.blocks[0]) for branch in branches]
        outer = [np.inf if limit is None else limit for limit in limits]
        if len(branches) == 1:
            partner = seen.partners.get(branches[0].chain.blocks[0], "")
            other = next(chains(pair[1], partner), None)
            if other is not None:
                yield _of_both(branches[0], other, side, like, values, [enough, *outer])
        if None not in limits:
            yield _of_one(branches, side, like, values, [enough, *outer])


def _limit(moment: Moment, own: Own, side: int, name: str) -> float | None:
    """What rounding explains of a block's output: what explains a gradient must leave it as it is. None where the two
    sides do not agree in it."""
    for i, quantity in enumerate(moment.plan.compared):
        if quantity.kind == "activation" and (quantity.candidate if side else quantity.reference) == name:
            return K * own.measures.budget[0, i] if own.measures.ratio[0, i] <= K else None
    return np.inf


def _seen(moment: Moment, alone: Taken, quantity: Compared, side: int) -> Seen | None:
    record, theirs = moment.reference.records["float64"], alone.records
    forced = forced_by(moment.plan, moment.reference, moment.candidate)
    partners = {pair.reference: pair.candidate for pair in moment.plan.alignment}
    link = quantity.link
    name = quantity.reference if link is None else link.reference.parameter
    if side == 0:
        shows: Values = {p: shown(quantity, moment.reference, alone, p) for p in PRECISIONS}
        return Seen(name=name, partners=partners, values=shows, cotangents=record.cotangents)
    name = quantity.candidate if link is None else link.candidate.parameter
    both: dict[Precision, tuple[np.ndarray, np.ndarray]] = {}
    for p in PRECISIONS:
        meant = (forced[p].cotangents if link is None else forced[p].gradients).get(name)
        own = (theirs[p].cotangents if link is None else theirs[p].gradients).get(name)
        if meant is None or own is None:
            return None
        both[p] = meant, own
    back = {candidate: reference for reference, candidate in partners.items()}
    cotangents = {**theirs["float64"].cotangents, **forced["float64"].cotangents}
    return Seen(name=name, partners=back, values=both, cotangents=cotangents)


def _of_parameter(moment: Moment, i: int, calls: Calls, side: int, seen: Seen) -> Found | None:
    layer = layer_of(moment, i, side)
    others = (moment.reference if side else moment.candidate).records["float64"].cotangents
    branches: list[Branch] = []
    axes = None
    state = (
        moment.reference.before
        if side == 0
        else mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before)
    )
    held = np.zeros(0)
    for name in calls[0]:
        chain = next(chains(calls[0], name), None) if name.partition("#")[0] == layer else None
        if chain is None or name not in seen.cotangents:
            continue
        place = next(((k, row.index(seen.name)) for k, row in enumerate(chain.names) if seen.name in row), None)
        if place is None:
            return None
        held = chain.parameters[place[0]][place[1]]
        axes = _axes(state["float64"].values[seen.name], held)
        read = partial(_of_held, *place)
        cotangent = chain.canonical(seen.cotangents[name])
        stops = seen.partners.get(name, "") not in others  # else it reaches another parameter there
        branches.append(Branch(chain=chain, cotangent=cotangent, read=read, may_stop=stops))
    if not branches or axes is None:
        return None
    return branches, held, {p: [value.transpose(axes) for value in pair] for p, pair in seen.values.items()}


def _of_held(op: int, index: int, found: Backward) -> np.ndarray | None:
    return found[1][op][index]


def _of_activation(moment: Moment, i: int, calls: Calls, side: int, seen: Seen) -> Found | None:
    own = calls[0].get(seen.name)
    taken = moment.candidate if side else moment.reference
    record = taken.records["float64"]
    if own is None or seen.name in record.outputs:
        return None
    if sum(np.array_equal(call.output, own.output) for call in calls[0].values()) > 1:
        return None  # an identity: who reads which of the two cannot be told
    branches = []
    for name, call in calls[0].items():
        places = [k for k, array in enumerate(call.inputs) if np.array_equal(array, own.output)]
        if name == seen.name or not places or name not in record.cotangents:
            continue
        chain = next(chains(calls[0], name), None)
        if chain is None or name not in seen.cotangents:
            return None
        read = partial(_of_inputs, places)
        cotangent = chain.canonical(seen.cotangents[name])
        stops = name in seen.partners  # a reader that the other side lacks altogether is no stopped one
        branches.append(Branch(chain=chain, cotangent=cotangent, read=read, may_stop=stops))
    if not branches:
        return None
    return branches, own.output, {p: [own.canonical(value) for value in pair] for p, pair in seen.values.items()}


def _of_inputs(places: Sequence[int], found: Backward) -> np.ndarray | None:
    given = [gradient for k in places if (gradient := found[0][k]) is not None]
    return sum(given[1:], given[0]) if given else None


def _of_both(
    branch: Branch, other: Chain, side: int, like: np.ndarray, values: Values, enough: Sequence[float]
) -> Question:
    """What either side's chain makes of a cotangent."""
    chain = branch.chain
    parts = beside(chain, other)
    (mine, theirs), (mine32, theirs32) = values["float64"], values["float32"]
    held = held_by(chain, other, parts)

    def compute(ops: Parts) -> list[np.ndarray]:
        found = branch.read(run_back(ops, chain, held, branch.cotangent))
        return [np.zeros_like(like) if found is None else found, run(ops, chain, held)]

    return Question(
        parts=parts if side == 0 else (parts[1], parts[0]),
        values=([mine, chain.output], [theirs, chain.output]),
        values32=([mine32], [theirs32]),
        compute=compute,
        enough=enough,
        searching=False,
        of=((str(side),), chain.blocks, other.blocks),
    )


def _of_one(
    branches: Sequence[Branch], side: int, like: np.ndarray, values: Values, enough: Sequence[float]
) -> Question:
    """What a side's chains make of their cotangents, together; before each is the place where nothing may flow back."""
    lengths = [1 + len(branch.chain.ops) for branch in branches]
    ends = np.cumsum(lengths).tolist()
    parts = tuple(op for branch in branches for op in (None, *branch.chain.ops))
    outputs = [branch.chain.output for branch in branches]
    (mine, theirs), (mine32, theirs32) = values["float64"], values["float32"]

    def compute(ops: Parts) -> list[np.ndarray]:
        total, made = np.zeros_like(like), []
        for branch, end, length in zip(branches, ends, lengths, strict=True):
            stop, *own = ops[end - length : end]
            held = [[parameters] for parameters in branch.chain.parameters]
            made.append(run(tuple(own), branch.chain, held))
            found = None if stop else branch.read(run_back(tuple(own), branch.chain, held, branch.cotangent))
            total = total if found is None else total + found
        return [total, *made]

    return Question(
        parts=(parts, ()) if side == 0 else ((), parts),
        values=([mine, *outputs], [theirs, *outputs]),
        values32=([mine32], [theirs32]),
        compute=compute,
        enough=enough,
        alternatives={
            end - length: (Detach(),)
            for branch, end, length in zip(branches, ends, lengths, strict=True)
            if branch.may_stop
        },
        of=((f"{side} alone",), *(branch.chain.blocks for branch in branches)),
    )


def _axes(own: np.ndarray, canonical: np.ndarray) -> tuple[int, ...] | None:
    """The transposition that makes a parameter canonical; None where it takes more than that."""
    if own.ndim != canonical.ndim:
        return None
    return next(
        (axes for axes in itertools.permutations(range(own.ndim)) if np.array_equal(own.transpose(axes), canonical)),
        None,
    )
