"""What kind of error it is, from a block of the Jacobian: returned against found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.gradients.examining import Examination
from harness.gradients.finding import Finding
from harness.gradients.locating import Block, block, goes_with_value, located, output_of, where
from harness.gradients.places import place_of, sizes
from harness.gradients.points import Point
from harness.gradients.precision import coarse
from harness.gradients.telling import floating

PATTERNS = {
    "sign": "the sign is wrong",
    "factor": "a constant factor is wrong",
    "transposed": "rows and columns are exchanged",
    "broadcast": "the sum over what was broadcast is missing",
    "missing-term": "a term is missing or wrong",
    "zero": "the gradient is zero where the derivative is not, as of a detached value",
    "ignores-cotangent": "the cotangent is ignored",
    "nonlinear-cotangent": "the gradient is not linear in the cotangent",
    "subgradient": "at a kink, outside of the one-sided derivatives",
    "stale": "saved values are another call's",
    "region": "wrong only for some values",
    "element": "wrong only at some elements",
    "nan": "not finite where the function is smooth",
    "surrogate": "not the derivative, but the identity, a sign or a mask, as of a straight-through estimator",
    "nondeterministic": "another gradient each time",
    "mutates": "writes into what it is given",
    "primal": "another value under differentiation",
    "jvp": "forward mode is wrong",
    "second-order": "the gradient's own gradient is wrong",
    "float32": "float32 on the way back",
    "non-contiguous": "wrong for another memory layout",
    "value": "another value than the function it is checked against",
    "unlike": "another gradient than the one that is meant, or than that of the function it is checked against",
    "shape": "a gradient of the wrong shape, type or number",
    "raises": "the backward raises",
}
"""Every pattern, in words."""

MEANT = "; if that is meant, give the intended gradient as vjp="


def named(point: Point, part: Block) -> Finding:
    """The first pattern that explains every wrong entry of the block: of the inputs and the outputs that are wrong."""
    inputs = np.array([place_of(point.xs, int(c))[0] for c in part.columns])
    outputs = np.array([output_of(point, int(r)) for r in part.rows])
    wrong_inputs, wrong_outputs = set(inputs[part.wrong.any(0)]), set(outputs[part.wrong.any(1)])
    some = part.only(np.isin(outputs, [*wrong_outputs]), np.isin(inputs, [*wrong_inputs]))
    place = ""
    if len(point.xs) > 1 and len(wrong_inputs) < len(set(inputs)):
        place += f" (input {', '.join(map(str, sorted(wrong_inputs)))} alone)"
    if len(point.ys) > 1 and len(wrong_outputs) < len(set(outputs)):
        place += f" (of output {', '.join(map(str, sorted(wrong_outputs)))} alone)"
    for test in (_zero, _constant, _surrogate, _transposed, _broadcast, _region, _element):
        found = test(point, some)
        if found:
            return replace(found, reason=found.reason + place)
    return Finding(pattern="missing-term", reason=PATTERNS["missing-term"] + place)


def _zero(point: Point, part: Block) -> Finding | None:
    if (part.returned == 0).all():
        return Finding(pattern="zero", reason=PATTERNS["zero"] + MEANT)
    return None


def _surrogate(point: Point, part: Block) -> Finding | None:
    """A diagonal of one number (and zeros) where the derivative is zero, or something else."""
    square = len(point.xs) >= 1 and any(x.size == sum(y.size for y in point.ys if floating(y)) for x in point.xs)
    same = part.rows[:, None] == part.columns[None]
    if not square or not (part.returned[~same] == 0).all() or not (part.found[~same] == 0).all():
        return None
    diagonal = part.returned[same]
    values = np.unique(np.round(diagonal[diagonal != 0], 12))
    flat = (part.found[same] == 0).all() and len(diagonal) > 0
    one = len(values) == 1 and abs(abs(values[0]) - 1) < 1e-9
    if flat or (one and _piecewise(part.found[same]) and not _opposite(part)):
        return Finding(pattern="surrogate", reason=PATTERNS["surrogate"] + MEANT)
    return None


def _opposite(part: Block) -> bool:
    return bool((np.abs(part.returned + part.found) <= 1e-6 * np.abs(part.found)).all())


def _piecewise(found: np.ndarray) -> bool:
    """Whether derivatives are all 0 or one constant, as of a function of straight pieces."""
    rest = np.abs(found[np.abs(found) > 1e-9])
    return not len(rest) or bool(np.ptp(rest) <= 1e-8 * rest.max())


def _constant(point: Point, part: Block) -> Finding | None:
    """Every entry seen is the same multiple."""
    seen = part.seen & (np.abs(part.found) > 10 * part.error)
    if not seen.any() or not _explained(part, seen):
        return None
    ratios = part.returned[seen] / part.found[seen]
    slack = 10 * part.error[seen] / np.abs(part.found[seen]) + 1e-10
    factor = float(ratios[np.argmin(slack)])
    if factor == 0 or not (np.abs(ratios - factor) <= slack * max(abs(factor), 1) * 2).all():
        return None
    if abs(factor + 1) <= max(1e-6, 2 * float(slack.min())):
        return Finding(pattern="sign", reason=PATTERNS["sign"] + MEANT, factor=-1.0)
    return Finding(pattern="factor", reason=f"{_factor_words(point, factor)} times the derivative", factor=factor)


def _factor_words(point: Point, factor: float) -> str:
    counts = {x.size for x in point.xs if floating(x)} | {n for x in point.xs for n in x.shape}
    for n in sorted(counts):
        if n > 2 and abs(factor * n - 1) < 1e-6:
            return f"1/{n} (a mean for a sum?)"
        if n > 2 and abs(factor / n - 1) < 1e-6:
            return f"{n} (a sum for a mean?)"
    return f"{factor:.10g}"


def _transposed(point: Point, part: Block) -> Finding | None:
    """An input's block is the found one with rows and columns, or the input's last two axes, exchanged."""
    inputs = np.array([place_of(point.xs, int(c))[0] for c in part.columns])
    for i in np.unique(inputs[part.wrong.any(0)]):
        mine = np.flatnonzero(inputs == i)
        own = part.columns[mine] - sum(sizes(point.xs)[:i])
        returned, found, error = part.returned[:, mine], part.found[:, mine], part.error[:, mine]
        wrong = part.wrong[:, mine]
        _, rows, columns = np.intersect1d(part.rows, own, return_indices=True)
        square = np.ix_(rows, columns)
        here, there = _exchanged(point.xs[i].shape, own)
        for a, b, e, w in (
            (returned[square], found[square].T, error[square] + error[square].T, wrong[square]),
            (returned[:, here], found[:, there], error[:, here] + error[:, there], wrong[:, here]),
        ):
            if w.sum() > 1 and 2 * w.sum() >= wrong.sum() and (np.abs(a - b) <= 10 * e).all():
                return Finding(pattern="transposed", reason=PATTERNS["transposed"])
    return None


def _exchanged(shape: tuple[int, ...], numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of elements, and of those with the last two axes exchanged, as far as both are there."""
    if len(shape) < 2 or shape[-1] != shape[-2]:
        return np.zeros(0, int), np.zeros(0, int)
    other = np.swapaxes(np.arange(np.prod(shape)).reshape(shape), -1, -2).reshape(-1)[numbers]
    at = {int(n): k for k, n in enumerate(numbers)}
    both = [(k, at[int(n)]) for k, n in enumerate(other) if int(n) in at]
    return np.array([k for k, _ in both]), np.array([k for _, k in both])


