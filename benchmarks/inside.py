"""`gradparity run ...` in this process with clocks round its parts: python -m benchmarks.inside FILE run ...

Writes part -> seconds to FILE as JSON, each part without those inside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch
from weakref import WeakKeyDictionary

from benchmarks.clocks import Clocks, Parts

PARTS: Parts = {
    "preparing: cases, data": ("harness.investigating:prepare",),
    "comparing and judging": ("harness.watching:_judge",),
    "explaining alarms": ("harness.watching:explain",),
    "summary and rows": ("harness.investigating:tidy", "harness.summary:Findings.observe"),
    "convergence": (
        "harness.investigating:Curve",
        "harness.convergence:Curve.observe",
        "harness.convergence:Curve.end",
    ),
    "recording": ("harness.recording:Recorder.add", "harness.recording:Recorder.finish"),
    "reading the frame back": ("harness.investigating:read_frame",),
    "report": ("harness.recording:write_report",),
}


def main() -> None:
    file, *arguments = sys.argv[1:]
    sys.argv = ["gradparity", *arguments]
    clocks = Clocks()
    with clocks.running("importing frameworks"):
        import frameworks
        from harness.cli import main as command
        from harness.commanding import import_quietly

        import_quietly(frameworks.installed())
    with clocks.running("importing the rest"):
        import harness.investigating  # noqa: F401
        from harness.running import Chunk, Rows, Side
    advance = Side.advance
    met: WeakKeyDictionary[Side, set[int]] = WeakKeyDictionary()

    def advance_by_the_clock(side: Side, chunk: Chunk) -> Rows:
        """A side traces and compiles in the first chunk of each batch size."""
        sizes = met.setdefault(side, set())
        part = "steps" if chunk.x.shape[1] in sizes else "first steps: tracing, compiling"
        sizes.add(chunk.x.shape[1])
        with clocks.running(f"{part}, {side.name}"):
            return advance(side, chunk)

    try:
        with clocks.around(PARTS), patch.object(Side, "advance", advance_by_the_clock), clocks.running("the rest"):
            command()
    finally:  # the command exits by itself
        _ = Path(file).write_text(json.dumps(clocks.seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
