"""What the results inside a JAX function are called: after their layer, their function or their primitive."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

from jax.extend.core import JaxprEqn

from frameworks.jax_trees import is_float
from frameworks.jaxpr_lines import Line, Opened, Value, function_name

MOVING = frozenset(
    {
        *("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev", "slice", "dynamic_slice"),
        *("split", "convert_element_type", "copy", "copy_p", "stop_gradient", "name"),
    }
)
"""What computes nothing: the values are seen where they come from."""

OUTPUT = "output"
"""The name of an output that no equation computes: an input or a parameter handed through."""


def names_of(
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
            name = functions.get(value) or function_name(line.equation) or line.equation.primitive.name
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


def name_library_calls(lines: Sequence[Line], opened: Opened) -> None:
    """jax.nn's softmax, gelu and others leave no call behind: the traceback tells whose last equation it is."""
    for call, run in groupby(lines, lambda line: _library_call(line.equation)):
        whole = tuple(run)
        results = [value for line in whole if line.data for value in line.writes if is_float(value.dtype)]
        if call and results and results[-1] not in opened.functions:
            opened.functions[results[-1]], opened.calls[results[-1]] = call[0], whole


def _library_call(equation: JaxprEqn) -> tuple[str, str, int] | None:
    """The outermost function of jax/_src/nn (jax 0.10) that wrote the equation, and the line that called it."""
    traceback = equation.source_info.traceback
    frames = traceback.frames if traceback else []
    for frame, caller in reversed(list(pairwise(frames))):
        if "/jax/_src/nn/" in frame.file_name.replace("\\", "/"):
            return frame.function_name, caller.file_name, caller.line_num
    return None
