"""A cause that a comparison has found: what, where, how sure, and what to change on either side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Status = Literal["proven", "likely", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why a quantity differs by itself.

    id: of the table of causes, "" where unknown; same: ids that are the same edit. where, candidate_where: the place in
    either side's names. edit: what the two sides have, in words. status: "proven" where with that edit the reference
    computes the candidate's float64 values to within rounding; "likely" where other evidence says so; "unknown".
    before64, after64, before32, after32: the largest difference without and with the edit, in either precision, None
    where there is no edit. advice: by side, what to write there to have what the other side has.
    """

    id: str
    where: str
    candidate_where: str
    step: int
    status: Status
    edit: str
    same: tuple[str, ...] = ()
    before64: float | None = None
    after64: float | None = None
    before32: float | None = None
    after32: float | None = None
    advice: Mapping[str, str] = field(default_factory=dict)

    def lines(self, sides: tuple[str, str] = ("reference", "candidate")) -> list[str]:
        """The cause in words, and what to write on either side; sides: their names."""
        also = f" (or {', '.join(self.same)})" if self.same else ""
        said = f"cause {self.status}: {self.id}{also}: {self.edit}" if self.id else f"cause unknown: {self.edit}"
        if self.after64 is not None:
            said += f"; float64 differs by {self.before64:.2g}, with this edit by {self.after64:.2g}"
        names: dict[str, str] = dict(zip(("reference", "candidate"), sides, strict=True))
        advice = [f"{what} in {names[side]}" for side, what in self.advice.items() if what]
        return [said, *([f"  write {', or '.join(advice)}"] if advice else [])]

    def __str__(self) -> str:
        return "\n".join([f"{self.where}, step {self.step}", *self.lines()])

    def as_json(self) -> dict[str, Any]:
        """The words and numbers as plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"same": list(self.same)}
