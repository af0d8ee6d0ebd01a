"""A recorded run of a model beside a model that is here: why they differ, found as between two live models.

The recorded side answers at the steps that were recorded and nowhere else. So the candidate is taken to the recorded
states, each of its blocks fed what was recorded, and its fields are edited until the reference computes the record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import frameworks as registry
from frameworks.protocol import Watched
from harness.activations import Aligned, align_activations
from harness.calls import Call
from harness.case import PRECISIONS, Precision
from harness.diagnosing import SEARCH, findings, without_echoes
from harness.elsewhere import Moment, fed_alike
from harness.feeding import feeds
from harness.finding import Finding
from harness.following import Follower, Taken, forward, measures_of, plan_of, retake, states_after
from harness.judging import K
from harness.mapping import mapped
from harness.owning import SILENT, Own
from harness.pairing import pair_parameters
from harness.recipe import Batch, Forced, Parameter, Recipe, Record, State
from harness.trace.models import entries, taken_at
from harness.trace.reading import Trace
from harness.views import View


def causes_between(trace: Trace, live: Recipe, x: Any, y: Any, step: int, names: tuple[str, str]) -> list[Finding]:
    """Why a model differs from a recorded one at a step, the record as the reference; names: of both. What explains the
    next step too is proven, what only explains this one is likely. Raises HarnessError for what cannot be fed."""
    model = trace.header.model
    assert model
    kind = registry.framework_of(live)
    feed = feeds((live, live), x, y, trace.header.steps, model.batch_size, None, None)[0]
    watched: dict[Precision, Watched] = {p: registry.models(kind).watch(live, p, model.inference) for p in PRECISIONS}
    candidate = Follower(name=names[1], framework=kind, watched=watched, feed=feed)
    return _causes(trace, candidate, step, names[0])


def turned(cause: Finding) -> Finding:
    """The same cause where the record is the candidate."""
    roles = {"reference": "candidate", "candidate": "reference"}
    advice = {roles[role]: what for role, what in cause.advice.items()}
    return replace(cause, where=cause.candidate_where, candidate_where=cause.where, advice=advice)


def _causes(trace: Trace, candidate: Follower, step: int, name: str) -> list[Finding]:
    parameters = _parameters(trace)
    start = _taken(trace, 0)
    own = candidate.states()
    pairing = pair_parameters(
        parameters, candidate.watched["float64"].parameters, start.before["float64"].values, own["float64"].values
    )
    there = _taken(trace, step) if step else start
    kept: dict[Precision, Watched] = {p: Kept(parameters=parameters, precision=p, taken=there) for p in PRECISIONS}
    reference = Follower(name=name, framework=trace.header.framework, watched=kept, feed=candidate.feed)
    states = mapped(pairing, start.before, own)
    for before in range(step):  # slots that only the candidate has come from its own run
        states = states_after(candidate, retake(candidate, states, candidate.batches(before)))
    states = mapped(pairing, there.before, states)
    beside = retake(candidate, states, candidate.batches(step))
    records = there.records["float64"], beside.records["float64"]
    layers = [{p.name: p.layer for p in side.watched["float64"].parameters} for side in (reference, candidate)]
    anchors = dict.fromkeys(
        (layers[0][link.reference.parameter], layers[1][link.candidate.parameter]) for link in pairing.links
    )
    batch = candidate.feed.batch(step, "float64")
    alignment = align_activations(
        *records,
        lambda forced: forward(candidate, states["float64"], batch, forced, records[1].activations),
        list(anchors),
        {p.layer for side in (reference, candidate) for p in side.watched["float64"].parameters if p.op},
    )
    if trace.header.framework == candidate.framework:
        alignment = _with_namesakes(alignment, *records)
    later = _taken(trace, step + 1) if step + 1 < trace.header.steps else None
    plan = plan_of(alignment, pairing, parameters, *records, updates=there.updates or beside.updates)
    moment = Moment(plan=plan, sides=(reference, candidate), step=step, reference=there, candidate=beside, later=later)
    measures = measures_of(plan, there, fed_alike(moment))
    loud = np.array([quantity.kind not in SILENT for quantity in plan.compared])
    differ = ~(measures.ratio <= K)[0] & loud
    alone = Own(measures=measures, different=differ, because=np.full(len(loud), "", dtype=object))
    try:
        with np.errstate(all="ignore"):  # what was not recorded is NaN
            differing, end = np.flatnonzero(differ).tolist(), time.process_time() + SEARCH
            found = without_echoes(findings(moment, alone, differing, None, end))
    finally:
        candidate.load(own)
    return [replace(c, status="likely") if not later and c.status == "proven" else c for c in found]


def _with_namesakes(pairs: Sequence[Aligned], reference: Record, candidate: Record) -> tuple[Aligned, ...]:
    """Activations without a partner on either side are a pair where one framework calls both alike: another kind of
    layer in the same place has no value in common."""
    ours, theirs = {pair.reference for pair in pairs}, {pair.candidate for pair in pairs}
    found = {pair.reference: pair for pair in pairs}
    for name, values in reference.activations.items():
        other = candidate.activations.get(name)
        if name not in ours and name not in theirs and other is not None and other.shape == values.shape:
            found[name] = Aligned(reference=name, candidate=name, view=View(), by="structure")
    return tuple(found[name] for name in reference.activations if name in found)


def _taken(trace: Trace, step: int) -> Taken:
    """A recorded step; how many updates came before is not recorded, and is taken for one at each step."""
    now = entries(trace, step)
    taken = taken_at(trace, now, entries(trace, step - 1) if step else now)
    return replace(taken, before={p: replace(state, count=step) for p, state in taken.before.items()})


def _parameters(trace: Trace) -> tuple[Parameter, ...]:
    assert trace.header.model
    return tuple(Parameter(**parameter.model_dump()) for parameter in trace.header.model.parameters)


@dataclass(slots=True, kw_only=True)
class Kept:
    """A recorded step where a watched model stands (`frameworks.protocol.Watched`): from the state that it was taken
    from it shows what was recorded; from any other, or with values forced, NaN, for nobody knows. Of what it is made
    nothing is known."""

    parameters: tuple[Parameter, ...]
    precision: Precision
    taken: Taken
    there: bool = True

    def rule(self) -> None:
        return None

    def penalty(self) -> None:
        return None

    def losses(self, batch: Batch) -> Sequence[None]:
        return () if self.taken.records[self.precision].loss is None else (None,)

    def calls(self, batch: Batch, names: Sequence[str], forced: Forced | None = None) -> Mapping[str, Call]:
        return {}

    def state(self) -> State:
        return self.taken.before[self.precision]

    def load(self, state: State) -> None:
        self.there = state is self.state()

    def step(self, batch: Batch, forced: Forced | None = None) -> Record:
        record = self.taken.records[self.precision]
        return record if self.there and not forced else _unknown(record)

    def pull_back(self, batch: Batch, cotangents: Mapping[str, np.ndarray], forced: Forced | None = None) -> Record:
        return self.step(batch, forced)


def _unknown(record: Record) -> Record:
    def nan(values: Any) -> Any:
        return np.full_like(values, np.nan) if values is not None and values.dtype.kind == "f" else values

    parts = {name: {key: nan(of) for key, of in getattr(record, name).items()} for name in TENSORS}
    return replace(record, loss=nan(record.loss), **parts)


TENSORS = ("activations", "cotangents", "gradients")
