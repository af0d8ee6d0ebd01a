"""Primitives of a jaxpr as ops of the reference (jax 0.10, jax/_src/lax): arithmetic, products, sums, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from frameworks.jaxpr_lines import Line, Value
from harness import ops
from harness.case import Sigmoid, Tanh

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a primitive computes, as `harness.calls.Call` has it. inputs: what it reads, in the order of the op, each
    with the axes that bring it into canonical layout, None: as it is. axes: those of the output."""

    op: Any
    inputs: tuple[tuple[Value, tuple[int, ...] | None], ...]
    parameters: tuple[tuple[Value, tuple[int, ...] | None], ...] = ()
    axes: tuple[int, ...] | None = None


Known = Callable[[Value], Array]


def read_line(line: Line, known: Known) -> Reading | None:
    """A line that a primitive of the table makes; None for any other."""
    reader = PRIMITIVES.get(line.equation.primitive.name)
    return reader(line, known) if reader is not None else None


def _one(op: Any, value: Value) -> Reading:
    return Reading(op=op, inputs=((value, None),))


def _always(op: Any) -> Callable[[Line, Known], Reading]:
    return lambda line, known: _one(op, line.reads[0])


def _function(name: Any, exponent: float = 1.0) -> Callable[[Line, Known], Reading]:
    return _always(ops.Function(name=name, exponent=exponent))


def _number(value: Value, known: Known) -> float | None:
    """A constant that is one number."""
    if value.data or value.parameters:
        return None
    array = known(value)
    return float(array.flat[0]) if array.size and (array == array.flat[0]).all() else None


def _scaled(factor: float, offset: float, value: Value) -> Reading:
    return _one(ops.Scale(factor=factor, offset=offset), value)


def _binary(kind: Any) -> Callable[[Line, Known], Reading | None]:
    def read(line: Line, known: Known) -> Reading | None:
        a, b = line.reads
        if a.data and b.data:
            return Reading(op=ops.Combine(kind=kind, tie="split"), inputs=((a, None), (b, None)))
        data, other, first = (a, b, True) if a.data else (b, a, False)
        number = _number(other, known)
        if number is not None:
            return _with_number(kind, data, number, first)
        if other.parameters and (first or kind in ("add", "multiply", "maximum", "minimum")):
            return Reading(op=ops.Combine(kind=kind, tie="split"), inputs=((data, None),), parameters=((other, None),))
        return Reading(op=ops.Combine(kind=kind, tie="split"), inputs=((a, None), (b, None)))

    return read


def _with_number(kind: str, data: Value, number: float, first: bool) -> Reading | None:
    match kind:
        case "add":
            return _scaled(1.0, number, data)
        case "subtract":
            return _scaled(1.0, -number, data) if first else _scaled(-1.0, number, data)
        case "multiply":
            return _scaled(number, 0.0, data)
        case "divide" if first and number:
            return _scaled(1 / number, 0.0, data)
        case "divide" if number == 1:
            return _one(ops.Function(name="reciprocal", exponent=1.0), data)
        case "maximum" | "minimum":
            low, high = (number, math.inf) if kind == "maximum" else (-math.inf, number)
            return _one(
                ops.ClippedLinear(
                    slope=1.0,
                    offset=0.0,
                    minimum=low,
                    maximum=high,
                    derivative=1.0,
                    slope_at_minimum=0.5,
                    slope_at_maximum=0.5,
                ),
                data,
            )
    return None


def _power(line: Line, known: Known) -> Reading | None:
    exponent = line.equation.params["y"] if "y" in line.equation.params else _number(line.reads[1], known)
    return None if exponent is None else _one(ops.Function(name="power", exponent=float(exponent)), line.reads[0])


# --- shapes, sums -----------------------------------------------------------------------------------------------


def _permute(line: Line, known: Known) -> Reading:
    return _one(ops.Permute(axes=tuple(line.equation.params["permutation"])), line.reads[0])


def _reshape(line: Line, known: Known) -> Reading | None:
    """A new shape of each example."""
    one, other = line.reads[0].shape, line.writes[0].shape
    if not one or not other or one[0] != other[0] or math.prod(one) != math.prod(other):
        return None
    return _one(ops.Reshape(shape=tuple(other[1:])), line.reads[0])


def _sum(line: Line, known: Known) -> Reading:
    return _one(
        ops.Reduce(kind="sum", axes=tuple(line.equation.params["axes"]), keep=False, masked=False), line.reads[0]
    )


def _extremum(kind: Any) -> Callable[[Line, Known], Reading]:
    def read(line: Line, known: Known) -> Reading:
        axes = tuple(line.equation.params["axes"])
        return _one(ops.Extremum(kind=kind, axes=axes, keep=False, tie="split"), line.reads[0])

    return read


def _concatenate(line: Line, known: Known) -> Reading:
    inputs = tuple((value, None) for value in line.reads)
    return Reading(op=ops.Concat(axis=line.equation.params["dimension"]), inputs=inputs)


