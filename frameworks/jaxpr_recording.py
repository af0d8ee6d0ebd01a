"""A JAX function as a list of equations with a name for every result worth seeing, evaluated with a visitor on these.

Calls that only group (jit, remat) are opened. Those with their own derivative rule (custom_jvp, custom_vjp) or a body
that runs another number of times (scan, while, cond) are bound whole: opening them would lose the rule.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from frameworks.jax_trees import is_float
from harness.case import Precision
from harness.recipe import Shape

GROUPING = frozenset({"jit", "pjit", "closed_call", "core_closed_call", "checkpoint", "remat", "remat2"})

MOVING = frozenset(
    {
        *("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev", "slice", "dynamic_slice"),
        *("split", "convert_element_type", "copy", "copy_p", "stop_gradient", "name"),
    }
)
"""What computes nothing: the values are seen where they come from."""

OUTPUT = "output"
"""The name of an output that no equation computes: an input or a parameter handed through."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Value:
    """A result, equal only to itself. data: an input takes part in it; parameters: what it is computed of otherwise."""

    shape: Shape
    dtype: Any
    data: bool = False
    parameters: frozenset[str] = frozenset()
    constant: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An equation with what it reads and writes."""

    equation: JaxprEqn
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]

    @property
    def data(self) -> bool:
        return any(value.data for value in self.reads)

    @property
    def consumed(self) -> frozenset[str]:
        """The parameters that meet data here for the first time."""
        return _parameters(self.reads) if self.data else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A function traced for arguments of given shapes. names: of the values that are shown, in order of computation."""

    lines: tuple[Line, ...]
    arguments: tuple[Value, ...]
    outputs: tuple[Value, ...]
    names: Mapping[Value, str]
    tree: Any


@dataclass(slots=True, kw_only=True)
class _Opened:
    """What opening a function's calls gathers: its lines, and which result is the output of which named function."""

    lines: list[Line] = field(default_factory=list)
    functions: dict[Value, str] = field(default_factory=dict)


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
    opened = _Opened()
    outputs = _open(closed, arguments, opened)
    lines = _live(opened.lines, outputs)
    _name_library_calls(lines, opened.functions)
    return Program(
        lines=tuple(lines),
        arguments=tuple(arguments),
        outputs=tuple(outputs),
        names=_names(lines, outputs, layers, opened.functions),
        tree=jax.tree_util.tree_structure(shape),
    )


def evaluate(program: Program, arguments: Sequence[Any], precision: Precision, visit: Callable[[str, Any], Any]) -> Any:
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


# --- opening ----------------------------------------------------------------------------------------------------


def _open(jaxpr: Any, arguments: Sequence[Value], opened: _Opened) -> list[Value]:
    """Append a jaxpr's lines, those of opened calls in their place; its outputs."""
    inner, constants = (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())
    known = dict(zip(inner.invars, arguments, strict=True))
    for variable, constant in zip(inner.constvars, constants, strict=True):
        known[variable] = Value(shape=np.shape(constant), dtype=constant.dtype, constant=constant)

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return Value(shape=(), dtype=aval.dtype, constant=np.asarray(atom.val, aval.dtype))
        return known[atom]

    for equation in inner.eqns:
        reads = tuple(read(atom) for atom in equation.invars)
        if equation.primitive.name in GROUPING:
            writes = _open_call(equation, reads, opened)
        else:
            writes = _results(equation, reads)
            opened.lines.append(Line(equation=equation, reads=reads, writes=tuple(writes)))
        known |= zip(equation.outvars, writes, strict=True)
    return [read(atom) for atom in inner.outvars]


def _open_call(equation: JaxprEqn, reads: tuple[Value, ...], opened: _Opened) -> list[Value]:
    """A call that is given no parameters is a function of the data, and names its result; others are parts of the
    model, whose layers name theirs."""
    mark = len(opened.lines)
    body = next(equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params)
    writes = _open(body, reads, opened)
    name = _function_name(equation)
    if name and not _parameters(reads):
        made = {value for line in opened.lines[mark:] for value in line.writes}
        opened.functions |= {value: name for value in writes if value in made}
    return writes


def _results(equation: JaxprEqn, reads: tuple[Value, ...]) -> list[Value]:
    data = any(value.data for value in reads)
    parameters = frozenset() if data else _parameters(reads)
    avals: list[Any] = [variable.aval for variable in equation.outvars]
    return [
        Value(shape=getattr(a, "shape", ()), dtype=getattr(a, "dtype", None), data=data, parameters=parameters)
        for a in avals
    ]


