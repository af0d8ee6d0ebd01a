"""The commands `gradparity record`, `gradparity diff` and `gradparity baseline`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commanding import check_page, chosen_frameworks, import_quietly, loaded, reported_errors

if TYPE_CHECKING:
    from harness.trace import Run, Trace

MODELS = "name a model, a harness.side(...) or a function that gives one"


@click.command()
@click.argument("side", metavar="SIDE")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the trace.")
@click.option("--framework", metavar="NAME", help="Whose run of a case; the NumPy reference's by default.")
@click.option("--conventions", metavar="NAME", default="", help="Those the reference speaks: paper, torch, keras, jax.")
@click.option("--steps", type=click.IntRange(min=0), help="Instead of a case's own number; 1 of a model.")
@click.option("--data", metavar="MODULE:NAME", help="(x, y) of a model; `data` beside it by default.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Of a model; all examples by default.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Fingerprints between every so many-th step.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Fingerprints of all else: 'gradient:*'.")
@click.option("--full-below", type=click.IntRange(min=0), help="Fingerprints of tensors with more numbers.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Record in a process of its own with this set.")
@click.option("--python", metavar="PATH", help="Record with the interpreter of another environment.")
def record(
    side: str,
    out: Path,
    framework: str | None,
    conventions: str,
    steps: int | None,
    data: str | None,
    batch_size: int | None,
    every: int,
    only: tuple[str, ...],
    full_below: int | None,
    env: tuple[str, ...],
    python: str | None,
) -> None:
    """Write all that SIDE shows at every step, in float32 and in float64, into the folder of a trace.

    SIDE: a case (gradparity list), its run by a framework as CASE@FRAMEWORK, or a model as MODULE:NAME. An earlier
    trace in the folder is replaced at the end, in one go.
    """
    with reported_errors():
        if env or python:
            sys.exit(_elsewhere(env, python))
        run, x, y = _side(side, data, framework, conventions)
        from harness.trace import Thinning
        from harness.trace import record as recorded

        thinning = Thinning(every=every, only=only, above=full_below)
        trace = recorded(run, out, x, y, steps=steps, batch_size=batch_size, thinning=thinning)
        size = sum(shard.bytes for shard in trace.header.shards)
        click.echo(f"{trace.header.name}, {trace.header.steps} steps, {size / 2**20:,.1f} MiB: {out}")


@click.command()
@click.argument("reference", metavar="A")
@click.argument("candidate", metavar="B")
@click.option("--steps", type=click.IntRange(min=0), help="As for record.")
@click.option("--data", metavar="MODULE:NAME", help="(x, y) of a model; `data` beside it by default.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Of a model; as the trace has it by default.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write one self-contained page.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to write: frames, header and page.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON on stdout.")
def diff(
    reference: str,
    candidate: str,
    steps: int | None,
    data: str | None,
    batch_size: int | None,
    page: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare any two of: folders of traces, cases (the reference's run), CASE@FRAMEWORK, models as MODULE:NAME.

    Exit codes: 0 identical or rounding, 1 different, 2 wrong usage, 3 could not run or nothing could be decided.
    """
    with reported_errors():
        check_page(page)
        from harness.trace import diff as compared
        from harness.trace import read_trace

        sides, x, y = list[Any](), None, None
        for name in (reference, candidate):
            if os.path.isdir(name):
                sides.append(read_trace(name))
                _import_for([sides[-1]])
            else:
                found, own_x, own_y = _side(name, data)
                x, y = (own_x, own_y) if x is None else (x, y)
                sides.append(found)
        result = compared(sides[0], sides[1], x, y, steps=steps, batch_size=batch_size)
        if page:
            _ = result.to_html(page)
        if out:
            _ = result.save(out)
        click.echo(json.dumps(result.as_json(), indent=1) if as_json else str(result))
        sys.exit(result.exit_code)


@click.group()
def baseline() -> None:
    """Keep runs of cases as traces, and tell later what a new version of a framework changed."""