def _chosen(line: Line, known: Known) -> Reading | None:
    """select_n(c, a, b) is b where c holds."""
    if len(line.reads) != 3:
        return None
    condition, a, b = line.reads
    return Reading(op=ops.Select(), inputs=((condition, None), (b, None), (a, None)))


# --- products, windows ------------------------------------------------------------------------------------------


def _product(line: Line, known: Known) -> Reading | None:
    """Of two values that the data makes; what a matrix of the model makes is a dense layer."""
    a, b = line.reads
    if not (a.data and b.data):
        return None
    (of_a, of_b), (batch_a, batch_b) = line.equation.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    one = [next(letters) for _ in a.shape]
    shared = {**dict(zip(of_b, of_a, strict=True)), **dict(zip(batch_b, batch_a, strict=True))}
    other = [one[shared[k]] if k in shared else next(letters) for k in range(len(b.shape))]
    free = [one[k] for k in range(len(one)) if k not in (*of_a, *batch_a)]
    free += [other[k] for k in range(len(other)) if k not in shared]
    result = [one[k] for k in batch_a] + free
    equation = f"{''.join(one)},{''.join(other)}->{''.join(result)}"
    return Reading(op=ops.Einsum(equation=equation), inputs=((a, None), (b, None)))


def _conv(line: Line, known: Known) -> Reading | None:
    params = line.equation.params
    x, kernel = line.reads
    layout = params["dimension_numbers"]
    if not x.data or kernel.data or any(d != 1 for d in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        return None
    op = ops.Conv(
        stride=tuple(params["window_strides"]),
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
        group_order="blocks",
        padding=tuple((int(low), int(high)) for low, high in params["padding"]),
        padding_mode="constant",
        padding_value=0.0,
        bias=False,
        kernel_axes=tuple(range(len(kernel.shape))),
    )
    return Reading(
        op=op,
        inputs=((x, tuple(layout.lhs_spec)),),
        parameters=((kernel, tuple(layout.rhs_spec)),),
        axes=tuple(layout.out_spec),
    )


def _window(line: Line) -> tuple[tuple[int, ...], dict[str, Any]] | None:
    """The axes that bring images into canonical layout, and a window over space; None for any other window."""
    params, rank = line.equation.params, len(line.reads[0].shape)
    size, plain = params["window_dimensions"], all(d == 1 for d in params["base_dilation"])
    if rank < 3 or size[0] != 1 or not plain or 1 not in (size[1], size[-1]):
        return None
    axes = tuple(range(rank)) if size[1] == 1 else (0, rank - 1, *range(1, rank - 1))
    padding = tuple((int(low), int(high)) for low, high in params["padding"])

    def of_space(values: Any) -> Any:
        return tuple(values[axis] for axis in axes[2:])

    return axes, {
        "size": of_space(size),
        "stride": of_space(params["window_strides"]),
        "padding": of_space(padding),
        "dilation": of_space(params["window_dilation"]),
    }


def _largest(line: Line, known: Known) -> Reading | None:
    found = _window(line)
    if found is None:
        return None
    axes, window = found
    op = ops.MaxPool(**window, padding_value=-math.inf, ceil_mode=False, tie="split")
    return Reading(op=op, inputs=((line.reads[0], axes),), axes=axes)


def _total(line: Line, known: Known) -> Reading | None:
    """The sum of a window: an average divided by 1."""
    found = _window(line)
    if found is None or any(d != 1 for d in found[1].pop("dilation")):
        return None
    axes, window = found
    op = ops.AveragePool(**window, ceil_mode=False, count_include_pad=True, divisor=1)
    return Reading(op=op, inputs=((line.reads[0], axes),), axes=axes)


PRIMITIVES: Mapping[str, Callable[[Line, Known], Reading | None]] = {
    **{name: _function(name) for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "erf", "sign")},
    **{name: _function(name) for name in ("sin", "cos", "tan", "floor", "ceil")},
    "abs": _always(ops.Absolute(slope_at_zero=1.0)),
    "neg": _always(ops.Scale(factor=-1.0, offset=0.0)),
    "logistic": _always(Sigmoid()),
    "tanh": _always(Tanh()),
    "stop_gradient": _always(ops.Detach()),
    "add": _binary("add"),
    "add_any": _binary("add"),
    "sub": _binary("subtract"),
    "mul": _binary("multiply"),
    "div": _binary("divide"),
    "max": _binary("maximum"),
    "min": _binary("minimum"),
    "pow": _power,
    "integer_pow": _power,
    "transpose": _permute,
    "reshape": _reshape,
    "squeeze": _reshape,
    "broadcast_in_dim": _reshape,
    "reduce_sum": _sum,
    "reduce_max": _extremum("max"),
    "reduce_min": _extremum("min"),
    "concatenate": _concatenate,
    "select_n": _chosen,
    "dot_general": _product,
    "conv_general_dilated": _conv,
    "reduce_window_max": _largest,
    "reduce_window_sum": _total,
}
