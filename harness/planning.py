"""How two models' steps are compared, found before the first one is judged: a common start, pairs, an order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from harness.activations import align_activations
from harness.comparing import EPS64
from harness.evidence import distance, rounded
from harness.following import Follower, Plan, States, Taken, forward, parameters_of, plan_of
from harness.linking import unequal
from harness.mapping import mapped_state
from harness.narrow import float64_throughout
from harness.pairing import Pairing, pair_parameters
from harness.recipe import Record, State
from harness.returned import as_returned, otherwise_shaped
from harness.views import Link, see_value
from harness.widening import typed

MOVE = 0.05
"""How far parameters are moved, relative to their size, to tell activations apart."""

FLOATS = ("bfloat16", "float16", "float32")

Sides = tuple[Follower, Follower]


def same_start(sides: Sides, *, exact: bool = False) -> list[States]:
    """Both sides' states, in both precisions the same numbers: those that the lowest stored precision can hold.

    exact: all is stored in float64, and the float64 run begins from that.
    """
    stored = np.dtype("float64") if exact else _coarsest(sides)
    states = [_rounded(side.states(), stored) for side in sides]
    for side, start in zip(sides, states, strict=True):
        side.load(start)
    return states


def start_together(sides: Sides, given: Mapping[str, Any] | None) -> tuple[list[States], Pairing]:
    """The states that both sides begin from, and their parameters paired; given: the user's own pairs.

    Where both users store float64, the float64 run begins from that. Else it takes what has no counterpart (constants
    kept beside the parameters) as the decimals that were typed.
    """
    exact = float64_throughout(sides)
    states, pairing = same_start(sides, exact=exact), pair_sides(sides, given)
    links = [[getattr(link, role) for link in pairing.links] for role in ("reference", "candidate")]
    for i in () if exact else (0, 1):
        paired = {name for side in links[i] for name in parameters_of(side)}
        states[i] = {**states[i], "float64": _typed(states[i]["float64"], paired)}
        sides[i].load(states[i])
    return states, pairing


def pair_sides(sides: Sides, given: Mapping[str, Any] | None) -> Pairing:
    """The two sides' parameters, paired; given: the user's own pairs. Where both users store float64, what agrees in
    float32 only does not agree."""
    one, other = (side.watched["float64"] for side in sides)
    values = one.state().values, other.state().values
    pairing = pair_parameters(one.parameters, other.parameters, *values, given)
    if not float64_throughout(sides):
        return pairing
    links, notes = [], [*pairing.notes]
    for link in pairing.links:
        own, theirs = see_value(link.reference, values[0]), see_value(link.candidate, values[1])
        apart, size = distance(own, theirs)
        if link.expected and apart > 2 * EPS64 * size:  # a sum of biases rounds once
            link = replace(link, expected=False)
            notes.append(unequal(link, own, theirs))
        links.append(link)
    return replace(pairing, links=tuple(links), notes=tuple(notes))


def plan_sides(sides: Sides, pairing: Pairing, reference: Taken, candidate: Taken) -> Plan:
    """Align the two sides on the examples of step 0, where all parameters have moved: at the usual start (factors of 1,
    offsets of 0) different activations have equal values."""
    layers = [{p.name: p.layer for p in side.watched["float64"].parameters} for side in sides]
    anchors = dict.fromkeys(
        (layers[0][link.reference.parameter], layers[1][link.candidate.parameter]) for link in pairing.links
    )
    parameters = sides[0].watched["float64"].parameters
    shared = {name for link in pairing.links if link.expected for name in parameters_of(link.reference)}
    movable = shared - {parameter.name for parameter in parameters if parameter.buffer}
    records = reference.records["float64"], candidate.records["float64"]
    batches = [side.feed.batch(0, "float64") for side in sides]
    moved = _moved(reference.before["float64"], movable)
    state = mapped_state(pairing, moved, candidate.before["float64"])
    there = forward(sides[0], moved, batches[0], {}, records[0].activations)
    own = forward(sides[1], state, batches[1], {}, records[1].activations)
    opaque = {p.layer for side in sides for p in side.watched["float64"].parameters if p.op}
    inputs, targets = (
        [pair for pair in zip(one, other, strict=False) if pair[0].size == pair[1].size]
        for one, other in zip(*((batch.inputs, batch.targets) for batch in batches), strict=True)
    )
    alignment = align_activations(
        there,
        own,
        lambda forced: forward(sides[1], state, batches[1], forced, records[1].activations),
        list(anchors),
        opaque,
        inputs,
    )
    alike = sides[0].framework == sides[1].framework
    returned = as_returned(alignment, there, own, [*inputs, *targets], alike)
    aligned = Plan(alignment=alignment, pairing=pairing, compared=(), returned=returned)
    return plan_of_step(aligned, sides, reference, candidate)


def plan_of_step(plan: Plan, sides: Sides, reference: Taken, candidate: Taken) -> Plan:
    """The plan for another step, in which updates may be made or not."""
    records = reference.records["float64"], candidate.records["float64"]
    updates = reference.updates or candidate.updates
    parameters = sides[0].watched["float64"].parameters
    return plan_of(
        plan.alignment,
        plan.pairing,
        parameters,
        *records,
        updates=updates,
        returned=plan.returned,
        unused=unused_gradients(sides, plan.pairing, records),
    )


def unused_gradients(sides: Sides, pairing: Pairing, records: tuple[Record, Record]) -> set[Link]:
    """Those of parameters that neither side trains, where one side computes none: a layer may be frozen, or left out of
    the optimizer."""
    frozen = [{p.name for p in side.watched["float64"].parameters if not p.trainable} for side in sides]

    def is_unused(link: Link) -> bool:
        names = parameters_of(link.reference), parameters_of(link.candidate)
        none = [all(r.gradients.get(n) is None for n in of) for r, of in zip(records, names, strict=True)]
        return none[0] != none[1] and all(still.issuperset(of) for still, of in zip(frozen, names, strict=True))

    return {link for link in pairing.links if is_unused(link)}


def without_returned(plan: Plan) -> Plan:
    """The plan without the outputs as they are returned."""
    compared = tuple(quantity for quantity in plan.compared if quantity.aligned not in plan.returned)
    return replace(plan, compared=compared, returned=())


def left_out(plan: Plan, sides: Sides, records: tuple[Record, Record]) -> list[str]:
    """What has no counterpart, in words."""
    notes = otherwise_shaped([side.name for side in sides], *records)
    for name, side in ((plan.pairing.unmatched_reference, sides[0]), (plan.pairing.unmatched_candidate, sides[1])):
        notes += [f"{side.name}: {note.text}" for note in name]
    return notes


def _coarsest(sides: Sides) -> np.dtype:
    """The lowest precision, float32 at most, in which either side stores a parameter."""
    stored = [np.dtype(p.dtype) for side in sides for p in side.watched["float64"].parameters if p.dtype in FLOATS]
    return max([np.dtype("float32"), *stored], key=lambda dtype: float(ml_dtypes.finfo(dtype).eps))


def _rounded(states: States, stored: np.dtype) -> States:
    def once(array: np.ndarray) -> np.ndarray:
        return array.astype(stored).astype(array.dtype) if array.dtype.kind == "f" else array

    return {
        precision: replace(
            state,
            values={name: once(array) for name, array in state.values.items()},
            slots={slot: {name: once(array) for name, array in of.items()} for slot, of in state.slots.items()},
        )
        for precision, state in states.items()
    }


def _typed(state: State, paired: Collection[str]) -> State:
    alone = {name: of for name, of in state.values.items() if name not in paired and of.dtype.kind == "f"}
    return replace(state, values={**state.values, **{name: typed(rounded(of)) for name, of in alone.items()}})


def _moved(state: State, movable: Collection[str]) -> State:
    rng = np.random.default_rng(0)
    values = {}
    for name, array in state.values.items():
        noise = rng.standard_normal(array.shape)
        scale = MOVE * (np.sqrt(np.mean(array**2)) + MOVE) if name in movable and array.dtype.kind == "f" else 0
        values[name] = (array + scale * noise).astype(array.dtype) if scale else array
    return State(values=values, count=state.count)
