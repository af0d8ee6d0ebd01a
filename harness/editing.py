"""Edits of a Case's parts: which fields, set to other values, make one side compute what the other does."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from scipy.optimize import brentq

from harness.case import NATIVE
from harness.fitting import DIGITS, fitted

Part = Any
"""A frozen dataclass that the reference computes: an op, a loss, an optimizer, a clipping; None: nothing there."""

Parts = tuple[Part, ...]

Alternatives = Mapping[int, Sequence[Part]]
"""By position, parts that may stand there instead; None for none at all."""

UNFIT = (ArithmeticError, LookupError, TypeError, ValueError, StopIteration)
"""What the reference may raise where parts do not fit the arrays that they are tried on."""

PATIENCE = 5.0
"""Seconds after which two edits at once are no longer looked for, for one question."""

TOGETHER = 3
"""Fields edited at once, at most."""

USUAL = (
    *(0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 4e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5),
    *(0.7, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 100.0, 1e3),
)
"""Values at which a number is tried, and between which it is looked for."""

BOUNDS = {Ge: operator.ge, Gt: operator.gt, Le: operator.le, Lt: operator.lt}
"""How a number keeps to what its field's annotation says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A field of the part at a position, as it is and as it would have to be; field "": the whole part."""

    position: int
    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """What the parts of one side should compute.

    compute: the reference's arrays, float64, for given parts. wanted: the other side's. enough: for each array the
    largest difference that rounding explains.
    """

    compute: Callable[[Parts], Sequence[np.ndarray]]
    wanted: Sequence[np.ndarray]
    enough: Sequence[float]


