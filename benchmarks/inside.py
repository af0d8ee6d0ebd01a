"""`gradparity run ...` in this process with a clock round each of its parts: python -m benchmarks.inside TIMES run ...

The clocks are put round the product's own functions from here; nothing in the product knows of them. TIMES is the
file to write: part -> [seconds, seconds of processor time], without the time of the parts inside it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Clock = tuple[float, float]

PARTS: dict[str, tuple[str, ...]] = {
    "importing frameworks": ("harness.cli:_import_quietly",),
    "cases, data, environment": ("harness.investigating:prepare", "harness.investigating:_header"),
    "building": ("harness.investigating:pair_up",),
    "comparing and judging": ("harness.watching:_judge",),
    "explaining alarms": ("harness.watching:explain",),
    "convergence": ("harness.investigating:Curve", "harness.convergence:Curve.observe", "harness.convergence:Curve.end"),
    "summary and tidy rows": ("harness.investigating:tidy", "harness.summary:Findings.observe"),
    "recording": ("harness.recording:Recorder.add", "harness.recording:Recorder.finish"),
    "report": ("harness.recording:write_report",),
    "reading the frame back": ("harness.investigating:read_frame",),
}

_spent: dict[str, list[float]] = {}
_inside: list[list[float]] = []
_warm: set[tuple[int, tuple[int, ...]]] = set()
_names: dict[int, str] = {}


def main() -> None:
    times, *arguments = sys.argv[1:]
    began = _now()
    from harness import cli

    sys.argv = ["gradparity", *arguments]
    _ = clocked("everything else", _run)(cli)
    _spent["the whole run"] = [now - then for now, then in zip(_now(), began, strict=True)]
    Path(times).write_text(json.dumps(_spent), encoding="utf-8")


def _run(cli: Any) -> None:
    _replace("harness.cli:_import_quietly", clocked("importing frameworks", cli._import_quietly))
    quietly = cli._import_quietly

    def with_clocks(names: list[str]) -> None:
        quietly(names)
        clocked("importing the rest", importlib.import_module)("harness.investigating")
        for part, places in PARTS.items():
            for place in places if part != "importing frameworks" else ():
                _replace(place, clocked(part, _found(place)))
        _replace("harness.running:take", _take(_found("harness.running:take")))
        _replace("harness.running:Side.__init__", _named(_found("harness.running:Side.__init__")))

    cli._import_quietly = with_clocks
    try:
        cli.main(standalone_mode=False)
    except SystemExit as ended:
        if ended.code:
            raise


def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its time added to a part; what clocked functions inside it take is theirs."""

    def timed(*arguments: Any, **named: Any) -> Any:
        _inside.append([0.0, 0.0])
        began = _now()
        try:
            return function(*arguments, **named)
        finally:
            took = [now - then for now, then in zip(_now(), began, strict=True)]
            others = _inside.pop()
            own = _spent.setdefault(part, [0.0, 0.0])
            for i in (0, 1):
                own[i] += took[i] - others[i]
                if _inside:
                    _inside[-1][i] += took[i]

    return timed


def _take(take: Callable[..., Any]) -> Callable[..., Any]:
    """Each stepper's first steps at a batch size are where it traces and compiles."""

    def timed(stepper: Any, chunk: Any, *rest: Any) -> Any:
        key = id(stepper), chunk.x.shape[1:]
        part = "stepping" if key in _warm else "tracing, compiling and first steps"
        _warm.add(key)
        return clocked(f"{part}: {_names[id(stepper)]}", take)(stepper, chunk, *rest)

    return timed


def _named(init: Callable[..., None]) -> Callable[..., None]:
    def named(side: Any, **arguments: Any) -> None:
        init(side, **arguments)
        _names.update({id(stepper): side.name for stepper in side.steppers.values()})
        _kept.append(side)  # so that no other stepper gets its id

    return named


_kept: list[Any] = []


def _found(place: str) -> Any:
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _replace(place: str, by: Any) -> None:
    owner, _, name = place.replace(":", ".").rpartition(".")
    module, _, path = place.partition(":")
    home = importlib.import_module(module)
    setattr(_found(f"{module}:{path.rpartition('.')[0]}") if "." in path else home, name, by)


def _now() -> Clock:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
