"""The command `gradparity`. Only click on the way to --help; each command imports what it needs."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli_causes import causes, why
from harness.cli_gradients import check
from harness.cli_traces import baseline, diff, record
from harness.commanding import check_page, chosen_frameworks, import_quietly, loaded, reported_errors, stderr_console

if TYPE_CHECKING:
    from rich.console import Console

    from harness.investigating import Progress, Result

SETTINGS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
    "OMP_WAIT_POLICY": "PASSIVE",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NVIDIA_TF32_OVERRIDE": "0",
}
"""Defaults of the tool's own runs, read by the frameworks when they are imported; what the user has set stays. One
thread each: reproducible, and a spinning OpenMP thread beside a busy neighbour is 60 to 300 times slower. TF32 off."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gradparity")
def main() -> None:
    """Rounding or bug? Runs the same training in NumPy, PyTorch, Keras, TensorFlow and JAX and compares every number.

    Exit codes: 0 identical or rounding, 1 different, 2 wrong usage, 3 could not run or nothing could be decided.
    """
    for name, value in SETTINGS.items():
        _ = os.environ.setdefault(name, value)


main.add_command(baseline)
main.add_command(causes)
main.add_command(check)
main.add_command(diff)
main.add_command(record)
main.add_command(why)


@main.command()
@click.argument("names", metavar="[CASE]...", nargs=-1)
@click.option("--frameworks", metavar="NAMES", help="Comma-separated; all installed ones by default.")
@click.option("--steps", type=click.IntRange(min=1), help="Parameter updates, instead of each case's own number.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to write; reports/runs/DATE by default.")
@click.option(
    "--tensorboard", type=click.Path(path_type=Path), help="Folder for the curves as TensorBoard's event files."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def run(
    names: tuple[str, ...],
    frameworks: str | None,
    steps: int | None,
    out: Path | None,
    tensorboard: Path | None,
    as_json: bool,
) -> None:
    """Train CASEs in the reference and in every framework, judge every quantity of every step, write the reports.

    Without CASE: the tutorial network in its three batching modes. `gradparity list` shows the cases.
    """
    with reported_errors():
        from harness.cases import CASES, DEFAULT_CASES
        from harness.checking import choose

        cases = [CASES[choose("case", name, CASES)] for name in dict.fromkeys(names or DEFAULT_CASES)]
        chosen = chosen_frameworks(frameworks)
        stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
        folder = out or Path("reports", "runs", f"{stamp}-{cases[0].name if len(cases) == 1 else len(cases)}")
        with stderr_console() as stderr, _progress(stderr, len(chosen), cases, steps) as progress:
            import_quietly(chosen)
            from harness.investigating import investigate

            result = investigate(
                *cases, frameworks=chosen, steps=steps, out=folder, progress=progress, command=_command()
            )
        if tensorboard:
            from harness.report.events import write_events
            from harness.report.reading import header_of

            _ = write_events(result.convergence, tensorboard, header_of(folder)["created"])
        if as_json:
            click.echo(json.dumps(_plain(result), indent=1))
        else:
            from harness.terminal import show_result

            show_result(result)
        sys.exit(result.exit_code)


@main.command("list")
def list_() -> None:
    """Show the cases and the frameworks, with installed versions or the line that installs them."""
    with reported_errors():
        import frameworks as registry
        from harness import terminal
        from harness.cases import CASES, DEFAULT_CASES

        console = terminal.console()
        table = terminal.table("case", "mode", "steps", "what it trains")
        for case in CASES.values():
            mark = "*" if case.name in DEFAULT_CASES else ""
            table.add_row(case.name + mark, case.batching.mode, str(case.steps), case.summary)
        console.print(table, "* run when no case is named\n")
        table = terminal.table("framework", "installed")
        for name in registry.FRAMEWORKS:
            found = registry.versions(name)
            words = ", ".join(f"{package} {version}" for package, version in found.items())
            table.add_row(name, words if None not in found.values() else f"no: {registry.pip_line(name)}")
        console.print(table)


@main.command()
@click.argument("name", metavar="CASE")
@click.option("--frameworks", metavar="NAMES", help="Comma-separated; all installed ones by default.")
def explain(name: str, frameworks: str | None) -> None:
    """Walk through one step of CASE: every quantity's formula, shape and norm, and how each framework agrees."""
    with reported_errors():
        from harness.cases import CASES
        from harness.checking import choose

        case = CASES[choose("case", name, CASES)]
        chosen = chosen_frameworks(frameworks)
        with stderr_console() as stderr, stderr.status("first step in every framework"):
            import_quietly(chosen)
            from harness.explanation import BACKPROPAGATION, GRADIENT_DESCENT, explain_case

            lines = explain_case(case, chosen)
        from harness import terminal

        console = terminal.console()
        console.print(f"{case.name}: {case.summary}\n\n{BACKPROPAGATION}\n\n{GRADIENT_DESCENT}\n")
        table = terminal.table("quantity", "formula", "shape", "norm", *chosen)
        for line in lines:
            shape = "x".join(map(str, line.shape)) or "-"
            agreement = [line.agreement[framework] for framework in chosen]
            table.add_row(line.name, line.formula, shape, f"{line.norm:.4g}", *agreement)
        console.print(table)
        for line in lines:
            for framework, reason in line.missing.items():
                console.print(f"{line.name} is missing in {framework}: {reason}")


@main.command()
@click.argument("reference", metavar="MODULE:SIDE")
@click.argument("candidate", metavar="MODULE:SIDE")
@click.option("--data", metavar="MODULE:NAME", help="(x, y), or a function giving it; `data` beside the first side.")
@click.option("--steps", type=click.IntRange(min=0), default=1, show_default=True, help="0: inference only.")
@click.option("--batch-size", type=click.IntRange(min=1), help="All examples by default.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write one self-contained page.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to write: frames, header and page.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON on stdout.")
def compare(
    reference: str,
    candidate: str,
    data: str | None,
    steps: int,
    batch_size: int | None,
    page: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train two models side by side and say where they first differ.

    A side is a model, a harness.side(...), or a function that gives one: mymodels:torch_side.
    """
    from harness.case import HarnessError

    with reported_errors():
        check_page(page)
        place = data or f"{reference.partition(':')[0]}:data"
        pair = loaded(place, "give --data MODULE:NAME")
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise HarnessError(f"{place} is a {type(pair).__name__}; it must be a pair (x, y)")
        x, y = pair
        sides = [
            loaded(name, "name a model, a harness.side(...) or a function that gives one")
            for name in (reference, candidate)
        ]
        from harness.porting import compare as compared

        result = compared(sides[0], sides[1], x, y, steps=steps, batch_size=batch_size)
        if page:
            _ = result.to_html(page)
        if out:
            _ = result.save(out)
        if as_json:
            click.echo(json.dumps(result.as_json(), indent=1))
        else:
            from harness.terminal import show_comparison

            show_comparison(result)
        sys.exit(result.exit_code)


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--frame", type=click.Path(path_type=Path), help="Write the tidy frame: .parquet .csv .md .json .tex")
@click.option("--convergence", type=click.Path(path_type=Path), help="Write the convergence frame, likewise.")
@click.option("--summary", type=click.Path(path_type=Path), help="Write a row per case and framework, likewise.")
@click.option("--query", metavar="EXPRESSION", help="Rows of the tidy frame to write: \"verdict == 'different'\"")
def report(folder: Path, frame: Path | None, convergence: Path | None, summary: Path | None, query: str | None) -> None:
    """Rebuild the pages of the run folder DIR, or of all run folders in DIR with an index of them.

    Reads what the runs wrote and runs no framework.
    """
    from harness.case import HarnessError

    with reported_errors():
        from harness.report.frames import write_frames
        from harness.report.writing import write_reports

        try:
            written = write_reports(folder)
            if frame or convergence or summary:
                written += write_frames(folder, frame=frame, convergence=convergence, summary=summary, query=query)
        except (ValueError, OSError) as error:
            raise HarnessError(str(error)) from error
        for path in written:
            click.echo(path)


# --- what the commands share ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(console: Console, frameworks: int, cases: list[Any], steps: int | None) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("importing frameworks", total=frameworks * sum(steps or case.steps for case in cases))

        def advance(case: str, framework: str, done: int) -> None:
            bar.update(task, advance=done, description=f"{framework} {case}")

        yield advance


def _plain(result: Result) -> dict[str, Any]:
    header = json.loads((result.folder / "run.json").read_text(encoding="utf-8")) if result.folder else {}
    skipped = {name: dict(reasons) for name, reasons in result.skipped.items() if reasons}
    return {"verdict": result.verdict, "folder": str(result.folder), "skipped": skipped, "summary": header["summary"]}


def _command() -> str:
    return " ".join(["gradparity", *sys.argv[1:]])


if __name__ == "__main__":
    main()