def apart(puzzle: Puzzle, parts: Parts) -> float:
    """The largest difference in units of what rounding explains: up to 1 is agreement, NaN (or an error) is none."""
    try:
        with np.errstate(all="ignore"):
            found = puzzle.compute(parts)
    except UNFIT:
        return math.inf  # such parts do not fit these arrays
    if any(np.shape(one) != np.shape(other) for one, other in zip(found, puzzle.wanted, strict=True)):
        return math.inf
    gaps = [
        _gap(one, other) / limit
        for one, other, limit in zip(found, puzzle.wanted, puzzle.enough, strict=True)
        if limit < math.inf
    ]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps, default=0.0)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference; NaN on both sides is none."""
    one, other = np.asarray(one), np.asarray(other)
    alike = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return float(np.where(alike, 0.0, np.abs(one - other)).max(initial=0.0))


def edited(parts: Parts, edits: Sequence[Edit]) -> Parts:
    """The parts with the edits made."""
    changed = list(parts)
    for edit in edits:
        part = changed[edit.position]
        changed[edit.position] = dataclasses.replace(part, **{edit.field: edit.after}) if edit.field else edit.after
    return tuple(changed)


def differing(parts: Parts, other: Parts) -> list[Edit]:
    """The edits that turn the one into the other, position by position."""
    edits = []
    for i, (one, two) in enumerate(zip(parts, other, strict=True)):
        if type(one) is not type(two):
            edits.append(Edit(position=i, field="", before=one, after=two))
        elif one is not None:
            pairs = [(field.name, getattr(one, field.name), getattr(two, field.name)) for field in fields(one)]
            edits += [Edit(position=i, field=name, before=b, after=a) for name, b, a in pairs if b != a]
    return edits


def same_float32(edit: Edit) -> bool:
    """A number and what float32 makes of it: a rounding, no difference."""
    one, other = edit.before, edit.after
    return isinstance(one, float) and isinstance(other, float) and np.float32(one) == np.float32(other)


def smallest(puzzle: Puzzle, parts: Parts, edits: Sequence[Edit]) -> list[tuple[Edit, ...]]:
    """The smallest sets of these edits that fit; all of the smallest size, as one is as good as the other. Of many at
    once, one set of which none can be left out."""
    for count in range(1, min(TOGETHER, len(edits)) + 1):
        fits = [some for some in itertools.combinations(edits, count) if apart(puzzle, edited(parts, some)) <= 1]
        if fits:
            return fits
    if len(edits) <= TOGETHER or not apart(puzzle, edited(parts, edits)) <= 1:
        return []
    needed = list(edits)
    for edit in edits:
        fewer = [other for other in needed if other is not edit]
        if apart(puzzle, edited(parts, fewer)) <= 1:
            needed = fewer
    return [tuple(needed)]


def searched(puzzle: Puzzle, parts: Parts, alternatives: Alternatives, end: float = math.inf) -> list[tuple[Edit, ...]]:
    """The smallest sets of edits that fit, where nothing is known of the other side: each choice is tried, each number
    solved for; then, for a while, two numbers at once, or a choice and a number. end: when to stop, by
    `time.process_time`."""
    choices = [*_choices(parts), *_replacements(parts, alternatives)]
    singles = ((edit,) if apart(puzzle, edited(parts, (edit,))) <= 1 else () for edit in choices)
    fits = _until(end, itertools.chain(singles, _solved(puzzle, parts)))
    if fits:
        return fits
    pairs = (_fit(puzzle, parts, pair) for pair in itertools.combinations(_acting(puzzle, parts), 2))
    beside = (found for choice in choices for found in _beside(puzzle, parts, choice))
    return _until(min(end, time.process_time() + PATIENCE), itertools.chain(pairs, beside))


def _until(end: float, tried: Iterable[tuple[Edit, ...]]) -> list[tuple[Edit, ...]]:
    """What fits of what was tried before the end."""
    return [found for found in itertools.takewhile(lambda _: time.process_time() < end, tried) if found]


def _beside(puzzle: Puzzle, parts: Parts, choice: Edit) -> Iterator[tuple[Edit, ...]]:
    """A choice with each number, () where they do not fit; a number of the part that is put in belongs to it."""
    chosen = edited(parts, (choice,))
    within = [edit for edit in _numbers(chosen) if not choice.field and edit.position == choice.position]
    for edit in within:
        if (number := _number(puzzle, chosen, edit)) is not None and _is_short(number):
            whole = edited(chosen, (dataclasses.replace(edit, after=number),))[choice.position]
            yield (dataclasses.replace(choice, after=whole),)
    for edit in _acting(puzzle, chosen):
        if edit not in within:
            found = _fit(puzzle, chosen, (edit,))
            yield (choice, *found) if found else ()


def _fit(puzzle: Puzzle, parts: Parts, numbers: Sequence[Edit]) -> tuple[Edit, ...]:
    """Some numbers at once as they would have to be; () where they are none of few digits."""

    def changed(values: Sequence[float]) -> tuple[Edit, ...]:
        return tuple(dataclasses.replace(e, after=float(v)) for e, v in zip(numbers, values, strict=True))

    def compute(values: Sequence[float]) -> Sequence[np.ndarray]:
        try:
            with np.errstate(all="ignore"):
                return puzzle.compute(edited(parts, changed(values)))
        except UNFIT as error:
            raise ValueError(error) from error

    found = fitted(compute, puzzle.wanted, [edit.before for edit in numbers])
    allowed = (v for v in found if all(map(partial(_may_be, parts), numbers, v)))
    return next((edits for v in allowed if apart(puzzle, edited(parts, edits := changed(v))) <= 1), ())


def _acting(puzzle: Puzzle, parts: Parts) -> list[Edit]:
    """The numbers of the parts that change what is computed."""
    whole = _or_none(puzzle, parts)
    if whole is None:
        return []
    found = []
    for edit in _numbers(parts):
        moved = _or_none(puzzle, edited(parts, (dataclasses.replace(edit, after=edit.before * 1.01 or 0.01),)))
        if moved is not None and not all(np.array_equal(one, other) for one, other in zip(whole, moved, strict=True)):
            found.append(edit)
    return found


def _or_none(puzzle: Puzzle, parts: Parts) -> Sequence[np.ndarray] | None:
    try:
        with np.errstate(all="ignore"):
            return puzzle.compute(parts)
    except UNFIT:
        return None


def _replacements(parts: Parts, alternatives: Alternatives) -> Iterator[Edit]:
    """The alternatives as edits: of the one field in which an alternative is another, else of the whole part."""
    for position, others in alternatives.items():
        for other in others:
            edits = differing((parts[position],), (other,))
            if len(edits) == 1:
                yield dataclasses.replace(edits[0], position=position)
            elif edits:
                yield Edit(position=position, field="", before=parts[position], after=other)


def fields(part: Part) -> tuple[dataclasses.Field[Any], ...]:
    """A part's fields; of one that is not there, none."""
    return () if part is None else dataclasses.fields(part)


