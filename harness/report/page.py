"""A run as one self-contained page: nothing fetched; for telephones, in the dark, on paper and without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from harness.report import background, columns, curves, maps, marks, strip, tables
from harness.report.drawing import LIMIT, styles_as_classes
from harness.report.reading import Frame, Run
from harness.report.templates import render_page

GRADIENTS = ("activation_gradient", "gradient")
MAPS = 12
CASES = 8  # with figures of their own: the worst ones, so that a run of all cases stays a page

Figures = Mapping[str, Sequence[tuple[str, Markup]]]


def as_page(run: Run) -> str:
    """The whole page as HTML; the same text for the same run folder."""
    figures, sheet = _figures(run)
    return render_page(
        "page.html.j2",
        sheet,
        run=run,
        tables=tables,
        background=background,
        columns=columns.FRAME,
        strips=strip.strips(run),
        figures=figures,
        proofs=dict(figures["proof"]),
        frameworks=_frameworks(run),
        drawn=len(_drawn(run)),
        limit=LIMIT,
    )


def _frameworks(run: Run) -> list[str]:
    """In the order of the frames; a framework has one colour on the whole page."""
    named = [entry["framework"] for entry in run.header["summary"]]
    named += [*run.convergence["framework"].unique(), *run.quantities["framework"].unique()]
    return [name for name in dict.fromkeys(named) if name != run.reference]


def _drawn(run: Run) -> list[str]:
    """The cases that get figures: all of them, or the worst."""
    cases = list(dict.fromkeys([*run.convergence["case"], *run.quantities["case"]]))
    worst = {entry["case"]: tables.VERDICTS.index(entry["verdict"]) for entry in reversed(run.header["summary"])}
    for entry in run.header["summary"]:
        worst[entry["case"]] = min(worst[entry["case"]], tables.VERDICTS.index(entry["verdict"]))
    chosen = sorted(cases, key=lambda case: worst.get(case, len(tables.VERDICTS)))[:CASES]
    return [case for case in cases if case in chosen]


def _figures(run: Run) -> tuple[Figures, str]:
    """Drawings by section, (caption, svg), and their style sheet."""
    drawn = _drawn(run)
    shown = run.quantities
    figures: dict[str, list[tuple[str, str]]] = {}
    frameworks = _frameworks(run)
    compare: dict[str, Any] = {"reference": run.reference}
    loss: dict[str, Any] = {**compare, "of": _loss_of(run)}
    sections = {
        "loss": (partial(curves.loss_curves, x="step", **loss), run.convergence, "Loss by step"),
        "time": (partial(curves.loss_curves, x="seconds", **loss), _timed(run.convergence), "Loss by time"),
        "distance": (curves.distance_curves, run.convergence, "Distance to the reference by step"),
        "size": (partial(marks.sizes, **compare), shown[shown["kind"] == "gradient"], "Size of the gradients"),
        "gradient": (marks.agreement, shown[shown["kind"].isin(GRADIENTS)], "Gradient agreement by layer"),
        "state": (marks.agreement, shown[shown["kind"].isin(["slot", "buffer"])], "Agreement of the state"),
    }
    for section, (plot, frame, heading) in sections.items():
        found = _by_case(frame, drawn)
        figures[section] = [
            (case, plot(rows, frameworks, prefix=f"{section}-{i}", title=f"{heading}: {case}"))
            for i, (case, rows) in enumerate(found)
        ]
    modes = list(_modes(run))
    figures["modes"], figures["modes more"] = modes[:2], modes[2:]  # the reference's, and the frameworks'
    maps_of = list(_heat(run))
    figures["heat"], figures["heat more"] = maps_of[:3], maps_of[3:MAPS]
    figures["landscape"] = list(_landscapes(run, frameworks))
    figures["proof"] = [
        (str(i), marks.proof(cause, prefix=f"proof-{i}", title=f"The difference before and after {cause['id']}"))
        for i, cause in enumerate(tables.causes(run.header))
        if cause.get("before64") is not None
    ]
    sheets: dict[str, None] = {}
    ready: dict[str, list[tuple[str, Markup]]] = {}
    for section, pairs in figures.items():
        ready[section] = []
        for caption, svg in pairs:  # matplotlib has escaped the text in its drawing
            text, sheet = styles_as_classes(svg)
            sheets |= dict.fromkeys(sheet.splitlines())
            ready[section].append((caption, Markup(text)))
    return ready, "\n".join(sorted(sheets)) + "\n"


def _by_case(frame: Frame, drawn: list[str]) -> Iterable[tuple[str, Frame]]:
    return [(case, rows) for case, rows in frame.groupby("case", observed=True, sort=False) if case in drawn]


def _timed(convergence: Frame) -> Frame:
    return convergence[convergence["seconds"].notna()]


def _loss_of(run: Run) -> str:
    return "of the step's batch" if run.two_models else "on all training data"


def _modes(run: Run) -> Iterable[tuple[str, str]]:
    """For cases that differ in nothing but the batching: the modes against each other, for every framework."""
    same: dict[str, list[str]] = {}
    for name, case in run.header["cases"].items():
        same.setdefault(repr([case.get(key) for key in ("network", "loss", "optimizer", "data")]), []).append(name)
    for k, names in enumerate(same.values()):
        modes = [(name, run.header["cases"][name]["mode"]) for name in names]
        if len({mode for _, mode in modes}) < 2:
            continue
        of = run.convergence[run.convergence["case"].isin(names)]
        for i, (framework, rows) in enumerate(of.groupby("framework", sort=False)):
            for x, words in (("epoch", "by epoch"), ("seconds", "by time")):
                drawable = rows[(rows["step"] > 0) & (rows[x] > 0) & np.isfinite(rows["loss"])]
                if drawable["case"].nunique() > 1:
                    title = f"{framework}, {words}"
                    prefix = f"modes-{k}-{i}-{x}"
                    yield (
                        title,
                        curves.mode_curves(rows, modes, x=x, of=_loss_of(run), prefix=prefix, title=f"Loss: {title}"),
                    )


def _heat(run: Run) -> Iterable[tuple[str, str]]:
    for i, of in enumerate(run.header.get("maps", ())):
        if of["array"] in run.arrays:
            title = f"{of['name']} at step {of['step']}, {of['framework']}, {of['case']}"
            yield title, maps.heat(run.arrays[of["array"]], of, prefix=f"heat-{i}", title=f"Where it differs: {title}")


def _landscapes(run: Run, frameworks: list[str]) -> Iterable[tuple[str, str]]:
    for i, (name, case) in enumerate(run.header["cases"].items()):
        stored = case.get("landscape")
        if not stored:
            continue
        paths = {framework: run.arrays[key] for framework, key in stored["paths"].items() if key in run.arrays}
        end = next((e["end_point"] for e in run.header["summary"] if e["case"] == name), "")
        if paths:
            options: dict[str, Any] = {"reference": run.reference, "prefix": f"landscape-{i}"}
            ends = (end or "").split(", ")
            yield (
                name,
                maps.landscape(
                    stored["terms"], paths, ends, frameworks, title=f"Paths of descent on {name}", **options
                ),
            )
