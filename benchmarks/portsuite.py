"""Ported models compared: is each verdict right, and each first divergence?

python -m benchmarks.portsuite [--only NAME] [--sample N --seed S] [--save]. A place is right if it is one of the port's
acceptable ones, in the names of either side, at an acceptable step.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import click
import numpy as np

import harness
from benchmarks.ports import CLEAN, FAMILIES, Pair, Port, ports
from benchmarks.tables import Row, show

FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a comparison said. places: the first divergence in the reference's names and in the candidate's."""

    verdict: str
    places: tuple[str, ...] = ("none",)
    step: int = 0


@click.command(help=__doc__)
@click.option("--only", default="", help="Ports whose name contains this.")
@click.option("--sample", type=int, help="That many ports, drawn at random.")
@click.option("--seed", default=0, show_default=True)
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-ports.md too.")
def main(only: str, sample: int | None, seed: int, save: bool) -> None:
    chosen = [port for port in ports() if only in port.name]
    if not chosen:
        raise click.BadParameter(
            f"no port's name contains {only!r}; families: {', '.join(FAMILIES)}", param_hint="--only"
        )
    if sample is not None and sample < len(chosen):
        chosen = [chosen[i] for i in sorted(np.random.default_rng(seed).choice(len(chosen), sample, replace=False))]
    rows = []
    for port in chosen:
        rows.append(examined(port))
        if not rows[-1]["ok"]:
            click.echo(f"{port.name}: {rows[-1]['found']}, {rows[-1]['at']}", err=True)
    show(
        "Ported models",
        [{**row, "ok": "yes" if row["ok"] else "NO"} for row in rows],
        save_as="ports" if save else None,
    )
    show("Totals", totals(rows), save_as="ports-totals" if save else None)


def examined(port: Port) -> Row:
    """A port's row: expected and found; a failure is a wrong verdict."""
    began = time.perf_counter()
    try:
        found = compared(port.build())
    except Exception as error:  # whatever a user's model sets off is a result here
        found = Found(verdict=f"{FAILED}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return {
        "port": port.name,
        "expected": port.verdict,
        "found": found.verdict,
        "at, expected": _written(port.place, port.step) if port.verdict != CLEAN else "none",
        "at": _written(found.places, (found.step,)) if found.places != ("none",) else "none",
        "verdict right": verdict_right(port, found),
        "place right": place_right(port, found),
        "ok": verdict_right(port, found) and place_right(port, found),
        "seconds": time.perf_counter() - began,
    }


def compared(pair: Pair) -> Found:
    compare: Any = harness.compare  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the ports' own mistakes warn: a target that broadcasts, a clipped logit
        result = compare(pair.reference, pair.candidate, pair.x, pair.y, steps=pair.steps, batch_size=pair.batch_size)
    return found_in(result)


def found_in(result: Any) -> Found:
    """Reads a comparison's result: the one place that knows its names."""
    first = getattr(result, "first", None)
    if first is None:
        return Found(verdict=str(result.verdict))
    names = (first.place, getattr(first, "candidate_place", None))
    return Found(verdict=str(result.verdict), places=tuple(str(n) for n in names if n), step=int(first.step))


def verdict_right(port: Port, found: Found) -> bool:
    return found.verdict == port.verdict or (port.verdict == CLEAN and found.verdict == "identical")


def place_right(port: Port, found: Found) -> bool:
    """Names may stand below a model's own: `net/fc1` is found where `fc1` is expected."""
    if found.verdict.startswith(FAILED):
        return False
    if port.verdict == CLEAN:
        return found.places == ("none",)
    return found.step in port.step and any(_same(place, wanted) for place in found.places for wanted in port.place)


def _same(found: str, wanted: str) -> bool:
    kind, _, name = wanted.partition(":")
    below = (f"{kind}:*/{name}", f"{kind}:*.{name}") if name else ()
    return any(fnmatchcase(found, pattern) for pattern in (wanted, *below))


def _written(places: Any, steps: Any) -> str:
    return f"{' '.join(sorted(places))} @{','.join(map(str, sorted(steps)))}"


def totals(rows: Sequence[Row]) -> list[Row]:
    """By family and expected verdict, and together."""
    groups = [(*row["port"].split("/")[:1], row["expected"]) for row in rows]
    table = [
        _total(
            f"{family}, {verdict}", [row for row, group in zip(rows, groups, strict=True) if group == (family, verdict)]
        )
        for family, verdict in Counter(groups)
    ]
    table += [
        _total(f"all, {verdict}", [row for row in rows if row["expected"] == verdict])
        for verdict in Counter(row["expected"] for row in rows)
    ]
    return [*table, _total("all", rows)]


def _total(group: str, rows: Sequence[Row]) -> Row:
    return {
        "group": group,
        "ports": len(rows),
        "verdict right": sum(row["verdict right"] for row in rows),
        "first divergence right": sum(row["place right"] for row in rows),
        "both right": sum(row["ok"] for row in rows),
    }


if __name__ == "__main__":
    main()
