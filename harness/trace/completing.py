"""What was left out of a thinned run of a case, run again, and believed where all that was kept comes out the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.case import HarnessError
from harness.trace.models import Pair, entries, with_updates
from harness.trace.reading import Trace
from harness.trace.recorded import record_case, recorded_case
from harness.trace.thinning import Fingerprint, fingerprint
from harness.trace.versus import parameters_of, start_of


def completed(trace: Trace, folder: Path) -> Trace:
    """The full run in a folder, or the trace itself where it is full, cannot be run again here, or does not come out
    the same."""
    if not trace.header.thinning.thins or start_of(trace)[0] is None:
        return trace
    case = recorded_case(trace)
    try:
        whole = record_case(
            case,
            folder,
            framework=trace.header.framework or None,
            conventions=trace,
            parameters=parameters_of(trace),
        )
    except HarnessError:
        return trace
    whole.label = trace.label
    return whole if all(_agrees(trace, whole, step) for step in range(case.steps)) else trace


def _agrees(trace: Trace, whole: Trace, step: int) -> bool:
    now = entries(whole, step)
    found = with_updates(now, entries(whole, step - 1) if step else now)
    return all(key in found and _same(of, found[key]) for key, of in entries(trace, step).items())


def _same(kept: Pair | Fingerprint, run: Pair | Fingerprint) -> bool:
    assert not isinstance(run, Fingerprint)
    if isinstance(kept, Fingerprint):
        return np.array_equal(kept.digests, fingerprint(*run).digests)
    return all(one.tobytes() == other.tobytes() for one, other in zip(kept, run, strict=True))