def _broadcast(point: Point, part: Block) -> Finding | None:
    """Each column of an input smaller than the output is right in some rows, zero in others."""
    outputs = max(y.size for y in point.ys)
    columns = np.asarray(part.wrong.any(0))
    small = all(point.xs[place_of(point.xs, int(c))[0]].size < outputs for c in part.columns[columns])
    spread_out = (np.ptp(part.returned, axis=1) <= 1e-9 * np.abs(part.returned).max()).all() and (
        np.ptp(part.found, axis=1).max() > 1e-3 * np.abs(part.found).max()
    )
    if small and spread_out and part.returned.shape[1] > 1:
        return Finding(pattern="broadcast", reason=f"{PATTERNS['broadcast']}, or is taken over too much")
    all_wrong = bool((columns | ~np.any(part.found != 0, axis=0)).all())
    if (
        small
        and all_wrong
        and len(point.xs) > 1
        and _explained(part, part.returned == 0)
        and (~part.wrong & part.seen).any()
    ):
        return Finding(pattern="broadcast", reason=PATTERNS["broadcast"])
    return None


def _region(point: Point, part: Block) -> Finding | None:
    """Wrong columns and right ones are told apart by their values."""
    wrong, right = _columns(part)
    if len(wrong) < 2 or len(right) < 2:
        return None
    for i, x in enumerate(point.xs):
        flat = _values(point)
        mine = [k for k in (*wrong, *right) if place_of(point.xs, int(part.columns[k]))[0] == i]
        bad = np.array([flat[int(part.columns[k])] for k in mine if k in set(wrong)])
        good = np.array([flat[int(part.columns[k])] for k in mine if k not in set(wrong)])
        if len(bad) < 2 or len(good) < 2 or x.dtype.kind == "c":
            continue
        for values, words in (((bad, good), "values"), ((np.abs(bad), np.abs(good)), "sizes")):
            low, high = values
            if low.max() < high.min():
                return Finding(pattern="region", reason=f"wrong only for {words} of input {i} up to {low.max():.6g}")
            if low.min() > high.max():
                return Finding(pattern="region", reason=f"wrong only for {words} of input {i} from {low.min():.6g}")
    return None


