"""Recorded steps of two runs, side by side and measured, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from harness.activations import align_activations
from harness.case import PRECISIONS, HarnessError
from harness.comparing import Measures, compare_tensor, together
from harness.explaining import CERTAIN
from harness.following import Plan, Taken, measures_of, plan_of, shown
from harness.judging import K
from harness.layout import Kind, Layout, Quantity
from harness.pairing import Pairing, pair_parameters
from harness.recipe import Parameter
from harness.trace.header import Model
from harness.trace.models import Entries, Key, Pair, entries, taken_at, with_updates
from harness.trace.reading import Trace
from harness.trace.thinning import Fingerprint, fingerprint, least_difference

Tensors = Callable[[int], tuple[Pair, Pair]]
"""A quantity of both sides, each in float32 and float64, by its position; of a fingerprint the projections, which are
sums of its elements, and differ as these do."""

STATE = ("parameter", "slot", "buffer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One step of both sides. doubtful: where what is measured is only the least that the difference may be.

    start: whether both are known to begin the step from the same state, but for rounding.
    """

    step: int
    measures: Measures
    doubtful: np.ndarray
    start: bool
    tensors: Tensors
    candidate_names: Sequence[str]


def by_name(reference: Trace, candidate: Trace, order: Sequence[Key], names: Mapping[Key, Key]) -> Iterator[Shown]:
    """Steps of two runs that call everything alike, or the candidate as `names` has it: the reference's key by its own.
    Raises HarnessError where a quantity is not of one shape."""
    theirs = {ours: own for own, ours in names.items()}
    last: tuple[Entries, Entries] | None = None
    start = True
    for step in range(reference.header.steps):
        read = entries(reference, step), {names.get(key, key): of for key, of in entries(candidate, step).items()}
        before = last or read
        if last is None:
            _check_start(reference, candidate, *read)
        now = with_updates(read[0], before[0]), with_updates(read[1], before[1])
        both = [key for key in order if key in now[0] and key in now[1]]
        if extra := [key for key in {**now[0], **now[1]} if key not in both and key[0][:7] != "before_"]:
            raise HarnessError(
                f"{' '.join(extra[0])} at step {step} is in one of {reference.folder} and {candidate.folder} only; "
                "record both sides of the same model"
            )
        columns, doubtful = zip(*(_measured(key, now[0][key], now[1][key]) for key in both), strict=True)
        measures = together(_layout(both, now[0]), columns)
        doubts = np.array([doubtful])

        def tensors(at: int, now: tuple[Entries, Entries] = now, both: list[Key] = both) -> Any:
            found = now[0][both[at]], now[1][both[at]]
            if not any(isinstance(of, Fingerprint) for of in found):
                return found
            prints = (of if isinstance(of, Fingerprint) else fingerprint(*of) for of in found)
            return tuple((of.projections[0], of.projections[1]) for of in prints)

        yield Shown(
            step=step,
            measures=measures,
            doubtful=doubts,
            start=start,
            tensors=tensors,
            candidate_names=[_tensor(theirs[key]) if key in theirs else "" for key in both],
        )
        start = _same_state(measures, doubts)
        last = read


def _same_state(measures: Measures, doubtful: np.ndarray) -> bool:
    """Whether what a step leaves behind is the same on both sides but for rounding; slots may also differ beyond doubt:
    where all else agrees they are what another rule keeps, and it is that which the next step shows."""
    kinds = np.array([quantity.kind for quantity in measures.layout.quantities])
    settled = (measures.ratio <= K) | ((kinds == "slot") & (measures.ratio > CERTAIN))
    return bool((settled & ~doubtful)[0, np.isin(kinds, STATE)].all())


def keys_of(model: Model) -> list[Key]:
    """All that a step of a model shows, in the order of the computation."""
    return [(kind, name) for kind, _, name in (key.partition("/") for key in model.order)]


def renamed(reference: Model, candidate: Model) -> dict[Key, Key] | None:
    """The reference's keys by the candidate's, where the two models are built alike, part by part, and only call things
    otherwise (Keras numbers its layers through a session). Whether they are the same their start must show."""
    ours, theirs = keys_of(reference), keys_of(candidate)
    built = [[(p.op, p.role, p.shape, p.buffer) for p in of.parameters] for of in (reference, candidate)]
    if [kind for kind, _ in ours] != [kind for kind, _ in theirs] or built[0] != built[1]:
        return None
    parameters = [
        ((kind, q.name), (kind, p.name))
        for p, q in zip(reference.parameters, candidate.parameters, strict=True)
        for kind in ("parameter", "buffer")
    ]
    names = dict([*zip(theirs, ours, strict=True), *parameters])
    before = {(f"before_{kind}", name): (f"before_{kind}", new) for (kind, name), (_, new) in names.items()}
    return names | before


def _tensor(key: Key) -> str:
    return key[1].removeprefix("dL/d").rpartition(":")[2]


