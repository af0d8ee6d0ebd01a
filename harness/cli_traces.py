"""The commands `gradparity record` and `gradparity diff`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commanding import import_quietly, reported_errors

if TYPE_CHECKING:
    from harness.trace import Run


@click.command()
@click.argument("side", metavar="SIDE")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the trace.")
@click.option("--framework", metavar="NAME", help="Whose run of a case; the NumPy reference's by default.")
@click.option("--conventions", metavar="NAME", default="", help="Those the reference speaks: paper, torch, keras, ...")
@click.option("--steps", type=click.IntRange(min=1), help="Parameter updates, instead of the case's own number.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Record in a process of its own with this set.")
@click.option("--python", metavar="PATH", help="Record with the interpreter of another environment.")
@click.pass_context
def record(
    context: click.Context,
    side: str,
    out: Path,
    framework: str | None,
    conventions: str,
    steps: int | None,
    env: tuple[str, ...],
    python: str | None,
) -> None:
    """Write all that SIDE shows at every step, in float32 and in float64, into a folder.

    SIDE: a case (gradparity list), its run by a framework as CASE@FRAMEWORK. An earlier trace in the folder is
    replaced at the end, in one go.
    """
    with reported_errors():
        if env or python:
            sys.exit(_elsewhere(env, python))
        run = _run(side, framework, conventions)
        import_quietly([run.framework] if run.framework else [])
        from harness.trace import record as recorded

        trace = recorded(run, out, steps=steps)
        size = sum(shard.bytes for shard in trace.header.shards)
        click.echo(f"{trace.header.name}, {trace.header.steps} steps, {size / 2**20:,.1f} MiB: {out}")


@click.command()
@click.argument("reference", metavar="A")
@click.argument("candidate", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON on stdout.")
def diff(reference: str, candidate: str, as_json: bool) -> None:
    """Compare any two of: folders of traces, cases (the reference's run), CASE@FRAMEWORK.

    Exit codes: 0 identical or rounding, 1 different, 2 wrong usage, 3 could not run or nothing could be decided.
    """
    with reported_errors():
        import frameworks as registry
        from harness.trace import Trace, read_trace
        from harness.trace import diff as compared

        sides = [read_trace(name) if os.path.isdir(name) else _run(name) for name in (reference, candidate)]
        named = {side.header.framework if isinstance(side, Trace) else side.framework for side in sides}
        import_quietly([name for name in registry.installed() if name in named])
        found = compared(*sides)
        click.echo(json.dumps(found.as_json(), indent=1) if as_json else str(found))
        sys.exit(found.exit_code)


def _run(side: str, framework: str | None = None, conventions: str = "") -> Run:
    """The run that CASE or CASE@FRAMEWORK names."""
    import frameworks as registry
    from harness.cases import CASES
    from harness.checking import choose
    from harness.trace import Run

    name, _, named = side.partition("@")
    framework = framework or named
    if framework:
        registry.require(choose("framework", framework, registry.FRAMEWORKS))
    return Run(
        case=CASES[choose("case or folder of a trace", name, CASES)], framework=framework, conventions=conventions
    )


def _elsewhere(env: tuple[str, ...], python: str | None) -> int:
    """The same command in a process of its own; its exit code."""
    from harness.case import CannotRun, HarnessError

    arguments, skip = [], False
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
