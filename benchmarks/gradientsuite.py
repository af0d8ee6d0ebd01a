"""Custom gradients checked: which wrong ones are missed, which correct ones are called wrong?

python -m benchmarks.gradientsuite [--only NAME] [--graphs N] [--peers] [--costs] [--save]. Wrong ones count as missed
unless the verdict is "fail"; correct ones as false alarms if it is, or if the checker raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click

from benchmarks.gradients import FAMILIES, Item, items
from benchmarks.gradients.costs import costs
from benchmarks.gradients.graphs import GRAPHS, graphs
from benchmarks.gradients.looking import (
    INCONCLUSIVE,
    RAISED,
    Found,
    false_alarm,
    looked_at,
    missed,
    pattern_right,
    place_right,
)
from benchmarks.gradients.peers import PEERS, fits, judged_by
from benchmarks.tables import Row, median, show

TARGETS = (
    "Targets: misses at most 2 %, no false alarm, inconclusive at most 9 % of the awkward and none of the ordinary; of "
    "the graphs 99 % found; patterns right 85 %; at most 40 evaluations at the point of an ordinary function."
)
EVALUATIONS = 40
Judged = tuple[Item, Found]


@click.command(help=__doc__)
@click.option("--only", default="", help="Items whose name contains this.")
@click.option("--graphs", "count", default=GRAPHS, show_default=True, help="How many random graphs.")
@click.option("--checker/--no-checker", default=True, help="Run harness.check_gradient itself.")
@click.option("--peers", is_flag=True, help="The frameworks' own checkers beside it.")
@click.option("--costs", "measured", is_flag=True, help="Time and memory of large inputs too.")
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-gradients.md too.")
def main(only: str, count: int, checker: bool, peers: bool, measured: bool, save: bool) -> None:
    import jax

    jax.config.update("jax_enable_x64", True)  # as the peers' documentation demands
    chosen = [item for item in (*items(), *graphs(count)) if only in item.name]
    if not chosen:
        raise click.BadParameter(
            f"no item's name contains {only!r}; families: {', '.join((*FAMILIES, 'graphs'))}", param_hint="--only"
        )
    rows: list[Row] = []
    if checker:
        rows += table("harness.check_gradient", [(item, reported(item)) for item in chosen])
    for peer in PEERS if peers else ():
        rows += table(peer, [(item, judged_by(peer, item)) for item in chosen if fits(item, peer)])
    if rows:
        show("Custom gradients", rows, [TARGETS], save_as="gradients" if save else None)
    if measured:
        show("What a gradient check costs", costs(), save_as="gradients-costs" if save else None)


def reported(item: Item) -> Found:
    """A line on stderr for whatever is not as it should be."""
    found = looked_at(item)
    wanted = "|".join(sorted(item.patterns)) or "none"
    for wrong, what in (
        (missed(item, found), f"MISSED ({found.verdict})"),
        (false_alarm(item, found), f"FALSE ALARM ({found.verdict}, {found.pattern})"),
        (item.kind != "wrong" and found.verdict == INCONCLUSIVE, f"inconclusive ({item.kind})"),
        (item.kind == "wrong" and found.pattern not in item.patterns, f"pattern {found.pattern!r}, not {wanted!r}"),
        (item.kind == "ordinary" and found.evaluations > EVALUATIONS, f"{found.evaluations} evaluations"),
        (item.at is not None and not place_right(item, found), f"at {found.where}, not {item.at}"),
    ):
        if wrong:
            click.echo(f"{what}: {item.name}: {' '.join(found.reason.split())[:200]}", err=True)
            break
    return found


def table(checker: str, judged: Sequence[Judged]) -> list[Row]:
    """A row for each kind of hand-written item, and for the graphs."""
    groups: list[tuple[str, Callable[[Item], bool]]] = [
        (kind, lambda item, kind=kind: item.kind == kind and not item.name.startswith("graphs/"))
        for kind in ("wrong", "awkward", "ordinary")
    ]
    groups += [
        (f"graphs, {kind}", lambda item, kind=kind: item.kind == kind and item.name.startswith("graphs/"))
        for kind in ("wrong", "ordinary")
    ]
    rows = [row(checker, name, [pair for pair in judged if belongs(pair[0])]) for name, belongs in groups]
    return [each for each in rows if each["items"]]


def row(checker: str, name: str, judged: Sequence[Judged]) -> Row:
    """Patterns and places are counted among the wrong ones found; peers have none."""
    wrong = [pair for pair in judged if pair[0].kind == "wrong" and not missed(*pair)]
    placed = [pair for pair in wrong if pair[0].at is not None]
    evaluations = [found.evaluations for _, found in judged if found.evaluations]
    named = [pair for pair in wrong if not pair[0].patterns & {"", "missing-term"}]
    own = checker not in PEERS
    return {
        "checker": checker,
        "kind": name,
        "functions": len({item.function for item, _ in judged}),
        "items": len(judged),
        "missed": _count(missed(*pair) and not (not own and pair[1].verdict == RAISED) for pair in judged),
        "false alarms": _count(false_alarm(*pair) for pair in judged),
        "inconclusive": _count(found.verdict == INCONCLUSIVE for _, found in judged),
        "raised": _count(found.verdict == RAISED for _, found in judged),
        "pattern right": f"{_count(pattern_right(*pair) for pair in wrong)}/{len(wrong)}" if own and wrong else "",
        "of those with a name": f"{_count(pattern_right(*pair) for pair in named)}/{len(named)}"
        if own and named
        else "",
        "place right": f"{_count(place_right(*pair) for pair in placed)}/{len(placed)}" if own and placed else "",
        "evaluations": f"{median(evaluations):.0f} ({max(evaluations)})" if evaluations else "",
        "seconds": sum(found.seconds for _, found in judged),
    }


def _count(hits: Iterable[bool]) -> int:
    return sum(hits)


if __name__ == "__main__":
    main()
