"""A JAX function evaluated equation by equation, with a visitor on every result worth seeing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import dtypes
from jax._src.interpreters import partial_eval
from jax.core import Tracer
from jax.extend.core import JaxprEqn
from jax.lax import convert_element_type_p

from frameworks.jax_trees import is_float
from frameworks.jaxpr_lines import Line, Opened, Value, live, open_calls
from frameworks.jaxpr_naming import name_library_calls, names_of
from harness.case import Precision
from harness.widening import Widen, typed

Given = tuple[Any, Any] | None
"""Whether a value is forced, and the value; traced, so that one compiled function serves every choice of them."""


_WIDE = jax.make_user_context(None)
"""Part of the key of jit's caches: a function traced with wide casts is not the user's own."""


@contextmanager
def wide_casts(widen: Widen) -> Iterator[None]:
    """Where code names a floating dtype (`x.astype(jnp.bfloat16)`), it gets float64; constants keep their decimals.

    Behind a cast that was traced as it stands, constants would be rounded: 0.1 is 0.1001 in bfloat16. All public
    functions ask for dtypes at one place, and all constants are cast at another (jax 0.8 and 0.10: jax/_src/dtypes.py;
    jax/_src/interpreters/partial_eval.py).
    """
    named, rules, cast = dtypes.check_and_canonicalize_user_dtype, partial_eval.const_fold_rules, convert_element_type_p
    fold = rules[cast]

    def wide(dtype: Any, *args: Any) -> Any:
        found = named(dtype, *args)
        return np.dtype("float64") if is_float(found) else found

    def fold_typed(constants: list[Any], *args: Any) -> Any:
        return fold([np.asarray(_widened(np.asarray(c), "float64", widen)) for c in constants], *args)

    dtypes.check_and_canonicalize_user_dtype, rules[cast] = wide, fold_typed
    try:
        with _WIDE(widen):
            yield
    finally:
        dtypes.check_and_canonicalize_user_dtype, rules[cast] = named, fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A function traced for arguments of given shapes. names: of the values that are shown, in order of computation.

    functions: what named functions put out, by name and with the lines of the call.
    """

    lines: tuple[Line, ...]
    arguments: tuple[Value, ...]
    outputs: tuple[Value, ...]
    names: Mapping[Value, str]
    functions: Mapping[Value, tuple[str, tuple[Line, ...]]]
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
    name_library_calls(lines, opened)
    return Program(
        lines=tuple(lines),
        arguments=tuple(arguments),
        outputs=tuple(outputs),
        names=names_of(lines, outputs, layers, opened.functions),
        functions={value: (name, opened.calls[value]) for value, name in opened.functions.items()},
        tree=jax.tree_util.tree_structure(shape),
    )


def evaluate(
    program: Program,
    arguments: Sequence[Any],
    precision: Precision,
    visit: Callable[[str, Any], Any],
    known: dict[Value, Any] | None = None,
    widen: Widen = typed,
) -> Any:
    """The function's output, where visit(name, value) stands for each shown value in all that follows.

    known: takes every value, as it is read.
    In float64, what was traced in a lower precision is computed in float64, and constants are widened by `widen`.
    """
    known = {} if known is None else known
    known.update(zip(program.arguments, arguments, strict=True))

    def read(value: Value) -> Any:
        return known[value] if value in known else _widened(value.constant, precision, widen)

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
            _as_traced(value, aval.dtype) if is_float(aval.dtype) else value
            for value, aval in zip(values, avals, strict=True)
        ]
    elif precision == "float64":
        parameters = {key: np.dtype("float64") if _is_narrow(p) else p for key, p in parameters.items()}
    bound: Any = primitive.get_bind_params(parameters)
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # a pair before jax 0.10
    with equation.ctx.manager:
        bound = primitive.bind(*functions, *values, **parameters)
    results = bound if primitive.multiple_results else [bound]
    narrow = [precision == "float64" and _is_narrow(getattr(result, "dtype", None)) for result in results]
    return [result.astype("float64") if to_widen else result for result, to_widen in zip(results, narrow, strict=True)]


def _is_body(parameter: Any) -> bool:
    return hasattr(parameter, "eqns") or (isinstance(parameter, tuple) and any(map(_is_body, parameter)))


def _as_traced(value: Any, dtype: np.dtype) -> Any:
    if value.dtype == dtype:
        return value
    return convert_element_type_p.bind(value, new_dtype=dtype, weak_type=False, sharding=None)


def _is_narrow(parameter: Any) -> bool:
    return isinstance(parameter, np.dtype) and is_float(parameter) and parameter.itemsize < 8


def _widened(value: Any, precision: Precision, widen: Widen) -> Any:
    """A float as float64 in the float64 run: a float32 constant by `widen`."""
    if precision == "float32" or not _is_narrow(getattr(value, "dtype", None)):
        return value
    concrete = value.dtype == np.float32 and not isinstance(value, Tracer)
    return widen(np.asarray(value)) if concrete else value.astype("float64")