def _check_start(reference: Trace, candidate: Trace, one: Entries, other: Entries) -> None:
    """Both runs must begin with the same numbers: what is given is no result, and differs by no rounding."""
    for key, of in one.items():
        if key[0].startswith("before_") and key in other and not _measured(key, of, other[key])[0]["same"].all():
            what = f"{candidate.folder} starts from another {key[1]} than {reference.folder}"
            raise HarnessError(f"{what}; record both from the same start")


def _measured(key: Key, one: Pair | Fingerprint, other: Pair | Fingerprint) -> tuple[dict[str, np.ndarray], bool]:
    """A column of `Measures`, and whether the differences in it are only the least that they may be."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        if one[0].shape != other[0].shape:
            raise HarnessError(
                f"{' '.join(key)} is of shape {one[0].shape} in one run and {other[0].shape} in the other"
            )
        floats = [np.asarray(of, p) for pair in (one, other) for of, p in zip(pair, ("f4", "f8"), strict=True)]
        return compare_tensor([(of,) for of in floats]), False
    first, second = (of if isinstance(of, Fingerprint) else fingerprint(*of) for of in (one, other))
    if first.elements != second.elements:
        raise HarnessError(
            f"{' '.join(key)} has {first.elements} elements in one run and {second.elements} in the other"
        )
    d32, d64 = (least_difference(first, second, which) for which in (0, 1))
    same = np.array_equal(first.digests, second.digests)
    numbers = {
        "size_reference": first.size,
        "size_candidate": second.size,
        "d32": d32,
        "d64": d64,
        "noise_reference": first.noise,
        "noise_candidate": second.noise,
        "spread": 0.0,
    }
    column = {name: np.array([[value]]) for name, value in numbers.items()}
    return {**column, "same": np.array([[same]]), "void": np.array([[False]])}, not same


def _layout(names: Sequence[Key], of: Entries) -> Layout:
    quantities = []
    for kind, name in names:
        entry = of[kind, name]
        shape = (entry.elements,) if isinstance(entry, Fingerprint) else entry[0].shape
        tensor = (
            name.removeprefix("dL/d").rpartition(":")[2] if kind in ("slot", "update") else name.removeprefix("dL/d")
        )
        quantities.append(
            Quantity(name=name, kind=cast(Kind, kind), tensor=tensor, shape=shape, start=0, batched=False)
        )
    nothing = slice(0, 0)
    return Layout(
        quantities=tuple(quantities),
        parameter_shapes={},
        activation_shapes={},
        gradients=nothing,
        parameters=nothing,
        state=nothing,
        updates=nothing,
        recorded=0,
        size=0,
    )


# --- steps of two models that call things otherwise -------------------------------------------------------------


def by_plan(reference: Trace, candidate: Trace) -> Iterator[Shown]:
    """Steps of two models whose parameters are paired by value and structure, and whose activations by value: those of
    the record, as nothing can be forced. Raises HarnessError for fingerprints."""
    sides, plan, pairing = (reference, candidate), None, None
    last: tuple[Entries, Entries] | None = None
    start, updates = True, False
    parameters = [_parameters(side) for side in sides]
    for step in range(reference.header.steps):
        read = entries(reference, step), entries(candidate, step)
        one, other = (taken_at(side, now, was) for side, now, was in zip(sides, read, last or read, strict=True))
        if pairing is None:
            values = [taken.before["float64"].values for taken in (one, other)]
            pairing = pair_parameters(parameters[0], parameters[1], values[0], values[1])
        if plan is None or (one.updates or other.updates) != updates:
            plan = _plan(pairing, parameters, one, other)
            updates = one.updates or other.updates
        measures = measures_of(plan, one, other)

        def tensors(at: int, plan: Plan = plan, one: Taken = one, other: Taken = other) -> Any:
            both = [shown(plan.compared[at], one, other, precision) for precision in PRECISIONS]
            return tuple(zip(*both, strict=True))

        yield Shown(
            step=step,
            measures=measures,
            doubtful=np.zeros(measures.d64.shape, bool),
            start=start,
            tensors=tensors,
            candidate_names=[quantity.candidate for quantity in plan.compared],
        )
        start = _same_state(measures, np.zeros(measures.d64.shape, bool))
        last = read


def _plan(pairing: Pairing, parameters: Sequence[tuple[Parameter, ...]], one: Taken, other: Taken) -> Plan:
    layers = [{parameter.name: parameter.layer for parameter in of} for of in parameters]
    records = one.records["float64"], other.records["float64"]
    anchors = dict.fromkeys(
        (layers[0][link.reference.parameter], layers[1][link.candidate.parameter]) for link in pairing.links
    )
    opaque = {parameter.layer for of in parameters for parameter in of if parameter.op}
    alignment = align_activations(*records, lambda forced: records[1], list(anchors), opaque)
    return plan_of(alignment, pairing, parameters[0], *records, updates=one.updates or other.updates)


def _parameters(trace: Trace) -> tuple[Parameter, ...]:
    if trace.header.model is None:
        raise HarnessError(f"{trace.folder} is of a case, not of a model; compare it with a run of that case")
    return tuple(Parameter(**parameter.model_dump()) for parameter in trace.header.model.parameters)
