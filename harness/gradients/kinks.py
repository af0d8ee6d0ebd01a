"""Points at which a function has no derivative: which elements, the one-sided derivatives, and points beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from frameworks.protocol import Arrays, Pullback
from harness.gradients.comparisons import CONFIRMED
from harness.gradients.directions import directions, spread
from harness.gradients.finding import Finding
from harness.gradients.places import only, place_of, searched, single, sizes
from harness.gradients.points import Point, filled, own
from harness.gradients.probing import compared, laddered
from harness.gradients.result import Kink
from harness.gradients.telling import floating

SHOWN = 4
"""Elements described; more would be more of the same."""


def kinks_at(point: Point, pullback: Pullback) -> tuple[Kink, ...]:
    """The first elements along which the one-sided derivatives differ, on a cotangent of one sign."""
    vs = tuple(np.abs(v) if floating(y) else v for v, y in zip(point.vs[0], point.ys, strict=True))
    grads = filled(pullback(own(vs)), point.xs)
    positive = replace(point, vs=(vs,), grads=(grads,))
    ds = directions(point.xs, 0, point.seed, relative=False)
    total = sum(sizes(point.xs))

    def kinked(first: int, last: int) -> bool:
        return compared(positive, only(ds, point.xs, first, last)).kinked

    return tuple(_kink(positive, number) for number in searched(total, kinked, SHOWN))


def improper(kinks: tuple[Kink, ...]) -> Finding | None:
    """A finite value that is no subgradient, where both one-sided derivatives are known."""
    for kink in kinks:
        if not kink.valid and np.isfinite([kink.left, kink.right, kink.returned]).all():
            return Finding(pattern="subgradient", reason=str(kink), where=(kink.input, 0, kink.index))
    return None


def _kink(point: Point, number: int) -> Kink:
    ds = single(point.xs, number)
    size = float(max(np.max(np.abs(d), initial=0) for d in ds))
    found = laddered(point, ds)
    right, left = (float(found.found[0] + side * found.jump[0] / 2) / size for side in (1, -1))
    returned = float(found.expected[0]) / size
    slack = CONFIRMED * float(found.error[0] + found.jump_error[0]) / size
    if found.jump_error[0] > 0.01 * abs(found.jump[0]):
        left = right = float("nan")
        slack = float("inf")
    given, index = place_of(point.xs, number)
    return Kink(
        input=given,
        index=index,
        left=left,
        right=right,
        returned=returned,
        valid=slack == np.inf or min(left, right) - slack <= returned <= max(left, right) + slack,
    )


def not_finite(point: Point) -> tuple[Finding | None, tuple[Kink, ...]]:
    """What stands behind gradients that are NaN or infinite: an error where the function is smooth, else a kink.

    The function is looked at along the elements concerned; a value on one side only, or one-sided derivatives that grow
    without bound, are the function's own.
    """
    flat = [np.isfinite(g).all(axis=None) if not g.size else np.isfinite(g).reshape(-1) for g in point.grads[0]]
    bad = np.flatnonzero(
        ~np.concatenate([np.atleast_1d(f) for f, x in zip(flat, point.xs, strict=True) if floating(x)])
    )
    found = []
    for number in bad[:SHOWN]:
        # the finite part of the gradients says nothing about this element
        still = replace(point, grads=tuple(tuple(np.nan_to_num(g) for g in gs) for gs in point.grads))
        seen = laddered(still, single(point.xs, int(number)))
        given, index = place_of(point.xs, int(number))
        returned = complex(point.grads[0][given][index]).real
        size = np.maximum(np.abs(seen.found), seen.natural)
        smooth = not seen.kinked and (seen.error + np.abs(seen.jump) + seen.jump_error <= 1e-3 * size).all()
        if smooth:
            reason = f"the gradient of input {given} is {returned} at {list(index)}, where the function is smooth"
            return Finding(pattern="nan", reason=reason, where=(given, 0, index)), ()
        sides = [float(seen.found[0] + side * seen.jump[0] / 2) for side in (-1, 1)]
        found.append(
            Kink(input=given, index=index, left=sides[0], right=sides[1], returned=returned, valid=np.isinf(returned))
        )
    return None, tuple(found)


def beside(point: Point) -> Iterator[Arrays]:
    """Points near this one, each element moved on its own, to either side, outwards first."""
    for k, way in enumerate((1.0, -1.0, None, None)):
        for width in (2.0**-6, 2.0**-10):
            moves = [spread(x.shape, 800 + 7 * k + i, point.seed) if floating(x) else x for i, x in enumerate(point.xs)]
            yield tuple(
                x + width * (m if way is None else way * np.abs(m)) * np.maximum(np.abs(x), 1.0) if floating(x) else x
                for x, m in zip(point.xs, moves, strict=True)
            )
