"""Baselines: a folder with a trace for each case and framework, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.case import CannotExpress, HarnessError
from harness.cases import CASES
from harness.checking import choose
from harness.trace.difference import Difference
from harness.trace.header import HEADER, Thinning
from harness.trace.mixing import Run, diff, record
from harness.trace.reading import Trace, read_trace
from harness.trace.recorded import recorded_case


def saved(
    folder: Path, cases: Sequence[str], frameworks: Sequence[str], steps: int | None, thinning: Thinning
) -> Iterator[str]:
    """Record each case in each framework into the folder CASE@FRAMEWORK, and read it back; a line for each. Raises
    HarnessError."""
    for name in [choose("case", name, CASES) for name in cases or CASES]:
        for framework in frameworks:
            place = folder / f"{name}@{framework}"
            try:
                trace = record(Run(case=CASES[name], framework=framework), place, steps=steps, thinning=thinning)
            except CannotExpress as reason:
                yield f"{place.name}: skipped, {reason}"
                continue
            trace.check()
            yield f"{place.name}: {trace.header.steps} steps"


def stored(folder: Path, frameworks: Sequence[str] | None) -> list[Trace]:
    """The traces of a baseline. Raises HarnessError where there are none."""
    found = [read_trace(path.parent) for path in sorted(folder.glob(f"*/{HEADER}"))]
    of = [trace for trace in found if frameworks is None or trace.header.framework in frameworks]
    if not of:
        what = f" of {', '.join(frameworks)}" if found and frameworks else ""
        raise HarnessError(f"{folder} holds no traces{what}; gradparity baseline save {folder} writes them")
    return of


def checked(traces: Iterable[Trace]) -> Iterator[tuple[Trace, Difference]]:
    """Each trace beside the same run now."""
    for trace in traces:
        result = diff(trace, Run(case=recorded_case(trace), framework=trace.header.framework))
        assert isinstance(result, Difference)
        yield trace, result


def exit_code(codes: Iterable[int]) -> int:
    """Of several: 1 where one is different, else 3 where one is undecided."""
    found = set(codes)
    return 1 if 1 in found else max(found, default=3)
