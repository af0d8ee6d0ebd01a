"""What the steps of two models cost: time, what was recorded of them, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from harness.case import PRECISIONS, Precision
from harness.following import Taken
from harness.memory import growth, resident


@dataclass(slots=True)
class Cost:
    """Of the reference and the candidate: seconds: each float32 step of both, recording it included. recorded: bytes of
    a step of both in both precisions, the largest one's. before, largest: bytes that the process held at the start and
    at most behind a step."""

    seconds: list[tuple[float, float]] = field(default_factory=list)
    recorded: int = 0
    before: int | None = field(default_factory=resident)
    largest: int | None = None

    def observe(self, reference: Taken, candidate: Taken) -> None:
        """Count a step of both."""
        self.seconds.append((reference.seconds, candidate.seconds))
        self.recorded = max(self.recorded, _recorded(reference) + _recorded(candidate))
        self.largest = max(filter(None, (self.largest, resident())), default=None)

    @property
    def grown(self) -> int | None:
        """Bytes by which the process grew while the two were compared."""
        return growth(self.before, self.largest)


def _recorded(taken: Taken) -> int:
    return sum(array.nbytes for precision in PRECISIONS for array in _arrays(taken, precision))


def _arrays(taken: Taken, precision: Precision) -> Iterator[np.ndarray]:
    record = taken.records[precision]
    yield from record.activations.values()
    yield from record.cotangents.values()
    yield from (gradient for gradient in record.gradients.values() if gradient is not None)
    if record.after is not None:
        yield from record.after.values.values()
        for slots in record.after.slots.values():
            yield from slots.values()
