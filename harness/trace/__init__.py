"""Traces: runs written to disk, step by step in both precisions, and compared later, elsewhere, with another version.

    record(side, folder) -> Trace       write a run into a folder; atomic: an earlier trace stays whole until the end
    read_trace(folder) -> Trace         open one, its header checked; its shards are checked as they are read
    diff(reference, candidate)          compare any two of {trace, folder, case, run, user's side}; the result has
                                        .verdict, .because, .first (None without a divergence), .exit_code, .as_json(),
                                        .frame, and str() has the words

A side is a Case (the reference's run), Run(case=..., framework=...), or a user's own model or harness.side(...), which
needs x and y. HarnessError is raised, in one line, for what cannot be recorded, read or compared.
"""

from harness.trace.difference import Difference as Difference
from harness.trace.header import Thinning as Thinning
from harness.trace.mixing import Run as Run
from harness.trace.mixing import diff as diff
from harness.trace.mixing import record as record
from harness.trace.reading import Trace as Trace
from harness.trace.reading import read_trace as read_trace