def _choices(parts: Parts) -> Iterator[Edit]:
    """Every other value of every field that has few."""
    for i, part in enumerate(parts):
        for field in fields(part):
            value = getattr(part, field.name)
            for other in _others(_hints(type(part))[field.name], value):
                yield Edit(position=i, field=field.name, before=value, after=other)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _others(hint: Any, value: Any) -> list[Any]:
    """The values that a field may have besides its own: of a choice between names, truth, or presence."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) not in (None, Literal, tuple) else (hint,)
    if bool in kinds and isinstance(value, bool):
        return [not value]
    named = [name for kind in kinds if typing.get_origin(kind) is Literal for name in typing.get_args(kind)]
    return [name for name in named if name not in (value, NATIVE)]


def _solved(puzzle: Puzzle, parts: Parts) -> Iterator[tuple[Edit, ...]]:
    """Every number of the parts, by itself, as it would have to be; () where it does not fit."""
    for edit in _numbers(parts):
        found = _number(puzzle, parts, edit)
        yield () if found is None or found == edit.before else (dataclasses.replace(edit, after=found),)


def _numbers(parts: Parts) -> Iterator[Edit]:
    for i, part in enumerate(parts):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, float) and math.isfinite(value):
                yield Edit(position=i, field=field.name, before=value, after=value)


def solved_for(puzzle: Puzzle, parts: Parts, position: int, field: str) -> Parts:
    """The parts with a number of theirs as it would have to be, one of few digits; () where there is none."""
    before = getattr(parts[position], field)
    edit = Edit(position=position, field=field, before=before, after=before)
    number = _number(puzzle, parts, edit)
    return () if number is None or not _is_short(number) else edited(parts, (dataclasses.replace(edit, after=number),))


def _is_short(number: float) -> bool:
    """What people type has few digits; what only happens to fit has all."""
    return float(f"{number:.{DIGITS}g}") == number


def _number(puzzle: Puzzle, parts: Parts, edit: Edit) -> float | None:
    """The value of a field at which the parts fit, as the shortest decimal that does."""

    def with_value(value: float) -> Parts:
        return edited(parts, (dataclasses.replace(edit, after=value),))

    def fits(value: float) -> bool:
        return _may_be(parts, edit, value) and apart(puzzle, with_value(value)) <= 1

    for value in USUAL:
        if value != edit.before and fits(value):
            return value
    at = _most_apart(puzzle, parts)
    if at is None:
        return None
    array, index = at

    def miss(value: float) -> float:
        with np.errstate(all="ignore"):
            return float(puzzle.compute(with_value(value))[array][index] - puzzle.wanted[array][index])

    grid = sorted({*USUAL, *(-value for value in USUAL), *(edit.before * factor for factor in (0.5, 0.99, 1.01, 2))})
    misses = [_or_nan(miss, value) for value in grid]
    for (low, at_low), (high, at_high) in itertools.pairwise(zip(grid, misses, strict=True)):
        if at_low * at_high < 0:
            root = _root(miss, low, high)
            short = next(filter(fits, _shorter(root)), None)
            if short is not None:
                return short
    return None


def _may_be(parts: Parts, edit: Edit, value: float) -> bool:
    """Whether a field may have this value: no rate is below 0."""
    bounds = getattr(_hints(type(parts[edit.position]))[edit.field], "__metadata__", ())
    return all(BOUNDS[type(bound)](value, *dataclasses.astuple(bound)) for bound in bounds if type(bound) in BOUNDS)


def _root(miss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that changes sign between two points is 0; the lower one where it is not to be had there."""
    try:
        root, _ = brentq(  # pyright: ignore[reportGeneralTypeIssues]
            miss, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps, full_output=True, disp=False
        )
    except ValueError:  # NaN in between
        return low
    return float(root)


def _or_nan(function: Callable[[float], float], value: float) -> float:
    try:
        return function(value)
    except UNFIT:
        return math.nan


def _most_apart(puzzle: Puzzle, parts: Parts) -> tuple[int, tuple[int, ...]] | None:
    """The array and the element that are furthest from what is wanted."""
    if not math.isfinite(apart(puzzle, parts)):
        return None
    gaps = [np.abs(one - other) for one, other in zip(puzzle.compute(parts), puzzle.wanted, strict=True)]
    array = max(range(len(gaps)), key=lambda i: float(gaps[i].max(initial=0.0)) / puzzle.enough[i])
    return array, tuple(int(k) for k in np.unravel_index(int(gaps[array].argmax()), gaps[array].shape))


def _shorter(value: float) -> Iterator[float]:
    """The decimals of a number, the shortest first."""
    for digits in range(1, 17):
        yield float(f"{value:.{digits}g}")
    yield value
