"""All that is asked at one point, and at each of the swept ones."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from frameworks.protocol import Arrays, Pullback
from harness.gradients import rules
from harness.gradients.agreeing import Others, disagreement
from harness.gradients.comparisons import Comparison
from harness.gradients.confirming import confirmed, minute
from harness.gradients.directions import balanced, cotangents, directions, spread, together
from harness.gradients.finding import Finding
from harness.gradients.kinks import beside, improper, kinks_at, not_finite
from harness.gradients.patience import EndlessError
from harness.gradients.points import EPS, Counted, Point, filled, own
from harness.gradients.precision import EPS32, coarse, float32_path, narrow_backward, single
from harness.gradients.probing import NARROW, compared
from harness.gradients.result import Kink
from harness.gradients.telling import floating

DIRECTIONS = 6
"""Unit and relative ones in turn. The projection of an error on one is near nil by chance, on all never."""

PATIENCE = 1.0
"""Seconds, and those that the given point took altogether, compiling included, until a call elsewhere is given up."""

BALANCED = 4
"""The unit one whose steps are balanced by the gradient."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """What was found at a point: a finding and the comparison that shows it; or why nothing can be said; or kinks.

    excused: directions whose minute errors came and went; patience: seconds, until a call elsewhere is given up.
    """

    point: Point | None = None
    pullback: Pullback | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    finding: Finding | None = None
    shown: Comparison | None = None
    undecided: str = ""
    kinks: tuple[Kink, ...] = ()
    notes: list[str] = field(default_factory=list)
    precision: str = "float64"
    excused: int = 0
    patience: float = PATIENCE


def examined(function: Counted, xs: Arrays, others: Others, seed: int) -> Examination:
    """The given point: the exact rules, then the differences."""
    done = Examination()
    began = time.process_time()
    try:
        given = own(xs)
        plain = function.value(given)
        nearby = function.value(tuple(x * (1 + EPS * spread(x.shape, 5, seed)) if floating(x) else x for x in xs))
    except Exception as error:
        done.undecided = f"the function raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return done
    eps = tuple(EPS32 if single(y) else EPS for y in nearby)
    if EPS32 in eps:
        done.precision = "float32"
    try:
        held = own(xs)
        point, pullback, raw = _point(function, xs, held, seed, eps)
    except Exception as error:
        done.finding = rules.raised(error, xs, plain)
        return done
    done.point, done.pullback = point, pullback
    done.finding = rules.misshapen(raw, xs)
    if done.finding:
        return done
    for i, grad in enumerate(raw):
        if grad is None and floating(xs[i]):
            done.notes.append(f"the gradient of input {i} is None, taken as zero")
    grads = (filled(raw, xs), *(filled(pullback(own(v)), xs) for v in point.vs[1:]))
    done.point = point = replace(point, grads=grads)
    if not any(floating(y) and np.isfinite(y).any() for y in point.ys) and any(y.size for y in point.ys):
        done.undecided = "no output is a finite floating number at the point"
        return done
    done.finding = rules.written(given, xs, plain) or rules.again(point, pullback, held)
    if not done.finding:
        done.finding, done.undecided = rules.unrepeated(point)
    if not done.finding and not done.undecided:
        done.finding = rules.primal(point, plain, nearby)
    if not done.finding and not done.undecided and not others.meant:
        done.finding = rules.nonlinear(point, pullback) or narrow_backward(point)
    if done.finding or done.undecided:
        return done
    if not others.meant:
        _differences(done)
    if not done.finding and not done.undecided:
        done.finding = disagreement(point, others)
    done.patience = PATIENCE + time.process_time() - began
    if not done.finding and not done.undecided:
        _rest(done, point, pullback)
    return done


def _rest(done: Examination, point: Point, pullback: Pullback) -> None:
    """What needs the differences, or comes after them: forward mode, layouts, float32, the first call's backward."""
    words = narrow = ""
    comparisons = [] if done.kinks else done.comparisons
    done.finding = rules.forward(point, comparisons)
    if not done.finding and point.function.function.strided:
        done.finding, words = rules.relaid(point, comparisons)
    if not done.finding and done.precision == "float64":
        try:
            with point.function.patient(done.patience):
                done.finding, narrow = float32_path(point)
        except (Exception, EndlessError) as error:
            narrow = f"not checked in float32: {type(error).__name__}: {error}"
    if not done.finding:
        done.finding = rules.stale(point, pullback)
    done.notes += [note for note in (words, narrow) if note]


