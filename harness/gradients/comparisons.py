"""A direction: what the gradients give along it, and what differences give, with the error of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frameworks.protocol import Arrays

CONFIRMED = 5
"""A gradient is wrong if it is off by more than so many estimated errors, on two ladders of steps."""

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A direction: by the gradients and by differences, for each cotangent.

    scale: the size that the projection of such a gradient has, signs apart; natural: that of the outputs' projection;
    jump: by how much the two one-sided derivatives differ; unit: of rounding; supported: a wider range of steps gives
    what the gradient gives, so that it is the narrow one that is in doubt.
    """

    ds: Arrays
    expected: np.ndarray
    found: np.ndarray
    error: np.ndarray
    scale: np.ndarray
    jump: np.ndarray
    jump_error: np.ndarray
    natural: np.ndarray
    unit: float
    step: float
    fine: bool
    supported: Any = False

    @property
    def kinked(self) -> bool:
        return bool((np.abs(self.jump) > CONFIRMED * self.jump_error + 1e-7 * self.scale).any())

    @property
    def wrong(self) -> bool:
        return not self.kinked and bool((np.where(self.supported, 0, self.excess)).max(initial=0) > 1)

    @property
    def excess(self) -> np.ndarray:
        """The difference in units of what the errors allow."""
        allowed = CONFIRMED * self.error + 8 * self.unit * self.scale
        # at a kink the gradient may be either side's derivative
        allowed = allowed + (np.abs(self.jump) + self.jump_error) / 2
        off = np.abs(self.found - self.expected)
        return np.divide(off, allowed, out=np.where(off > 0, np.inf, 0.0), where=allowed > 0)

    @property
    def resolution(self) -> np.ndarray:
        """The relative error of the gradient's projection that this comparison would have shown."""
        size = np.maximum(self.scale, np.abs(self.found))
        bound = CONFIRMED * self.error
        size = np.where(bound <= 1e-9 * self.natural, np.maximum(size, self.natural), size)
        return np.divide(bound, size, out=np.where(bound > 0, np.inf, 0.0), where=size > 0)

    @property
    def off(self) -> float:
        """The largest difference, relative to what such a gradient has along the direction."""
        gap, size = np.abs(self.found - self.expected), np.maximum(self.scale, np.abs(self.found))
        return float(np.divide(gap, size, out=np.where(gap > 0, np.inf, 0.0), where=size > 0).max(initial=0.0))

    @property
    def blind(self) -> bool:
        """Whether even a gradient half as large would have gone unseen, and not because it is nil but for rounding."""
        return not self.kinked and bool((self.resolution > 0.1).all())


def resolution(comparisons: Sequence[Comparison]) -> float:
    """The smallest relative error of a projection that any of the directions would have shown."""
    useful = [float(c.resolution.min(initial=np.inf)) for c in comparisons if not c.kinked]
    return min(useful, default=float("nan"))
