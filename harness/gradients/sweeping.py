"""Other points than the given one: signs, magnitudes, ties, zeros, saturation: what is wrong only there shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.agreeing import Others, disagreement
from harness.gradients.comparisons import Comparison, resolution
from harness.gradients.confirming import confirmed
from harness.gradients.directions import directions, moved, product_norm, projected, together
from harness.gradients.examining import Examination
from harness.gradients.finding import Finding
from harness.gradients.kinks import beside, not_finite
from harness.gradients.locating import Block, block, located
from harness.gradients.patience import EndlessError
from harness.gradients.places import only, single
from harness.gradients.points import Counted, Point, point_at
from harness.gradients.probing import laddered
from harness.gradients.telling import floating

Maker = Callable[[np.ndarray, np.random.Generator], np.ndarray]

BORDERS = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 50.0])
"""Where functions are often cut, and between: a draw is moved off them by up to a tenth."""


def _borders(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _signs(x, rng) * rng.choice(BORDERS, x.shape) * rng.uniform(0.9, 1.1, x.shape)


def _signs(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1.0, 1.0], x.shape)


NEAR = 4.0
"""Values up to so many times the largest given one belong to the same use of a function."""

POINTS: dict[str, Maker] = {
    "other values": lambda x, rng: rng.standard_normal(x.shape),
    "negated": lambda x, rng: -x,
    "positive values": lambda x, rng: rng.uniform(0.05, 3, x.shape),
    "branch borders": _borders,
    "negative values": lambda x, rng: -rng.uniform(0.05, 3, x.shape),
    "values between 0 and 1": lambda x, rng: rng.uniform(0.02, 0.98, x.shape),
    "large values": lambda x, rng: 30 * rng.standard_normal(x.shape),
    "small values": lambda x, rng: 1e-3 * rng.standard_normal(x.shape),
    "values of many sizes": lambda x, rng: x * 10 ** rng.uniform(-3, 3, x.shape),
    "zeros": lambda x, rng: np.zeros(x.shape),
    "ties": lambda x, rng: np.full(x.shape, x.reshape(-1)[0]),
    "some zeros": lambda x, rng: x * (rng.random(x.shape) < 0.5),
    "ties on a grid": lambda x, rng: rng.integers(-3, 4, x.shape).astype(float),
    "ten times as large": lambda x, rng: 10 * x,
    "a tenth as large": lambda x, rng: 0.1 * x,
    "huge values": lambda x, rng: 900 * rng.standard_normal(x.shape),
    "tiny values": lambda x, rng: 1e-7 * rng.standard_normal(x.shape),
    "wide values": lambda x, rng: rng.uniform(-10, 10, x.shape),
    "branch borders again": _borders,
    "another order": lambda x, rng: rng.permutation(x.reshape(-1)).reshape(x.shape),
}
"""Ways to make a point of the given one; real and imaginary parts each. Integers are drawn from those given."""


def points(xs: Arrays, seed: int) -> Iterator[tuple[str, Arrays]]:
    """Names and points; fewer for large inputs, where one point holds many values."""
    rng = np.random.default_rng(seed)
    size = sum(x.size for x in xs if floating(x))
    names = list(POINTS)[: 20 if size <= 2000 else 12 if size <= 20000 else 8]
    for name in names:
        yield name, tuple(_made(POINTS[name], x, rng) for x in xs)


def _made(make: Maker, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not x.size or x.dtype.kind == "b":
        return x
    if x.dtype.kind == "c":
        return make(np.real(x), rng) + 1j * make(np.imag(x), rng)
    return make(x, rng) if floating(x) else rng.choice(x.reshape(-1), x.shape)


def sweep_on(done: Examination, function: Counted, xs: Arrays, others: Others, seed: int) -> int:
    """The number of points that the function takes; the first wrong one becomes the finding."""
    used = late = 0
    base = done.point
    assert base is not None
    # a staircase has steps of its own size, which are wide beside other values
    sharp = done.precision != "float64" or resolution(done.comparisons) < 1e-7 or not done.comparisons
    for number, (name, there) in enumerate(points(xs, seed)):
        if all(map(np.array_equal, there, xs)):
            continue
        try:
            with function.patient(done.patience):
                point, shown, finding = _at(base, function, there, others, number, sharp)
        except EndlessError as error:
            late += 1
            if late == 2:
                done.notes.append(f"the sweep was stopped: {error} at two points")
                break
            continue
        except Exception:  # outside of what the function takes
            continue
        used += point is not None
        if point and finding:
            done.point, done.shown = point, shown
            done.finding = replace(finding, reason=f"{finding.reason} (swept: {name})")
            break
    return used


def _at(
    base: Point, function: Counted, xs: Arrays, others: Others, number: int, sharp: bool
) -> tuple[Point | None, Comparison | None, Finding | None]:
    """The point, None where the function is not finite, and what is wrong there."""
    signs, far = _outside(base.xs, xs)
    point, _ = point_at(function, xs, base.seed, count=1, eps=base.eps)
    if not all(np.isfinite(y).all() for y in point.ys if floating(y)):
        return None, None, None
    finding = shown = None
    if others.meant is None and not all(np.isfinite(g).all() for g in point.grads[0]):
        finding, _ = not_finite(point)
        finding = finding if finding and _lasting(point) else None
    elif others.meant is None and not signs and sharp:
        shown = screened(base, point, number, far)
        if shown:
            finding = Finding(pattern=_pattern(base, point), reason="right at the given point")
    if not finding and (others.meant or others.functions):
        finding = disagreement(point, others)
    return point, shown, finding


def _pattern(base: Point, point: Point) -> str:
    """Stale, where the gradient at another point is bit for bit the one of the given point."""
    pairs = zip((*base.vs[0], *base.grads[0]), (*point.vs[0], *point.grads[0]), strict=True)
    return "stale" if all(np.array_equal(a, b) for a, b in pairs) else "region"


def _lasting(point: Point) -> bool:
    """Whether the gradient is not finite beside the point too: a formula that is 0/0 at one value is not for it."""
    for xs in itertools.islice(beside(point), 2):
        near, _ = point_at(point.function, xs, point.seed, count=1, eps=point.eps)
        if not all(np.isfinite(g).all() for g in near.grads[0]):
            return True
    return False


def _outside(given: Arrays, there: Arrays) -> tuple[bool, bool]:
    """Whether a point has signs, or zeros, that an input of one sign never has, and whether values of other sizes.

    An iteration that converges for the given values need not do so there, and its gradient is then not to be judged.
    """
    pairs = [(a, b) for a, b in zip(given, there, strict=True) if a.dtype.kind == "f" and a.size]
    signs = any(((a > 0).all() and not (b > 0).all()) or ((a < 0).all() and not (b < 0).all()) for a, b in pairs)
    return signs, any(np.abs(b).max() > NEAR * np.abs(a).max() for a, b in pairs)


def screened(base: Point, point: Point, number: int, far: bool) -> Comparison | None:
    """A swept point: few directions with one step each; what is not plainly right gets ladders and a confirmation, must
    show at a single element, and, far off, also with that element alone moved there from the given point."""
    ways = [directions(point.xs, 40 + number, point.seed, relative) for relative in (False, True)]
    for ds in (*ways, together(point.xs)):
        if not any(d.any() for d in ds) or _plainly(point, ds):
            continue
        seen = laddered(point, ds)
        if seen.wrong:
            seen = confirmed(point, seen)
        if not seen.wrong:
            continue
        place = located(point, seen)
        if place is None:
            continue
        part = block(point, place)
        if not part.wrong.any():
            continue
        if not far or (_local(part) and _alone(base, point, place)):
            return seen
    return None


def _local(part: Block) -> bool:
    """Whether each output answers to one input element, and each of those moves one output."""
    answers = np.abs(part.found) > 10 * part.error
    return bool(answers.sum(0).max() <= 1 and answers.sum(1).max() <= 1)


def _alone(base: Point, point: Point, number: int) -> bool:
    """Whether the gradient is wrong with one element at its swept value and all others at the given ones."""
    taken = only(tuple(np.ones(x.shape) for x in point.xs), point.xs, number, number + 1)
    xs = tuple(np.where(t > 0, b, a) if floating(a) else a for t, a, b in zip(taken, base.xs, point.xs, strict=True))
    moved_one, _ = point_at(base.function, xs, base.seed, count=1, eps=base.eps)
    seen = laddered(moved_one, single(xs, number))
    return seen.wrong and confirmed(moved_one, seen).wrong


def _plainly(point: Point, ds: Arrays) -> bool:
    step = 2.0**-12
    try:
        right, left = (point.function.value(moved(point.xs, ds, t)) for t in (step, -step))
    except Exception:  # outside of what the function takes
        return False
    for v, g in zip(point.vs, point.grads, strict=True):
        found = (projected(v, right) - projected(v, left)) / (2 * step)
        expected = sum(np.vdot(a, d).real for a, d in zip(g, ds, strict=True) if floating(a))
        if not abs(found - expected) <= 1e-5 * product_norm(g, ds) + 16 * point.rounding.max() / step:
            return False
    return True