def _point(
    function: Counted, xs: Arrays, held: Arrays, seed: int, eps: tuple[float, ...]
) -> tuple[Point, Pullback, tuple[np.ndarray | None, ...]]:
    """The point without its gradients, and the first of them as it came; held: a copy of the inputs, to be given."""
    ys, pullback = function.pull(held)
    lone = sum(y.size for y in ys if floating(y)) == 1
    vs = tuple(cotangents(ys, k, seed, relative=k == 1) for k in range(1 if lone else 2))
    raw = pullback(own(vs[0]))
    return Point(function=function, xs=xs, ys=ys, vs=vs, grads=(), eps=eps, seed=seed), pullback, raw


def _differences(done: Examination) -> None:
    """The gradient against differences; beside the point, where the function has no derivative at it."""
    point = done.point
    assert point is not None
    if not all(np.isfinite(g).all() for gs in point.grads for g in gs):
        done.finding, done.kinks = not_finite(point)
    else:
        compare(done, point)
        if any(c.kinked for c in done.comparisons):
            assert done.pullback is not None
            done.kinks = kinks_at(point, done.pullback)
            done.finding = improper(done.kinks)
            if not done.finding:
                _ = _along(done, point, together(point.xs))
                done.finding = done.finding and replace(done.finding, pattern="subgradient")
            done.notes.append("the function has a kink within rounding of the point; checked beside it")
    if done.finding or not (done.kinks or any(c.kinked for c in done.comparisons)):
        return
    for xs in beside(point):
        try:
            near, _, raw = _point(point.function, xs, own(xs), point.seed, point.eps)
        except Exception:  # outside of what the function takes
            continue
        near = replace(near, grads=tuple(filled(raw, xs) for _ in near.vs[:1]), vs=near.vs[:1])
        if not all(np.isfinite(a).all() for a in (*near.ys, *near.grads[0]) if floating(a)):
            continue
        aside = Examination(point=near)
        compare(aside, near)
        if aside.finding or not any(c.kinked for c in aside.comparisons):
            done.finding, done.shown, done.comparisons, done.undecided = (
                aside.finding,
                aside.shown,
                aside.comparisons,
                aside.undecided,
            )
            if aside.finding:
                done.point = near
            return
    done.undecided = "the function has no derivative at the point, nor at points beside it"


def compare(done: Examination, point: Point, count: int = DIRECTIONS) -> None:
    """Relative and unit directions in turn; the first that contradicts the gradient, confirmed, is the finding."""
    steps = {True: NARROW, False: NARROW}
    for k in range(count):
        relative = bool(k % 2)
        ds = directions(point.xs, k, point.seed, relative)
        fair = k == BALANCED
        if fair:
            ds = balanced(point.xs, point.grads[0], k, point.seed)
        seen = _along(done, point, ds, steps[relative], fair)
        if done.finding:
            return
        if seen and seen.fine:
            steps[relative] = min(steps[relative] / 4, 2 * seen.step)
    useful = [c for c in done.comparisons if not c.kinked]
    if useful and all(c.blind for c in useful):
        done.undecided = (
            "the function's values are too noisy here for differences to show its derivative "
            f"(error {useful[0].error[0]:.2g} of {useful[0].scale[0]:.2g})"
        )


def _along(done: Examination, point: Point, ds: Arrays, step: float = NARROW, fair: bool = False) -> Comparison | None:
    """One direction; a contradiction that is confirmed is the finding."""
    if not any(d.any() for d in ds):
        return None
    seen = compared(point, ds, step, fair)
    if seen.wrong and minute(seen) and done.excused > 1:
        seen = replace(seen, error=np.maximum(seen.error, np.abs(seen.found - seen.expected)))
    elif seen.wrong:
        small = minute(seen)
        seen = confirmed(point, seen)
        done.excused += small and not seen.wrong
        if not seen.wrong and done.precision == "float64":
            done.finding = coarse(point)
    done.comparisons.append(seen)
    if seen.wrong:
        done.shown = seen
        done.finding = Finding(pattern="", reason=_words(seen))
    return seen


def _words(seen: Comparison) -> str:
    k = int(np.argmax(seen.excess))
    return (
        f"along a direction the gradient gives {seen.expected[k]:.12g}, differences {seen.found[k]:.12g} "
        f"(error {seen.error[k]:.1g})"
    )
