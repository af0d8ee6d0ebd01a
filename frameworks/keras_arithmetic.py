"""Keras's sums, products and reductions, functions and layers, in the words of the reference."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from frameworks.keras_functions import between
from frameworks.keras_reading import Array, Reading, Seen, axes_in, axis_in, elementwise, first, mover, moves, same
from harness import ops

Reader = Callable[[Seen], Reading | None]

# --- two or more inputs -----------------------------------------------------------------------------------------


def combine(kind: Any) -> Reader:
    """Arrays with each other, with a variable (or a constant array), or with a number."""

    def read(seen: Seen) -> Reading | None:
        if seen.masked:  # keras 3.15, layers/merging/base_merge.py: masked elements are not added
            return None
        operands = _operands(seen)
        if all(isinstance(one, np.ndarray) and one.ndim for one in operands) and len(operands) == len(seen.x):
            if len({one.ndim for one in operands}) > 1 and isinstance(seen.made, keras.layers.Layer):
                return None
            return _together(seen, ops.Combine(kind=kind, tie="first"), operands)
        if len(operands) != 2 or len(seen.x) != 1:
            return None
        at = 0 if operands[0] is seen.x[0] else 1
        other = operands[1 - at]
        if _is_variable(other) or (isinstance(other, np.ndarray) and other.ndim):
            weight = seen.weight(other) if _is_variable(other) else (other, "")
            if at == 1 and kind not in ("add", "multiply"):
                return None
            op = ops.Combine(kind=kind, tie="first")
            return Reading(ops=(op,), inputs=(seen.x[0],), weights=((weight,),))
        return elementwise(seen, *_with_number(kind, float(other), at == 0))

    return read


def _operands(seen: Seen) -> list[Any]:
    values = list(seen.given.values())
    return list(values[0]) if isinstance(values[0], list | tuple) else values[:2]


def _is_variable(value: Any) -> bool:
    return isinstance(value, keras.Variable)


def _together(seen: Seen, op: Any, arrays: Sequence[Array]) -> Reading:
    alike = len({array.ndim for array in arrays}) == 1
    move = mover(seen) if alike else same
    return Reading(ops=(op,), inputs=tuple(map(move, arrays)), canonical=move)


def _with_number(kind: str, c: float, left: bool) -> tuple[Any, ...]:
    """x kind c, or c kind x; at a tie TensorFlow's maximum and minimum hand the gradient to the first operand."""
    at_bound = 1.0 if left else 0.0
    if kind == "power" and left:
        named: Any = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(c, "power")
        return (ops.Function(name=named, exponent=c if named == "power" else 1.0),)
    if kind in ("maximum", "minimum"):
        return (between(c, math.inf, at_bound, 0.0) if kind == "maximum" else between(-math.inf, c, 0.0, at_bound),)
    if kind == "divide" and not left:
        return ops.Function(name="reciprocal", exponent=1.0), ops.Scale(factor=c, offset=0.0)
    factor, offset = {
        "add": (1.0, c), "multiply": (c, 0.0), "subtract": (1.0, -c) if left else (-1.0, c), "divide": (1 / c, 0.0)
    }[kind]  # fmt: skip
    return (ops.Scale(factor=factor, offset=offset),)


def _where(seen: Seen) -> Reading | None:
    condition, *operands = list(seen.given.values())[:3]
    if not isinstance(condition, np.ndarray) or condition.dtype != bool or any(one is None for one in operands):
        return None
    arrays = [np.asarray(one, np.float64) for one in operands]
    if len({array.ndim for array in (condition, *arrays) if array.ndim}) > 1:
        return None
    move = mover(seen)
    return Reading(ops=(ops.Select(),), inputs=tuple(map(move, (condition, *arrays))), canonical=move)


def _concatenate(seen: Seen) -> Reading:
    return _together(seen, ops.Concat(axis=axis_in(seen, seen.given["axis"])), seen.x)


def _matmul(seen: Seen) -> Reading | None:
    """Of two activations, or of one and a matrix of the model's own."""
    left, right = _operands(seen)
    if _is_variable(right) and len(right.shape) == 2:
        op = ops.Affine(bias=False, kernel_axes=(0, 1))
        return Reading(ops=(op,), inputs=(seen.x[0],), weights=((seen.weight(right, 1, 0),),))
    if len(seen.x) != 2 or left.ndim != right.ndim or left.ndim < 3 or left.shape[:-2] != right.shape[:-2]:
        return None
    if any(seen.given.get(name) for name in ("transpose_a", "adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse")):
        return None
    *batch, i, j, k = string.ascii_lowercase[: left.ndim + 1]
    second = (k, j) if seen.given.get("transpose_b") else (j, k)
    terms = ("".join((*batch, *pair)) for pair in ((i, j), second, (i, k)))
    return Reading(ops=(ops.Einsum(equation="{},{}->{}".format(*terms)),), inputs=seen.x)


