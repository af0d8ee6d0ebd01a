"""Two records against each other where nothing can be run again: users' models, and what is left of thinned runs.

An own error behind the first difference cannot be had from records alone. So the first divergence stands, where it
stands beyond doubt; what comes behind it is undecided. A tensor of which only fingerprints are left is identical where
these are, different where they prove it, else undecided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.case import HarnessError
from harness.explaining import CERTAIN
from harness.judging import (
    BECAUSE,
    CHAOS,
    DIFFERENT,
    IDENTICAL,
    ROUNDING,
    UNDECIDED,
    VERDICTS,
    Judgement,
    disproportionate,
    float32_explains,
    is_null,
    judge,
)
from harness.mismatch import mismatch
from harness.rows import Columns, frame_of, rows_of_step
from harness.trace.difference import Difference, versions_between
from harness.trace.reading import Trace
from harness.trace.steps import Shown, by_name, by_plan, keys_of, renamed
from harness.trace.versus import job_of

NEW = 0.1
"""Rounding decides a kink anew in each precision: the two gaps then are apart by more than this, of the larger."""


def compare_records(reference: Trace, candidate: Trace) -> Difference:
    """Compare two runs by what was recorded alone. Raises HarnessError for runs that cannot be compared."""
    one, other = reference.header, candidate.header
    if (one.model is None) != (other.model is None):
        raise HarnessError(f"one of {reference.folder} and {candidate.folder} is of a case, the other of a model")
    if one.steps != other.steps:
        raise HarnessError(
            f"{reference.folder} has {one.steps} steps, {candidate.folder} {other.steps}; record as many of both"
        )
    if one.model and other.model:
        alike = one.framework == other.framework and set(one.model.order) == set(other.model.order)
        names = None if alike or one.framework != other.framework else renamed(one.model, other.model)
        if alike and one.data != other.data:
            raise HarnessError(f"{candidate.folder} was recorded on other data than {reference.folder}; use the same")
        thinned = one.thinning.thins or other.thinning.thins
        if alike or (thinned and names):
            steps = by_name(reference, candidate, keys_of(one.model), names or {})
        else:
            steps = by_plan(reference, candidate)
    else:
        layout = job_of(reference, candidate, None).layout
        steps = by_name(reference, candidate, [(quantity.kind, quantity.name) for quantity in layout.quantities], {})
    found = Verdicts()
    for shown in steps:
        found.observe(shown)
    frame: Any = frame_of(found.rows)
    judged = frame[(frame["kind"] != "slot") & (frame["because"] != "missing")]
    verdict = max(set(judged["verdict"]), key=VERDICTS.index)
    names = [one.name, other.name]
    if names[0] == names[1]:
        names = [f"{name} ({trace.label})" for name, trace in zip(names, (reference, candidate), strict=True)]
    return Difference(
        sides=(names[0], names[1]),
        verdict=verdict,
        because=", ".join(sorted(set(judged["because"][judged["verdict"] == verdict]) - {""})),
        first=found.first,
        causes=(),
        versions=versions_between(reference.header, candidate.header),
        notes=list(dict.fromkeys(found.notes)),
        steps=one.steps,
        frame=frame,
    )


@dataclass(slots=True)
class Verdicts:
    """What has been found so far."""

    rows: list[Columns] = field(default_factory=list)
    first: dict[str, Any] | None = None
    lost: str = ""
    largest: float = 0.0
    notes: list[str] = field(default_factory=list)

    def observe(self, of: Shown) -> None:
        """Judge a step."""
        measures = of.measures
        judgement = judge(measures, np.zeros(measures.d64.shape[1], bool))
        kinds = np.array([quantity.kind for quantity in measures.layout.quantities])
        rounding = judgement.verdict == ROUNDING
        judgement.mark(rounding & (disproportionate(measures) | of.doubtful), UNDECIDED, "unconfirmed")
        self._weigh_chaos(of, judgement, kinds)
        alarms, because = judgement.verdict == DIFFERENT, judgement.because.copy()
        if self.lost:
            judgement.mark(judgement.verdict != IDENTICAL if self.lost == "chaotic" else alarms, UNDECIDED, self.lost)
        elif (loud := alarms[0] & (kinds != "slot")).any():
            at = int(np.argmax(loud))
            sure = of.start and not (judgement.verdict[0, :at] == UNDECIDED).any() and self._sure(of, at, kinds)
            judgement.mark(alarms, UNDECIDED, "follows or not" if sure else "unconfirmed")
            self.lost = "follows or not" if sure else "unconfirmed"
            if sure:
                judgement.mark((0, at), DIFFERENT, BECAUSE[because[0, at]])
                self.first = _first(of, at)
                self.notes.append("what differs behind the first divergence may follow from it: undecided")
            else:
                self.notes.append(f"{_name(of, at)} at step {of.step}: apart, but a record alone does not tell why")
        self.rows.append(rows_of_step(of.step, of.candidate_names, judgement))

    def _sure(self, of: Shown, at: int, kinds: np.ndarray) -> bool:
        """Whether an alarm can be nothing but a difference."""
        measures = of.measures
        if not np.isfinite(measures.d64[0, at]):
            return True
        if measures.ratio[0, at] <= CERTAIN or measures.d64[0, at] <= float32_explains(measures)[0, at]:
            return False
        null = {
            q.tensor
            for q, zero in zip(measures.layout.quantities, is_null(measures)[0], strict=True)
            if zero and q.kind == "gradient"
        }
        if measures.layout.quantities[at].tensor in null:
            return False
        if kinds[at] in ("activation", "loss", "buffer"):
            return True
        (low, high), (other_low, other_high) = of.tensors(at)
        with np.errstate(invalid="ignore"):
            gaps = low.astype(np.float64) - other_low, high - other_high
        return bool(np.abs(gaps[0] - gaps[1]).max() <= NEW * np.abs(gaps[1]).max())

    def _weigh_chaos(self, of: Shown, judgement: Judgement, kinds: np.ndarray) -> None:
        outputs = np.flatnonzero(kinds == "activation")
        if not len(outputs) or self.lost:
            return
        measures, at = of.measures, int(outputs[-1])
        self.largest = max(self.largest, float(measures.size[0, at]))
        if min(measures.noise_reference[0, at], measures.noise_candidate[0, at]) > CHAOS * self.largest > 0:
            self.lost = "chaotic"
            self.notes.append(f"chaotic from step {of.step} on: rounding has grown to the size of the outputs")


def _name(of: Shown, at: int) -> str:
    return of.measures.layout.quantities[at].name


def _first(of: Shown, at: int) -> dict[str, Any]:
    """The first divergence, in words."""
    measures, quantity = of.measures, of.measures.layout.quantities[at]
    worst, size, budget = (float(values[0, at]) for values in (measures.d64, measures.size, measures.budget))
    lines, least = list[str](), "at least "
    if not of.doubtful[0, at]:
        one, other = (np.asarray(pair[1]) for pair in of.tensors(at))
        lines, least = mismatch(one, other, size, budget).lines(), ""
    text = (
        f"{quantity.kind.replace('_', ' ')} {quantity.name} at step {of.step}: different, worst {least}{worst:.2g} "
        f"of {size:.2g}, rounding explains {budget:.2g}"
    )
    return {"name": quantity.name, "step": of.step, "text": text, "lines": lines}
