"""Parameters that no pair of known layers has taken (JAX pytrees, custom modules): matched one by one, by value, as a
part, as a sum, at last by shape, place and name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from harness.aligning import similarity
from harness.evidence import find_block, find_map, fingerprint, informative
from harness.linking import Model, Note, Work, link_parameters
from harness.recipe import Parameter
from harness.structure import GATES, guess
from harness.views import Link, Side, View, see


def link_rest(work: Work) -> None:
    """Link the parameters that are still free, as far as anything speaks for it."""
    _sums(work)
    _by_value(work)
    for whole, part in ((work.reference, work.candidate), (work.candidate, work.reference)):
        _by_block(work, whole, part)
    _by_shape(work)
    _tied(work)


def _by_value(work: Work) -> None:
    """Equal values; several parameters that hold the same are taken in order."""
    own, theirs = _marked(work.reference), _marked(work.candidate)
    for mark, names in own.items():
        others = theirs.get(mark, [])
        for name, other in zip(names, _alike(names, others), strict=False):
            link_parameters(work, work.reference.parameters[name], work.candidate.parameters[other])
        if len(names) > 1 and others:
            text = f"{', '.join(names)} hold the same values as {', '.join(others)}: taken in this order"
            work.notes.append(Note(parameter=names[0], cause="", text=text))


def _alike(names: list[str], others: list[str]) -> list[str]:
    """The others in the order of the names that they are most like; ties in their own order."""
    left = list(others)
    found = []
    for name in names[: len(others)]:
        best = max(left, key=lambda other: similarity(name, other))
        left.remove(best)
        found.append(best)
    return found


def _marked(model: Model) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for parameter in model.free():
        if parameter.name in model.marks:
            found[model.marks[parameter.name]].append(parameter.name)
    return found


def _tied(work: Work) -> None:
    """A tensor that one side has twice and the other once, shared between two layers."""
    for model, other, flipped in ((work.reference, work.candidate, False), (work.candidate, work.reference, True)):
        holders = {mark: name for name, mark in reversed(other.marks.items()) if name in other.used}
        for parameter in model.free():
            holder = holders.get(model.marks.get(parameter.name, -1))
            if holder in other.parameters:
                pair = (parameter, other.parameters[holder])
                link_parameters(work, *(pair[::-1] if flipped else pair))
                text = f"{holder} is taken to be shared: {parameter.name} and another parameter hold its values"
                work.notes.append(Note(parameter=parameter.name, cause="", text=text))


def _sums(work: Work) -> None:
    """torch's two biases of an RNN against one."""
    for model, other in ((work.reference, work.candidate), (work.candidate, work.reference)):
        marks = _marked(other)
        for unit in model.units:
            for way in ("", "_reverse"):
                pair = [unit.pieces.get(f"{role}{way}") for role in ("bias", "recurrent_bias")]
                if unit.op not in GATES or pair[0] is None or pair[1] is None or pair[0].part:
                    continue
                first, second = pair[0].parameter.name, pair[1].parameter.name
                total = model.values[first] + model.values[second]
                whole = marks.get(fingerprint(total), []) if informative(total) else []
                apart = model.marks.get(first) in marks and model.marks.get(second) in marks
                if not whole or apart or {first, second} & model.used:
                    continue
                found = find_map(total, other.values[whole[0]])
                if found is None or (model is work.candidate and found.order is not None):
                    continue
                one = Side(parameter=whole[0], view=found)
                two = Side(parameter=first, view=View(), added=(Side(parameter=second, view=View()),))
                if model is work.reference:
                    link = Link(name=f"{first} + {second}", reference=two, candidate=one, how="value", expected=True)
                else:
                    shape = other.values[whole[0]].shape
                    two = Side(
                        parameter=first,
                        view=View(result=shape),
                        added=(Side(parameter=second, view=View(result=shape)),),
                    )
                    link = Link(
                        name=whole[0],
                        reference=Side(parameter=whole[0], view=View()),
                        candidate=two,
                        how="value",
                        expected=True,
                    )
                work.add(link)


def _by_block(work: Work, whole: Model, part: Model) -> None:
    """A fused kernel on one side, its parts on the other; biases without values of their own follow their kernels."""
    wanted: dict[int, dict[int, Parameter]] = defaultdict(dict)
    for parameter in part.free():
        if mark := part.marks.get(parameter.name):
            wanted[part.values[parameter.name].size][mark] = parameter
    for parameter in [one for one in whole.free() if one.name in whole.marks]:
        array = whole.values[parameter.name]
        sizes = {size: list(marks) for size, marks in wanted.items() if size < array.size}
        if not sizes:
            continue
        for place, mark in list(find_block(array, sizes)):
            piece = wanted[see(View(part=place), array).size][mark]
            if piece.name in part.used:
                continue
            if _link_block(work, whole, parameter, place, piece):
                _follow(work, whole, part, parameter, place, piece)


