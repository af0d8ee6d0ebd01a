"""The blocks of a JAX function, as its jaxpr tells them: layers, functions of jax.nn, and primitives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from frameworks.jax_primitives import read_line
from frameworks.jax_trees import is_float, plain
from frameworks.jaxpr_lines import Line, Value, function_name
from frameworks.jaxpr_recording import Program
from frameworks.writing import Rows, given, named, written_by
from harness import ops
from harness.calls import Call
from harness.case import Sigmoid, Tanh

Array = np.ndarray


def calls_of(
    program: Program, known: Mapping[Value, Any], shown: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Call]:
    """The calls behind the activations named, and what lies between them and has no name (`transpose@7`). known: what
    each value was read as; shown: own results by name."""
    makers = {value: line for line in program.lines for value in line.writes}
    values = {name: value for value, name in program.names.items() if name in names}
    at = [i for i, line in enumerate(program.lines) if any(value in line.writes for value in values.values())]
    found = {}
    for i, line in enumerate(program.lines[at[0] : at[-1] + 1] if at else ()):
        value = line.writes[0]
        if len(line.writes) > 1 or not line.data or not is_float(value.dtype):
            continue
        name = program.names.get(value, f"{line.equation.primitive.name}@{i}")
        if value not in program.names or name in values:
            output = _float(shown[name] if name in values else known[value])
            function = program.functions.get(value, ("", (line,)))
            found[name] = (
                _dense(line, makers, known, output)
                or _convolution(line, makers, known, output)
                or _function(*function, line, known, output)
            )
    return found


def _function(name: str, lines: Sequence[Line], last: Line, known: Mapping[Value, Any], output: Array) -> Call:
    """A function of one array, or a primitive; where it is not known, with the arrays that its last equation reads."""
    kind = name or function_name(last.equation) or last.equation.primitive.name
    build = FUNCTIONS.get(kind)
    outer = _read(lines, known) if build is not None else []
    op = build([inner for line in lines for inner in _opened(line.equation)]) if build and len(outer) == 1 else None
    if op is not None and outer[0].shape == output.shape:
        return _call(kind, (op,), (outer[0],), ((),), ((),), output)
    return _primitive(kind, last, known, output)


def _primitive(kind: str, line: Line, known: Mapping[Value, Any], output: Array) -> Call:
    reading = read_line(line, lambda value: _value(value, known))
    if reading is None:
        return _call(kind, (), tuple(_read([line], known)), (), (), output)

    def laid_out(of: tuple[Value, tuple[int, ...] | None]) -> Array:
        array = _value(of[0], known)
        return array if of[1] is None else array.transpose(of[1])

    names = tuple(next(iter(value.parameters)) if len(value.parameters) == 1 else "" for value, _ in reading.parameters)
    axes = reading.axes
    canonical = (lambda array: array) if axes is None else (lambda array: array.transpose(axes))
    return Call(
        kind=kind,
        ops=(reading.op,),
        inputs=tuple(map(laid_out, reading.inputs)),
        parameters=(tuple(map(laid_out, reading.parameters)),),
        names=(names,),
        output=canonical(output),
        canonical=canonical,
    )


def _value(value: Value, known: Mapping[Value, Any]) -> Array:
    return _float(known.get(value, value.constant))


def _read(lines: Sequence[Line], known: Mapping[Value, Any]) -> list[Array]:
    """The floating data that these lines are given."""
    own = {value for line in lines for value in line.writes}
    read = dict.fromkeys(value for line in lines for value in line.reads)
    return [_float(known[value]) for value in read if value.data and is_float(value.dtype) and value not in own]


def _opened(equation: JaxprEqn) -> Iterator[JaxprEqn]:
    yield equation
    for parameter in equation.params.values():
        inner = getattr(parameter, "jaxpr", parameter)
        for one in getattr(inner, "eqns", ()):
            yield from _opened(one)


def _dense(line: Line, makers: Mapping[Value, Line], known: Mapping[Value, Any], output: Array) -> Call | None:
    """x W, or what adds a vector of the parameters to it."""
    if line.equation.primitive.name == "dot_general":
        return _product(line, None, known, output)
    product, bias = _biased(line, makers, "dot_general")
    return None if product is None else _product(product, bias, known, output)


def _biased(line: Line, makers: Mapping[Value, Line], primitive: str) -> tuple[Line | None, Value | None]:
    """What adds an array of the parameters to what a primitive makes."""
    data = [value for value in line.reads if value.data]
    bias = [value for value in line.reads if not value.data and len(value.parameters) == 1]
    if line.equation.primitive.name != "add" or len(data) != 1 or len(bias) != 1:
        return None, None
    made = makers.get(data[0])
    return (made, bias[0]) if made is not None and made.equation.primitive.name == primitive else (None, None)


def _convolution(line: Line, makers: Mapping[Value, Line], known: Mapping[Value, Any], output: Array) -> Call | None:
    """A convolution with a bias for each channel."""
    made, bias = _biased(line, makers, "conv_general_dilated")
    if made is None or bias is None:
        return None
    call = _primitive("conv_general_dilated", made, known, output)
    if not call.ops:
        return None
    b = _value(bias, known)
    spread = call.canonical(np.broadcast_to(b, output.shape))
    if b.size != spread.shape[1] or np.ptp(spread, axis=(0, *range(2, spread.ndim))).any():
        return None
    return replace(
        call,
        ops=(replace(call.ops[0], bias=True),),
        parameters=((*call.parameters[0], b.reshape(-1)),),
        names=((*call.names[0], *bias.parameters),),
    )


def _product(line: Line, bias: Value | None, known: Mapping[Value, Any], output: Array) -> Call | None:
    x, weights = line.reads
    contracted, batched = line.equation.params["dimension_numbers"]
    plain_product = contracted == ((len(x.shape) - 1,), (0,)) and batched == ((), ())
    if not plain_product or not x.data or weights.data or len(weights.shape) != 2 or len(weights.parameters) != 1:
        return None
    parameters = [(_float(known[weights]).T, *weights.parameters)]
    if bias is not None:
        b = _float(known[bias])
        if b.size != weights.shape[1] or b.shape[-1] != b.size:
            return None
        parameters.append((b.reshape(-1), *bias.parameters))
    op = ops.Affine(bias=bias is not None, kernel_axes=(0, 1))
    arrays, names = zip(*parameters, strict=True)
    return _call("dot_general", (op,), (_float(known[x]),), (arrays,), (names,), output)


def _call(kind: str, chain: Any, inputs: Any, parameters: Any, names: Any, output: Array) -> Call:
    return Call(
        kind=kind,
        ops=chain,
        inputs=inputs,
        parameters=parameters,
        names=names,
        output=output,
        canonical=lambda array: array,
    )


def _float(value: Any) -> Array:
    array = plain(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


# --- the table --------------------------------------------------------------------------------------------------


def _softmax(log: bool) -> Callable[[Sequence[JaxprEqn]], Any]:
    def build(equations: Sequence[JaxprEqn]) -> Any:
        axes = next((one.params["axes"] for one in equations if one.primitive.name == "reduce_max"), None)
        return axes and ops.SoftmaxOver(axes=tuple(axes), log=log)

    return build


def _gelu(equations: Sequence[JaxprEqn]) -> Any:
    names = {one.primitive.name for one in equations}
    if "tanh" in names:
        return ops.GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715)
    return ops.GELU(form="erf", scale=1 / math.sqrt(2), cubic=0.0) if names & {"erf", "erfc"} else None


_RELU = ops.Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)
FUNCTIONS: Mapping[str, Callable[[Sequence[JaxprEqn]], Any]] = {
    "relu": lambda _: _RELU,
    "gelu": _gelu,
    "silu": lambda _: ops.Swish(beta=1.0),
    "swish": lambda _: ops.Swish(beta=1.0),
    "sigmoid": lambda _: Sigmoid(),
    "logistic": lambda _: Sigmoid(),
    "tanh": lambda _: Tanh(),
    "softplus": lambda _: ops.Softplus(beta=1.0, threshold=math.inf),
    "soft_sign": lambda _: ops.Softsign(),
    "log_sigmoid": lambda _: ops.LogSigmoid(),
    "softmax": _softmax(False),
    "log_softmax": _softmax(True),
}
"""Functions of jax.nn (jax 0.10) and primitives, from the equations that they left."""

_WRITTEN: Rows = {
    ops.Affine: (lambda op: "x @ W + b" if op.bias else "x @ W", named("bias")),
    ops.Rectifier: (
        lambda op: f"jax.nn.leaky_relu(x, {op.negative_slope})" if op.negative_slope else "jax.nn.relu(x)",
        named("negative_slope"),
    ),
    ops.GELU: ("jax.nn.gelu", {"form": given("approximate", lambda op: op.form == "tanh")}),
    ops.Swish: ("jax.nn.silu(x)", {}),
    ops.Softplus: ("jax.nn.softplus(x)", {}),
    ops.SoftmaxOver: (
        lambda op: "jax.nn.log_softmax" if op.log else "jax.nn.softmax",
        {"axes": given("axis", lambda op: op.axes), **named("log")},
    ),
    Sigmoid: ("jax.nn.sigmoid(x)", {}),
    Tanh: ("jnp.tanh(x)", {}),
}


def written(op: Any, fields: Sequence[str]) -> str:
    """`jax.nn.gelu(approximate=True)`; "" for what is not known."""
    return written_by(_WRITTEN, op, fields)
