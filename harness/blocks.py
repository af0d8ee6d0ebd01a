"""Blocks behind a difference: one that only one side has, or two that no value has paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from harness.activations import Aligned, layouts
from harness.case import PRECISIONS, Precision
from harness.elsewhere import Moment
from harness.following import Taken, retake, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.owning import Own
from harness.recipe import Forced
from harness.views import View, put

MOST = 100
"""Blocks tried; each costs a step of the candidate."""

Values = Mapping[Precision, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block by its name on either side (of one that a side lacks, what stands in its place), and what is with it.

    alone: the side that has it, 0 or 1; None for two that differ.
    """

    reference: str
    candidate: str
    text: str
    alone: int | None


def block_behind(moment: Moment, own: Own, i: int) -> Block | None:
    """The block that makes quantity i (an activation, or the loss) differ. None where none explains the difference."""
    states = mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before)
    forced = forced_by(moment.plan, moment.reference, moment.candidate)
    batches = moment.sides[1].batches(moment.step)
    for block, target, values in islice(_guesses(moment, i), MOST):
        instead: dict[Precision, Forced] = {
            p: replace(forced[p], activations={**forced[p].activations, target: values[p]}) for p in PRECISIONS
        }
        again = retake(moment.sides[1], states, batches, instead)
        one, other = shown(moment.plan.compared[i], moment.reference, again)
        if np.abs(one - other).max() <= K * own.measures.budget[0, i]:
            return block
    return None


def _guesses(moment: Moment, i: int) -> Iterator[tuple[Block, str, Values]]:
    """Blocks, and what the candidate's activation of a name would have to be if that is the one: right before quantity
    i the output of a block that it lacks, or the input of one that the reference lacks; further up, from the first on,
    what an activation of the reference is in the place of one of the candidate, of those that have no partner."""
    plan, reference, candidate = moment.plan, moment.reference, moment.candidate
    quantity = plan.compared[i]
    partners = {pair.reference: pair for pair in plan.alignment}, {pair.candidate: pair for pair in plan.alignment}
    behind = _before(reference, quantity.reference), _before(candidate, quantity.candidate)
    free, fed = zip(*(_up_to_partner(names, of) for names, of in zip(behind, partners, strict=True)), strict=True)
    if fed[1] is not None:
        pair = partners[1][fed[1]]
        for name in free[0]:
            if _shape(reference, name) == _shape(reference, pair.reference):
                alone = Block(
                    reference=name, candidate=pair.candidate, text=f"{name} is there in the reference alone", alone=0
                )
                yield alone, pair.candidate, _seen(moment, name, pair.candidate, pair.view)
    if fed[0] is not None:
        pair = partners[0][fed[0]]
        for name in free[1]:
            if _shape(candidate, name) == _shape(candidate, pair.candidate):
                alone = Block(reference=name, candidate=name, text=f"{name} is there in the candidate alone", alone=1)
                yield alone, name, _seen(moment, pair.reference, name, pair.view)
    for one in (name for name in reversed(behind[0]) if name not in partners[0]):
        for other in (name for name in reversed(behind[1]) if name not in partners[1]):
            for view in layouts(_shape(reference, one), _shape(candidate, other)):
                two = Block(reference=one, candidate=other, text=f"{one} and {other} differ", alone=None)
                yield two, other, _seen(moment, one, other, view)


def _before(taken: Taken, name: str) -> list[str]:
    """The activations computed before one (before the loss: all), the nearest first."""
    names = list(taken.records["float64"].activations)
    return names[: names.index(name) if name in names else None][::-1]


def _up_to_partner(names: list[str], partners: Mapping[str, Aligned]) -> tuple[list[str], str | None]:
    for i, name in enumerate(names):
        if name in partners:
            return names[:i], name
    return names, None


def _shape(taken: Taken, name: str) -> tuple[int, ...]:
    return taken.records["float64"].activations[name].shape


def _seen(moment: Moment, name: str, target: str, view: View) -> Values:
    """An activation of the reference in the layout of the candidate's target."""
    found: dict[Precision, np.ndarray] = {}
    for precision in PRECISIONS:
        found[precision] = np.empty(moment.candidate.records[precision].activations[target].shape, precision)
        put(view, found[precision], moment.reference.records[precision].activations[name])
    return found
