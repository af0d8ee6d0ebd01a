"""Derivatives from function values alone, each with an estimate of its own error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Array = np.ndarray

SHRINK = 1.4
"""Each difference uses a step smaller by this factor than the one before (Numerical Recipes 3rd ed., section 5.7)."""


def gradient_by_differences(
    f: Callable[[Array], float], point: Array, directions: Array | None = None, step: float = 0.05
) -> tuple[Array, Array]:
    """Derivatives of f at a flat point (n,) along the rows of directions (k, n), default all coordinates.

    Returns values (k,) and estimates of their errors (k,). step: the widest half-width tried, the narrowest is a
    twentieth of it. A kink within the narrowest shows as a large error, but at the point itself it goes unseen: the
    value is then the mean of the one-sided derivatives.
    """
    along = np.eye(point.size) if directions is None else directions
    pairs = [derivative_by_differences(lambda t, d=d: f(point + t * d), step) for d in along]
    values, errors = zip(*pairs, strict=True)
    return np.array(values), np.array(errors)


def derivative_by_differences(f: Callable[[float], float], step: float) -> tuple[float, float]:
    """f'(0) and an estimate of its error: central differences extrapolated to step 0.

    Ridders, Advances in Engineering Software 4 (1982) 75-76. The estimate adds what rounding f itself can cause.
    """
    best, error = float("nan"), float("inf")
    coarse: list[float] = []
    h = step
    for _ in range(10):
        right, left = f(h), f(-h)
        # (f(h) - f(-h)) / 2h = f' + c1 h² + c2 h⁴ + ...
        row = [(right - left) / (2 * h)]
        rounding = sys.float_info.epsilon * max(abs(right), abs(left)) / h
        for k, wider in enumerate(coarse):
            # two steps h and 1.4 h: this combination removes the term in h^(2k+2)
            power = SHRINK ** (2 * k + 2)
            row.append((power * row[k] - wider) / (power - 1))
            change = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - wider)) + rounding
            if change < error:
                best, error = row[k + 1], change
        coarse = row
        h /= SHRINK
    return best, error


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Derivatives (k,) of k functions of one variable at 0, as the mean of both sides, and by how much the right one
    exceeds the left one (`jump`), each with an estimate of its error; steps: the narrowest that gave them; tread: the
    widest step below which all functions are constant bit for bit, 0 where they are not, or everywhere are; values,
    errors (r, k): what each width of steps gives by itself."""

    value: Array
    error: Array
    jump: Array
    jump_error: Array
    steps: Array
    tread: float
    values: Array
    errors: Array


def slopes_by_differences(
    f: Callable[[float], Array], base: Array, noise: Array, start: float = 0.25, narrowest: float = 1e-15
) -> Slope:
    """Derivatives of f (k values) at 0 by Ridders' extrapolation over a ladder of halved steps, from `start` down.

    base: f(0). noise: what rounding adds to a value of f at least; where f shows more, that counts. Steps at which f
    is not finite are passed over. Infinite errors: f is not finite on both sides at any step.
    """
    steps: list[float] = []
    rows: list[list[Array]] = []
    bends: list[list[Array]] = []
    h, calm = start, 0
    while h >= narrowest:
        right, left = f(h), f(-h)
        if np.isfinite(right).all() and np.isfinite(left).all():
            # (f(h) - f(-h)) / 2h = f' + c h² + ..., and (f(h) - 2 f(0) + f(-h)) / h = jump + c h + ...
            rows.append(_extrapolated((right - left) / (2 * h), rows, lambda k: 4 ** (k + 1)))
            bends.append(_extrapolated((right - base + (left - base)) / h, bends, lambda k: 2 ** (k + 1)))
            steps.append(h)
            if len(rows) > 2:
                floor = 4 * noise / h
                settled = [
                    _change(table[-1], table[-2])[0] <= weight * floor for table, weight in ((rows, 1), (bends, 8))
                ]
                near = h < 1e-6 and (_change(rows[-1], rows[-2])[0] < 16 * floor).all()
                calm = calm + 1 if near or (settled[0] & settled[1]).all() else 0
                if calm == 2:
                    break
        h /= 2
    return _best(np.array(steps), rows, bends, noise)


def _extrapolated(first: Array, table: list[list[Array]], power: Callable[[int], int]) -> list[Array]:
    """A row of Ridders' tableau: each entry removes one more power of the step from those beside and above it."""
    row = [first]
    for k, wider in enumerate(table[-1][:4] if table else ()):
        row.append(row[k] + (row[k] - wider) / (power(k) - 1))
    return row


def _change(row: list[Array], coarse: list[Array]) -> tuple[Array, Array]:
    """The smallest change that extrapolation makes in a row of the tableau, and the value it leads to."""
    changes = np.array([np.maximum(abs(b - a), abs(b - w)) for a, b, w in zip(row, row[1:], coarse, strict=False)])
    at = changes.argmin(0)
    return changes.min(0), np.array(row[1:])[at, np.arange(len(at))]


def _best(steps: Array, rows: list[list[Array]], bends: list[list[Array]], noise: Array) -> Slope:
    """The entry of least estimated error, for each of the k functions, of the derivatives and of the jumps."""
    count = len(noise)
    if len(rows) < 3:
        lost, endless = np.full(count, np.nan), np.full(count, np.inf)
        return Slope(
            value=lost,
            error=endless,
            jump=lost,
            jump_error=endless,
            steps=lost,
            tread=0.0,
            values=lost[None],
            errors=endless[None],
        )
    plain = np.array([row[0] for row in rows])
    moves = np.abs(np.diff(plain, axis=0))
    # where halving the step brings a derivative no closer, what moves it is noise; noise at wide steps alone is a kink
    # or a pole within them
    shown = np.zeros_like(plain)
    shown[2:] = np.where(moves[1:] >= moves[:-1], moves[1:] * steps[2:, None], 0)
    worst = np.maximum(np.maximum.accumulate(shown[::-1])[::-1], noise)[1:] / steps[1:, None]
    values, errors = _all(rows, 4 * worst)
    jumps, jump_errors = _all(bends, 16 * worst)
    at, least, each = errors.argmin(0), jump_errors.argmin(0), np.arange(count)
    return Slope(
        value=values[at, each],
        error=errors[at, each],
        jump=jumps[least, each],
        jump_error=jump_errors[least, each],
        steps=steps[2:][at],
        tread=_tread(steps, plain),
        values=values,
        errors=errors,
    )


def _all(table: list[list[Array]], noise: Array) -> tuple[Array, Array]:
    """What each row of the tableau gives, and its error: the change by extrapolation there or in the row before,
    whichever is larger, for one alone may be small by chance."""
    changes, values = map(np.array, zip(*(_change(row, wider) for wider, row in pairwise(table)), strict=True))
    changes[1:] = np.maximum(changes[1:], changes[:-1])
    return values[1:], changes[1:] + noise[1:]


def _tread(steps: Array, plain: Array) -> float:
    flat = (plain == 0).all(1)
    moving = np.flatnonzero(~flat)
    return float(steps[moving[-1] + 1]) if len(moving) and moving[-1] + 1 < len(steps) else 0.0