def _element(point: Point, part: Block) -> Finding | None:
    """Some columns, or some rows, are right altogether; by value, if the error goes where the value goes."""
    wrong, right = _columns(part)
    seen = part.seen.any(1)
    rows = part.wrong.any(1)
    if right.size and len(wrong) <= max(1, 0.4 * len(part.columns)):
        if goes_with_value(point, part, wrong, right):
            return Finding(pattern="region", reason=f"{PATTERNS['region']}, as at the place")
        return Finding(
            pattern="element", reason=f"{PATTERNS['element']}: {len(wrong)} of {len(wrong) + len(right)} seen"
        )
    if (seen & ~rows).any() and rows.sum() <= max(1, len(part.rows) // 3):
        return Finding(pattern="element", reason=f"{PATTERNS['element']} of the outputs")
    return None


def _columns(part: Block) -> tuple[np.ndarray, np.ndarray]:
    wrong = part.wrong.any(0)
    return np.flatnonzero(wrong), np.flatnonzero(~wrong & part.seen.any(0))


def _values(point: Point) -> np.ndarray:
    return np.concatenate([x.reshape(-1) for x in point.xs if floating(x)])


def _explained(part: Block, mask: np.ndarray) -> bool:
    return bool(mask[part.wrong].all()) and bool(part.wrong.any())


def explained(done: Examination) -> Finding | None:
    """The finding with its place and pattern, where differences found it."""
    finding, point, shown = done.finding, done.point, done.shown
    if not finding or point is None or shown is None:
        return finding
    part = block(point, located(point, shown))
    if not part.wrong.any():
        return finding
    place = where(point, part)
    if finding.pattern == "stale":
        return replace(finding, where=place)
    slight = (np.abs(part.returned - part.found) <= 1e-6 * np.abs(part.found))[part.wrong].all()
    name = (coarse(point) if slight else None) or named(point, part)
    if finding.pattern == "region" and name.pattern not in ("region", "element", "nan"):
        name = replace(name, pattern="region")
    return replace(name, where=place, reason=f"{name.reason}; {finding.reason}")
