"""Two users' models taking the same steps in both precisions, and every quantity of a step of both, measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from frameworks.protocol import Watched
from harness.activations import Aligned
from harness.case import PRECISIONS, Precision
from harness.comparing import Measures, Parts, compare_tensors, together, whole
from harness.feeding import Feed
from harness.layout import Kind, Layout, Quantity, Shape
from harness.pairing import Pairing
from harness.recipe import Batch, Forced, Parameter, Record, State
from harness.views import Link, Side, View, put, see, see_gradient, see_value
from harness.widening import Widen

Records = Mapping[Precision, Record]
States = Mapping[Precision, State]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """An output, the layout that shows it as the reference's, and its own shape on a batch of so many examples."""

    name: str
    view: View
    shape: Shape
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """One side: its name, the framework's, a watched copy in each precision and what it is fed.

    pulled: without a loss, the outputs whose vector-Jacobian product is taken. order: of the outputs, where they are
    not taken as the model returns them. anew: another watched copy in float64, whose constants outside the state are
    widened in a given way.
    """

    name: str
    framework: str
    watched: Mapping[Precision, Watched]
    feed: Feed
    pulled: tuple[Pulled, ...] = ()
    order: tuple[int, ...] | None = None
    anew: Callable[[Widen], Watched] | None = None

    def states(self) -> States:
        return {precision: self.watched[precision].state() for precision in PRECISIONS}

    def load(self, states: States) -> None:
        for precision in PRECISIONS:
            self.watched[precision].load(states[precision])

    def batches(self, step: int) -> dict[Precision, Batch]:
        return {precision: self.feed.batch(step, precision) for precision in PRECISIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A step of one side in both precisions: its states before and its records, which with a loss always have the state
    behind the step; updates: whether the step made one. seconds: what it took in float32, its recording included."""

    before: States
    records: Records
    updates: bool
    seconds: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """One quantity of a step: how it is called on either side, and how both are seen in the reference's layout."""

    kind: Kind
    name: str
    reference: str
    candidate: str
    aligned: Aligned | None = None
    link: Link | None = None
    slot: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is compared at every step, in the order of the computation. returned: the outputs that the alignment does
    not show as they are returned."""

    alignment: tuple[Aligned, ...]
    pairing: Pairing
    compared: tuple[Compared, ...]
    returned: tuple[Aligned, ...] = ()


def plan_of(
    alignment: tuple[Aligned, ...],
    pairing: Pairing,
    parameters: Sequence[Parameter],
    reference: Record,
    candidate: Record,
    updates: bool,
    returned: tuple[Aligned, ...] = (),
    unused: Collection[Link] = (),
) -> Plan:
    """Forward; loss; backward, each parameter's gradient behind its layer's; updates, slots, buffers.

    parameters: the reference's. updates: whether either side makes one in this step. unused: links whose gradients
    nobody uses.
    """
    layers = {parameter.name: parameter.layer for parameter in parameters}
    buffers = {parameter.name for parameter in parameters if parameter.buffer}
    compared = [
        Compared(kind="activation", name=a.reference, reference=a.reference, candidate=a.candidate, aligned=a)
        for a in alignment
    ]
    compared += [
        Compared(
            kind="activation",
            name=f"output {k}" if k else "output",
            reference=a.reference,
            candidate=a.candidate,
            aligned=a,
        )
        for k, a in enumerate(returned)
    ]
    if reference.loss is not None and candidate.loss is not None:
        compared.append(Compared(kind="loss", name="loss", reference="loss", candidate="loss"))
    trained = [link for link in pairing.links if link.reference.parameter not in buffers]
    waiting = [link for link in trained if reference.gradients and candidate.gradients and link not in unused]
    for a in reversed(alignment):
        if a.reference in reference.cotangents and a.candidate in candidate.cotangents:
            name = f"dL/d{a.reference}"
            compared.append(
                Compared(kind="activation_gradient", name=name, reference=a.reference, candidate=a.candidate, aligned=a)
            )
        for link in [link for link in waiting if layers[link.reference.parameter] == a.reference]:
            waiting.remove(link)
            compared.append(_of_link("gradient", link))
    compared += [_of_link("gradient", link) for link in reversed(waiting)]
    if reference.after is None or candidate.after is None:
        return Plan(alignment=alignment, pairing=pairing, compared=tuple(compared), returned=returned)
    if updates:
        compared += [_of_link("update", link) for link in trained]
        shared = [slot for slot in reference.after.slots if slot in candidate.after.slots]
        compared += [
            _of_link("slot", link, slot)
            for slot in shared
            for link in trained
            if has_slot(reference.after, slot, link.reference) and has_slot(candidate.after, slot, link.candidate)
        ]
        compared += [_of_link("parameter", link) for link in trained]
    compared += [_of_link("buffer", link) for link in pairing.links if link.reference.parameter in buffers]
    return Plan(alignment=alignment, pairing=pairing, compared=tuple(compared), returned=returned)


def _of_link(kind: Kind, link: Link, slot: str = "") -> Compared:
    names = {"gradient": f"dL/d{link.name}", "update": f"update:{link.name}", "slot": f"{slot}:{link.name}"}
    name = names.get(kind, link.name)
    return Compared(
        kind=kind,
        name=name,
        reference=" + ".join(parameters_of(link.reference)),
        candidate=" + ".join(parameters_of(link.candidate)),
        link=link,
        slot=slot,
    )


def has_slot(state: State, slot: str, side: Side) -> bool:
    return all(name in state.slots.get(slot, {}) for name in parameters_of(side))


def parameters_of(side: Side) -> list[str]:
    """The parameters that a side of a link consists of."""
    return [side.parameter, *(name for added in side.added for name in parameters_of(added))]


# --- steps ------------------------------------------------------------------------------------------------------


def take(side: Follower, step: int, before: States) -> Taken:
    """The next step of a side in both precisions; before: its states."""
    return _taken(side, before, side.batches(step), None)


def states_after(side: Follower, taken: Taken) -> States:
    """The states behind a side's last step."""
    after: dict[Precision, State] = {p: s for p in PRECISIONS if (s := taken.records[p].after) is not None}
    return after if len(after) == len(PRECISIONS) else side.states()


@contextmanager
def aside(sides: Sequence[Follower], states: Sequence[States]) -> Iterator[None]:
    """Within, steps may be taken again from any state; the sides go on afterwards from theirs."""
    try:
        yield
    finally:
        for side, own in zip(sides, states, strict=True):
            side.load(own)


def forward(
    side: Follower, state: State, batch: Batch, forced: Mapping[str, np.ndarray], names: Collection[str]
) -> Record:
    """The float64 activations of a batch from a state, with some forced; only within `aside`. names: what a whole step
    shows; where the forward pass alone does not show the same (a user's train_step) a whole step is taken."""
    watched = side.watched["float64"]
    watched.load(state)
    alone = watched.pull_back(batch, {}, Forced(activations=forced))
    if set(alone.activations) == set(names):
        return in_order(side, alone)
    watched.load(state)
    return in_order(side, watched.step(batch, Forced(activations=forced)))


def retake(
    side: Follower,
    states: States,
    batches: Mapping[Precision, Batch],
    forced: Mapping[Precision, Forced] | None = None,
) -> Taken:
    """A step from other states; only within `aside`."""
    side.load(states)
    return _taken(side, states, batches, forced)


def _taken(
    side: Follower,
    before: States,
    batches: Mapping[Precision, Batch],
    forced: Mapping[Precision, Forced] | None,
) -> Taken:
    records, seconds, updates = {}, {}, False
    for precision in PRECISIONS:
        began = time.perf_counter()
        record = _step(side, precision, batches[precision], forced[precision] if forced else None)
        seconds[precision] = time.perf_counter() - began
        updates |= record.after is not None
        if record.after is None and record.loss is not None:
            record = replace(record, after=side.watched[precision].state())
        records[precision] = record
    return Taken(before=before, records=_of_both(records), updates=updates, seconds=seconds["float32"])


def _of_both(records: Records) -> Records:
    """The records with what both precisions show: a cast to what a value is already makes no value of its own."""
    one, other = (records[precision] for precision in PRECISIONS)
    if list(one.activations) == list(other.activations):
        return records
    both = one.activations.keys() & other.activations.keys()
    pairs = zip(one.outputs, other.outputs, strict=False)
    outputs = [next((name for name in pair if name in both), "") for pair in pairs]
    keys = tuple(key for key, name in zip(one.keys, outputs, strict=False) if name)
    return {
        precision: replace(
            record,
            activations={name: values for name, values in record.activations.items() if name in both},
            cotangents={name: values for name, values in record.cotangents.items() if name in both},
            outputs=tuple(filter(None, outputs)),
            keys=keys,
        )
        for precision, record in records.items()
    }


def _step(side: Follower, precision: Precision, batch: Batch, forced: Forced | None) -> Record:
    if not side.pulled:
        return in_order(side, side.watched[precision].step(batch, forced))
    cotangents = {p.name: _cotangent(p, i, len(batch.inputs[0]), precision) for i, p in enumerate(side.pulled)}
    return in_order(side, side.watched[precision].pull_back(batch, cotangents, forced))


def in_order(side: Follower, record: Record) -> Record:
    """The record with its outputs in the side's order."""
    if side.order is None or len(side.order) != len(record.outputs):
        return record
    return replace(
        record,
        outputs=tuple(record.outputs[i] for i in side.order),
        keys=tuple(record.keys[i] for i in side.order),
    )


def order_by_keys(reference: Record, candidate: Record) -> tuple[int, ...] | None:
    """The candidate's outputs in the reference's order, where both call them the same."""
    keys = candidate.keys
    if reference.keys == keys or sorted(reference.keys) != sorted(keys) or len(set(keys)) < len(keys):
        return None
    return tuple(keys.index(key) for key in reference.keys)


def _cotangent(pulled: Pulled, seed: int, examples: int, precision: Precision) -> np.ndarray:
    """The same random numbers for both sides, each in its own layout."""
    shape = tuple(examples if n == pulled.examples else n for n in pulled.shape)
    cotangent = np.empty(shape, precision)
    values = np.random.default_rng(seed).standard_normal(see(pulled.view, cotangent).shape)
    put(pulled.view, cotangent, values.astype(np.float32).astype(precision))
    return cotangent


def pulling(sides: tuple[Follower, Follower], plan: Plan, records: tuple[Record, Record]) -> tuple[Follower, Follower]:
    """Two sides without a loss, from now on with cotangents for the outputs that both have."""
    outputs = {(a.reference, a.candidate): a for a in (*plan.alignment, *plan.returned)}
    pairs = [outputs[pair] for pair in zip(records[0].outputs, records[1].outputs, strict=False) if pair in outputs]
    examples = len(sides[0].feed.batches[0])

    def of(side: int, name: str, view: View) -> Pulled:
        return Pulled(name=name, view=view, shape=records[side].activations[name].shape, examples=examples)

    return (
        replace(sides[0], pulled=tuple(of(0, a.reference, View()) for a in pairs)),
        replace(sides[1], pulled=tuple(of(1, a.candidate, a.view) for a in pairs)),
    )


def measures_of(plan: Plan, reference: Taken, candidate: Taken) -> Measures:
    """Every quantity of a step of both sides, measured."""
    parameters = {q.link.name: i for i, q in enumerate(plan.compared) if q.kind == "parameter" and q.link}
    shapes: dict[int, Shape] = {}

    def tensors() -> Iterator[list[Parts]]:
        for i, quantity in enumerate(plan.compared):
            if quantity.kind == "parameter":  # measured with its update, which is read from it
                continue
            tensor = [
                *(_reference_parts(quantity, reference, precision) for precision in PRECISIONS),
                *(_candidate_parts(quantity, candidate, precision) for precision in PRECISIONS),
            ]
            shapes[i] = tensor[0][0].shape
            if quantity.kind == "update" and quantity.link:
                shapes[parameters[quantity.link.name]] = tensor[0][0].shape
            yield tensor

    columns = list(compare_tensors(tensors()))
    layout = layout_of(plan.compared, [shapes[i] for i in range(len(shapes))])
    return together(layout, columns, np.argsort([*shapes]))


def shown(
    quantity: Compared, reference: Taken, candidate: Taken, precision: Precision = "float64"
) -> tuple[np.ndarray, np.ndarray]:
    """A quantity of both sides, in the reference's layout."""
    other = whole(_candidate_parts(quantity, candidate, precision))
    return shown_reference(quantity, reference, precision), other


def shown_reference(quantity: Compared, taken: Taken, precision: Precision) -> np.ndarray:
    return whole(_reference_parts(quantity, taken, precision))


def _reference_parts(quantity: Compared, taken: Taken, precision: Precision) -> Parts:
    return _parts(quantity, taken, precision, quantity.reference, View(), quantity.link and quantity.link.reference)


def _candidate_parts(quantity: Compared, taken: Taken, precision: Precision) -> Parts:
    view = quantity.aligned.view if quantity.aligned else View()
    return _parts(quantity, taken, precision, quantity.candidate, view, quantity.link and quantity.link.candidate)


def _parts(quantity: Compared, taken: Taken, precision: Precision, name: str, view: View, side: Side | None) -> Parts:
    record, before = taken.records[precision], taken.before[precision]
    if quantity.kind == "loss":
        return (np.asarray(record.loss),)
    if side is None:
        own = record.activations[name]
        cotangent = record.cotangents.get(name)  # none where nothing flows back, as may be once values are forced
        return (see(view, own if quantity.kind == "activation" else or_zero(cotangent, own)),)
    if quantity.kind == "gradient":
        values = {n: or_zero(record.gradients.get(n), before.values[n]) for n in parameters_of(side)}
        return (_seen_gradient(side, values),)
    assert record.after is not None
    if quantity.kind == "slot":
        return (_seen_gradient(side, record.after.slots[quantity.slot]),)
    states = (record.after, before) if quantity.kind == "update" else (record.after,)
    return tuple(see_value(side, state.values) for state in states)


def _seen_gradient(side: Side, gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    seen = see_gradient(side, gradients)
    assert seen is not None
    return seen


def or_zero(gradient: np.ndarray | None, parameter: np.ndarray) -> np.ndarray:
    """No gradient at all (an unused or a frozen parameter) is a gradient of exactly 0."""
    return np.zeros_like(parameter) if gradient is None else gradient


def layout_of(compared: Sequence[Compared], shapes: Sequence[Shape]) -> Layout:
    """What is compared as a layout, so that measures and judgement read as those of a case do."""
    quantities, start = [], 0
    for quantity, shape in zip(compared, shapes, strict=True):
        tensor = quantity.link.name if quantity.link else quantity.reference
        quantities.append(
            Quantity(name=quantity.name, kind=quantity.kind, tensor=tensor, shape=shape, start=start, batched=False)
        )
        start += math.prod(shape)
    nothing = slice(0, 0)
    return Layout(
        quantities=tuple(quantities),
        parameter_shapes={},
        activation_shapes={},
        gradients=nothing,
        parameters=nothing,
        state=nothing,
        updates=nothing,
        recorded=start,
        size=start,
    )