def _parameters(values: Sequence[Value]) -> frozenset[str]:
    return frozenset().union(*(value.parameters for value in values))


def _live(lines: Sequence[Line], outputs: Sequence[Value]) -> list[Line]:
    """Without what no output depends on."""
    needed, kept = set(outputs), []
    for line in reversed(lines):
        if line.equation.effects or needed.intersection(line.writes):
            needed.update(line.reads)
            kept.append(line)
    return kept[::-1]


# --- names ------------------------------------------------------------------------------------------------------


def _names(
    lines: Sequence[Line], outputs: Sequence[Value], layers: Mapping[str, str], functions: Mapping[Value, str]
) -> dict[Value, str]:
    read = {value for line in lines for value in line.reads} | set(outputs)
    within = {i: layer for i, line in enumerate(lines) if (layer := _layer(line, layers))}
    last = _last_of_calls(lines, within)
    taken, counts = set(last.values()), Counter[str]()

    def unique(name: str) -> str:
        while True:
            counts[name] += 1
            numbered = name if counts[name] == 1 else f"{name}#{counts[name]}"
            if numbered not in taken:
                return numbered

    names: dict[Value, str] = {}
    for i, line in enumerate(lines):
        shown = [v for v in line.writes if v in outputs or (v in read and line.data and is_float(v.dtype))]
        if line.equation.primitive.name in MOVING and i not in within:
            shown = [value for value in shown if value in outputs]
        for value in shown:
            name = functions.get(value) or _function_name(line.equation) or line.equation.primitive.name
            if i in last and value is shown[-1]:
                names[value] = last[i]
            else:
                names[value] = unique(f"{within[i]}/{name}" if i in within else name)
    for value in outputs:
        if value not in names:
            names[value] = unique(OUTPUT)
    return names


def _layer(line: Line, layers: Mapping[str, str]) -> str | None:
    """The one layer whose parameters a floating result is computed of."""
    owners = {layers[name] for name in line.consumed}
    return owners.pop() if len(owners) == 1 and any(is_float(value.dtype) for value in line.writes) else None


def _last_of_calls(lines: Sequence[Line], within: Mapping[int, str]) -> dict[int, str]:
    """The name of each layer's call, at the last line of it that uses a parameter; a parameter used again begins a
    new call."""
    used: defaultdict[str, set[str]] = defaultdict(set)
    calls: defaultdict[str, list[int]] = defaultdict(list)
    for i, layer in within.items():
        if calls[layer] and not used[layer] & lines[i].consumed:
            calls[layer][-1] = i
        else:
            calls[layer].append(i)
            used[layer].clear()
        used[layer] |= lines[i].consumed
    return {i: layer if k == 0 else f"{layer}#{k + 1}" for layer, ends in calls.items() for k, i in enumerate(ends)}


def _function_name(equation: JaxprEqn) -> str | None:
    """Of the Python function behind a call: jit says it, custom rules leave it to the debugging information."""
    body = equation.params.get("call_jaxpr")
    name = equation.params.get("name") or (body.jaxpr.debug_info.func_name if isinstance(body, ClosedJaxpr) else None)
    return name.lstrip("_") if isinstance(name, str) and not name.startswith("<") else None


def _name_library_calls(lines: Sequence[Line], functions: dict[Value, str]) -> None:
    """jax.nn's softmax, gelu and others leave no call behind: the traceback tells whose last equation it is."""
    for call, run in groupby(lines, lambda line: _library_call(line.equation)):
        results = [value for line in run if line.data for value in line.writes if is_float(value.dtype)]
        if call and results:
            functions.setdefault(results[-1], call[0])


def _library_call(equation: JaxprEqn) -> tuple[str, str, int] | None:
    """The outermost function of jax/_src/nn (jax 0.10) that wrote the equation, and the line that called it."""
    traceback = equation.source_info.traceback
    frames = traceback.frames if traceback else []
    for frame, caller in reversed(list(pairwise(frames))):
        if "/jax/_src/nn/" in frame.file_name.replace("\\", "/"):
            return frame.function_name, caller.file_name, caller.line_num
    return None


# --- evaluating -------------------------------------------------------------------------------------------------


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
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return np.float64(str(value))
    return value.astype("float64")
