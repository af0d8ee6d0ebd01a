"""One side of a comparison: an implementation taking the steps of a case in two precisions, chunk by chunk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from frameworks.protocol import Stepper
from harness.case import PRECISIONS, Case, Precision
from harness.data import Data
from harness.layout import Layout, layout_of

CHUNK_NUMBERS = 2**18
"""Numbers a chunk's rows may hold: a few of them fit a second-level cache, and compiled loops run dozens of steps."""

CHUNK_STEPS = 64

Start = Callable[[Case, Precision], Stepper]
Rows = Mapping[Precision, np.ndarray]
"""(steps, layout.size) for each precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive steps on batches of equal size: x (steps, batch, ...), y (steps, batch, ...)."""

    first: int
    x: np.ndarray
    y: np.ndarray
    layout: Layout

    def __len__(self) -> int:
        return len(self.x)

    def part(self, start: int, stop: int) -> Chunk:
        """Steps start to stop of the chunk."""
        return Chunk(first=self.first + start, x=self.x[start:stop], y=self.y[start:stop], layout=self.layout)


def chunks(case: Case, data: Data) -> Iterator[Chunk]:
    """All steps of a case: each epoch a fresh permutation of the examples, cut into batches in order."""
    size = min(case.batching.size or len(data.x), len(data.x))
    layouts: dict[int, Layout] = {}
    waiting: list[np.ndarray] = []
    first = 0
    for step, batch in enumerate(_batches(case, len(data.x), size)):
        if waiting and (len(batch) != len(waiting[0]) or len(waiting) == _chunk_steps(layouts[len(waiting[0])])):
            yield _chunk(data, first, waiting, layouts)
            first, waiting = step, []
        if len(batch) not in layouts:
            layouts[len(batch)] = layout_of(case, (len(batch), *data.x.shape[1:]))
        waiting.append(batch)
    yield _chunk(data, first, waiting, layouts)


def steps_per_epoch(case: Case, examples: int) -> int:
    return -(-examples // min(case.batching.size or examples, examples))


def _batches(case: Case, examples: int, size: int) -> Iterator[np.ndarray]:
    taken = epoch = 0
    while True:
        order = np.random.default_rng((case.seed, epoch)).permutation(examples)
        for start in range(0, examples, size):
            if taken == case.steps:
                return
            yield order[start : start + size]
            taken += 1
        epoch += 1


def _chunk(data: Data, first: int, batches: list[np.ndarray], layouts: Mapping[int, Layout]) -> Chunk:
    index = np.stack(batches)
    return Chunk(first=first, x=data.x[index], y=data.y[index], layout=layouts[index.shape[1]])


def _chunk_steps(layout: Layout) -> int:
    return max(1, min(CHUNK_STEPS, CHUNK_NUMBERS // layout.size))


class Side:
    """One implementation running one resolved case in both precisions from the same start.

    It holds what the run changes: a stepper, the state after the last step and the seconds spent, per precision.
    """

    bound = False
    """Whether it can only go on as it did: a recorded run whose framework is not at hand."""

    def __init__(self, *, name: str, case: Case, start: Start, state: np.ndarray, missing: Mapping[str, str]) -> None:
        self.name = name
        self.case = case
        self.missing = missing
        self.steppers = {precision: start(case, precision) for precision in PRECISIONS}
        self.states: Rows = {precision: state.astype(precision) for precision in PRECISIONS}
        self.seconds = dict.fromkeys(PRECISIONS, 0.0)
        self.done = 0
        self._fastest = dict.fromkeys(PRECISIONS, math.inf)
        self._stale = set(PRECISIONS)

    def advance(self, chunk: Chunk) -> Rows:
        """Take the chunk's steps in both precisions; the updates are filled in as differences of parameters."""
        rows: Rows = {precision: self._take(chunk, precision) for precision in PRECISIONS}
        self.done = chunk.first + len(chunk)
        self.states = {precision: rows[precision][-1, chunk.layout.state].copy() for precision in PRECISIONS}
        return rows

    def retake(self, chunk: Chunk, precision: Precision, state: np.ndarray) -> np.ndarray:
        """The rows of a chunk taken from another state; the run itself goes on as if nothing had happened."""
        self._stale.add(precision)
        self.steppers[precision].load(state.astype(precision), chunk.first)
        return take(self.steppers[precision], chunk, precision, state.astype(precision))

    def repeats(self, chunk: Chunk, before: Rows, rows: Rows, allowed: np.ndarray) -> bool:
        """Whether `retake` speaks for the rows (1, layout.size) of a step: a run that goes on here does; a recorded one
        if its framework is at hand and computes them again, but for what is allowed of each quantity in float64."""
        return True

    def restart(self, states: Mapping[Precision, np.ndarray], step: int) -> None:
        """Go on from given states after `step` updates."""
        self.states = {precision: states[precision].copy() for precision in PRECISIONS}
        self.done = step
        self._stale = set(PRECISIONS)

    def _take(self, chunk: Chunk, precision: Precision) -> np.ndarray:
        if precision in self._stale:
            self.steppers[precision].load(self.states[precision], self.done)
            self._stale.discard(precision)
        began = time.perf_counter()
        rows = take(self.steppers[precision], chunk, precision, self.states[precision])
        seconds = time.perf_counter() - began
        self.seconds[precision] += seconds
        self._fastest[precision] = min(self._fastest[precision], seconds / len(chunk))
        return rows

    def seconds_per_step(self, precision: Precision) -> float:
        """Of the fastest chunk, so that compiling and a busy machine do not count."""
        return self._fastest[precision]


def take(stepper: Stepper, chunk: Chunk, precision: Precision, before: np.ndarray) -> np.ndarray:
    """The rows (steps, layout.size) of a loaded stepper; the updates are the differences of consecutive parameters."""
    layout = chunk.layout
    y = chunk.y if chunk.y.dtype == np.int64 else chunk.y.astype(precision)
    rows = np.empty((len(chunk), layout.size), precision)
    stepper.run(chunk.x.astype(precision), y, rows[:, : layout.recorded])
    parameters = rows[:, layout.parameters]
    with np.errstate(invalid="ignore"):  # an infinite parameter's update is not a number, and is judged so
        rows[1:, layout.updates] = parameters[1:] - parameters[:-1]
        rows[0, layout.updates] = parameters[0] - before[: parameters.shape[1]]
    return rows
