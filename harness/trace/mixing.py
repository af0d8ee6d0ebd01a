"""Runs written down, and any two of them compared: traces, runs of a case, users' own sides, in any mix."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.case import Case, HarnessError
from harness.trace.difference import Difference
from harness.trace.header import Thinning
from harness.trace.reading import Trace, read_trace
from harness.trace.recorded import FULL, record_case
from harness.trace.versus import compare_cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A case run by a framework, or by the reference (framework "") in the conventions of a preset or a framework.

    conventions "": those of the run that it is compared with, or the papers'.
    """

    case: Case
    framework: str = ""
    conventions: str = ""


Recordable = Case | Run | Any
"""A case (the reference's run), a run of it, or a user's own side: a model or `harness.side(...)`."""


def record(side: Recordable, folder: Path | str, *, steps: int | None = None, thinning: Thinning = FULL) -> Trace:
    """Take a side's steps in both precisions and write all they show into a folder, in one go at the end: an earlier
    trace there stays as it was until then, whatever happens. Raises HarnessError."""
    return _record(side, Path(folder), steps, thinning, None)


def diff(reference: Recordable | Trace | Path | str, candidate: Recordable | Trace | Path | str) -> Difference:
    """Compare any two: traces (or the folders of some), cases, runs. Raises HarnessError."""
    given = [read_trace(side) if isinstance(side, Path | str) else side for side in (reference, candidate)]
    with tempfile.TemporaryDirectory() as scratch:
        found = {i: side for i, side in enumerate(given) if isinstance(side, Trace)}
        for i in sorted({0, 1} - set(found), key=lambda i: not _speaks(given[i])):
            like = found.get(1 - i)  # the reference comes last: it speaks the other's conventions
            found[i] = _record(given[i], Path(scratch) / str(i), like.header.steps if like else None, FULL, like)
        return compare_cases(found[0], found[1], None)


def _speaks(side: Any) -> bool:
    """Whether a run has conventions of its own."""
    return isinstance(side, Run) and bool(side.framework or side.conventions)


def _record(side: Any, folder: Path, steps: int | None, thinning: Thinning, like: Trace | None) -> Trace:
    run = Run(case=side) if isinstance(side, Case) else side
    if not isinstance(run, Run):
        raise HarnessError(f"a {type(side).__name__} is no case; name one of harness.CASES")
    if like is not None and like.header.case is None:
        raise HarnessError(f"{like.folder} is of a model, not of a case; compare it with a model")
    return record_case(
        run.case,
        folder,
        framework=run.framework or None,
        conventions=run.conventions or like or "paper",
        steps=steps,
        thinning=thinning,
    )
