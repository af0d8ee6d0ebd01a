"""A traced JAX function as one list of equations, its calls opened.

Calls that only group (jit, remat) are opened. Those with their own derivative rule (custom_jvp, custom_vjp) or a body
that runs another number of times (scan, while, cond) stay whole: opening them would lose the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from harness.recipe import Shape

GROUPING = frozenset({"jit", "pjit", "closed_call", "core_closed_call", "checkpoint", "remat", "remat2"})


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


@dataclass(slots=True, kw_only=True)
class Opened:
    """What opening a function's calls gathers: its lines, and which result is the output of which named function, with
    the lines of that call."""

    lines: list[Line] = field(default_factory=list)
    functions: dict[Value, str] = field(default_factory=dict)
    calls: dict[Value, tuple[Line, ...]] = field(default_factory=dict)


def open_calls(jaxpr: Any, arguments: Sequence[Value], opened: Opened) -> list[Value]:
    """Append a jaxpr's lines, those of opened calls in their place; return its outputs."""
    inner, constants = (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())
    known = dict(zip(inner.invars, arguments, strict=True))
    for variable, constant in zip(inner.constvars, constants, strict=True):
        known[variable] = Value(shape=np.shape(constant), dtype=constant.dtype, constant=constant)

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return Value(shape=aval.shape, dtype=aval.dtype, constant=np.asarray(atom.val, aval.dtype))
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


def _open_call(equation: JaxprEqn, reads: tuple[Value, ...], opened: Opened) -> list[Value]:
    """A call that is given no parameters is a function of the data, and names its result; others are parts of the
    model, whose layers name theirs."""
    mark = len(opened.lines)
    body = next(equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params)
    writes = open_calls(body, reads, opened)
    name = function_name(equation)
    if name and not _parameters(reads):
        made = {value for line in opened.lines[mark:] for value in line.writes}
        opened.functions |= {value: name for value in writes if value in made}
        opened.calls |= {value: tuple(opened.lines[mark:]) for value in writes if value in made}
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


def live(lines: Sequence[Line], outputs: Sequence[Value]) -> list[Line]:
    """Without what no output depends on."""
    needed, kept = set(outputs), []
    for line in reversed(lines):
        if line.equation.effects or needed.intersection(line.writes):
            needed.update(line.reads)
            kept.append(line)
    return kept[::-1]


def function_name(equation: JaxprEqn) -> str | None:
    """Of the Python function behind a call: jit says it, custom rules leave it to the debugging information."""
    body = equation.params.get("call_jaxpr")
    name = equation.params.get("name") or (body.jaxpr.debug_info.func_name if isinstance(body, ClosedJaxpr) else None)
    return name.lstrip("_") if isinstance(name, str) and not name.startswith("<") else None