def _link_block(work: Work, whole: Model, parameter: Parameter, place: tuple[slice, ...], piece: Parameter) -> bool:
    block = see(View(part=place), whole.values[parameter.name])
    at = ", ".join(":" if one == slice(None) else f"{one.start}:{one.stop}" for one in place)
    if whole is work.reference:
        found = find_map(block, work.candidate.values[piece.name])
        own, theirs = (
            Side(parameter=parameter.name, view=View(part=place)),
            found and Side(parameter=piece.name, view=found),
        )
        name = f"{parameter.name}[{at}]"
    else:
        found = find_map(work.reference.values[piece.name], block)
        own, theirs = (
            Side(parameter=piece.name, view=View()),
            found and Side(parameter=parameter.name, view=replace(found, part=place)),
        )
        name = piece.name
    if theirs:
        work.add(Link(name=name, reference=own, candidate=theirs, how="value", expected=True))
    return theirs is not None


def _follow(
    work: Work, whole: Model, part: Model, parameter: Parameter, place: tuple[slice, ...], piece: Parameter
) -> None:
    """The bias of a fused layer, without values that tell, beside the part of its kernel."""
    axis = len(place) - 1
    for bias in [one for one in whole.parameters.values() if one.layer == parameter.layer and len(one.shape) == 1]:
        if bias.name in whole.marks or bias.shape[0] != parameter.shape[axis]:
            continue
        wide = place[axis].stop - place[axis].start
        for other in part.free():
            if other.layer == piece.layer and other.shape == (wide,) and other.name not in part.marks:
                rows = (place[axis],)
                sides = [Side(parameter=bias.name, view=View(part=rows)), Side(parameter=other.name, view=View())]
                name = f"{bias.name}[{rows[0].start}:{rows[0].stop}]" if whole is work.reference else other.name
                one, two = sides if whole is work.reference else sides[::-1]
                same = whole.values[bias.name].flat[0] == part.values[other.name].flat[0]
                work.add(Link(name=name, reference=one, candidate=two, how="structure", expected=bool(same)))
                break


def _by_shape(work: Work) -> None:
    """The rest: the same sizes, roles that do not contradict; the nearest to what is linked already first."""
    partners = _partners(work)
    groups: dict[tuple[int, ...], tuple[list[Parameter], list[Parameter]]] = defaultdict(lambda: ([], []))
    for i, model in enumerate((work.reference, work.candidate)):
        for parameter in model.free():
            if parameter.name not in model.reasons:
                groups[tuple(sorted(length for length in parameter.shape if length != 1))][i].append(parameter)
    for own, theirs in groups.values():
        scores = {
            (r, c): _score(own[r], theirs[c], partners) - abs(r - c) / 1e4
            for r in range(len(own))
            for c in range(len(theirs))
        }
        free = set(range(len(own))), set(range(len(theirs)))
        for r, c in sorted(scores, key=lambda pair: -scores[pair]):
            if r in free[0] and c in free[1] and scores[r, c] > -1 and guess(own[r], theirs[c]):
                free[0].discard(r)
                free[1].discard(c)
                link_parameters(work, own[r], theirs[c])


def _partners(work: Work) -> dict[str, list[Parameter]]:
    """By layer of the reference, the candidate's parameters that its own are linked to."""
    found: dict[str, list[Parameter]] = defaultdict(list)
    for link in work.links:
        layer = work.reference.parameters[link.reference.parameter].layer
        found[layer].append(work.candidate.parameters[link.candidate.parameter])
    return found


def _score(reference: Parameter, candidate: Parameter, partners: dict[str, list[Parameter]]) -> float:
    """How much speaks for a pair; -1 and less where roles contradict."""
    if reference.role and candidate.role and reference.role != candidate.role:
        return -2.0
    near = [_kinship(candidate, partner) for partner in partners.get(reference.layer, ())]
    return max(near, default=0.0) + similarity(reference.name, candidate.name)


def _kinship(candidate: Parameter, partner: Parameter) -> float:
    return 2.0 * (bool(candidate.layer) and candidate.layer == partner.layer) + similarity(candidate.name, partner.name)
