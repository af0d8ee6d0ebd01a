"""A difference that a wrong map of the weights makes: right ones are tried; float64 that then agrees is the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from harness.alternatives import candidate_maps
from harness.case import PRECISIONS, Precision
from harness.elsewhere import Moment
from harness.following import Plan, retake, shown
from harness.judging import K
from harness.mapping import forced_by, mapped
from harness.narrow import another
from harness.owning import Own
from harness.recipe import Forced, Shape, State
from harness.views import Link, View, describe, placed, put_value, see_value

MOST = 100
"""Maps tried; each costs a step of the candidate."""

Edit = tuple[tuple[Link, View | None], ...]
"""Links whose parameter the candidate should hold through another view; None: through the link's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A proven cause: its id in the table of causes, what was wrong, the difference in float64 before and after (in
    float32: before32, after32), and the edit that rights it."""

    cause: str
    text: str
    before: float
    after: float
    before32: float
    after32: float
    edit: Edit


def remedy(moment: Moment, own: Own, i: int) -> Remedy | None:
    """The map of the weights through which activation i, which differs by itself, agrees; None where none is found."""
    before, before32 = float(own.measures.d64[0, i]), float(own.measures.d32[0, i])
    enough = K * own.measures.budget[0, i]
    forced = forced_by(moment.plan, moment.reference, moment.candidate)
    for cause, text, edit in islice(_edits(moment, i), MOST):
        after, after32 = _apart(moment, i, edit, forced)
        if after <= enough:
            return Remedy(
                cause=cause, text=text, before=before, after=after, before32=before32, after32=after32, edit=edit
            )
    return None


def _edits(moment: Moment, i: int) -> Iterator[tuple[str, str, Edit]]:
    """What to try, the likeliest first: the values where they belong, then other maps of what looks right."""
    links = links_behind(moment, i)
    notes = {note.parameter: note for note in moment.plan.pairing.notes}
    amiss = [link for link in links if not link.expected]
    all_amiss = [link for link in moment.plan.pairing.links if not link.expected]
    if amiss and len(all_amiss) > len(amiss) and not _any_transferred(moment):
        yield "init-default", "no weight is the other side's", tuple((link, None) for link in all_amiss)
    if amiss and not any(_scaled_by_channel(moment, link) and not another(moment, link) for link in amiss):
        said = [notes[link.name] for link in amiss if link.name in notes]
        cause = next((note.cause for note in said if note.cause), "weights-not-transferred")
        cause = "gate-bias" if all(_one_gate_apart(moment, link) for link in amiss) else cause
        yield cause, "; ".join(note.text for note in said[:1]), tuple((link, None) for link in amiss)
    maps = {link: _maps(moment, link, i) for link in links if link.expected and not link.candidate.added}
    for k in range(max(map(len, maps.values()), default=0)):
        gates = {link: found[k] for link, found in maps.items() if len(found) > k and found[k][0] == "rnn-gate-order"}
        if gates:
            link, (cause, view) = next(iter(gates.items()))
            text = f"{link.candidate.parameter} has the gates in another order; meant: {describe(view)}"
            yield cause, text, tuple((one, view) for one, (_, view) in gates.items())
    for link, found in maps.items():
        for cause, view in found:
            if cause != "rnn-gate-order":
                text = f"{link.candidate.parameter} holds {link.name} in another order; meant: {describe(view)}"
                yield cause, text, ((link, view),)


def _any_transferred(moment: Moment) -> bool:
    """Some weight that is no constant is on both sides."""
    values = moment.reference.before["float64"].values
    return any(link.expected and np.ptp(see_value(link.reference, values)) > 0 for link in moment.plan.pairing.links)


def _one_gate_apart(moment: Moment, link: Link) -> bool:
    """A recurrent layer's bias to which one side has added a constant for one gate."""
    roles = {p.name: (p.op, p.role) for p in moment.sides[0].watched["float64"].parameters}
    op, role = roles[link.reference.parameter]
    gates = {"LSTM": 4, "GRU": 3}.get(op)
    if gates is None or "bias" not in role:
        return False
    gaps = np.subtract(*_held(moment, link)).reshape(gates, -1)
    moved = [gap for gap in gaps if gap.any()]
    return len(moved) == 1 and bool(np.ptp(moved[0]) <= 1e-6 * np.abs(moved[0]).max())


