"""Which parameter of one model is which of the other, through which map: kinds say what is meant, values whether."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.aligning import label, matched_units
from harness.alternatives import candidate_maps as candidate_maps
from harness.case import HarnessError
from harness.evidence import equal, fingerprint, informative
from harness.linking import Model, Note, Work, layout, link_units
from harness.loose import link_rest
from harness.recipe import Parameter
from harness.report.fragment import as_told
from harness.structure import Piece, Unit, kin, plain_kind, units
from harness.views import Link, Side, View, describe, placed, put_value, see, see_value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairing:
    """Links in the reference's order of definition; what has no counterpart, with the reason; and what was noticed."""

    links: tuple[Link, ...]
    unmatched_reference: tuple[Note, ...]
    unmatched_candidate: tuple[Note, ...]
    notes: tuple[Note, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.links)} parameters of the two models belong together"]
        lines += [f"  {link.name}: {_told(link.candidate)}, by {link.how}" for link in self.links]
        for side, unmatched in (("reference", self.unmatched_reference), ("candidate", self.unmatched_candidate)):
            lines += [f"without a counterpart in the {side}: {note.parameter}, {note.text}" for note in unmatched]
        return "\n".join([*lines, *(f"note: {note.text}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return as_told(str(self))


def _told(side: Side) -> str:
    summands = " + ".join([side.parameter, *(added.parameter for added in side.added)])
    return f"{summands} {describe(side.view)}"


def pair_parameters(
    reference: Sequence[Parameter],
    candidate: Sequence[Parameter],
    values_reference: Mapping[str, np.ndarray],
    values_candidate: Mapping[str, np.ndarray],
    given: Mapping[str, str | tuple[str, tuple[int, ...]]] | None = None,
) -> Pairing:
    """Match two models' parameters, up to layout.

    values: by parameter name, in the model's own layout. given: the user's own pairs, reference's name to candidate's
    (with the order of the candidate's axes), which win. Raises HarnessError for given names or axes that do not fit.
    """
    given = given or {}
    reference, candidate = _pairable(reference, values_reference), _pairable(candidate, values_candidate)
    for name, sides in (("reference", (reference, values_reference)), ("candidate", (candidate, values_candidate))):
        if absent := [parameter.name for parameter in sides[0] if parameter.name not in sides[1]]:
            raise HarnessError(f"{name} parameter {absent[0]} has no value; give one for each parameter")
    theirs = {pair if isinstance(pair, str) else pair[0] for pair in given.values()}
    work = Work(
        reference=_model(reference, values_reference, set(given)),
        candidate=_model(candidate, values_candidate, theirs),
    )
    for name, pair in given.items():
        _given(work, name, *((pair, None) if isinstance(pair, str) else pair))
    _by_layer(work)
    link_rest(work)
    place = {name: i for i, name in enumerate(work.reference.parameters)}
    return Pairing(
        links=tuple(sorted(work.links, key=lambda link: place[link.reference.parameter])),
        unmatched_reference=tuple(_unmatched(work.reference)),
        unmatched_candidate=tuple(_unmatched(work.candidate)),
        notes=tuple(work.notes),
    )


def transfer_values(
    pairing: Pairing,
    values_reference: Mapping[str, np.ndarray],
    candidate: Sequence[Parameter],
    values_candidate: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The candidate's arrays with the reference's values through all links, exactly.

    Where several of the candidate's are added, the first takes all and the others are 0.
    """
    moved = {parameter.name: values_candidate[parameter.name] for parameter in candidate}
    for link in pairing.links:
        for added in link.candidate.added:
            before = moved[added.parameter]
            moved[added.parameter] = placed(added.view, before, np.zeros_like(see(added.view, before)))
        put_value(link.candidate, moved, see_value(link.reference, values_reference))
    return moved


def _pairable(parameters: Sequence[Parameter], values: Mapping[str, np.ndarray]) -> list[Parameter]:
    """Parameters but for a framework's own counters and seeds (torch's `num_batches_tracked`)."""
    return [
        p for p in parameters if not p.buffer or p.name not in values or np.asarray(values[p.name]).dtype.kind == "f"
    ]


def _model(parameters: Sequence[Parameter], values: Mapping[str, np.ndarray], given: set[str]) -> Model:
    rest = [parameter for parameter in parameters if parameter.name not in given]
    found = units(rest)
    marks = {}
    pieces = [piece for unit in found for piece in unit.pieces.values()]
    wholes = [Piece(key="", parameter=parameter) for parameter in rest]
    for piece in {label(piece): piece for piece in [*wholes, *pieces]}.values():
        array = see(View(part=piece.part), values[piece.parameter.name])
        if informative(array):
            marks[label(piece)] = fingerprint(array)
    return Model(parameters={p.name: p for p in parameters}, values=values, units=found, marks=marks)


def _given(work: Work, name: str, other: str, axes: tuple[int, ...] | None) -> None:
    """Link what the user says belongs together."""
    for side, wanted in ((work.reference, name), (work.candidate, other)):
        if wanted not in side.parameters:
            raise HarnessError(f"given: no parameter {wanted!r}; known: {', '.join(side.parameters)}")
    reference, candidate = work.reference.parameters[name], work.candidate.parameters[other]
    if axes is None:
        views = layout(work, reference, candidate)
    else:
        fits = sorted(axes) == list(range(len(candidate.shape)))
        fits = fits and tuple(candidate.shape[axis] for axis in axes) == reference.shape
        views = (View(), View(axes=tuple(axes))) if fits else None
    if views is None:
        raise HarnessError(
            f"given: {other} {candidate.shape} does not fit {name} {reference.shape}"
            f"{'' if axes is None else f' with axes {tuple(axes)}'}; give (name, axes) that make the shapes equal"
        )
    sides = Side(parameter=name, view=views[0]), Side(parameter=other, view=views[1])
    agree = equal(see(views[0], work.reference.values[name]), see(views[1], work.candidate.values[other]))
    work.add(Link(name=name, reference=sides[0], candidate=sides[1], how="given", expected=agree))


def _by_layer(work: Work) -> None:
    """Link the layers of known kind."""
    own, theirs = (
        [unit for unit in model.units if not _held_loosely(model, unit, other)]
        for model, other in ((work.reference, work.candidate), (work.candidate, work.reference))
    )
    pairs, choices = matched_units(own, theirs, work.reference.marks, work.candidate.marks)
    for r, c in pairs:
        link_units(work, own[r], theirs[c])
    chosen = dict(pairs)
    for r, others in choices:
        names = ", ".join(theirs[other].layer for other in others)
        text = (
            f"{own[r].layer} is taken for {theirs[chosen[r]].layer}; by kind, sizes and values {names} would do as well"
        )
        work.notes.append(Note(parameter=own[r].parameters[0].name, cause="", text=text))


def _held_loosely(model: Model, unit: Unit, other: Model) -> bool:
    """Whether the other side holds a layer's largest values in another kind of layer: it is no partner by structure."""
    largest = max(unit.pieces.values(), key=lambda piece: math.prod(piece.shape))
    mark = model.marks.get(label(largest))
    holders = [parameter for parameter in other.parameters.values() if mark and other.marks.get(parameter.name) == mark]
    return bool(holders) and not any(kin(unit.op, plain_kind(holder).op) for holder in holders)


def _unmatched(model: Model) -> list[Note]:
    notes = []
    for parameter in model.free():
        known = bool(parameter.op and parameter.role)
        text = f"{parameter.name}: no layer of the other side is a {parameter.op} of these sizes"
        if not known:
            text = f"{parameter.name} {parameter.shape}: nothing on the other side has these values, or shape and place"
        note = Note(parameter=parameter.name, cause="layer-missing" if known else "", text=text)
        notes.append(model.reasons.get(parameter.name, note))
    return notes
