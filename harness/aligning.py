"""Which layer of one model is which of the other: by the values they hold, else by kind, sizes and order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from harness.structure import Piece, Unit, kin, views_between

Marks = Mapping[str, int]
"""Fingerprints of informative pieces by label."""


def label(piece: Piece) -> str:
    """A piece's name: the parameter's, with [part]."""
    rows = piece.part and f"[{piece.part[0].start}:{piece.part[0].stop}]"
    return f"{piece.parameter.name}{rows or ''}"


def matched_units(
    reference: Sequence[Unit], candidate: Sequence[Unit], marks_reference: Marks, marks_candidate: Marks
) -> tuple[list[tuple[int, int]], list[tuple[int, list[int]]]]:
    """Pairs of layers, by place in the two lists, in the reference's order; and those paired by order alone though
    others were as good, with these."""
    fits = _fitting(reference, candidate)
    shared = _votes(reference, candidate, marks_reference, marks_candidate)
    anchors: dict[int, int] = {}
    taken: set[int] = set()
    for r, c in sorted(shared, key=lambda pair: -shared[pair]):
        if shared[r, c] >= 1 and r not in anchors and c not in taken and fits(r, c):
            anchors[r] = c
            taken.add(c)
    anchors = _as_named(reference, candidate, anchors)
    rest = (
        [r for r in range(len(reference)) if r not in anchors],
        sorted({*range(len(candidate))} - {*anchors.values()}),
    )
    between = _neighbours(len(reference), anchors), _neighbours(len(candidate), {c: c for c in anchors.values()})

    def score(r: int, c: int) -> float:
        fit = fits(r, c)
        if not fit:
            return 0.0
        near = sum(one == other for one, other in zip(between[0][r], between[1][c], strict=True))
        names = similarity(reference[r].layer, candidate[c].layer)
        return fit + 0.2 * near + min(shared.get((r, c), 0.0), 0.5) + 0.1 * names

    places = align(len(rest[0]), len(rest[1]), lambda i, j: score(rest[0][i], rest[1][j]))
    pairs = {rest[0][i]: rest[1][j] for i, j in places}
    free = [c for c in rest[1] if c not in pairs.values()]
    for r in rest[0]:
        fitting = [c for c in free if r not in pairs and fits(r, c)]
        if fitting:
            pairs[r] = max(fitting, key=lambda c: score(r, c))
            free.remove(pairs[r])
    pairs = _as_named(reference, candidate, pairs, always=True)
    choices = [(r, as_good) for r, c in pairs.items() if (as_good := [o for o in free if fits(r, o) == fits(r, c)])]
    return sorted({**anchors, **pairs}.items()), choices


def _neighbours(count: int, anchors: Mapping[int, int]) -> list[tuple[int, int]]:
    """For each place the partners of the nearest anchored places before and behind it; -1 and -2 at the ends."""
    before, behind = [-1], [-2]
    for place in range(count):
        before.append(anchors.get(place, before[-1]))
    for place in reversed(range(count)):
        behind.append(anchors.get(place, behind[-1]))
    return list(zip(before[:-1], behind[-2::-1], strict=True))


def _fitting(reference: Sequence[Unit], candidate: Sequence[Unit]) -> Callable[[int, int], float]:
    """How well two layers fit by kind and sizes: 0 not at all, 1 wholly."""
    signs = [[_signature(unit) for unit in side] for side in (reference, candidate)]
    known: dict[object, float] = {}

    def fit(r: int, c: int) -> float:
        key = signs[0][r], signs[1][c]
        if key not in known:
            known[key] = _fit(reference[r], candidate[c])
        return known[key]

    return fit


def _signature(unit: Unit) -> object:
    return unit.op, tuple(sorted((key, piece.shape, piece.torch) for key, piece in unit.pieces.items()))


def _fit(reference: Unit, candidate: Unit) -> float:
    if not kin(reference.op, candidate.op):
        return 0.0
    shared = reference.pieces.keys() & candidate.pieces.keys()
    sizes = {key: _size(reference.pieces[key]) for key in shared}
    fitting = sum(sizes[key] for key in shared if views_between(reference.pieces[key], candidate.pieces[key]))
    most = fitting > 0 and 2 * fitting >= sum(sizes.values())
    return most * (1.0 if reference.op == candidate.op else 0.6)


def _size(piece: Piece) -> int:
    size = 1
    for length in piece.shape:
        size *= length
    return size


def _votes(
    reference: Sequence[Unit], candidate: Sequence[Unit], marks_reference: Marks, marks_candidate: Marks
) -> dict[tuple[int, int], float]:
    """For pairs of layers, how many values they share: those found nowhere else; less than one for repeated ones."""
    owners = [defaultdict(list), defaultdict(list)]
    for units, marks, found in zip((reference, candidate), (marks_reference, marks_candidate), owners, strict=True):
        for place, unit in enumerate(units):
            for piece in unit.pieces.values():
                if mark := marks.get(label(piece)):
                    found[mark].append((place, _size(piece)))
    votes: dict[tuple[int, int], float] = defaultdict(float)
    for mark, here in owners[0].items():
        there = owners[1].get(mark, [])
        alone = len(here) == len(there) == 1
        for r, size in here:
            for c, _ in there:
                votes[r, c] += size if alone else 0.5 / (len(here) * len(there))
    return votes


def align(reference: int, candidate: int, score: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """The pairs in order of two sequences with the largest total score; a score of 0 never pairs."""
    best = [[0.0] * (candidate + 1) for _ in range(reference + 1)]
    scores = [[score(r, c) for c in range(candidate)] for r in range(reference)]
    for r in range(reference - 1, -1, -1):
        for c in range(candidate - 1, -1, -1):
            pair = best[r + 1][c + 1] + scores[r][c] if scores[r][c] else 0.0
            best[r][c] = max(best[r + 1][c], best[r][c + 1], pair)
    pairs, r, c = [], 0, 0
    while r < reference and c < candidate:
        if scores[r][c] and best[r][c] == best[r + 1][c + 1] + scores[r][c]:
            pairs.append((r, c))
            r, c = r + 1, c + 1
        elif best[r][c] == best[r + 1][c]:
            r += 1
        else:
            c += 1
    return pairs


def _as_named(
    reference: Sequence[Unit], candidate: Sequence[Unit], anchors: dict[int, int], always: bool = False
) -> dict[int, int]:
    """Layers of one kind and size whose values cross (`always`: that no value has paired): paired as their names say
    where the names are the same on both sides or are numbers on both; else as they were."""
    alike: dict[object, list[int]] = defaultdict(list)
    for r in sorted(anchors):
        alike[_signature(reference[r])].append(r)
    named = dict(anchors)
    for group in alike.values():
        theirs = [anchors[r] for r in group]
        if always or any(one > other for one, other in pairwise(theirs)):
            names = [reference[r].layer for r in group], [candidate[c].layer for c in theirs]
            numbered = _number_themselves(names[0], [candidate[c].layer for c in sorted(theirs)])
            order = _by_name(*names, numbered)
            named.update({r: theirs[place] for r, place in zip(group, order, strict=True)})
    return named


def _by_name(reference: list[str], candidate: list[str], numbered: bool) -> list[int]:
    """For each name of the reference its place among the candidate's; as they stand where names say nothing."""
    for ending in (None, -1):
        sides = [[tuple(words(name)[ending or 0 :]) for name in side] for side in (reference, candidate)]
        counted = ending is not None and any(word.isdigit() for (word,) in sides[0])
        if not counted and len(set(sides[0])) == len(sides[0]) and set(sides[0]) == set(sides[1]):
            return [sides[1].index(name) for name in sides[0]]
    if numbered:
        ranks = [
            sorted(range(len(side)), key=lambda place, side=side: _numbers(side[place]))
            for side in (reference, candidate)
        ]
        return [ranks[1][ranks[0].index(place)] for place in range(len(reference))]
    return list(range(len(reference)))


def _number_themselves(reference: list[str], candidate: list[str]) -> bool:
    """Whether both sides' names, in the order of definition, are one word and a number, which the first may lack (a
    `norm` defined behind `norm1` and `norm2` is not the first of them)."""
    return all(
        len({re.sub(r"[\W_]*\d+", "", name) for name in side}) == 1 and all(_numbers(name) for name in side[1:])
        for side in (reference, candidate)
    )


def words(name: str) -> list[str]:
    return re.findall(r"\d+|[a-z]+", name.lower())


def _numbers(name: str) -> list[int]:
    """Those in a name: of layers that number themselves the first has none (`dense`, `dense_1`)."""
    return [int(number) for number in re.findall(r"\d+", name)]


def similarity(reference: str, candidate: str) -> float:
    """How alike two names are, from 0 to 1: the share of their words and numbers in common."""
    words, others = _wordset(reference), _wordset(candidate)
    return len(words & others) / max(len(words | others), 1)


@lru_cache(maxsize=1 << 14)
def _wordset(name: str) -> frozenset[str]:
    return frozenset(words(name))
