"""What a comparison of two recorded runs found, in words and as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.comparison import Comparison, Divergence
from harness.finding import Finding
from harness.pairing import Pairing
from harness.trace.header import Header

SCHEMA = "gradparity-diff-2"
NOTES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a comparison of two recorded runs found.

    sides: their names. verdict: the worst of all quantities but slots; because: its explanations. first: the first
    divergence (name, step, text, lines), None without one. causes: each why; the advice by "reference" and "candidate".
    versions: what is not the same in the two environments, as "name: one -> other". frame: pandas, the tidy frame.
    """

    sides: tuple[str, str]
    verdict: str
    because: str
    first: Mapping[str, Any] | None
    causes: Sequence[Finding]
    versions: Sequence[str]
    notes: Sequence[str]
    steps: int
    frame: Any

    @property
    def exit_code(self) -> int:
        """0 identical or rounding, 1 different, 3 nothing could be decided."""
        return {"different": 1, "undecided": 3}.get(self.verdict, 0)

    @property
    def changes(self) -> int | None:
        """The first step at which not all is bit for bit the same."""
        return int(self._changed["step"].iloc[0]) if len(self._changed) else None

    @property
    def _changed(self) -> Any:
        """The rows that are not bit for bit the same; steps and, in a step, the order of the computation."""
        return self.frame[(self.frame["verdict"] != "identical") & (self.frame["because"] != "missing")]

    def __str__(self) -> str:
        words = f"{self.verdict} ({self.because})" if self.because else self.verdict
        one, other = self.sides
        lines = [f"{words}: {one} and {other}, {self.steps} steps, {len(self.frame):,} quantities compared"]
        if self.first:
            lines.append(f"first divergence: {self.first['name']} at step {self.first['step']}")
            lines += [f"  {line}" for line in [self.first["text"], *self.first["lines"]]]
            lines += [line for cause in self.causes for line in cause.lines(self.sides)]
        elif self.verdict == "rounding":
            worst = self.frame.loc[self.frame["ratio"].idxmax()]
            lines.append(f"largest difference: {worst['ratio']:.2g} times what rounding explains ({worst['name']})")
        if self.changes is not None and self.verdict != "different":
            lines.append(f"bit for bit the same up to {self._changed.iloc[0]['name']} at step {self.changes}")
        lines += [f"version: {version}" for version in self.versions]
        lines += [f"note: {note}" for note in self.notes[:NOTES]]
        if len(self.notes) > NOTES:
            lines.append(f"and {len(self.notes) - NOTES} more notes: --json has all")
        return "\n".join(lines)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder, as a comparison of two models does. Raises HarnessError where it cannot be written."""
        return self._as_comparison().save(folder)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page."""
        return self._as_comparison().to_html(path)

    def _repr_html_(self) -> str:
        return self._as_comparison()._repr_html_()

    def _as_comparison(self) -> Comparison:
        """The same, as a comparison of two models has it, for the pages."""
        first = None
        if self.first:
            name, step, text = (self.first[of] for of in ("name", "step", "text"))
            first = Divergence(place=name, candidate_place=name, step=step, name=name, index=(), text=text)
        return Comparison(
            verdict=self.verdict,
            because=self.because,
            first=first,
            own=(first,) if first else (),
            notes=(*self.notes, *(f"version: {version}" for version in self.versions)),
            frame=self.frame,
            pairing=Pairing(links=(), unmatched_reference=(), unmatched_candidate=(), notes=()),
            sides=self.sides,
            environment={},
            causes=tuple(self.causes),
        )

    def as_json(self) -> dict[str, Any]:
        """The answer as plain data; the README has its schema."""
        worst = float(np.nanmax(self.frame["ratio"].to_numpy(float), initial=0.0))
        return {
            "schema": SCHEMA,
            "reference": self.sides[0],
            "candidate": self.sides[1],
            "verdict": self.verdict,
            "because": self.because,
            "exit_code": self.exit_code,
            "steps": self.steps,
            "quantities": len(self.frame),
            "counts": self.frame["verdict"].astype(str).value_counts().to_dict(),
            "worst_ratio": worst if math.isfinite(worst) else None,
            "changes_from_step": self.changes,
            "first_divergence": dict(self.first) if self.first else None,
            "causes": [cause.as_json() for cause in self.causes],
            "versions": list(self.versions),
            "notes": list(self.notes),
        }


def versions_apart(one: Mapping[str, Any], other: Mapping[str, Any], place: str = "") -> list[str]:
    """What two environments do not have in common, leaf by leaf."""
    found = []
    for name in dict.fromkeys([*one, *other]):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += versions_apart(a, b, f"{place}{name}.")
        elif a != b:
            found.append(f"{place}{name}: {a} -> {b}")
    return found


def versions_between(reference: Header, candidate: Header) -> list[str]:
    """What two runs' environments do not have in common; of two frameworks only what both have."""
    one, other = reference.environment, candidate.environment
    if reference.framework != candidate.framework:
        one, other = ({name: of for name, of in side.items() if name != "frameworks"} for side in (one, other))
    return versions_apart(one, other)
