"""Parameters that no pair of known layers has taken (JAX pytrees, custom modules): matched one by one, by value, as a
part, as a sum, at last by shape, place and name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher

from scipy.optimize import linear_sum_assignment

from harness.aligning import similarity, words
from harness.evidence import equal, find_block, find_map, fingerprint, informative
from harness.linking import Model, Note, Work, check_link, link_parameters
from harness.recipe import Parameter
from harness.structure import GATES, Piece, Unit, guess, plain_kind
from harness.views import Link, Side, View, see


def link_rest(work: Work) -> None:
    """Link the parameters that are still free, as far as anything speaks for it."""
    _sums(work)
    _by_value(work)
    for whole, part in ((work.reference, work.candidate), (work.candidate, work.reference)):
        _by_block(work, whole, part)
    _tied(work)
    _by_shape(work)


def _by_value(work: Work) -> None:
    """Equal values; several parameters that hold the same are taken in order."""
    own, theirs = _marked(work.reference), _marked(work.candidate)
    for mark, names in own.items():
        others = theirs.get(mark, [])
        for name, other in _alike(names, others):
            link_parameters(work, work.reference.parameters[name], work.candidate.parameters[other])
        if len(names) > 1 and others:
            text = f"{', '.join(names)} hold the same values as {', '.join(others)}: taken in this order"
            work.notes.append(Note(parameter=names[0], cause="", text=text))


def _alike(names: list[str], others: list[str]) -> list[tuple[str, str]]:
    """Pairs of names that are most like, all together; where they are as like, in their order."""
    if not others:
        return []
    likeness = [
        [SequenceMatcher(None, words(name), words(other)).ratio() - abs(r - c) / 1e4 for c, other in enumerate(others)]
        for r, name in enumerate(names)
    ]
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    return [(names[r], others[c]) for r, c in zip(rows, columns, strict=True)]


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
        for pair in [pair for unit in model.units for pair in _two_biases(unit)]:
            first, second = (piece.parameter.name for piece in pair)
            total = model.values[first] + model.values[second]
            whole = marks.get(fingerprint(total), []) if informative(total) else []
            apart = model.marks.get(first) in marks and model.marks.get(second) in marks
            found = find_map(total, other.values[whole[0]]) if whole and not apart else None
            if found is None or {first, second, whole[0]} & (model.used | other.used):
                continue
            if model is work.reference:
                sides = _sum(first, second, View()), Side(parameter=whole[0], view=found)
            elif other.values[whole[0]].size == total.size and found.order is None:
                sides = (
                    Side(parameter=whole[0], view=View()),
                    _sum(first, second, View(result=other.values[whole[0]].shape)),
                )
            else:
                continue
            name = " + ".join([sides[0].parameter, *(added.parameter for added in sides[0].added)])
            check_link(work, Link(name=name, reference=sides[0], candidate=sides[1], how="value", expected=True))


def _two_biases(unit: Unit) -> Iterator[tuple[Piece, Piece]]:
    for way in ("", "_reverse"):
        one, two = (unit.pieces.get(f"{role}{way}") for role in ("bias", "recurrent_bias"))
        if unit.op in GATES and one and two and not one.part:
            yield one, two


def _sum(first: str, second: str, view: View) -> Side:
    return Side(parameter=first, view=view, added=(Side(parameter=second, view=view),))


def _by_block(work: Work, whole: Model, part: Model) -> None:
    """A fused kernel on one side, its parts on the other; biases without values of their own follow their kernels."""
    wanted: dict[int, dict[int, Parameter]] = defaultdict(dict)
    for parameter in part.free():
        if mark := part.marks.get(parameter.name):
            wanted[part.values[parameter.name].size][mark] = parameter
    for parameter in [one for one in whole.free() if one.name in whole.marks]:
        array = whole.values[parameter.name]
        sizes = {size: list(marks) for size, marks in wanted.items() if size < array.size}
        covered = 0
        for place, mark in list(find_block(array, sizes)) if sizes else ():
            block = see(View(part=place), array)
            piece = wanted[block.size][mark]
            forward = whole is work.reference
            own, theirs = (block, part.values[piece.name]) if forward else (part.values[piece.name], block)
            view = None if piece.name in part.used else find_map(own, theirs)
            if view is not None:
                covered += block.size
                _link_part(work, parameter, place, piece, view, forward)
                _follow(work, whole, part, parameter, place, piece)
        if 0 < covered < array.size:
            text = f"{parameter.name}: {array.size - covered} of its {array.size} values are nowhere on the other side"
            work.notes.append(Note(parameter=parameter.name, cause="", text=text))


def _link_part(
    work: Work, whole: Parameter, place: tuple[slice, ...], piece: Parameter, view: View, forward: bool
) -> None:
    """Link a part of one side's parameter and a whole one of the other; forward: the first is the reference's."""
    if forward:
        at = ", ".join(":" if one == slice(None) else f"{one.start}:{one.stop}" for one in place)
        name = f"{whole.name}[{at}]"
        sides = Side(parameter=whole.name, view=View(part=place)), Side(parameter=piece.name, view=view)
    else:
        name = piece.name
        sides = Side(parameter=piece.name, view=View()), Side(parameter=whole.name, view=replace(view, part=place))
    check_link(work, Link(name=name, reference=sides[0], candidate=sides[1], how="value", expected=True))


def _follow(
    work: Work, whole: Model, part: Model, kernel: Parameter, place: tuple[slice, ...], piece: Parameter
) -> None:
    """The bias of a fused layer, without values that tell, beside the part of its kernel."""
    rows = place[-1]
    wide = rows.stop - rows.start, kernel.shape[len(place) - 1]
    fused = [p for p in whole.parameters.values() if p.layer == kernel.layer and p.shape == wide[1:]]
    single = [p for p in part.free() if p.layer == piece.layer and p.shape == wide[:1]]
    fused, single = ([p for p in side if p.name not in model.marks] for side, model in ((fused, whole), (single, part)))
    if len(fused) == len(single) == 1:
        _link_part(work, fused[0], (rows,), single[0], View(), whole is work.reference)


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
            (r, c): _score(own[r], theirs[c], partners) + _agreement(work, own[r], theirs[c]) - abs(r - c) / 1e4
            for r in range(len(own))
            for c in range(len(theirs))
        }
        free = set(range(len(own))), set(range(len(theirs)))
        for r, c in sorted(scores, key=lambda pair: -scores[pair]):
            if r in free[0] and c in free[1] and scores[r, c] > -1 and guess(own[r], theirs[c]):
                free[0].discard(r)
                free[1].discard(c)
                link_parameters(work, own[r], theirs[c])


def _agreement(work: Work, reference: Parameter, candidate: Parameter) -> float:
    """Constants tell no layers apart, but the ones from the zeros of a layer."""
    values = work.reference.values[reference.name], work.candidate.values[candidate.name]
    return float(values[0].size == values[1].size and equal(values[0].ravel(), values[1].ravel()))


def _partners(work: Work) -> dict[str, list[Parameter]]:
    """By layer of the reference, the candidate's parameters that its own are linked to."""
    found: dict[str, list[Parameter]] = defaultdict(list)
    for link in work.links:
        layer = work.reference.parameters[link.reference.parameter].layer
        found[layer].append(work.candidate.parameters[link.candidate.parameter])
    return found


def _score(reference: Parameter, candidate: Parameter, partners: dict[str, list[Parameter]]) -> float:
    """How much speaks for a pair; -1 and less where roles contradict."""
    families = {_family(reference), _family(candidate)}
    if len(families - {""}) > 1:
        return -2.0
    near = [_kinship(candidate, partner) for partner in partners.get(reference.layer, ())]
    return max(near, default=0.0) + similarity(reference.name, candidate.name)


def _kinship(candidate: Parameter, partner: Parameter) -> float:
    return 2.0 * (bool(candidate.layer) and candidate.layer == partner.layer) + similarity(candidate.name, partner.name)


def _family(parameter: Parameter) -> str:
    """What a role is beyond doubt: a kernel, a shift, or by its own name."""
    role = plain_kind(parameter).role.removesuffix("_reverse")
    return "bias" if role == "beta" else "kernel" if role == "embeddings" else role.rpartition("_")[2]