def _einsum(seen: Seen) -> Reading | None:
    equation = seen.given.get("subscripts", seen.given.get("equation"))
    equation = next((one for one in seen.given.values() if isinstance(one, str)), equation)
    if not isinstance(equation, str) or "..." in equation or "->" not in equation:
        return None
    return Reading(ops=(ops.Einsum(equation=equation.replace(" ", "")),), inputs=seen.x)


def _dot(seen: Seen) -> Reading | None:
    """layers.Dot of two arrays (keras 3.15: layers/merging/dot.py); two matrices give a column."""
    x, y = seen.x
    axes = seen.given["axes"]
    a, b = (axes, axes) if isinstance(axes, int) else axes
    a, b = a % x.ndim, b % y.ndim
    if seen.given["normalize"] or 0 in (a, b):
        return None
    letters = iter(string.ascii_lowercase)
    batch, shared = next(letters), next(letters)
    one, two = ([batch, *(next(letters) for _ in range(array.ndim - 1))] for array in (x, y))
    one[a] = two[b] = shared
    rest = [letter for letter in one[1:] + two[1:] if letter != shared]
    op = ops.Einsum(equation=f"{''.join(one)},{''.join(two)}->{batch}{''.join(rest)}")
    return Reading(ops=(op,) if rest else (op, ops.Expand(axis=1)), inputs=seen.x, image=False)


def _gather(seen: Seen) -> Reading | None:
    axis, indices = seen.given.get("axis"), seen.given["indices"]
    if axis is None or not isinstance(indices, np.ndarray) or indices.dtype.kind != "i" or seen.given.get("batch_dims"):
        return None
    return Reading(ops=(ops.Gather(axis=axis % seen.x[0].ndim),), inputs=(seen.x[0], indices))


# --- reductions -------------------------------------------------------------------------------------------------


def _reduction(build: Callable[[Seen, dict[str, Any]], Any]) -> Reader:
    def read(seen: Seen) -> Reading | None:
        if "axis" not in seen.given or "keepdims" not in seen.given or len(seen.x) != 1:
            return None
        axes, keep, rank = axes_in(seen, seen.given["axis"]), bool(seen.given["keepdims"]), seen.x[0].ndim
        op = build(seen, {"axes": axes, "keep": keep})
        moved = moves(seen) and (keep or (1 not in axes and rank - len(axes) > 2))
        canonical = first if moved else same
        return op and Reading(ops=(op,), inputs=(mover(seen)(seen.x[0]),), canonical=canonical)

    return read


def _norm(seen: Seen, where: dict[str, Any]) -> Any:
    if seen.given.get("ord") not in (None, 2, "euclidean") or len(where["axes"]) != 1:
        return None
    return ops.Norm(power=2.0, epsilon=0.0, slope_at_zero="nan", **where)


def _deviation(kind: Any) -> Reader:
    return _reduction(lambda seen, at: ops.Deviation(kind=kind, ddof=0, epsilon=0.0, slope_at_zero="nan", **at))


# --- the table --------------------------------------------------------------------------------------------------

ARITHMETIC: Mapping[str, Reader] = {
    **{name: combine(name) for name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")},
    "average": combine("average"),
    "concatenate": _concatenate,
    "matmul": _matmul,
    "einsum": _einsum,
    "dot": _dot,
    "where": _where,
    "take": _gather,
    "gather": _gather,
    "mean": _reduction(lambda seen, at: ops.Reduce(kind="mean", masked=False, **at)),
    "sum": _reduction(lambda seen, at: ops.Reduce(kind="sum", masked=False, **at)),
    "max": _reduction(lambda seen, at: ops.Extremum(kind="max", tie="split", **at)),
    "min": _reduction(lambda seen, at: ops.Extremum(kind="min", tie="split", **at)),
    "var": _deviation("variance"),
    "std": _deviation("standard_deviation"),
    "logsumexp": _reduction(lambda seen, at: ops.LogSumExp(**at)),
    "norm": _reduction(_norm),
}
"""Readers by Keras's name of the function, operation or layer."""
