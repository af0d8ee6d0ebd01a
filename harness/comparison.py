"""What a comparison of two models found, in words, as data and as a page."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from harness import keeping
from harness.cost import Cost
from harness.finding import Finding
from harness.mismatch import Mismatch
from harness.pairing import Pairing
from harness.report.fragment import as_fragment
from harness.views import Link, View

CAUSES = 4
NOTES = 6  # in the words of a comparison, so that they fit a screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A quantity that differs by itself, not by what came before.

    place: `forward:<layer>`, `loss`, `gradient:<parameter>`, `update:<parameter>`, `state:<buffer>`, in the
    reference's names; candidate_place in the candidate's. text: one line with the numbers. why: what was wrong,
    where that is proven, and cause: its id in the table of causes; edit: the map of the weights that would be right.
    mismatch: how much of the tensor differs, and where.
    """

    place: str
    candidate_place: str
    step: int
    name: str
    index: tuple[int, ...]
    text: str
    cause: str = ""
    why: str = ""
    edit: tuple[tuple[Link, View | None], ...] = field(default=(), repr=False)
    mismatch: Mismatch | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The words and numbers as plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("edit", "mismatch")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison of two models found.

    verdict: the worst of all quantities. because: its explanations. first: the first divergence, None without one.
    own: all own errors found, first ones first. frame: a row per step and quantity. notes: what else is to be known.
    cost: time and memory of the steps.
    """

    verdict: str
    because: str
    first: Divergence | None
    own: tuple[Divergence, ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame
    pairing: Pairing
    sides: tuple[str, str]
    environment: Mapping[str, Any]
    causes: tuple[Finding, ...] = ()
    seconds: float = math.nan
    cost: Cost | None = None

    @property
    def exit_code(self) -> int:
        """0 identical or rounding, 1 different, 3 nothing could be decided."""
        return {"different": 1, "undecided": 3}.get(self.verdict, 0)

    def __str__(self) -> str:
        reference, candidate = self.sides
        words = f"{self.verdict} ({self.because})" if self.because else self.verdict
        steps = self.frame["step"].nunique()
        lines = [f"{words}: {reference} and {candidate}, {steps} steps, {len(self.frame):,} quantities compared"]
        if self.first:
            lines.append(f"first divergence: {self.first.place} at step {self.first.step}")
            lines += [f"  {line}" for line in self._found()]
            if self.first.candidate_place != self.first.place:
                lines.append(f"  {candidate} calls it {self.first.candidate_place}")
            for cause in self.causes[:CAUSES]:
                lines += cause.lines(self.sides)
            if len(self.causes) > CAUSES:
                lines.append(f"and {len(self.causes) - CAUSES} more causes: result.causes")
            lines += [f"own error too: {d.place} at step {d.step}" for d in self.own[1:6]]
            if len(self.own) > 6:
                lines.append(f"and {len(self.own) - 6} more: result.own")
        elif self.verdict != "undecided":
            worst = self.frame.loc[self.frame["ratio"].idxmax()]
            lines.append(f"largest difference: {worst['ratio']:.2g} times what rounding explains ({worst['name']})")
        lines += [f"note: {note}" for note in self.notes[:NOTES]]
        if len(self.notes) > NOTES:
            lines.append(f"and {len(self.notes) - NOTES} more notes: result.notes")
        lines.append(f"next: {self._next()}")
        return "\n".join(lines)

    def _found(self) -> list[str]:
        assert self.first
        if self.first.mismatch is None or not self.first.text.startswith(f"{self.first.name}:"):
            return [self.first.text]  # a block behind it, or float32 alone: its own words
        return [f"{self.first.name}:", *self.first.mismatch.lines()]

    def _next(self) -> str:
        if self.first and self.first.edit:
            return "harness.transfer(reference, candidate, x) writes the weights as meant"
        if self.first:
            return f'result.frame.query("step == {self.first.step}") shows every quantity of that step'
        return "nothing to do" if self.exit_code == 0 else "the notes say what keeps it from being decided"

    def as_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {
            "verdict": self.verdict,
            "because": self.because,
            "first": self.first.as_json() if self.first else None,
            "own": [divergence.as_json() for divergence in self.own],
            "causes": keeping.causes_of(self),
            "notes": list(self.notes),
            "environment": dict(self.environment),
        }

    def save(self, folder: str | Path) -> Path:
        """Write a run folder: frames, header, summary.md and report.html; `gradparity report` rebuilds it, and
        `harness.read_report` gives its frames back. Raises HarnessError where the folder cannot be written."""
        return keeping.save(self, Path(folder))

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page."""
        target = Path(path)
        with tempfile.TemporaryDirectory() as scratch:
            page = self.save(Path(scratch) / "run") / "report.html"
            _ = target.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        return as_fragment(keeping.header_of(self))
