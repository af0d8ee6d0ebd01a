"""No alarm without confirmation: another ladder, the backward's own noise, points nearby."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.comparisons import Comparison
from harness.gradients.directions import moved, product_norm, spread
from harness.gradients.patience import EndlessError
from harness.gradients.points import EPS, Point, filled, narrowed, own, point_at
from harness.gradients.probing import along, grain_of, laddered, sample
from harness.gradients.telling import floating
from harness.judging import K


def confirmed(point: Point, comparison: Comparison) -> Comparison:
    """The same direction on another ladder, down from where the gradient itself says that the function begins to move.

    Gives the kinder of the two, with the noise of the gradient as an error, and as a jump what derivatives nearby
    differ by.
    """
    ds = comparison.ds
    grain = grain_of(point, ds)
    first = laddered(point, ds, narrowest=grain) if grain else comparison
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.nanmin(0.02 * first.natural / np.abs(first.expected))
    start = min(0.19, moves) if moves > 0 and not grain else 0.19
    again = laddered(point, ds, start, narrowest=grain or 1e-6 * start)
    kinder = min((first, again), key=lambda c: 0.0 if c.kinked else float(c.excess.max(initial=0)))
    if not kinder.wrong:
        # both say so with some right: the better estimate is not as good as it looks
        doubted = np.where(kinder.supported, np.abs(kinder.found - kinder.expected), 0)
        return replace(kinder, error=np.maximum(kinder.error, doubted))
    error = kinder.error + 3 * _backward_noise(point, kinder)
    error = np.where(_rough(point, ds, kinder.found), np.abs(kinder.found) + np.abs(kinder.expected) + error, error)
    kinder = replace(kinder, error=error)
    if not _persists(point, kinder):
        return replace(kinder, error=np.maximum(error, np.abs(kinder.found - kinder.expected)))
    scatter = _scatter(point, kinder)
    tied = scatter > 0.1 * np.abs(kinder.found - kinder.expected)
    gross = np.abs(kinder.found - kinder.expected) > 1e-2 * kinder.scale
    return replace(kinder, jump=np.where(tied & gross, np.maximum(scatter, np.abs(kinder.jump)), kinder.jump))


def _backward_noise(point: Point, comparison: Comparison) -> np.ndarray:
    """What rounding does to the gradient's projection: differences of high order over inputs an ulp, and a little more,
    and a share of the step apart; the point itself is left out, for it may be the only one that is wrong."""
    ds = comparison.ds
    relative = tuple(
        np.abs(x) * spread(x.shape, 700, point.seed) if floating(x) else d for x, d in zip(point.xs, ds, strict=True)
    )
    found = np.zeros(len(point.vs))
    for ways, step in ((relative, EPS), (relative, 2.0**-22), (ds, comparison.step / 64)):
        projections = []
        for k in range(1, 8):
            try:
                xs = moved(point.xs, ways, k * step)
                _, pullback = point.function.pull(xs)
                projections.append([along(filled(pullback(own(v)), xs), ds)[0] for v in point.vs])
            except Exception:  # outside of what the function takes
                break
        table = np.array(projections)
        if len(table) == 7 and np.isfinite(table).all():
            # the sixth difference of noise is sqrt(924) times as large (Moré and Wild, SIAM J. Sci. Comput. 33 (2011))
            found = np.maximum(found, np.abs(np.diff(table, 6, axis=0))[0] / 924**0.5)
    return found + _by_float32(point, ds) + _unit_noise(point, ds)


def _unit_noise(point: Point, ds: Arrays) -> np.ndarray:
    """A rounding error of the derivatives towards zero: 1 + tanh(x) is exact to that, where it is nearly 0 too, and a
    cotangent that weighs small outputs like large ones magnifies it."""
    try:
        _, pullback = point.function.pull(tuple(x / 16 if floating(x) else x for x in point.xs))
        grads = [filled(pullback(own(v)), point.xs) for v in point.vs]
    except Exception:  # outside of what the function takes
        return np.zeros(len(point.vs))
    sizes = np.array([product_norm(g, ds) for g in grads])
    return np.where(np.isfinite(sizes), 2 * EPS * sizes, 0)


def _by_float32(point: Point, ds: Arrays) -> np.ndarray:
    """What rounding does to the gradient's projection in float32, at float64's scale, as in `harness.judging`."""
    xs = tuple(narrowed(x) for x in point.xs)
    try:
        with point.function.patient(5.0):  # a loop until something is below 1e-10 never ends in float32
            _, pullback = point.function.pull(own(xs))
            grads = [filled(pullback(tuple(narrowed(v) for v in vs)), point.xs) for vs in point.vs]
    except (Exception, EndlessError):
        return np.zeros(len(point.vs))
    off = np.array([abs(along(a, ds)[0] - along(b, ds)[0]) for a, b in zip(grads, point.grads, strict=True)])
    return np.where(np.isfinite(off), K * 2.0**-29 * off, 0)


def _persists(point: Point, comparison: Comparison) -> bool:
    """Whether a minute error is of like size at most points a little off: that of an iteration stopped at a tolerance
    comes and goes with the number of iterations."""
    k = int(np.argmax(comparison.excess))
    if not minute(comparison):
        return True
    size = (comparison.found - comparison.expected)[k] / comparison.scale[k]
    others = 0
    for number in range(720, 725):
        aside = tuple(x * (1 + 0.1 * spread(x.shape, number, point.seed)) if floating(x) else x for x in point.xs)
        try:
            near, _ = point_at(point.function, aside, point.seed, len(point.vs), point.eps)
        except Exception:  # outside of what the function takes
            continue
        seen = laddered(near, comparison.ds)
        there = (seen.found - seen.expected)[k] / seen.scale[k] if seen.scale[k] > 0 else np.nan
        others += bool(np.isfinite(there) and not seen.kinked and not 0.1 < abs(there / size) < 10)
    return others < 2


def minute(comparison: Comparison) -> bool:
    """Whether what is off is below a millionth."""
    k = int(np.argmax(comparison.excess))
    return bool(abs(comparison.found - comparison.expected)[k] <= 1e-6 * comparison.scale[k])


def _scatter(point: Point, comparison: Comparison) -> np.ndarray:
    """How far derivatives along the direction at points nearby lie apart: a function has no derivative at a tie, where
    each way off it leads to another."""
    ds, step = comparison.ds, comparison.step / 64
    slopes = []
    for k in range(4):
        aside = tuple(
            np.maximum(np.abs(x), 1.0) * spread(x.shape, 710 + k, point.seed) if floating(x) else d
            for x, d in zip(point.xs, ds, strict=True)
        )
        near = replace(point, xs=moved(point.xs, aside, 4 * step))
        slopes.append((sample(near, ds, step) - sample(near, ds, -step)) / (2 * step))
    table = np.array(slopes)
    return np.where(np.isfinite(table).all(0), np.ptp(table, axis=0), 0)


def _rough(point: Point, ds: Arrays, found: np.ndarray) -> np.ndarray:
    """Where a slope is that of a sawtooth of rounding errors: it does not last, and what it moves is minute."""
    rough = np.ones(len(found), bool)
    natural = point.natural
    for h in (2.0**-4, 2.0**-7, 2.0**-10):
        moves = np.abs(sample(point, ds, h) - sample(point, ds, -h)) / 2
        rough &= (moves < 0.01 * h * np.abs(found)) & (moves <= 1e-6 * natural)
    return rough
