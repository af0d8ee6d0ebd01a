"""From one side to the other: states, slots and forced values of the reference in the candidate's names and layouts."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np

from harness.case import PRECISIONS, Precision
from harness.comparing import compare_tensor, together
from harness.following import (
    Compared,
    Plan,
    States,
    Taken,
    has_slot,
    layout_of,
    or_zero,
    parameters_of,
    shown_reference,
)
from harness.judging import K
from harness.pairing import Pairing
from harness.recipe import Forced, State
from harness.views import Side, put, put_gradient, put_value, see_gradient, see_value


def mapped(pairing: Pairing, states: States, onto: States, keep: Collection[str] = ()) -> dict[Precision, State]:
    """The reference's states in the candidate's names and layouts.

    What has no counterpart stays as in `onto`, and so do parameters that began apart and the slots named in `keep`
    (`slot:parameter`): that they differ is the candidate's own doing.
    """
    return {precision: mapped_state(pairing, states[precision], onto[precision], keep) for precision in PRECISIONS}


def mapped_state(pairing: Pairing, state: State, onto: State, keep: Collection[str] = ()) -> State:
    """As `mapped`, one precision."""
    values = dict(onto.values)
    slots = {slot: dict(of) for slot, of in onto.slots.items()}
    for link in pairing.links:
        if link.expected:
            put_value(link.candidate, values, see_value(link.reference, state.values))
        for slot, of in slots.items():
            if f"{slot}:{link.name}" not in keep and has_slot(onto, slot, link.candidate):
                canonical = _held(link.reference, state, slot)
                if canonical is not None:
                    put_gradient(link.candidate, of, canonical)
    return State(values=values, slots=slots, count=state.count)


def _held(side: Side, state: State, slot: str) -> np.ndarray | None:
    return see_gradient(side, state.slots.get(slot, {}))


def slots_apart(plan: Plan, reference: States, candidate: States) -> set[str]:
    """Slots (`slot:parameter`) that differ by more than rounding; one that is not there yet is 0."""
    apart = set()
    names = dict.fromkeys([*reference["float64"].slots, *candidate["float64"].slots])
    for slot, link in itertools.product(names, plan.pairing.links):
        pairs = [
            [_held(link.reference, reference[p], slot), _held(link.candidate, candidate[p], slot)] for p in PRECISIONS
        ]
        if all(one is None and other is None for one, other in pairs):
            continue
        shape = see_value(link.reference, reference["float64"].values).shape
        four = [np.zeros(shape) if s is None else s for s in (pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1])]
        layout = layout_of([Compared(kind="slot", name=slot, reference="", candidate="")], [shape])
        if not together(layout, [compare_tensor([(values,) for values in four])]).ratio[0, 0] <= K:
            apart.add(f"{slot}:{link.name}")
    return apart


def forced_by(plan: Plan, reference: Taken, candidate: Taken) -> dict[Precision, Forced]:
    """The reference's activations, cotangents and gradients, for the candidate to compute each block from."""
    return {precision: _forced(plan, reference, candidate, precision) for precision in PRECISIONS}


def _forced(plan: Plan, reference: Taken, candidate: Taken, precision: Precision) -> Forced:
    own = candidate.records[precision]
    given: dict[str, dict[str, np.ndarray]] = {"activation": {}, "activation_gradient": {}, "gradient": {}}
    for quantity in plan.compared:
        if quantity.kind not in given:
            continue
        values = shown_reference(quantity, reference, precision)
        if quantity.aligned is not None:
            of = own.activations if quantity.kind == "activation" else own.cotangents
            target = np.empty(of[quantity.candidate].shape, values.dtype)
            put(quantity.aligned.view, target, values)
            given[quantity.kind][quantity.candidate] = target
        else:
            assert quantity.link is not None
            into = given["gradient"]
            for name in parameters_of(quantity.link.candidate):
                into.setdefault(name, or_zero(own.gradients.get(name), candidate.before[precision].values[name]))
            put_gradient(quantity.link.candidate, into, values)
            if quantity.link.candidate.added:  # of several that are added, a frozen one is not to move
                for name in parameters_of(quantity.link.candidate):
                    if own.gradients.get(name) is None:
                        del into[name]
    return Forced(activations=given["activation"], cotangents=given["activation_gradient"], gradients=given["gradient"])
