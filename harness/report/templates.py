"""The templates' one environment: everything that is filled in is escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

MARKS = {"identical": "=", "rounding": "≈", "different": "≠", "undecided": "?", "missing": "–"}

_HERE = Path(__file__).parent
_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A template filled in."""
    return _PAGES.get_template(template).render(marks=MARKS, **values)


def render_page(template: str, sheet: str = "", **values: Any) -> str:
    """A whole page: with the style sheet, a further `sheet`, the script, and the hashes by which a content security
    policy allows these two and nothing else."""
    parts: dict[str, Any] = {}
    for name, file, more in (("style", "page.css", sheet), ("script", "page.js", "")):
        text = (_HERE / file).read_text(encoding="utf-8") + more
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        parts |= {name: Markup(text), f"{name}_hash": Markup(f"sha256-{digest}")}
    return render(template, **parts, **values)
