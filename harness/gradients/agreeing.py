"""Another gradient, or another function, that is to be the same but for rounding: what is meant, another framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.directions import spread
from harness.gradients.finding import Finding
from harness.gradients.points import EPS, Counted, Point, filled, own
from harness.gradients.probing import EXPLAINED
from harness.gradients.telling import Function, answers_numpy, flat, floating, spaced, told

Gradients = Callable[[Arrays, Arrays], Arrays]
"""From inputs and cotangents to a gradient for each input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Another function for the same: its values, and its gradients where it has any."""

    value: Callable[[Arrays], Arrays]
    gradients: Gradients | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """The gradient that is meant, if not the derivative, and other functions to agree with."""

    meant: Gradients | None = None
    functions: tuple[Other, ...] = ()


def others_of(f: Function, xs: Arrays) -> Other:
    """Another function as told by what it answers with; one of NumPy arrays without a vjp has values alone."""
    if callable(f) and answers_numpy(f, xs):
        return Other(value=lambda points: flat(f(*own(points))), gradients=None, words="the NumPy formula")
    function, _, name = told(f, xs)
    counted = Counted(function)
    return Other(value=counted.value, gradients=by_backward(counted), words=f"the {name} function")


def disagreement(point: Point, others: Others) -> Finding | None:
    """Where the function or its gradient is not what it is to agree with."""
    if others.meant and (found := unlike(point, others.meant, "meant is")):
        return found
    for other in others.functions:
        found = other_values(point, other.value, other.words)
        if not found and other.gradients:
            found = unlike(point, other.gradients, f"{other.words} gives")
        if found:
            return found
    return None


def unlike(point: Point, other: Gradients, words: str) -> Finding | None:
    """The first cotangent's gradient by `other` against the function's own, elementwise.

    What an ulp in the inputs changes in either is rounding, and a branch that it crosses.
    """

    def returned(xs: Arrays) -> Arrays:
        _, pullback = point.function.pull(own(xs))
        return filled(pullback(own(point.vs[0])), xs)

    theirs = other(point.xs, point.vs[0])
    for i, (a, b) in enumerate(zip(theirs, point.grads[0], strict=True)):
        if a.shape != b.shape:
            return Finding(pattern="shape", reason=f"the gradient of input {i} has shape {b.shape}, {words} {a.shape}")
    if not any(_off(a, b, 0.0).any() for a, b in zip(theirs, point.grads[0], strict=True)):
        return None
    shaken = [_shake(returned, point, point.grads[0]), _shake(lambda xs: other(xs, point.vs[0]), point, theirs)]
    for i, (a, b) in enumerate(zip(theirs, point.grads[0], strict=True)):
        off = _off(a, b, shaken[0][i] + shaken[1][i])
        if off.any():
            size = np.where(off, np.abs(a - b), 0)
            index = tuple(map(int, np.unravel_index(int(np.nanargmax(size)), size.shape)))
            return Finding(
                pattern=_kind(a, b),
                reason=f"the gradient is {b[index]:.10g}, {words} {a[index]:.10g} at input {i} {list(index)}; "
                f"{int(off.sum())} of {off.size} elements differ",
                where=(i, 0, index),
            )
    return None


def _kind(wanted: np.ndarray, returned: np.ndarray) -> str:
    """Zero, the negative, a multiple, or simply unlike."""
    if not returned.any():
        return "zero"
    here = np.abs(wanted) > 1e-9 * np.max(np.abs(wanted), initial=0)
    ratios = returned[here] / wanted[here]
    if not ratios.size or np.ptp(ratios.real) > 1e-9 * np.abs(ratios).max() or returned[~here].any():
        return "unlike"
    return "sign" if abs(ratios.flat[0] + 1) < 1e-9 else "factor"


def other_values(point: Point, value: Callable[[Arrays], Arrays], words: str) -> Finding | None:
    """The outputs of another function against this one's, elementwise."""
    theirs = value(own(point.xs))
    if len(theirs) != len(point.ys):
        return Finding(pattern="value", reason=f"{len(point.ys)} outputs, {words} has {len(theirs)}")
    shaken: list[Arrays] = []
    for j, (a, b) in enumerate(zip(theirs, point.ys, strict=True)):
        if a.shape != b.shape:
            return Finding(pattern="value", reason=f"output {j} has shape {b.shape}, {words}'s {a.shape}")
        if not _off(a, b, 0.0).any():
            continue
        shaken = shaken or [_shake(value, point, theirs), _shake(point.function.value, point, point.ys)]
        off = _off(a, b, shaken[0][j] + shaken[1][j])
        if off.any():
            index = tuple(map(int, np.argwhere(off)[0]))
            return Finding(
                pattern="value", reason=f"output {j} is {b[index]:.10g} at {list(index)}, {words}'s {a[index]:.10g}"
            )
    return None


def _off(a: np.ndarray, b: np.ndarray, shaken: np.ndarray | float) -> np.ndarray:
    size = np.abs(a) + np.abs(b)
    typical = np.sqrt(np.mean(np.square(size, where=np.isfinite(size), out=np.zeros(size.shape)))) if size.size else 0.0
    close = np.abs(a - b) <= EXPLAINED * (shaken + EPS * (size + typical))
    return ~(close | (a == b) | (np.isnan(a) & np.isnan(b)))


def _shake(f: Callable[[Arrays], Arrays], point: Point, base: Arrays) -> Arrays:
    """The largest change of each element under three moves of all inputs by an ulp."""
    most = [np.zeros(a.shape) for a in base]
    for k in range(3):
        xs = tuple(x * (1 + EPS * spread(x.shape, 700 + k, point.seed)) if floating(x) else x for x in point.xs)
        for m, a, b in zip(most, f(xs), base, strict=True):
            change = np.abs(a - b)
            np.fmax(m, change, out=m)
    return tuple(most)


def by_intention(function: Counted, intended: Callable[..., Any]) -> Gradients:
    """What the user's vjp(cotangent, *inputs) gives, None as zero."""

    def gradients(xs: Arrays, vs: Arrays) -> Arrays:
        def of_all(*arrays: Any) -> Any:
            return intended(arrays[0] if len(vs) == 1 else arrays[: len(vs)], *arrays[len(vs) :])

        return filled(spaced(function.function.apply(of_all, own((*vs, *xs))), xs), xs)

    return gradients


def by_backward(function: Counted) -> Gradients:
    """What another function's own backward gives."""

    def gradients(xs: Arrays, vs: Arrays) -> Arrays:
        _, pullback = function.pull(own(xs))
        return filled(pullback(own(vs)), xs)

    return gradients
