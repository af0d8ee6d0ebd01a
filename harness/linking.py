"""Links of two layers, or parameters, that belong together: the map that is meant, and what the values say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from harness.aligning import label
from harness.alternatives import candidate_maps
from harness.evidence import (
    NEAR,
    distance,
    equal,
    find_map,
    find_order,
    fingerprint,
    informative,
    is_flattening,
)
from harness.recipe import Parameter
from harness.structure import GATES, Piece, Unit, guess, in_axis, views_between
from harness.views import Link, Side, View, describe, ordered, see, see_value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Note:
    """Something to know about a parameter (or link) by name. cause: an id of the table of causes, or "".

    view: the map of the candidate's parameter that its values were loaded through, where that is the suspicion.
    """

    parameter: str
    cause: str
    text: str
    view: View | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Model:
    """One side while it is being paired: what is still free, and the fingerprints of informative pieces."""

    parameters: dict[str, Parameter]
    values: Mapping[str, np.ndarray]
    units: list[Unit]
    marks: dict[str, int]
    used: set[str] = field(default_factory=set)
    reasons: dict[str, Note] = field(default_factory=dict)

    def free(self) -> list[Parameter]:
        return [parameter for name, parameter in self.parameters.items() if name not in self.used]


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """A pairing while it grows."""

    reference: Model
    candidate: Model
    links: list[Link] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add(self, link: Link) -> None:
        if link.name in self.names:
            link = replace(link, name=f"{link.name} ({link.candidate.parameter})")
        self.names.add(link.name)
        self.links.append(link)
        for side, model in ((link.reference, self.reference), (link.candidate, self.candidate)):
            model.used.update({side.parameter, *(added.parameter for added in side.added)})


def link_units(work: Work, reference: Unit, candidate: Unit) -> None:
    """Link what two layers have in common, role by role; what only one of them has gets its reason."""
    _lone(work.reference, reference, candidate)
    _lone(work.candidate, candidate, reference)
    for key, one in reference.pieces.items():
        other = candidate.pieces.get(key)
        if other is None:
            continue
        views = views_between(one, other)
        if views is None:
            text = (
                f"{label(one)} {one.shape} and {label(other)} {other.shape} have one role, but their sizes do not fit"
            )
            for model, piece in ((work.reference, one), (work.candidate, other)):
                model.reasons[piece.parameter.name] = Note(parameter=label(piece), cause="", text=text)
            continue
        own, theirs = (
            Side(parameter=piece.parameter.name, view=view) for piece, view in zip((one, other), views, strict=True)
        )
        recurrent = [unit.pieces.get(f"recurrent_{key}") for unit in (reference, candidate)]
        if key.startswith("bias") and recurrent[0] and not recurrent[1]:
            own = _with(own, recurrent[0], views_between(recurrent[0], other), 0)
        if key.startswith("bias") and recurrent[1] and not recurrent[0]:
            theirs = _with(theirs, recurrent[1], views_between(one, recurrent[1]), 1)
        name = " + ".join([label(one), *(added.parameter for added in own.added)])
        judge_link(work, Link(name=name, reference=own, candidate=theirs, how="structure", expected=False), one, other)


def _with(side: Side, added: Piece, views: tuple[View, View] | None, place: int) -> Side:
    """A side with a second bias added."""
    return replace(side, added=(Side(parameter=added.parameter.name, view=views[place]),)) if views else side


def _lone(model: Model, unit: Unit, other: Unit) -> None:
    """Say of what the other layer lacks that it does, for as long as nothing else is found for it."""
    for key, piece in unit.pieces.items():
        if key not in other.pieces:
            cause = "" if "kernel" in key or piece.parameter.buffer else "bias-missing"
            text = f"{label(piece)}: {other.layer or other.op}, its layer on the other side, has no {key}"
            model.reasons[piece.parameter.name] = Note(parameter=label(piece), cause=cause, text=text)


def link_parameters(work: Work, reference: Parameter, candidate: Parameter) -> None:
    """Link two parameters that belong together whatever their kinds are."""
    own, theirs = _wholes(reference, candidate)
    link = Link(
        name=reference.name,
        reference=Side(parameter=reference.name, view=View()),
        candidate=Side(parameter=candidate.name, view=View()),
        how="structure",
        expected=False,
    )
    if _comparable(reference, candidate) and (views := views_between(own, theirs)):
        judge_link(work, replace(link, candidate=Side(parameter=candidate.name, view=views[1])), own, theirs)
        return
    views = layout(work, reference, candidate)
    if views is None:
        return
    check_link(work, replace(link, candidate=Side(parameter=candidate.name, view=views[1])))


def check_link(work: Work, link: Link) -> None:
    """Add a link with whether the values agree through it."""
    own, theirs = see_value(link.reference, work.reference.values), see_value(link.candidate, work.candidate.values)
    if equal(own, theirs):
        work.add(replace(link, how="value" if informative(own) else "structure", expected=True))
    else:
        work.add(link)
        work.notes.append(unequal(link, own, theirs))


def layout(work: Work, reference: Parameter, candidate: Parameter) -> tuple[View, View] | None:
    """Views of two whole parameters: by their kinds where both are known, else by value, else by habit."""
    if _comparable(reference, candidate) and (views := views_between(*_wholes(reference, candidate))):
        return views
    mark = work.reference.marks.get(reference.name)
    if mark is not None and mark == work.candidate.marks.get(candidate.name):
        found = find_map(work.reference.values[reference.name], work.candidate.values[candidate.name])
        if found:
            return View(), found
    likely = guess(reference, candidate)
    return likely and (View(), likely)


def _wholes(reference: Parameter, candidate: Parameter) -> tuple[Piece, Piece]:
    return Piece(key=reference.role, parameter=reference), Piece(key=candidate.role, parameter=candidate)


def _comparable(reference: Parameter, candidate: Parameter) -> bool:
    return bool(reference.op and reference.role) and (reference.op, reference.role) == (candidate.op, candidate.role)


def judge_link(work: Work, link: Link, reference: Piece, candidate: Piece) -> None:
    """Add a link by structure with what the values say of it."""
    own = see_value(link.reference, work.reference.values)
    theirs = see_value(link.candidate, work.candidate.values)
    telling = informative(own)
    if equal(own, theirs):
        work.add(replace(link, how="value" if telling else "structure", expected=True))
        return
    if telling and fingerprint(own) == fingerprint(theirs):
        link, note = _rearranged(work, link, reference, candidate, own, theirs)
    else:
        note = _elsewhere(work, link, own) if telling else _exchanged(work, link, own, theirs)
        note = note or unequal(link, own, theirs)
    work.add(link)
    if note:
        work.notes.append(note)


def _rearranged(
    work: Work, link: Link, reference: Piece, candidate: Piece, own: np.ndarray, theirs: np.ndarray
) -> tuple[Link, Note | None]:
    """A link whose sides hold the same values in another arrangement: the user's right where another layer decides it
    (flattened features), a suspicion where the layer does."""
    for cause, view in candidate_maps(link, reference.parameter, candidate.parameter):
        if equal(own, see_value(_through(link.candidate, view), work.candidate.values)):
            return link, _loaded(link, cause, view)
    if order := find_order(own, theirs):
        axis, index = order
        view = ordered(link.candidate.view, candidate.parameter.shape, axis, index)
        free = axis == in_axis(reference) or (is_flattening(index) and reference.parameter.op not in GATES)
        if free and view:
            return replace(link, candidate=_through(link.candidate, view), how="value", expected=True), None
        return link, _loaded(link, "weight-order-mismatch", view, f"axis {axis} in another order")
    raw = see(View(part=candidate.part), work.candidate.values[candidate.parameter.name])
    found = None if link.candidate.added else find_map(own, raw)
    if found and found.order is None and not reference.base.endswith("kernel"):
        view = replace(found, part=candidate.part)
        return replace(link, candidate=_through(link.candidate, view), how="value", expected=True), None
    if found:
        view = replace(found, part=candidate.part)
        cause = "conv-kernel-axes" if "Conv" in reference.parameter.op else "weight-layout-transpose"
        return link, _loaded(link, cause, view)
    return link, _loaded(link, "weight-order-mismatch", None, "an arrangement that cannot be told")


def _through(side: Side, view: View) -> Side:
    """A side seen through another map, what is added to it alike."""
    return replace(
        side, view=view, added=tuple(replace(one, view=replace(view, part=one.view.part)) for one in side.added)
    )


def _loaded(link: Link, cause: str, view: View | None, how: str = "") -> Note:
    meant = describe(link.candidate.view)
    held = how or (view and describe(view))
    text = f"{link.candidate.parameter} holds the values of {link.name} {held}; meant: {meant}"
    return Note(parameter=link.name, cause=cause, text=text, view=view)


def _elsewhere(work: Work, link: Link, own: np.ndarray) -> Note | None:
    """The values that a parameter should hold, found in another one."""
    mark = fingerprint(own)
    holders = [name for name, other in work.candidate.marks.items() if other == mark]
    return _misplaced(link, holders[0]) if holders else None


def _exchanged(work: Work, link: Link, own: np.ndarray, theirs: np.ndarray) -> Note | None:
    """Two roles of one layer that hold each other's constant: the zeros of means, the ones of variances."""
    layers = (
        work.reference.parameters[link.reference.parameter].layer,
        work.candidate.parameters[link.candidate.parameter].layer,
    )
    ours = [
        p.role
        for p in work.reference.parameters.values()
        if p.layer == layers[0] and p.role and equal(work.reference.values[p.name], theirs)
    ]
    held = [
        p
        for p in work.candidate.parameters.values()
        if p.layer == layers[1] and equal(work.candidate.values[p.name], own)
    ]
    holders = [p.name for p in held if p.role in ours]
    return _misplaced(link, holders[0]) if holders else None


def _misplaced(link: Link, holder: str) -> Note:
    text = f"the values of {link.name} are in {holder} instead of {link.candidate.parameter}"
    return Note(parameter=link.name, cause="weight-order-mismatch", text=text)


def unequal(link: Link, own: np.ndarray, theirs: np.ndarray) -> Note:
    """What is said of two sides that hold other numbers."""
    largest, size = distance(own, theirs)
    text = f"{link.name} and {link.candidate.parameter} differ by up to {largest:.2g}, the largest value is {size:.2g}"
    if largest <= NEAR * size:
        return Note(parameter=link.name, cause="", text=text)
    return Note(parameter=link.name, cause="weights-not-transferred", text=f"{text}: not the same weights")
