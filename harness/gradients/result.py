"""What a check of a custom gradient says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.report.fragment import as_told

Verdict = Literal["pass", "fail", "inconclusive"]

Where = tuple[int, int, tuple[int, ...]]
"""Input number, output number, index into that input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kink:
    """An element at which the function has no derivative: the one-sided ones, along that element, of the projection on
    a positive cotangent, what the backward returns, and whether that lies between them (a NaN never does)."""

    input: int
    index: tuple[int, ...]
    left: float
    right: float
    returned: float
    valid: bool

    def __str__(self) -> str:
        word = "a valid subgradient" if self.valid else "no subgradient"
        return (
            f"kink at input {self.input} {_index(self.index)}: one-sided derivatives {self.left:.6g} and "
            f"{self.right:.6g}, returned {self.returned:.6g}, {word}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCheck:
    """The verdict on a custom gradient.

    verdict: pass, fail or inconclusive. A point without derivative is a pass with `kinks` filled, when the gradient is
    right beside it. pattern: what kind of error (a key of `harness.gradients.patterns.PATTERNS`), "" if none fits or
    none was made. reason: one line. where: the worst place found, where known. factor: of pattern `factor`. error: of
    the gradient along the direction that showed it, relative; infinite where differences did not show it.
    resolution: the relative size of the smallest error of the whole gradient that would have been seen at the given
    point; precision: in which the function computes. points: how many the sweep could use. Evaluations are calls of
    the function, also those within a vjp: at the given point, at the swept ones, and to find the place and the pattern.
    """

    verdict: Verdict
    pattern: str = ""
    reason: str = ""
    where: Where | None = None
    factor: float | None = None
    error: float = float("inf")
    resolution: float = float("nan")
    precision: str = "float64"
    kinks: tuple[Kink, ...] = ()
    notes: tuple[str, ...] = ()
    points: int = 0
    evaluations: int = 0
    sweep_evaluations: int = 0
    locating_evaluations: int = 0
    framework: str = ""

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}" if self.reason else f"{self.verdict}: the gradient is right"]
        if self.pattern:
            lines.append(f"pattern: {self.pattern}")
        if self.where is not None:
            given, output, index = self.where
            lines.append(f"where: input {given} {_index(index)}, output {output}")
        lines += [str(kink) for kink in self.kinks]
        lines += [f"note: {note}" for note in self.notes]
        counts = f"{self.evaluations} evaluations at the point"
        if self.points:
            counts += f", {self.sweep_evaluations} at {self.points} other points"
        if self.locating_evaluations:
            counts += f", {self.locating_evaluations} to locate"
        seen = f"errors above {self.resolution:.1g} are seen" if self.resolution == self.resolution else "resolution -"
        lines.append(f"{self.framework}, {self.precision}: {seen}; {counts}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return as_told(str(self))


def _index(index: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, index)) + "]"
