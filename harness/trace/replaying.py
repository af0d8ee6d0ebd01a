"""A recorded run of a case standing where a side stands: its steps come from disk, others from the framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from frameworks.protocol import Stepper
from harness.case import PRECISIONS, CannotRun, Case, HarnessError, Precision
from harness.comparing import per_quantity
from harness.layout import Layout
from harness.running import Chunk, Rows, Side, Start
from harness.trace.reading import Block, Trace
from harness.trace.recorded import resolved_case, state_quantities


class Later:
    """A `Stepper` that is compiled when it is first needed: most recorded runs are never taken up."""

    def __init__(self, start: Start, case: Case, precision: Precision) -> None:
        self.compiled: Callable[[], Stepper] = partial(start, case, precision)
        self.stepper: Stepper | None = None

    def load(self, state: np.ndarray, step: int) -> None:
        self.stepper = self.stepper or self.compiled()
        self.stepper.load(state, step)

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        assert self.stepper
        self.stepper.run(x, y, rows)


class Replayed(Side):
    """start: how the side's framework takes a step; None where it is not here as it was recorded: the side is then
    bound to its record. layout: at any batch size."""

    def __init__(self, trace: Trace, layout: Layout, start: Start | None) -> None:
        self.trace = trace
        self.layout = layout
        self.replaying = True
        states: Rows = {precision: recorded_state(trace, layout, 0, precision) for precision in PRECISIONS}
        super().__init__(
            name=trace.header.name,
            case=resolved_case(trace),
            start=partial(Later, start or _absent),
            state=states["float64"],
            missing=trace.header.missing,
        )
        self.bound = start is None
        self.states = states

    def advance(self, chunk: Chunk) -> Rows:
        if not self.replaying:
            return super().advance(chunk)
        rows: Rows = {p: recorded_rows(self.trace, chunk, p, self.states[p]) for p in PRECISIONS}
        super().restart({p: rows[p][-1, chunk.layout.state] for p in PRECISIONS}, chunk.first + len(chunk))
        return rows

    def restart(self, states: Mapping[Precision, np.ndarray], step: int) -> None:
        super().restart(states, step)
        self.replaying = self.replaying and all(
            states[p].tobytes() == recorded_state(self.trace, self.layout, step, p).tobytes() for p in PRECISIONS
        )

    def repeats(self, chunk: Chunk, before: Rows, rows: Rows, allowed: np.ndarray) -> bool:
        if self.bound:
            return False
        apart = [per_quantity(chunk.layout, rows[p], self.retake(chunk, p, before[p])) for p in PRECISIONS]
        return bool((apart[1] <= allowed).all() and (apart[0] <= 2.0**29 * allowed).all())


def _absent(case: Case, precision: Precision) -> Stepper:
    raise CannotRun(f"the framework of a recorded run of {case.name} is not at hand")


def recorded_rows(trace: Trace, chunk: Chunk, precision: Precision, before: np.ndarray) -> np.ndarray:
    """The rows (steps, layout.size) of a chunk; before: the state. Raises HarnessError for what was not recorded."""
    layout = chunk.layout
    rows = np.empty((len(chunk), layout.size), precision)
    quantities = {(q.kind, q.name): q for q in layout.quantities if q.kind != "update"}
    seen = dict.fromkeys(quantities, 0)
    for block in trace.blocks(chunk.first, len(chunk)):
        quantity = quantities.get((block.kind, block.name))
        if quantity is None or block.precision != precision:
            continue
        _check(trace, block, quantity.shape, precision)
        start, stop = max(block.first, chunk.first), min(block.first + len(block.values), chunk.first + len(chunk))
        part = block.values[start - block.first : stop - block.first]
        rows[start - chunk.first : stop - chunk.first, quantity.columns] = part.reshape(len(part), -1)
        seen[block.kind, block.name] += stop - start
    for (kind, name), steps in seen.items():
        if steps != len(chunk):
            raise HarnessError(
                f"{trace.folder} lacks {kind} {name} ({precision}) in steps {chunk.first} to "
                f"{chunk.first + len(chunk) - 1}; record it again"
            )
    parameters = rows[:, layout.parameters]
    with np.errstate(invalid="ignore"):
        rows[1:, layout.updates] = parameters[1:] - parameters[:-1]
        rows[0, layout.updates] = parameters[0] - before[: parameters.shape[1]]
    return rows


def recorded_state(trace: Trace, layout: Layout, step: int, precision: Precision) -> np.ndarray:
    """The flat state before a step. Raises HarnessError where it was not recorded."""
    at, prefix = (step - 1, "") if step else (0, "before_")
    found = {(b.kind, b.name): (b, b.values[at - b.first]) for b in trace.blocks(at, 1) if b.precision == precision}
    state = np.empty(layout.state.stop - layout.state.start, precision)
    for quantity in state_quantities(layout):
        if (key := (prefix + quantity.kind, quantity.name)) not in found:
            raise HarnessError(f"{trace.folder} lacks the {quantity.kind} {quantity.name} before step {step}")
        block, values = found[key]
        _check(trace, block, quantity.shape, precision)
        columns = slice(quantity.start - layout.state.start, quantity.columns.stop - layout.state.start)
        state[columns] = values.ravel()
    return state


def _check(trace: Trace, block: Block, shape: tuple[int, ...], precision: Precision) -> None:
    if block.values.dtype != precision or block.values.shape[1:] != shape:
        found = f"{block.values.dtype} of shape {block.values.shape[1:]}"
        raise HarnessError(f"{trace.folder}: {block.kind} {block.name} is {found}, must be {precision} of {shape}")
