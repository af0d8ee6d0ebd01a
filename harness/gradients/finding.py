"""What one rule finds wrong."""

from __future__ import annotations

from dataclasses import dataclass

from harness.gradients.result import Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An error of the gradient: its pattern, one line that says it, and where."""

    pattern: str
    reason: str
    where: Where | None = None
    factor: float | None = None
