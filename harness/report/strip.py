"""The network as a strip of cells, one for each quantity in the order of the computation, coloured by its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from harness.report.drawing import short
from harness.report.reading import Run

CHAINS = {
    "forward": ("activation",),
    "loss": ("loss",),
    "backward": ("activation_gradient", "gradient"),
    "update": ("update",),
    "state": ("slot", "buffer"),
}
"""Kinds of the tidy frame by the part of a step in which they appear; parameters are the sums of their updates."""

CELLS = 24  # a longer chain is drawn as stretches of one verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """verdict: identical, rounding, undecided, different or missing. first: the divergence starts here."""

    name: str
    verdict: str
    because: str
    first: bool
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One case and framework. step: which one the cells show, None for the worst of all steps."""

    entry: Mapping[str, Any]
    step: int | None
    chains: Mapping[str, tuple[Cell, ...]]


def strips(run: Run) -> list[Strip]:
    """A strip for each row of the summary, in its order."""
    found = dict(iter(run.quantities.groupby(["case", "framework"], sort=False)))
    drawn = [_strip(run, entry, found.get((entry["case"], entry["framework"]))) for entry in run.header["summary"]]
    return [strip for strip in drawn if strip.chains]


def _strip(run: Run, entry: Mapping[str, Any], rows: Any) -> Strip:
    pair = entry["case"], entry["framework"]
    stated = entry.get("first_divergence") or run.divergences.get(pair) or {}
    at_start = run.starts.get(pair, {})
    chains: dict[str, tuple[Cell, ...]] = {}
    for chain, kinds in CHAINS.items():
        of = [] if rows is None else rows[rows["kind"].isin(kinds)].itertuples()
        cells = [
            Cell(
                name=row.name,
                verdict=at_start.get((row.kind, row.name)) or (row.verdict if row.bad else "missing"),
                because=row.because,
                first=stated.get("name") == row.name,
            )
            for row in of
            if not at_start or (row.kind, row.name) in at_start
        ]
        if cells:
            chains[chain] = tuple(cells if len(cells) <= CELLS else _stretches(cells))
    return Strip(entry=entry, step=stated.get("step") if at_start else None, chains=chains)


def _stretches(cells: list[Cell]) -> list[Cell]:
    """Neighbours of one verdict as one cell; where the divergence starts stays on its own."""
    joined = []
    for (verdict, first), group in groupby(cells, lambda cell: (cell.verdict, cell.first)):
        same = list(group)
        name = short(same[0].name) if len(same) == 1 else f"{short(same[0].name)} … {short(same[-1].name)}"
        joined.append(Cell(name=name, verdict=verdict, because=same[0].because, first=first, count=len(same)))
    if len(joined) <= 4 * CELLS:
        return joined
    return [*joined[: 4 * CELLS], Cell(name="…", verdict="missing", because="", first=False, count=len(joined))]
