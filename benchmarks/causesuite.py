"""Ported models with a planted cause compared: is the cause named, and is nothing else asserted?

python -m benchmarks.causesuite [--only NAME] [--sample N --seed S] [--combined N] [--save]. A planted id is named where
it is a finding's id ("as id") or one of its `same`. A finding that is proven and is no planted cause is wrong. A clean
port has no causes. Seconds are those that the search for causes takes beyond the comparison.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import click
import numpy as np

import harness
from benchmarks.ports import FAMILIES, Pair, ports
from benchmarks.ports.rows_combined import combinations
from benchmarks.tables import Row, show
from harness.finding import Finding

MISSED = "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A pair and the ids of the causes in it, none for a clean port."""

    name: str
    build: Callable[[], Pair]
    causes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a comparison said of causes. seconds: in the search for them; error: what was raised instead."""

    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    error: str = ""


@click.command(help=__doc__)
@click.option("--only", default="", help="Ports whose name contains this.")
@click.option("--sample", type=int, help="That many ports, drawn at random.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--combined", type=int, default=0, help="That many models with two or three causes at once, and no ports."
)
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-causes.md too.")
def main(only: str, sample: int | None, seed: int, combined: int, save: bool) -> None:
    chosen = [one for one in (several(combined, seed) if combined else single()) if only in one.name]
    if not chosen:
        raise click.BadParameter(
            f"no port's name contains {only!r}; families: {', '.join(FAMILIES)}", param_hint="--only"
        )
    if sample is not None and sample < len(chosen):
        chosen = [chosen[i] for i in sorted(np.random.default_rng(seed).choice(len(chosen), sample, replace=False))]
    rows = []
    for one in chosen:
        rows.append(examined(one))
        if not rows[-1]["ok"]:
            click.echo("{port}: planted {planted}; {found}; wrong: {wrong}".format(**rows[-1]), err=True)
    name = "causes-combined" if combined else "causes"
    written = [{**row, "ok": "yes" if row["ok"] else "NO"} for row in rows]
    show("Planted causes", written, save_as=name if save else None)
    show("Totals", totals(rows), save_as=f"{name}-totals" if save else None)


def single(families: Iterable[str] = FAMILIES) -> list[Planted]:
    """Every port of some families, with its one cause or none."""
    return [
        Planted(name=port.name, build=port.build, causes=frozenset({port.cause} - {""})) for port in ports(families)
    ]


def several(count: int, seed: int) -> list[Planted]:
    """Models with two or three causes at once."""
    return [Planted(name=one.name, build=one.build, causes=one.causes) for one in combinations(count, seed)]


def examined(one: Planted) -> Row:
    """A row: what was planted, what was found, with which status; a failure finds nothing."""
    said = told(one.build)
    missed = sorted(id for id in one.causes if not any(_is(finding, id) for finding in said.findings))
    wrong = sorted(
        finding.id
        for finding in said.findings
        if finding.status == "proven" and not any(_is(finding, id) for id in one.causes)
    )
    found = [f"{finding.id or '?'} {finding.status}" for finding in said.findings]
    return {
        "port": one.name,
        "planted": ", ".join(sorted(one.causes)) or "none",
        "found": said.error or ", ".join(found) or "none",
        "status": ", ".join(_status(said.findings, id) for id in sorted(one.causes)) or "none",
        "wrong": ", ".join(wrong) or "none",
        "named": not missed and not said.error,
        "as id": one.causes <= {finding.id for finding in said.findings} and not said.error,
        "ok": not (missed or wrong or said.error or (said.findings and not one.causes)),
        "seconds": said.seconds,
    }


def _is(finding: Finding, id: str) -> bool:
    return id == finding.id or id in finding.same


def _status(findings: Iterable[Finding], id: str) -> str:
    """The surest status with which an id is named."""
    named = [finding.status for finding in findings if _is(finding, id)]
    return min(named, key=("proven", "likely", "unknown").index, default=MISSED)


def told(build: Callable[[], Pair]) -> Told:
    """A pair compared; whatever a user's model sets off is a result here."""
    with _timed() as spent, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the ports' own mistakes warn: a target that broadcasts, a clipped logit
        try:
            pair = build()
            compare: Any = harness.compare  # pyright: ignore[reportAttributeAccessIssue]
            result = compare(
                pair.reference, pair.candidate, pair.x, pair.y, steps=pair.steps, batch_size=pair.batch_size
            )
        except Exception as error:
            return Told(seconds=sum(spent), error=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return Told(findings=result.causes, seconds=sum(spent))


@contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds of each search for causes within."""
    from harness import tracking

    spent: list[float] = []
    search = tracking.findings

    def timed(*given: Any, **named: Any) -> list[Finding]:
        began = time.perf_counter()
        try:
            return search(*given, **named)
        finally:
            spent.append(time.perf_counter() - began)

    with patch.object(tracking, "findings", timed):
        yield spent


def totals(rows: Sequence[Row]) -> list[Row]:
    """By family, of clean and planted ones, and together."""
    kinds = {"planted": [row for row in rows if row["planted"] != "none"]}
    kinds["clean"] = [row for row in rows if row["planted"] == "none"]
    table = []
    for kind, of in kinds.items():
        families = dict.fromkeys(row["port"].partition("/")[0] for row in of)
        table += [
            _total(f"{name}, {kind}", [r for r in of if r["port"].partition("/")[0] == name]) for name in families
        ]
        table += [_total(f"all, {kind}", of)] if of else []
    return table


def _total(group: str, rows: Sequence[Row]) -> Row:
    statuses = [status for row in rows for status in row["status"].split(", ")]
    return {
        "group": group,
        "ports": len(rows),
        "right": sum(row["ok"] for row in rows),
        "named": sum(row["named"] for row in rows),
        "as id": sum(row["as id"] for row in rows),
        "proven": statuses.count("proven"),
        "likely": statuses.count("likely"),
        "missed": statuses.count(MISSED),
        "wrong proven": sum(row["wrong"] != "none" for row in rows),
        "median seconds": float(np.median([row["seconds"] for row in rows])),
        "most seconds": max(row["seconds"] for row in rows),
    }


if __name__ == "__main__":
    main()
