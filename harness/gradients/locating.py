"""On a mismatch: the element of the inputs, the output, and a block of the Jacobian around it, returned and found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from frameworks.protocol import Arrays, Differentiable, Pullback
from harness.gradients.comparisons import CONFIRMED, Comparison
from harness.gradients.places import narrowed, only, place_of, single, sizes
from harness.gradients.points import Counted, Point, filled, point_at
from harness.gradients.probing import compared, laddered
from harness.gradients.result import Where
from harness.gradients.telling import floating

COLUMNS = ROWS = 24
"""How much of a large Jacobian is looked at; a small one is seen whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Part of the Jacobian: rows are elements of the outputs, columns of the inputs, by number through all of them."""

    rows: np.ndarray
    columns: np.ndarray
    returned: np.ndarray
    found: np.ndarray
    error: np.ndarray

    def only(self, rows: np.ndarray, columns: np.ndarray) -> Block:
        """The rows and columns where the masks hold."""
        both = np.ix_(rows, columns)
        return Block(
            rows=self.rows[rows],
            columns=self.columns[columns],
            returned=self.returned[both],
            found=self.found[both],
            error=self.error[both],
        )

    @property
    def wrong(self) -> np.ndarray:
        scale = np.abs(self.returned) + np.abs(self.found)
        return np.abs(self.returned - self.found) > CONFIRMED * self.error + 1e-13 * scale

    @property
    def seen(self) -> np.ndarray:
        """Entries that are not zero but for errors."""
        return np.maximum(np.abs(self.returned), np.abs(self.found)) > 10 * self.error


def located(point: Point, shown: Comparison) -> int | None:
    """The number of the input element where the mismatch is largest at every halving."""
    k = int(np.argmax(shown.excess))
    lone = replace(point, vs=(point.vs[k],), grads=(point.grads[k],))

    def excess(first: int, last: int) -> float:
        seen = compared(lone, only(shown.ds, point.xs, first, last))
        return (
            float("-inf") if seen.kinked else float(np.abs(seen.found - seen.expected)[0] if seen.wrong else 0) + 1e-300
        )

    total = sum(sizes(point.xs))
    return narrowed(total, lambda a, b: _above(excess(a, b)))


def _above(size: float) -> float:
    return 1 + size if size > 1e-290 else 0.0


def block(point: Point, number: int | None) -> Block:
    """Returned and found derivatives of some outputs by some inputs, those around the place among them."""
    total = sum(sizes(point.xs))
    columns = _chosen(total, COLUMNS, [number] if number is not None else [])
    outputs = sum(y.size for y in point.ys if floating(y))
    strong = [] if number is None else _answering(point, number)
    # the same numbers in both, as far as there are such: an exchange of rows and columns shows only there
    rows = _chosen(outputs, ROWS, [*strong[: ROWS // 2], *(int(c) for c in columns[: ROWS // 2] if c < outputs)])
    chosen = Counted(cast(Differentiable, Rows(point.function, rows)))
    split, _ = point_at(chosen, point.xs, point.seed, count=1, eps=(max(point.eps),))
    _, pullback = chosen.pull(tuple(x.copy() for x in point.xs))
    vs = tuple((unit,) for unit in np.eye(len(rows), dtype=split.ys[0].dtype))
    grads = tuple(filled(pullback(tuple(a.copy() for a in v)), point.xs) for v in vs)
    split = replace(split, vs=vs, grads=grads)
    seen = []
    for column in columns:
        ds = single(point.xs, int(column))
        size = max(float(np.max(np.abs(d), initial=0)) for d in ds)
        c = laddered(split, ds)
        seen.append((c.expected / size, np.where(c.kinked, c.expected, c.found) / size, c.error / size))
    returned, found, error = (np.array(part).T for part in zip(*seen, strict=True))
    return Block(rows=rows, columns=columns, returned=returned, found=found, error=error)


def goes_with_value(point: Point, part: Block, wrong: np.ndarray, right: np.ndarray) -> bool:
    """Whether, with the values of a wrong element and a right one exchanged, the error is at the right one's place."""
    bad = int(part.columns[wrong[0]])
    given, index = place_of(point.xs, bad)
    for k in right:
        good = int(part.columns[k])
        other, place = place_of(point.xs, good)
        if other != given or point.xs[given][index] == point.xs[given][place]:
            continue
        xs = tuple(x.copy() for x in point.xs)
        xs[given][index], xs[given][place] = xs[given][place], xs[given][index]
        try:
            swapped, _ = point_at(point.function, xs, point.seed, count=1, eps=point.eps)
        except Exception:  # outside of what the function takes
            return False
        return not _wrong_at(swapped, bad) and _wrong_at(swapped, good)
    return False


def _wrong_at(point: Point, number: int) -> bool:
    return laddered(point, single(point.xs, number)).wrong


def where(point: Point, part: Block) -> Where:
    """Input, output and index of the worst entry."""
    off = np.where(part.wrong, np.abs(part.returned - part.found), 0)
    row, column = np.unravel_index(int(np.nanargmax(off)), off.shape)
    given, index = place_of(point.xs, int(part.columns[column]))
    return given, output_of(point, int(part.rows[row])), index


def output_of(point: Point, row: int) -> int:
    for j, y in enumerate(point.ys):
        if floating(y):
            if row < y.size:
                return j
            row -= y.size
    raise IndexError(row)


def _chosen(total: int, count: int, wanted: list[int]) -> np.ndarray:
    """All, or the wanted ones and others spread evenly and beside each other."""
    if total <= 2 * count:
        return np.arange(total)
    spaced = np.linspace(0, total - 1, count // 2).astype(int)
    start = min(max((wanted or [0])[0] - count // 4, 0), total - count // 2)
    return np.unique(np.concatenate([wanted[:count], spaced, np.arange(start, start + count // 2)])).astype(int)


def _answering(point: Point, number: int) -> list[int]:
    """Outputs that answer most to an input element."""
    ds = single(point.xs, number)
    moved = point.function.value(tuple(x + 1e-4 * d if floating(x) else x for x, d in zip(point.xs, ds, strict=True)))
    change = np.concatenate([np.abs(a - b).reshape(-1) for a, b in zip(moved, point.ys, strict=True) if floating(b)])
    change = np.where(np.isfinite(change), change, 0)
    return [int(i) for i in np.argsort(-change, kind="stable")[: ROWS // 2]]


class Rows:
    """Some elements of a function's outputs, by number through all floating ones, as its only output."""

    def __init__(self, function: Counted, rows: np.ndarray) -> None:
        self.function = function
        self.rows = rows

    def value(self, xs: Arrays) -> Arrays:
        return (self._picked(self.function.value(xs)),)

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        ys, pullback = self.function.pull(xs)

        def of_rows(vs: Arrays) -> tuple[np.ndarray | None, ...]:
            whole = np.zeros(sum(y.size for y in ys if floating(y)), vs[0].dtype)
            whole[self.rows] = vs[0]
            parts, first = [], 0
            for y in ys:
                size = y.size if floating(y) else 0
                part = whole[first : first + size].astype(y.dtype) if size else np.zeros(y.size)
                parts.append(part.reshape(y.shape))
                first += size
            return pullback(tuple(parts))

        return (self._picked(ys),), of_rows

    def _picked(self, ys: Arrays) -> np.ndarray:
        return np.concatenate([y.reshape(-1) for y in ys if floating(y)])[self.rows]
