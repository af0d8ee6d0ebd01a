"""The commands `gradparity causes` and `gradparity why`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.commanding import chosen_frameworks, import_quietly, reported_errors, stderr_console

if TYPE_CHECKING:
    from harness.contrasting import Contrast


@click.command()
@click.argument("chosen", metavar="[ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON on stdout.")
def causes(chosen: str | None, as_json: bool) -> None:
    """List the causes that a difference may have, or show all that the table says of the one with this ID."""
    with reported_errors():
        from harness import terminal
        from harness.causes import TABLE
        from harness.checking import choose

        rows = [_row(name) for name in ([choose("cause", chosen, TABLE)] if chosen else TABLE)]
        if as_json:
            click.echo(json.dumps(rows[0] if chosen else rows, indent=1))
        elif chosen:
            for name, value in rows[0].items():
                if value:
                    click.echo(f"{name}: {value if isinstance(value, str) else ', '.join(value)}")
        else:
            table = terminal.table("cause", "acts in", "meaning", "source")
            for row in rows:
                unproven = f"not proven by an edit: {row['unproven']}" if row["unproven"] else ""
                table.add_row(row["id"], row["acts"], row["meaning"], row["source"] or unproven)
            terminal.console().print(table)


def _row(name: str) -> dict[str, Any]:
    """A row of the table of causes; same: the ids that some edit of it is too."""
    from harness.causes import TABLE

    cause = TABLE[name]
    same = [other.id for other in TABLE.values() if other is not cause and {*other.edits} & {*cause.edits}]
    lists = {"edits": list(cause.edits), "along": list(cause.along), "same": same}
    return {field: getattr(cause, field) for field in ("id", "acts", "meaning", "source", "unproven")} | lists


@click.command()
@click.argument("name", metavar="CASE")
@click.option("--frameworks", metavar="NAMES", help="Comma-separated; all installed ones by default.")
@click.option("--against", metavar="NAME", help="Whose conventions; the first other framework's by default.")
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Parameter updates.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON on stdout.")
def why(name: str, frameworks: str | None, against: str | None, steps: int, as_json: bool) -> None:
    """Say which of a framework's own conventions make CASE differ from what another framework has, each proven."""
    with reported_errors():
        import frameworks as registry
        from harness.case import HarnessError
        from harness.cases import CASES
        from harness.checking import choose

        case = CASES[choose("case", name, CASES)]
        if against:
            (against,) = chosen_frameworks(choose("framework", against, registry.FRAMEWORKS))
        pairs = [
            (framework, against or next(other for other in registry.FRAMEWORKS if other != framework))
            for framework in chosen_frameworks(frameworks)
            if framework != against
        ]
        if not pairs:
            raise HarnessError(f"--frameworks {frameworks or against}: name one other than --against {against}")
        with stderr_console() as stderr, stderr.status(f"{steps} steps in every framework"):
            import_quietly(list(dict.fromkeys(each for pair in pairs for each in pair)))
            from harness.contrasting import contrast
            from harness.judging import VERDICTS

            found = [contrast(case, framework, other, steps) for framework, other in pairs]
        if as_json:
            click.echo(json.dumps([one.as_json() for one in found], indent=1))
        else:
            click.echo("\n".join(line for one in found for line in _lines(one)))
        worst = max((one.verdict for one in found), key=VERDICTS.index)
        sys.exit({"different": 1, "undecided": 3}.get(worst, 0))


def _lines(found: Contrast) -> Iterator[str]:
    """The answer for one framework."""
    against = f"{found.framework} against {found.against}'s conventions"
    nothing = "nothing differs beyond rounding" if found.verdict == "rounding" else ""
    yield "; ".join(
        filter(None, [f"{found.verdict}: {found.case} in {against}, {found.steps} steps", nothing, found.reason])
    )
    for cause in found.causes:
        also = f" (or {', '.join(cause.same)})" if cause.same else ""
        yield f"{cause.status}: {cause.id or 'no id'}{also}, first at {cause.where}, step {cause.step}: {cause.edit}"
        yield (
            f"  without this edit {cause.before64:.2g} apart in float64, {cause.before32:.2g} in float32; "
            f"with it {cause.after64:.2g} and {cause.after32:.2g}, which rounding explains"
        )
        for side, other in ((found.against, found.framework), (found.framework, found.against)):
            if cause.advice[side]:
                yield f"  {other}'s in {side}: {cause.advice[side]}"
    if found.idle:
        yield f"no effect here: {'; '.join(found.idle)}"
    yield from found.notes