@baseline.command("save")
@click.argument("name")
@click.argument("cases", metavar="[CASE]...", nargs=-1)
@click.option("--frameworks", metavar="NAMES", help="Comma-separated; all installed ones by default.")
@click.option("--steps", type=click.IntRange(min=1), help="Instead of each case's own number.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="As for record.")
@click.option("--full-below", type=click.IntRange(min=0), help="As for record.")
def save(
    name: str, cases: tuple[str, ...], frameworks: str | None, steps: int | None, every: int, full_below: int | None
) -> None:
    """Record CASEs (all by default) in each framework into the folder NAME, a trace for each."""
    with reported_errors():
        chosen = chosen_frameworks(frameworks)
        import_quietly(chosen)
        from harness.trace import Thinning
        from harness.trace.baselines import saved

        for line in saved(Path(name), cases, chosen, steps, Thinning(every=every, above=full_below)):
            click.echo(line)


@baseline.command("check")
@click.argument("name")
@click.option("--frameworks", metavar="NAMES", help="Comma-separated; all that were saved by default.")
@click.option("--json", "as_json", is_flag=True, help="The answers as JSON on stdout.")
def check(name: str, frameworks: str | None, as_json: bool) -> None:
    """Run the cases of the baseline NAME again, and say what has changed since, from which step on, and why."""
    with reported_errors():
        from harness.trace.baselines import checked, exit_code, stored

        traces = stored(Path(name), chosen_frameworks(frameworks) if frameworks else None)
        _import_for(traces)
        found = {}
        for trace, result in checked(traces):
            found[trace.folder.name] = result.as_json()
            if not as_json:
                click.echo(f"{trace.folder.name}: {result}")
        if as_json:
            click.echo(json.dumps(found, indent=1))
        sys.exit(exit_code(of["exit_code"] for of in found.values()))


def _side(side: str, data: str | None, framework: str | None = None, conventions: str = "") -> tuple[Any, Any, Any]:
    """What SIDE names, with x and y of a model."""
    if ":" not in side:
        run = _run(side, framework, conventions)
        import_quietly([run.framework] if run.framework else [])
        return run, None, None
    from harness.case import HarnessError

    place = data or f"{side.partition(':')[0]}:data"
    pair = loaded(place, "give --data MODULE:NAME")
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise HarnessError(f"{place} is a {type(pair).__name__}; it must be a pair (x, y)")
    return loaded(side, MODELS), *pair


def _run(side: str, framework: str | None, conventions: str) -> Run:
    """The run that CASE or CASE@FRAMEWORK names."""
    import frameworks as registry
    from harness.cases import CASES
    from harness.checking import choose
    from harness.trace import Run

    name, _, named = side.partition("@")
    if framework := framework or named:
        registry.require(choose("framework", framework, registry.FRAMEWORKS))
    case = CASES[choose("case or folder of a trace", name, CASES)]
    return Run(case=case, framework=framework, conventions=conventions)


def _import_for(traces: Iterable[Trace]) -> None:
    """Import the frameworks that can take traces' runs up again."""
    import frameworks as registry

    named = {trace.header.framework for trace in traces if trace.header.case}
    import_quietly([name for name in registry.installed() if name in named])


def _elsewhere(env: tuple[str, ...], python: str | None) -> int:
    """The same command in a process of its own; its exit code."""
    from harness.case import CannotRun, HarnessError

    arguments, skip = list[str](), False
    for argument in sys.argv[1:]:
        option = argument.partition("=")[0]
        if skip:
            skip = False
        elif option in ("--env", "--python"):
            skip = argument == option
        else:
            arguments.append(argument)
    pairs = [setting.partition("=") for setting in env]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise HarnessError(f"--env {name}: write NAME=VALUE")
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": path, **{name: value for name, _, value in pairs}}
    try:
        return subprocess.run([python or sys.executable, "-m", "harness.cli", *arguments], env=settings).returncode
    except OSError as error:
        raise CannotRun(f"--python {python}: {error.strerror}; name an interpreter that can be run") from error
