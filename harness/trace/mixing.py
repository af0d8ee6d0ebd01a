"""Runs written down, and any two of them compared: traces, runs of a case, users' own sides, in any mix."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.case import Case, HarnessError
from harness.comparison import Comparison
from harness.porting import compare
from harness.recipe import Recipe
from harness.trace.alive import causes_between, turned
from harness.trace.apart import compare_records
from harness.trace.completing import completed
from harness.trace.difference import Difference
from harness.trace.header import Thinning
from harness.trace.models import record_model
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


def record(
    side: Recordable,
    folder: Path | str,
    x: Any = None,
    y: Any = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    thinning: Thinning = FULL,
) -> Trace:
    """Take a side's steps in both precisions and write all they show into a folder, in one go at the end: an earlier
    trace there stays as it was until then, whatever happens.

    x, y, steps (1 by default; 0 is inference only), batch_size: of a user's own side, as `harness.compare` takes them.
    Raises HarnessError.
    """
    return _record(side, Path(folder), x, y, steps, batch_size, thinning, None)


def diff(
    reference: Recordable | Trace | Path | str,
    candidate: Recordable | Trace | Path | str,
    x: Any = None,
    y: Any = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
) -> Difference | Comparison:
    """Compare any two: traces (or the folders of some), cases, runs, users' own sides (as `record` takes them; two of
    them are compared as `harness.compare` does). Raises HarnessError."""
    given = [read_trace(side) if isinstance(side, Path | str) else side for side in (reference, candidate)]
    if not any(isinstance(side, Trace | Case | Run) for side in given):
        return compare(given[0], given[1], x, y, steps=1 if steps is None else steps, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        found = {i: side for i, side in enumerate(given) if isinstance(side, Trace)}
        for i in sorted({0, 1} - set(found), key=lambda i: not _speaks(given[i])):
            like = found.get(1 - i)  # the reference comes last: it speaks the other's conventions
            own = _own(x, i), _own(y, i)
            found[i] = _record(given[i], Path(scratch) / str(i), *own, steps, batch_size, FULL, like)
            found[i].label = getattr(given[i], "conventions", "") or "now"
        result = _compare((found[0], found[1]), Path(scratch))
        return _explained(result, given, (found[0], found[1]), x, y) if found[0].header.model else result


def _own(values: Any, i: int) -> Any:
    """A tuple of two is a pair, one for each side's layout."""
    return values[i] if isinstance(values, tuple) and len(values) == 2 else values


def _explained(result: Difference, given: Sequence[Any], traces: tuple[Trace, Trace], x: Any, y: Any) -> Difference:
    """With the causes, where one of two models is a record and the other one is here."""
    if not result.first:
        return result
    i = next((i for i, side in enumerate(given) if not isinstance(side, Trace)), None)
    if i is None:
        how = f"gradparity diff {traces[0].folder} MODULE:SIDE"
        why = f"two records alone name no cause: compare one with the other model itself ({how})"
        return replace(result, notes=[*result.notes, why])
    names = result.sides if i else (result.sides[1], result.sides[0])
    try:
        causes = causes_between(traces[1 - i], _recipe(given[i]), _own(x, i), _own(y, i), result.first["step"], names)
    except HarnessError as reason:
        return replace(result, notes=[*result.notes, f"no cause was looked for: {reason}"])
    return replace(result, causes=causes if i else [turned(cause) for cause in causes])


def _compare(traces: tuple[Trace, Trace], scratch: Path) -> Difference:
    if any(trace.header.case is None for trace in traces):
        return compare_records(*traces)
    whole = [completed(trace, scratch / f"whole-{i}") for i, trace in enumerate(traces)]
    if any(trace.header.thinning.thins for trace in whole):
        return compare_records(*traces)
    return compare_cases(whole[0], whole[1], None)


def _recipe(side: Any) -> Recipe:
    return side if isinstance(side, Recipe) else Recipe(model=side)


def _speaks(side: Any) -> bool:
    """Whether a run has conventions of its own."""
    return isinstance(side, Run) and bool(side.framework or side.conventions)


def _record(
    side: Any,
    folder: Path,
    x: Any,
    y: Any,
    steps: int | None,
    batch_size: int | None,
    thinning: Thinning,
    like: Trace | None,
) -> Trace:
    """like: the run that it will be compared with."""
    run = Run(case=side) if isinstance(side, Case) else side
    header = like.header if like else None
    if header and (header.case is not None) != isinstance(run, Run):
        what = ("a model", "a model too") if header.model else ("a case", "a run of that case")
        raise HarnessError(f"{like.folder if like else folder} is of {what[0]}; compare it with {what[1]}")
    if isinstance(run, Run):
        return record_case(
            run.case,
            folder,
            framework=run.framework or None,
            conventions=run.conventions or like or "paper",
            steps=header.steps if header else steps,
            thinning=thinning,
        )
    if x is None:
        raise HarnessError("x is missing: a model is recorded on examples; give x (and y, where it has a loss)")
    if header and header.model:
        steps, batch_size = 0 if header.model.inference else header.steps, header.model.batch_size
    steps = 1 if steps is None else steps
    return record_model(_recipe(side), folder, x, y, steps=steps, batch_size=batch_size, thinning=thinning)