def _scaled_by_channel(moment: Moment, link: Link) -> bool:
    """A kernel that is the other one times a factor for each channel, as one into which a normalisation is folded: it
    was transferred, and is not to be replaced."""
    own, theirs = _held(moment, link)
    if own.ndim < 2 or not (own.any() and theirs.any()):
        return False
    for axis in range(own.ndim):
        rows, others = (np.moveaxis(values, axis, 0).reshape(own.shape[axis], -1) for values in (own, theirs))
        sizes = np.square(rows).sum(1)
        factors = (rows * others).sum(1) / np.where(sizes > 0, sizes, 1.0)
        if rows.shape[1] > 1 and np.abs(others - factors[:, None] * rows).max() <= 1e-5 * np.abs(others).max():
            return True
    return False


def _held(moment: Moment, link: Link) -> tuple[np.ndarray, np.ndarray]:
    """What the two sides hold before the step, in one layout."""
    reference = see_value(link.reference, moment.reference.before["float64"].values)
    return reference, see_value(link.candidate, moment.candidate.before["float64"].values)


def links_behind(moment: Moment, i: int) -> list[Link]:
    """Links that can act on an activation: of its layer; else of layers that show no activation themselves."""
    name = moment.plan.compared[i].reference.removesuffix("/linear").partition("#")[0]
    layers = {p.name: p.layer for p in moment.sides[0].watched["float64"].parameters}
    named = {a.reference.partition("#")[0] for a in moment.plan.alignment}
    links = moment.plan.pairing.links
    own = [link for link in links if layers[link.reference.parameter] == name]
    return own or [link for link in links if layers[link.reference.parameter] not in named]


def _maps(moment: Moment, link: Link, i: int) -> list[tuple[str, View]]:
    ours, theirs = ({p.name: p for p in side.watched["float64"].parameters} for side in moment.sides)
    reference, candidate = ours[link.reference.parameter], theirs[link.candidate.parameter]
    return list(candidate_maps(link, reference, candidate, _before_flatten(moment, i)))


def _before_flatten(moment: Moment, i: int) -> tuple[Shape, Shape] | None:
    """The shapes of the last activations before i that are more than a row of features, without batch."""
    sides = moment.reference.records["float64"].activations, moment.candidate.records["float64"].activations
    for quantity in reversed(moment.plan.compared[:i]):
        if quantity.kind == "activation":
            shapes = sides[0][quantity.reference].shape, sides[1][quantity.candidate].shape
            if all(len(shape) > 2 for shape in shapes):
                return shapes[0][1:], shapes[1][1:]
    return None


def _apart(moment: Moment, i: int, edit: Edit, forced: Mapping[Precision, Forced]) -> tuple[float, float]:
    """How far activation i is apart in float64 and float32 once the candidate holds the edit's parameters as said."""
    states = mapped(moment.plan.pairing, moment.reference.before, moment.candidate.before, moment.keep)
    edited: dict[Precision, State] = {
        p: replace(states[p], values=edited_values(edit, moment.reference.before[p].values, states[p].values))
        for p in PRECISIONS
    }
    again = retake(moment.sides[1], edited, moment.sides[1].batches(moment.step), forced)
    pairs = (shown(moment.plan.compared[i], moment.reference, again, p) for p in ("float64", "float32"))
    after, after32 = (float(np.abs(one - other).max()) for one, other in pairs)
    return after, after32


def righted(plan: Plan, edit: Edit) -> Plan:
    """The plan in which the edit's parameters are linked as it says."""
    through = {
        link: replace(
            link, candidate=link.candidate if view is None else replace(link.candidate, view=view), expected=True
        )
        for link, view in edit
    }
    pairing = replace(plan.pairing, links=tuple(through.get(link, link) for link in plan.pairing.links))
    compared = tuple(replace(q, link=through.get(q.link, q.link)) if q.link else q for q in plan.compared)
    return replace(plan, pairing=pairing, compared=compared)


def edited_values(
    edit: Edit, reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The candidate's values by name, with those of the edit as it says."""
    values = dict(candidate)
    for link, view in edit:
        wanted = see_value(link.reference, reference)
        if view is None:
            put_value(link.candidate, values, wanted)
        else:
            name = link.candidate.parameter
            values[name] = placed(view, values[name], wanted)
    return values
