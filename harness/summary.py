"""What one comparison found, gathered as its steps go by: the worst verdict, where it is, where divergence starts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harness.judging import BECAUSE, DIFFERENT, IDENTICAL, ROUNDING, VERDICTS
from harness.mismatch import Mismatch, mismatch
from harness.pair import Pair
from harness.watching import Watched


class Findings:
    """The summary of one pair; `observe` every judged chunk in order, then `row`.

    Slots are the optimizer's own bookkeeping: they never are the worst or the first quantity; where they differ while
    the updates agree, a note says so.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.verdict = -1
        self.because: set[str] = set()
        self.worst: dict[str, Any] = {"worst": "", "step": 0, "ratio": 0.0}
        self.first: dict[str, Any] | None = None
        self.mismatch: Mismatch | None = None
        self.counts = dict.fromkeys(VERDICTS, 0)
        self.chaotic_from: int | None = None
        self.slots_differ = False

    def observe(self, watched: Watched) -> None:
        judgement, layout = watched.judgement, watched.chunk.layout
        slots = np.array([quantity.kind == "slot" for quantity in layout.quantities])
        verdicts = np.where(~self.pair.missing & ~slots, judgement.verdict, -1)
        if self.first is None and (judgement.verdict[:, slots] == DIFFERENT).any() and verdicts.max() < DIFFERENT:
            self.slots_differ = True
        for code, name in enumerate(VERDICTS):
            self.counts[name] += int(np.count_nonzero(verdicts == code))
        worst = int(verdicts.max())
        if worst >= self.verdict:
            if worst > self.verdict:
                self.verdict, self.because, self.worst["ratio"] = worst, set(), -math.inf
            at_worst = verdicts == worst
            self.because |= {BECAUSE[code] for code in np.unique(judgement.because[at_worst])} - {""}
            ratios = np.where(at_worst, np.nan_to_num(judgement.shown.ratio, nan=np.inf), -np.inf)
            step, i = np.unravel_index(int(ratios.argmax()), ratios.shape)
            if ratios[step, i] > self.worst["ratio"]:
                name = layout.quantities[i].name
                at = watched.chunk.first + int(step)
                self.worst = {"worst": name, "step": at, "ratio": float(ratios[step, i])}
        chaotic = (judgement.because == BECAUSE.index("chaotic")).any(axis=1)
        if self.chaotic_from is None and chaotic.any():
            self.chaotic_from = watched.chunk.first + int(np.argmax(chaotic))
        if self.first is None and worst == DIFFERENT:
            self.first = self._first_divergence(watched, verdicts)

    def _first_divergence(self, watched: Watched, verdicts: np.ndarray) -> dict[str, Any]:
        judgement, layout = watched.judgement, watched.chunk.layout
        step, i = (int(index) for index in np.argwhere(verdicts == DIFFERENT)[0])
        quantity, shown = layout.quantities[i], judgement.shown
        sides = (rows["float64"][step, quantity.columns] for rows in (watched.reference, watched.candidate))
        one, other = (values.reshape(quantity.shape) for values in sides)
        found = mismatch(one, other, float(shown.size[step, i]), float(shown.budget[step, i]))
        self.mismatch = found
        at = f" at {found.index}" if found.index else ""
        because = BECAUSE[judgement.because[step, i]]
        words = f" ({because})" if because else ""
        at_step = watched.chunk.first + step
        text = (
            f"{quantity.kind.replace('_', ' ')} {quantity.name} at step {at_step}: different{words}, "
            f"worst {shown.d64[step, i]:.2g}{at} of {shown.size[step, i]:.2g}, "
            f"rounding explains {shown.budget[step, i]:.2g}"
        )
        return {"name": quantity.name, "step": at_step, "text": text, "lines": found.lines()}

    def row(self) -> dict[str, Any]:
        """The summary's columns that the comparison itself knows."""
        case, notes = self.pair.case, list(self.pair.notes)
        if self.slots_differ:
            notes.append("optimizer slots differ while the updates agree")
        return {
            "case": case.name,
            "framework": self.pair.candidate.name,
            "mode": case.batching.mode,
            "verdict": VERDICTS[self.verdict],
            "because": ", ".join(sorted(self.because)) if self.verdict >= ROUNDING else "",
            **(self.worst if self.verdict > IDENTICAL else {"worst": "", "step": 0, "ratio": 0.0}),
            "counts": self.counts,
            "first_divergence": self.first,
            "chaotic_from": self.chaotic_from,
            "notes": notes,
        }
