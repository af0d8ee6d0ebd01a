"""One point: projections of the gradient against differences of the function along directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from frameworks.protocol import Arrays, Differentiable, Pullback
from harness.gradients.directions import cotangents, moved, norm, product_norm, projected, spread
from harness.gradients.telling import floating
from reference.differences import Slope, slopes_by_differences

EPS = float(np.finfo(np.float64).eps)

NARROW = 2.0**-11
"""The first step: the error of one extrapolation, h⁴ / 480 times the fifth derivative, is then that of rounding."""

EXPLAINED = 16
"""A difference within so many times the rounding of both sides needs no better derivative; nothing fails by it."""

CONFIRMED = 5
"""A gradient is wrong if it is off by more than so many estimated errors, on two ladders of steps."""


class Counted:
    """A function whose evaluations are counted."""

    def __init__(self, function: Differentiable) -> None:
        self.function = function
        self.count = 0

    def value(self, xs: Arrays) -> Arrays:
        self.count += 1
        return self.function.value(xs)

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        self.count += 1
        return self.function.pull(xs)

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        self.count += 1
        return self.function.push(xs, ds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point, the outputs there, cotangents, and the gradients that the function's own backward gives for them; eps:
    the unit of rounding of each output."""

    function: Counted
    xs: Arrays
    ys: Arrays
    vs: tuple[Arrays, ...]
    grads: tuple[Arrays, ...]
    eps: tuple[float, ...]
    seed: int

    def rounding(self) -> np.ndarray:
        """What rounding the inputs and the outputs adds to the projections, for each cotangent."""
        found = []
        for v, g in zip(self.vs, self.grads, strict=True):
            outputs = [
                e * product_norm([a], [np.where(a != 0, y, 0)]) for e, a, y in zip(self.eps, v, self.ys, strict=True)
            ]
            found.append(np.hypot(norm(np.array(outputs)[None]), max(self.eps, default=EPS) * product_norm(g, self.xs)))
        return np.array(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A direction: by the gradients and by differences, for each cotangent; scale: the size that the projection of
    such a gradient has, signs apart; jump: by how much the two one-sided derivatives differ; natural: the size of the outputs' projection;
    unit: of rounding; supported: a wider range of steps gives what the gradient gives, so that it is the narrow
    one that is in doubt."""

    ds: Arrays
    expected: np.ndarray
    found: np.ndarray
    error: np.ndarray
    scale: np.ndarray
    jump: np.ndarray
    jump_error: np.ndarray
    natural: np.ndarray
    unit: float
    step: float
    fine: bool
    supported: np.ndarray | bool = False

    @property
    def kinked(self) -> bool:
        return bool((np.abs(self.jump) > CONFIRMED * self.jump_error + 1e-7 * self.scale).any())

    @property
    def wrong(self) -> bool:
        return not self.kinked and bool((np.where(self.supported, 0, self.excess)).max(initial=0) > 1)

    @property
    def excess(self) -> np.ndarray:
        """The difference in units of what the errors allow."""
        allowed = CONFIRMED * self.error + 8 * self.unit * self.scale
        # at a kink the gradient may be either side's derivative
        allowed = allowed + (np.abs(self.jump) + self.jump_error) / 2
        off = np.abs(self.found - self.expected)
        return np.divide(off, allowed, out=np.where(off > 0, np.inf, 0.0), where=allowed > 0)

    @property
    def resolution(self) -> np.ndarray:
        """The relative error of the gradient's projection that this comparison would have shown."""
        size = np.maximum(self.scale, np.abs(self.found))
        bound = CONFIRMED * self.error
        size = np.where(bound <= 1e-9 * self.natural, np.maximum(size, self.natural), size)
        return np.divide(bound, size, out=np.where(bound > 0, np.inf, 0.0), where=size > 0)

    @property
    def blind(self) -> bool:
        """Whether even a gradient half as large would have gone unseen, and not because it is nil but for rounding."""
        return not self.kinked and bool((self.resolution > 0.1).all())


def resolution(comparisons: Sequence[Comparison]) -> float:
    """The smallest relative error of a projection that any of the directions would have shown."""
    useful = [float(c.resolution.min(initial=np.inf)) for c in comparisons if not c.kinked]
    return min(useful, default=float("nan"))


def point_at(
    function: Counted, xs: Arrays, seed: int, count: int = 2, eps: Sequence[float] = ()
) -> tuple[Point, Pullback]:
    """The point with its gradients; raises what the function raises. Gradients of None count as zero."""
    ys, pullback = function.pull(own(xs))
    single = sum(y.size for y in ys if floating(y)) == 1
    vs = tuple(cotangents(ys, k, seed, relative=k == 1) for k in range(1 if single else count))
    grads = tuple(filled(pullback(own(v)), xs) for v in vs)
    return (
        Point(function=function, xs=xs, ys=ys, vs=vs, grads=grads, eps=tuple(eps) or (EPS,) * len(ys), seed=seed),
        pullback,
    )


def filled(grads: Sequence[np.ndarray | None], xs: Arrays) -> Arrays:
    """Zeros for None, and for integer inputs."""
    return tuple(np.zeros(x.shape) if g is None or not floating(x) else g for g, x in zip(grads, xs, strict=True))


def own(arrays: Sequence[np.ndarray]) -> Arrays:
    """Copies, for a function that may write into what it is given."""
    return tuple(a.copy() for a in arrays)


def compared(point: Point, ds: Arrays, step: float = NARROW, fair: bool = False) -> Comparison:
    """The gradient's projection on a direction against two steps, or three; against a ladder where those leave a doubt.

    Agreement needs no estimate of the error: that two numbers agree to rounding by chance is out of the question.
    fair: the direction is balanced, and is to show errors of its smallest elements.
    """
    base = np.array([projected(v, point.ys) for v in point.vs])
    expected, scale = _expected(point, ds)
    rounding = point.rounding()
    slopes: list[np.ndarray] = []
    bends: list[np.ndarray] = []
    for h in (step, step / 2, step / 4):
        right, left = (_sample(point, ds, t) for t in (h, -h))
        slopes.append((right - left) / (2 * h))
        bends.append((right - base + (left - base)) / h)
        if h == step:
            continue
        # the terms in h², then in h⁴ cancel
        found = slopes[-1] + (slopes[-1] - slopes[-2]) / 3
        if len(slopes) == 3:
            found = found + (found - (slopes[1] + (slopes[1] - slopes[0]) / 3)) / 15
        limit = EXPLAINED * rounding / h
        smooth = np.abs(bends[-1]) <= 0.75 * np.abs(bends[-2]) + limit
        close = np.abs(found - expected) <= limit
        sharp = limit <= (1e-3 * scale if fair else 1e-9 * np.maximum(scale, np.abs(base)))
        if (smooth & close & sharp).all():
            return Comparison(
                ds=ds,
                expected=expected,
                found=found,
                error=np.maximum(rounding / h, np.abs(found - expected)),
                scale=scale,
                jump=np.zeros_like(base),
                jump_error=np.zeros_like(base),
                natural=_natural(point),
                unit=max(point.eps, default=EPS),
                step=h,
                fine=False,
            )
        if not (smooth & sharp).all():
            break
    return laddered(point, ds)


def laddered(point: Point, ds: Arrays, start: float = 0.25, narrowest: float = 0.0) -> Comparison:
    """The gradient's projection on a direction against a ladder of steps, none below `narrowest`."""
    base = np.array([projected(v, point.ys) for v in point.vs])
    narrowest = narrowest or 1e-15
    slope = slopes_by_differences(lambda t: _sample(point, ds, t), base, point.rounding(), start, narrowest)
    if slope.tread and (grain := _grain(point, ds)):
        return laddered(point, ds, start, grain) if grain > narrowest else _comparison(point, ds, slope)
    return _comparison(point, ds, slope)


def _comparison(point: Point, ds: Arrays, slope: Slope) -> Comparison:
    expected, scale = _expected(point, ds)
    # a sawtooth of rounding errors has smooth teeth; but a function that stands still within them does so on purpose
    doubt = np.where(slope.value == 0, 0, 0.02 * np.abs(slope.value - expected))
    near = (np.abs(slope.values - expected) <= CONFIRMED * slope.errors) & (slope.errors <= doubt)
    return Comparison(
        supported=near.any(0),
        ds=ds,
        expected=expected,
        found=slope.value,
        error=slope.error,
        scale=scale,
        jump=slope.jump,
        jump_error=slope.jump_error,
        natural=_natural(point),
        unit=max(point.eps, default=EPS),
        step=float(np.nanmin(slope.steps)) if np.isfinite(slope.steps).any() else NARROW,
        fine=True,
    )


def _grain(point: Point, ds: Arrays) -> float:
    """The narrowest sensible step for a function that rounds on the way: outputs that answer to a step of 2^-14 stand
    still at a narrower one. 0 for others: where a function is constant in pieces, few answer to 2^-14."""
    moving = []
    for k in range(10, 36, 4):
        try:
            ys = point.function.value(moved(point.xs, ds, 2.0**-k))
        except Exception:  # outside of what the function takes
            return 0.0
        moving.append(sum(int((a != b).sum()) for a, b in zip(ys, point.ys, strict=True) if floating(b)))
        if moving[-1] < 0.9 * moving[0]:
            return 2.0 ** (10 - k) if len(moving) > 2 else 0.0
    return 0.0


def _natural(point: Point) -> np.ndarray:
    return np.array(
        [product_norm(v, [np.where(a != 0, y, 0) for a, y in zip(v, point.ys, strict=True)]) for v in point.vs]
    )


def confirmed(point: Point, comparison: Comparison) -> Comparison:
    """The same direction on another ladder, down from where the gradient itself says that the function begins to move;
    the kinder of the two, with the noise of the gradient as an error, and as a jump what derivatives nearby differ by."""
    ds = comparison.ds
    grain = _grain(point, ds)
    first = laddered(point, ds, narrowest=grain) if grain else comparison
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.nanmin(0.02 * first.natural / np.abs(first.expected))
    start = min(0.19, moves) if moves > 0 and not grain else 0.19
    again = laddered(point, ds, start, narrowest=grain or 1e-6 * start)
    kinder = min((first, again), key=lambda c: 0.0 if c.kinked else float(c.excess.max(initial=0)))
    if not kinder.wrong:
        return kinder
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
        along = []
        for k in range(1, 8):
            try:
                xs = moved(point.xs, ways, k * step)
                _, pullback = point.function.pull(xs)
                along.append([_along(filled(pullback(own(v)), xs), ds) for v in point.vs])
            except Exception:  # outside of what the function takes
                break
        table = np.array(along)
        if len(table) == 7 and np.isfinite(table).all():
            # the sixth difference of noise is sqrt(924) times as large (Moré and Wild, SIAM J. Sci. Comput. 33 (2011))
            found = np.maximum(found, np.abs(np.diff(table, 6, axis=0))[0] / 924**0.5)
    return found


def _persists(point: Point, comparison: Comparison) -> bool:
    """Whether a small error is there at points a little off too, in like size: that of an iteration stopped at some
    tolerance comes and goes. Large ones are not asked."""
    k = int(np.argmax(comparison.excess))
    size = (comparison.found - comparison.expected)[k] / comparison.scale[k] if comparison.scale[k] > 0 else np.inf
    if abs(size) > 1e-6:
        return True
    for number in range(720, 723):
        aside = tuple(x * (1 + 0.04 * spread(x.shape, number, point.seed)) if floating(x) else x for x in point.xs)
        try:
            near, _ = point_at(point.function, aside, point.seed, len(point.vs), point.eps)
        except Exception:  # outside of what the function takes
            continue
        seen = laddered(near, comparison.ds)
        there = (seen.found - seen.expected)[k] / seen.scale[k] if seen.scale[k] > 0 else np.nan
        if np.isfinite(there) and not seen.kinked and not 0.25 < there / size < 4:
            return False
    return True


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
        slopes.append((_sample(near, ds, step) - _sample(near, ds, -step)) / (2 * step))
    table = np.array(slopes)
    return np.where(np.isfinite(table).all(0), np.ptp(table, axis=0), 0)


def _rough(point: Point, ds: Arrays, found: np.ndarray) -> np.ndarray:
    """Where a slope is that of a sawtooth of rounding errors: it does not last, and what it moves is minute."""
    rough = np.ones(len(found), bool)
    natural = _natural(point)
    for h in (2.0**-4, 2.0**-7, 2.0**-10):
        moves = np.abs(_sample(point, ds, h) - _sample(point, ds, -h)) / 2
        rough &= (moves < 0.01 * h * np.abs(found)) & (moves <= 1e-6 * natural)
    return rough


def _sample(point: Point, ds: Arrays, t: float) -> np.ndarray:
    try:
        ys = point.function.value(moved(point.xs, ds, t))
    except Exception:  # outside of what the function takes
        return np.full(len(point.vs), np.nan)
    return np.array([projected(v, ys) for v in point.vs])


def _expected(point: Point, ds: Arrays) -> tuple[np.ndarray, np.ndarray]:
    expected = np.array([_along(g, ds) for g in point.grads])
    return expected, np.array([product_norm(g, ds) for g in point.grads])


def _along(grads: Arrays, ds: Arrays) -> float:
    return float(sum(np.vdot(g, d).real for g, d in zip(grads, ds, strict=True) if floating(g)))
