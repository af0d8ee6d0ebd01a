"""Why a gradient differs: what the blocks behind it make of the reference's cotangents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.calls import Call
from harness.editing import Parts
from harness.elsewhere import Moment
from harness.following import Compared, Taken, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.ops import Detach
from harness.owning import Own
from harness.questions.blocks import Calls, held_by
from harness.questions.buffers import layer_of
from harness.questions.chains import Arrays, Backward, Chain, beside, chains, run, run_back
from harness.solving import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A gradient and what it comes from, as one side has them: both sides' values and the cotangents, in its layout."""

    name: str
    partners: Mapping[str, str]
    values: tuple[np.ndarray, np.ndarray]
    cotangents: Mapping[str, np.ndarray]


def questions(moment: Moment, own: Own, alone: Taken, i: int, calls: Calls) -> Iterator[Question]:
    """The gradient of a parameter from its layer's cotangent, or of an activation from those of the blocks that read
    it; of both sides where both are known, else of one."""
    quantity, enough = moment.plan.compared[i], K * own.measures.budget[0, i]
    for side in (0, 1):
        seen = _seen(moment, alone, quantity, side)
        both = calls if side == 0 else calls[::-1]
        made = _of_parameter if quantity.kind == "gradient" else _of_activation
        question = made(moment, i, (both[0], both[1]), side, seen, enough) if seen else None
        if question:
            yield _forward_too(moment, own, side, question)


def _forward_too(moment: Moment, own: Own, side: int, question: Question) -> Question:
    """What explains a gradient must leave the block's output as it is, where the two sides agree in that."""
    name, output = question.of[1][0], question.values[side][-1]
    for i, quantity in enumerate(moment.plan.compared):
        if quantity.kind == "activation" and (quantity.candidate if side else quantity.reference) == name:
            agree = own.measures.ratio[0, i] <= K
            limit = K * own.measures.budget[0, i] if agree else np.inf
            values = [[*of[:-1], output] for of in question.values]
            return replace(
                question, values=(values[0], values[1]), enough=[*question.enough[:-1], limit], searching=bool(agree)
            )
    return question


def _seen(moment: Moment, alone: Taken, quantity: Compared, side: int) -> Seen | None:
    record, theirs = moment.reference.records["float64"], alone.records["float64"]
    forced = forced_by(moment.plan, moment.reference, moment.candidate)["float64"]
    partners = {pair.reference: pair.candidate for pair in moment.plan.alignment}
    link = quantity.link
    name = quantity.reference if link is None else link.reference.parameter
    if side == 0:
        values = shown(quantity, moment.reference, alone)
        return Seen(name=name, partners=partners, values=values, cotangents=record.cotangents)
    name = quantity.candidate if link is None else link.candidate.parameter
    meant = (forced.cotangents if link is None else forced.gradients).get(name)
    own = (theirs.cotangents if link is None else theirs.gradients).get(name)
    if meant is None or own is None:
        return None
    back = {candidate: reference for reference, candidate in partners.items()}
    return Seen(name=name, partners=back, values=(meant, own), cotangents=forced.cotangents)


def _of_parameter(moment: Moment, i: int, calls: Calls, side: int, seen: Seen, enough: float) -> Question | None:
    layers = layer_of(moment, i, side), layer_of(moment, i, 1 - side)
    one, other = (next(chains(of, layer), None) for of, layer in zip(calls, layers, strict=True))
    cotangent = seen.cotangents.get(layers[0])
    if one is None or cotangent is None:
        return None
    place = next(((k, row.index(seen.name)) for k, row in enumerate(one.names) if seen.name in row), None)
    if place is None:
        return None
    op, index = place
    held = one.parameters[op][index]
    state = (
        moment.reference.before
        if side == 0
        else mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before)
    )
    axes = _axes(state["float64"].values[seen.name], held)
    if axes is None:
        return None

    def read(found: Backward) -> np.ndarray | None:
        return found[1][op][index]

    return _question(one, other, side, cotangent, read, held, [v.transpose(axes) for v in seen.values], enough)


def _of_activation(moment: Moment, i: int, calls: Calls, side: int, seen: Seen, enough: float) -> Question | None:
    own = calls[0].get(seen.name)
    if own is None:
        return None
    readers = [name for name, call in calls[0].items() if _reads(call, own.output) and name in seen.cotangents]
    if len(readers) != 1 or readers[0] == seen.name:
        return None
    one = next(chains(calls[0], readers[0]), None)
    other = next(chains(calls[1], seen.partners.get(readers[0], "")), None)
    if one is None:
        return None
    position = next(k for k, array in enumerate(one.inputs) if np.array_equal(array, own.output))

    def read(found: Backward) -> np.ndarray | None:
        return found[0][position]

    values = [own.canonical(value) for value in seen.values]
    return _question(one, other, side, seen.cotangents[readers[0]], read, own.output, values, enough)


def _question(
    one: Chain,
    other: Chain | None,
    side: int,
    cotangent: np.ndarray,
    read: Callable[[Backward], np.ndarray | None],
    like: np.ndarray,
    values: Sequence[np.ndarray],
    enough: float,
) -> Question:
    """What a side's chain makes of a cotangent; the other side's chain beside it, where that is known too."""
    dy = one.canonical(cotangent)
    if other is None:
        parts: tuple[Parts, Parts] = (one.ops, ())
        held: Sequence[Sequence[Arrays]] = [[parameters] for parameters in one.parameters]
    else:
        parts = beside(one, other)
        held = held_by(one, other, parts)

    def compute(ops: Parts) -> list[np.ndarray]:
        found = read(run_back(ops, one, held, dy))
        return [np.zeros_like(like) if found is None else found, run(ops, one, held)]

    return Question(
        parts=parts if side == 0 else (parts[1], parts[0]),
        values=([values[0], one.output], [values[1], one.output]),
        compute=compute,
        enough=[enough, np.inf],
        alternatives={} if other else {k: (None, Detach()) for k in range(len(one.ops))},
        of=((str(side),), one.blocks, () if other is None else other.blocks),
    )


def _reads(call: Call, output: np.ndarray) -> bool:
    return bool(call.ops) and any(np.array_equal(array, output) for array in call.inputs)


def _axes(own: np.ndarray, canonical: np.ndarray) -> tuple[int, ...] | None:
    """The transposition that makes a parameter canonical; None where it takes more than that."""
    if own.ndim != canonical.ndim:
        return None
    return next(
        (axes for axes in itertools.permutations(range(own.ndim)) if np.array_equal(own.transpose(axes), canonical)),
        None,
    )
