"""A result as the small piece of HTML that a notebook shows: the answer, where, why, and the table of verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from harness.report import tables
from harness.report.templates import render

ROWS = 20


def as_fragment(header: Mapping[str, Any]) -> str:
    """HTML of a header; needs no style sheet."""
    return render("fragment.html.j2", tables=tables, header=header, most=ROWS)


def as_told(words: str) -> str:
    """HTML of what a result says in words: its first line is the answer."""
    answer, _, rest = words.partition("\n")
    return Markup("<div><p><strong>{}</strong></p><pre>{}</pre></div>").format(answer, rest)
