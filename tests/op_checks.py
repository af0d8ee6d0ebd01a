"""What the tests of the reference's ops share: derivatives against finite differences along random directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import settings
from reference_checks import FACTOR

from reference.differences import gradient_by_differences
from reference.kinds import apply, pull_back

Array = np.ndarray
PullBack = Callable[..., tuple[tuple[Array | None, ...], tuple[Array | None, ...]]]

DIRECTIONS = 3
"""Random directions for each array: a wrong gradient hides from one of them with probability 0."""

few = settings(max_examples=15, deadline=None, derandomize=True)


def check_op(
    op: Any,
    inputs: Sequence[Array],
    parameters: Sequence[Array] = (),
    *,
    constant: Sequence[int] = (),
    step: float = 0.05,
    back: PullBack = pull_back,
) -> None:
    """Every gradient of L = Σ dy y against differences of `apply`, and float32 in float32 out.

    constant: the arrays (by number, inputs first) that have no gradient; integers and booleans never have one.
    """
    rng = np.random.default_rng(5)
    arrays = (*inputs, *parameters)
    y = apply(op, inputs, parameters)
    dy = rng.normal(size=y.shape)
    found = back(op, dy, y, inputs, parameters)
    assert [len(part) for part in found] == [len(inputs), len(parameters)]
    gradients = [*found[0], *found[1]]
    for k, (x, dx) in enumerate(zip(arrays, gradients, strict=True)):
        if x.dtype.kind != "f" or k in constant:
            assert dx is None, f"array {k} has a gradient"
            continue
        assert dx is not None, f"array {k} has no gradient"
        assert dx.shape == x.shape, f"gradient {k} has shape {dx.shape}, not {x.shape}"
        along = rng.normal(size=(DIRECTIONS, x.size))
        along /= np.abs(along).max(axis=1, keepdims=True)

        def scalar(flat: Array, k: int = k, shape: tuple[int, ...] = x.shape) -> float:
            changed = (*arrays[:k], flat.reshape(shape), *arrays[k + 1 :])
            return float((dy * apply(op, changed[: len(inputs)], changed[len(inputs) :])).sum())

        (numeric, error), (again, doubt) = (
            gradient_by_differences(scalar, x.ravel().astype(float), along, width) for width in (step, 0.8 * step)
        )
        analytic = along @ dx.ravel()
        size = np.abs(along) @ np.abs(dx.ravel()) + float(np.abs(dy * y).sum())
        # an estimate may be small by luck, not two and their difference; and the sums themselves are rounded
        error = np.maximum(error, doubt) + np.abs(numeric - again) + 1e-15 * size + np.finfo(float).tiny
        off = np.abs(analytic - numeric) / error
        assert (off <= FACTOR).all(), f"gradient {k} of {op}: analytic {analytic}, differences {numeric} +- {error}"
        assert (error <= 1e-6 * (1 + size)).all(), f"gradient {k} of {op}: the check is blunt, {error} at {size}"
    check_precision(op, inputs, parameters, y, dy, gradients)


def check_precision(
    op: Any, inputs: Sequence[Array], parameters: Sequence[Array], y: Array, dy: Array, gradients: list[Array | None]
) -> None:
    """In float32 everything is float32, and near the float64 result."""
    low = [[x.astype(np.float32) if x.dtype.kind == "f" else x for x in part] for part in (inputs, parameters)]
    y32 = apply(op, *low)
    assert y32.dtype == np.float32
    found = pull_back(op, dy.astype(np.float32), y32, *low)
    for high, narrow in zip([y, *gradients], [y32, *found[0], *found[1]], strict=True):
        assert (high is None) == (narrow is None)
        if high is not None and narrow is not None:
            assert narrow.dtype == np.float32, f"{op}: float32 gives {narrow.dtype}"
            assert np.abs(high - narrow).max(initial=0) <= 1e-2 * (1 + np.abs(high).max(initial=0))


def distinct(rng: np.random.Generator, shape: tuple[int, ...], gap: float = 0.3) -> Array:
    """Numbers no two of which are nearer than gap, nor any to 0, so that no difference steps over a tie."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count // 2) * gap + gap / 2).reshape(shape)


def planted(gradient: int, change: Callable[[Array], Array]) -> PullBack:
    """`pull_back`, but one gradient (by number, inputs first) is changed."""

    def back(op: Any, dy: Array, y: Array, inputs: Sequence[Array], parameters: Sequence[Array]) -> Any:
        found = pull_back(op, dy, y, inputs, parameters)
        gradients = [*found[0], *found[1]]
        of = gradients[gradient]
        assert of is not None
        gradients[gradient] = change(of)
        return tuple(gradients[: len(inputs)]), tuple(gradients[len(inputs) :])

    return back
