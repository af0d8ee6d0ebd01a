"""What may be said of a loss that a user's own code computes: a term is scaled, or one is of an activation's size."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from harness.following import Compared, shown
from harness.judging import K
from harness.points import Point

EXACT = 1e-9
"""Of a factor: how far two points may have it apart."""


def scaled_terms(points: Sequence[Point]) -> tuple[str, str] | None:
    """The signature and the words for losses whose gradients by the outputs, or by some of their features, are
    multiples of each other; None where they are not."""
    plan = points[0].moment.plan
    outputs = points[0].moment.reference.records["float64"].outputs
    signatures, said = [], []
    for i, quantity in enumerate(plan.compared):
        if quantity.kind != "activation_gradient" or quantity.reference not in outputs:
            continue
        pairs = [shown(p.moment.plan.compared[i], p.moment.reference, p.alone) for p in points]
        limits = [K * point.own.measures.budget[0, i] for point in points]
        whole = _factor(pairs, limits)
        shape = pairs[0][0].shape
        factors = (
            [whole] * shape[-1]
            if whole is not None
            else [_factor([(one[..., k], other[..., k]) for one, other in pairs], limits) for k in range(shape[-1])]
        )
        for factor, count in Counter(None if f is None else float(f"{f:.12g}") for f in factors).items():
            if factor is None:
                return None
            if factor != 1:
                signatures.append(_signature(factor, (*shape[:-1], count)))
                part = "" if whole is not None else f"{count} of the features of "
                said.append(f"{factor:g} times as large by {part}{quantity.reference}")
    if not said:
        return None
    name = points[0].moment.sides[1].name
    return signatures[0], f"the loss's gradient in {name} is {', '.join(said)}"


def _factor(pairs: Sequence[tuple[np.ndarray, np.ndarray]], limits: Sequence[float]) -> float | None:
    """How many times the candidate's gradient is the reference's, the same at all points; None where it is not."""
    factors = []
    for (one, other), limit in zip(pairs, limits, strict=True):
        size = float(np.square(one).sum())
        factor = float((one * other).sum()) / size if size else math.nan
        if not float(np.abs(factor * one - other).max(initial=0.0)) <= limit * max(1.0, abs(factor)):
            return None
        factors.append(factor)
    return factors[0] if np.ptp(factors) <= EXACT * abs(factors[0]) else None


def _signature(factor: float, shape: Sequence[int]) -> str:
    """A factor of 2 is a half forgotten, one that divides the lengths of some axes a sum for a mean; else the terms
    weigh otherwise."""
    large = max(abs(factor), 1 / abs(factor)) if factor else math.inf
    if not math.isclose(large, round(min(large, 1e15)), rel_tol=EXACT):
        return "loss:weights"
    axes = itertools.chain.from_iterable(itertools.combinations(shape, n + 1) for n in range(len(shape)))
    counted = any(math.prod(some) % round(large) == 0 for some in axes)
    if round(large) == 2:
        return "loss:half-or-summed" if counted else "loss:half"
    return "loss:summed" if counted else "loss:weights"


def of_an_activation(points: Sequence[Point], i: int) -> tuple[str, str] | None:
    """The signature and the words for losses that differ by a multiple of an activation's size, the same at all points
    and of few digits; None where they do not."""
    losses = [shown(p.moment.plan.compared[i], p.moment.reference, p.alone) for p in points]
    gaps = [float((other - one).sum()) for one, other in losses]
    if len(points) < 2 or not all(gaps):
        return None
    for quantity in points[0].moment.plan.compared:
        if quantity.kind == "activation":
            for what, ratios in _ratios(points, quantity, gaps):
                short = float(f"{ratios[0]:.3g}")
                if all(abs(ratio - short) <= EXACT * abs(short) for ratio in ratios):
                    return "loss:activity", f"the losses differ by {short:g} times {what} of {quantity.reference}"
    return None


def _ratios(points: Sequence[Point], quantity: Compared, gaps: Sequence[float]) -> Iterator[tuple[str, list[float]]]:
    values = [shown(quantity, point.moment.reference, point.alone)[0] for point in points]
    for power, what in ((1, "|values|"), (2, "squared values")):
        totals = [float((np.abs(of) ** power).sum()) for of in values]
        for over, by in ((1, "the sum of the"), (len(values[0]), "an example's"), (values[0].size, "the mean of the")):
            if all(totals):
                yield f"{by} {what}", [gap * over / total for gap, total in zip(gaps, totals, strict=True)]
