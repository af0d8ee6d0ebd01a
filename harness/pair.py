"""Two sides of one comparison, what has been learnt of them so far, and one step of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from harness.case import Case
from harness.layout import Layout
from harness.running import Chunk, Rows, Side


@dataclass(slots=True, kw_only=True)
class Pair:
    """A reference and a candidate taking the same steps, and what has been learnt of them so far.

    plain: the reference without the proven leak, once there is one (`reference` then has it).
    start: the flat state (parameters, slots) both began from.
    lost: None while the run can be trusted, then why not ("" for a difference); later rows speak by their ratio alone.
    """

    reference: Side
    candidate: Side
    missing: np.ndarray
    start: np.ndarray
    restart_reference: Callable[[Case], Side]
    plain: Side | None = None
    lost: str | None = None
    chaotic: bool = False
    blown_up: bool = False
    largest: np.ndarray = field(default_factory=lambda: np.zeros(2))
    notes: list[str] = field(default_factory=list)

    @property
    def case(self) -> Case:
        return self.reference.case

    @property
    def sides(self) -> tuple[Side, ...]:
        return tuple(side for side in (self.reference, self.candidate, self.plain) if side)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One step as the sides took it: the batch (a chunk of one), each side's state before and row (1, size); the
    reference comes first, the candidate second."""

    chunk: Chunk
    before: list[Rows]
    rows: list[Rows]

    @property
    def layout(self) -> Layout:
        return self.chunk.layout

    def both(self, pair: Pair) -> Iterator[tuple[Side, Rows, Rows]]:
        """Reference and candidate, each with its state before the step and its row."""
        return zip((pair.reference, pair.candidate), self.before, self.rows, strict=False)
