"""A run as one self-contained page: no script, nothing fetched, readable on a telephone, in the dark and on paper."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.report import plots, tables
from harness.report.reading import REFERENCE, Run

_MARKS = {"identical": "=", "rounding": "≈", "different": "≠", "undecided": "?"}


def as_page(run: Run) -> str:
    """The whole page as HTML; the same text for the same run folder."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("page.html.j2").render(
        tables=tables, run=run, marks=_MARKS, figures=_figures(run), limit=plots.LIMIT, reference=REFERENCE
    )


def _figures(run: Run) -> dict[str, list[tuple[str, Markup]]]:
    """Drawings by section: (case, svg) in the order of the frames; a framework has one colour on the whole page."""
    named = [entry["framework"] for entry in run.header["summary"]]
    named += [*run.convergence["framework"].unique(), *run.ratios["framework"].unique()]
    frameworks = [name for name in dict.fromkeys(named) if name != REFERENCE]
    draw = {
        "loss": (plots.loss_curves, run.convergence, "Loss by step"),
        "distance": (plots.distance_curves, run.convergence, "Distance to the reference by step"),
        "gradient": (plots.gradient_strip, run.ratios, "Gradient agreement by layer"),
    }
    return {
        section: [
            # matplotlib has escaped the text in its drawing
            (case, Markup(plot(rows, frameworks, prefix=f"{section}-{i}", title=f"{heading}: {case}")))
            for i, (case, rows) in enumerate(frame.groupby("case", observed=True, sort=False))
        ]
        for section, (plot, frame, heading) in draw.items()
    }
