"""`gradparity run ...` in this process with clocks round its parts: python -m benchmarks.inside FILE run ...

Writes part -> seconds to FILE as JSON, each without the parts inside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from benchmarks.clocks import Clocks, Parts

IMPORTS: Parts = {"importing frameworks": ("harness.cli:_import_quietly",)}
PARTS: Parts = {
    "data": ("harness.investigating:prepare",),
    "comparing and judging": ("harness.watching:_judge",),
    "explaining alarms": ("harness.watching:explain",),
    "summary and rows": ("harness.investigating:tidy", "harness.investigating:Findings.observe"),
    "convergence": ("harness.investigating:Curve", "harness.convergence:Curve.observe", "harness.convergence:Curve.end"),
    "recording": ("harness.recording:Recorder.add", "harness.recording:Recorder.finish", "harness.recording:read_frame"),
    "report": ("harness.recording:write_report",),
}


def main() -> None:
    file, *arguments = sys.argv[1:]
    sys.argv = ["gradparity", *arguments]
    clocks = Clocks()
    with clocks.running("the rest"):
        from harness import cli

        imports = cli._import_quietly
        with clocks.around(IMPORTS), patch.object(cli, "_import_quietly"):
            pass
        ...
    Path(file).write_text(json.dumps(clocks.seconds), encoding="utf-8")
