"""A JAX function evaluated equation by equation, with a visitor on every result worth seeing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import JaxprEqn

from frameworks.jax_trees import is_float
from frameworks.jaxpr_lines import Line, Opened, Value, live, open_calls
from frameworks.jaxpr_naming import name_library_calls, names_of
from harness.case import Precision

Given = tuple[Any, Any] | None
"""Whether a value is forced, and the value; traced, so that one compiled function serves every choice of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A function traced for arguments of given shapes. names: of the values that are shown, in order of computation."""

    lines: tuple[Line, ...]
    arguments: tuple[Value, ...]
    outputs: tuple[Value, ...]
    names: Mapping[Value, str]
    tree: Any


def program_of(
    function: Callable[..., Any], parameters: Mapping[str, Any], inputs: Sequence[Any], layers: Mapping[str, str]
) -> Program:
    """Trace function([parameters, in their order], *inputs); layers: of each parameter.

    A layer's parameters are used once in a call of it. The last equation of a call that uses one bears the layer's
    name (`dense`, `dense#2`), earlier ones are called below it (`dense/dot_general`).
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(list(parameters.values()), *inputs)
    leaves = [Value(shape=v.shape, dtype=v.dtype, parameters=frozenset({name})) for name, v in parameters.items()]
    arguments = leaves + [Value(shape=np.shape(x), dtype=x.dtype, data=True) for x in inputs]
    opened = Opened()
    outputs = open_calls(closed, arguments, opened)
    lines = live(opened.lines, outputs)
    name_library_calls(lines, opened.functions)
    return Program(
        lines=tuple(lines),
        arguments=tuple(arguments),
        outputs=tuple(outputs),
        names=names_of(lines, outputs, layers, opened.functions),
        tree=jax.tree_util.tree_structure(shape),
    )


def evaluate(
    program: Program,
    arguments: Sequence[Any],
    precision: Precision,
    visit: Callable[[str, Any], Any],
) -> Any:
    """The function's output, where visit(name, value) stands for each shown value in all that follows.

    In float64, what the function itself casts to float32 stays in float64, and its float32 constants are widened.
    """
    known = dict(zip(program.arguments, arguments, strict=True))

    def read(value: Value) -> Any:
        return known[value] if value in known else _widened(value.constant, precision)

    for line in program.lines:
        results = _bind(line.equation, [read(value) for value in line.reads], precision)
        for value, result in zip(line.writes, results, strict=True):
            known[value] = visit(program.names[value], result) if value in program.names else result
    computed = {value for line in program.lines for value in line.writes}
    for value, name in program.names.items():
        if value not in computed:
            known[value] = visit(name, read(value))
    return jax.tree_util.tree_unflatten(program.tree, [read(value) for value in program.outputs])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tap(note: Callable[[], None], own: Any, probe: Any, forced: Given, cotangent: Given) -> Any:
    """`own`, or what is forced in its place; backward, what arrives goes to the probe, and on to `own` unless another
    cotangent is forced. note() is called, while JAX traces, if anything arrives at all."""
    return _given_or(own, forced)


def _tap_forward(note: Callable[[], None], own: Any, probe: Any, forced: Given, cotangent: Given) -> tuple[Any, Any]:
    return _given_or(own, forced), (cotangent, probe)


def _tap_backward(note: Callable[[], None], held: tuple[Given, Any], arriving: Any) -> tuple[Any, ...]:
    note()
    cotangent, probe = held
    return _given_or(arriving, cotangent), arriving.astype(probe.dtype), None, None


def _given_or(own: Any, given: Given) -> Any:
    return own if given is None else jnp.where(given[0], given[1].astype(own.dtype), own)


tap.defvjp(_tap_forward, _tap_backward)


def _bind(equation: JaxprEqn, values: list[Any], precision: Precision) -> list[Any]:
    primitive, parameters = equation.primitive, dict(equation.params)
    if any(_is_body(p) for p in parameters.values()):
        # A traced body takes what it was traced for.
        avals: list[Any] = [atom.aval for atom in equation.invars]
        values = [
            jnp.asarray(value, aval.dtype) if is_float(aval.dtype) else value
            for value, aval in zip(values, avals, strict=True)
        ]
    elif precision == "float64":
        parameters = {key: np.dtype("float64") if _is_float32(p) else p for key, p in parameters.items()}
    bound: Any = primitive.get_bind_params(parameters)
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # a pair before jax 0.10
    with equation.ctx.manager:
        results = primitive.bind(*functions, *values, **parameters)
    return [_widened(r, precision) for r in (results if primitive.multiple_results else [results])]


def _is_body(parameter: Any) -> bool:
    return hasattr(parameter, "eqns") or (isinstance(parameter, tuple) and any(map(_is_body, parameter)))


def _is_float32(parameter: Any) -> bool:
    return isinstance(parameter, np.dtype) and parameter == np.float32


def _widened(value: Any, precision: Precision) -> Any:
    """float32 as float64 in the float64 run: a constant typed into the code as the decimal that it prints."""
    if precision == "float32" or not _is_float32(getattr(value, "dtype", None)):
        return value
    if value.ndim or isinstance(value, Tracer):
        return value.astype("float64")
    return np.float64(str(np.asarray(value)[()]))
