"""Where in a tensor two sides differ and by how much, in few words and small enough to be kept and drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.comparing import EPS64
from harness.judging import K

CELLS = (48, 96)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mismatch:
    """differing: of how many elements, those beyond K times the budget. worst: the largest difference in float64, at
    index; size: the tensor's largest entry; budget: what rounding explains.

    gap (rows, columns): the differences, each the largest of a block of entries.
    """

    differing: int
    elements: int
    worst: float
    index: tuple[int, ...]
    size: float
    budget: float
    gap: np.ndarray
    block: tuple[int, int]

    def lines(self) -> list[str]:
        """As torch.testing says it, with what rounding explains instead of a tolerance."""
        at = f" at index {self.index}" if self.index else ""
        ulp = f", {self.worst / (EPS64 * self.size):.2g} ulp" if self.size else ""
        return [
            f"Mismatched elements: {self.differing} / {self.elements} ({self.differing / self.elements:.1%})",
            f"Greatest absolute difference: {self.worst:.3g}{at} (rounding explains {self.budget:.2g})",
            f"Largest element: {self.size:.3g}{ulp}",
        ]


def mismatch(one: np.ndarray, other: np.ndarray, size: float, budget: float) -> Mismatch:
    """Two tensors of one shape that differ; both in float64."""
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(np.where(one == other, 0.0, np.abs(one - other)), nan=np.inf)  # equal infinities are equal
    index = tuple(int(k) for k in np.unravel_index(int(gap.argmax()), gap.shape))
    table, block = blocks(gap)
    return Mismatch(
        differing=int((gap > K * budget).sum()),
        elements=gap.size,
        worst=float(gap.max()),
        index=index,
        size=size,
        budget=budget,
        gap=table,
        block=block,
    )


def blocks(gap: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A tensor as a table: the first axis down, all others along, the largest of each block where there are too many
    entries; and how large the blocks are."""
    table = gap.reshape(gap.shape[0] if gap.ndim > 1 else 1, -1)
    down, along = (-(-length // most) for length, most in zip(table.shape, CELLS, strict=True))
    for axis, size in enumerate((down, along)):
        table = np.maximum.reduceat(table, np.arange(0, table.shape[axis], size), axis)
    return table, (down, along)
