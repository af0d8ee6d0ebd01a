"""Which parameter of one model is which of the other, and through which map: kinds say what is meant, values whether."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.aligning import label
from harness.alternatives import candidate_maps as candidate_maps
from harness.case import HarnessError
from harness.evidence import (
    equal,
    find_map,
    fingerprint,
    informative,
)
from harness.recipe import Parameter
from harness.structure import Piece, guess, units, views_between
from harness.views import Link, Side, View, put, put_value, see, see_value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairing:
    """Links in the reference's order of definition; what has no counterpart, with the reason; and what was noticed."""

    links: tuple[Link, ...]
    unmatched_reference: tuple[Note, ...]
    unmatched_candidate: tuple[Note, ...]
    notes: tuple[Note, ...]


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
    for name, sides in (("reference", (reference, values_reference)), ("candidate", (candidate, values_candidate))):
        if absent := [parameter.name for parameter in sides[0] if parameter.name not in sides[1]]:
            raise HarnessError(f"{name} parameter {absent[0]} has no value; give one for each parameter")
    names = [{name for name in given}, {pair if isinstance(pair, str) else pair[0] for pair in given.values()}]
    work = _Work(
        reference=_model(reference, values_reference, names[0]), candidate=_model(candidate, values_candidate, names[1])
    )
    for name, pair in given.items():
        _given(work, name, *((pair, None) if isinstance(pair, str) else pair))
    _known(work)
    _by_value(work)
    _by_block(work, work.reference, work.candidate)
    _by_block(work, work.candidate, work.reference)
    _by_shape(work)
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
    """Copies of the candidate's arrays that hold the reference's values through all links, exactly.

    Where several of the candidate's are added, the first takes all and the others are 0.
    """
    moved = {parameter.name: np.array(values_candidate[parameter.name]) for parameter in candidate}
    for link in pairing.links:
        for added in link.candidate.added:
            put(added.view, moved[added.parameter], np.zeros_like(see(added.view, moved[added.parameter])))
        put_value(link.candidate, moved, see_value(link.reference, values_reference))
    return moved


def _model(parameters: Sequence[Parameter], values: Mapping[str, np.ndarray], given: set[str]) -> _Model:
    rest = [parameter for parameter in parameters if parameter.name not in given]
    found = units(rest)
    marks = {}
    pieces = [piece for unit in found for piece in unit.pieces.values()]
    wholes = [Piece(key="", parameter=parameter) for parameter in rest]
    for piece in {label(piece): piece for piece in [*wholes, *pieces]}.values():
        array = see(View(part=piece.part), values[piece.parameter.name])
        if informative(array):
            marks[label(piece)] = fingerprint(array)
    return _Model(parameters={p.name: p for p in parameters}, values=values, units=found, marks=marks)


def _given(work: _Work, name: str, other: str, axes: tuple[int, ...] | None) -> None:
    """Link what the user says belongs together."""
    for side, wanted in ((work.reference, name), (work.candidate, other)):
        if wanted not in side.parameters:
            raise HarnessError(f"given: no parameter {wanted!r}; known: {', '.join(side.parameters)}")
    reference, candidate = work.reference.parameters[name], work.candidate.parameters[other]
    if axes is None:
        views = _layout(work, reference, candidate)
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
    _add(work, Link(name=name, reference=sides[0], candidate=sides[1], how="given", expected=agree))


def _layout(work: _Work, reference: Parameter, candidate: Parameter) -> tuple[View, View] | None:
    """Views of two whole parameters: by their kinds where both are known, else by value, else by habit."""
    views = None
    if _comparable(reference, candidate):
        views = views_between(*(Piece(key=one.role, parameter=one) for one in (reference, candidate)))
    if views is None and work.reference.marks.get(reference.name) == work.candidate.marks.get(candidate.name):
        arrays = work.reference.values[reference.name], work.candidate.values[candidate.name]
        found = find_map(*arrays) if informative(arrays[0]) else None
        views = found and (View(), found)
    if views is None:
        likely = guess(reference, candidate)
        views = likely and (View(), likely)
    return views


def _comparable(reference: Parameter, candidate: Parameter) -> bool:
    return bool(reference.op and reference.role) and (reference.op, reference.role) == (candidate.op, candidate.role)


def _add(work: _Work, link: Link) -> None:
    if link.name in {one.name for one in work.links}:
        link = replace(link, name=f"{link.name} ({link.candidate.parameter})")
    work.links.append(link)
    for side, model in ((link.reference, work.reference), (link.candidate, work.candidate)):
        model.used.update({side.parameter, *(added.parameter for added in side.added)})
