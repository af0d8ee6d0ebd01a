"""How every figure of a report is drawn: looks, axes, thinning, and SVG that is byte-identical for the same frame.

Colours are placeholders that become CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

LIMIT = 30.0
"""K: the ratio up to which rounding explains a difference (calibrated, see the design)."""

POINTS = 200  # a curve on a screen shows no more
WIDTH = 5.0  # inches, 360 SVG units: on a telephone one unit is about one pixel

INK, MUTED, RULE, BAND = "#010101", "#010102", "#010103", "#010104"
SERIES = ("#010110", "#010111", "#010112", "#010113", "#010114", "#010115")
MARKERS = "os^DvpX"  # one more than colours: no two of the first 42 frameworks look the same
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)", BAND: "var(--band)"}
_COLOURS |= {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gradparity",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def drawing(*, height: float) -> Iterator[Figure]:
    """An empty figure; the user's own matplotlib settings are no part of it, and are left alone."""
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # Text stays text: a glyph that the measuring font lacks (an emoji) comes from the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=".*Matplotlib currently does not support .* natively")
        yield Figure(figsize=(WIDTH, height), facecolor="none")


def look(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th series of the page."""
    return SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]


def series(i: int) -> str:
    """The mark of the i-th series' artists (their gid), by which the page's script finds them; -1 is the reference."""
    return f"series-{i}" if i >= 0 else "series-reference"


def short(name: str, length: int = 18) -> str:
    """A name on one line that fits a figure: the middle of a long one is left out."""
    name = " ".join(name.split())
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"


def thin(values: np.ndarray, points: int) -> np.ndarray:
    """At most so many values, evenly spread, the first and last among them."""
    if len(values) <= points:
        return values
    return values[np.linspace(0, len(values) - 1, points).round().astype(int)]


def decades(axis: Axis) -> None:
    """Ticks at powers of ten, few enough to be read."""
    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_major_formatter(FuncFormatter(decade))
    axis.set_minor_locator(NullLocator())


def decade(value: float, _: int = 0) -> str:
    """0.01, 100, 10⁻⁹."""
    exponent = round(np.log10(value)) if value > 0 else 0
    return f"{value:g}" if -2 <= exponent <= 3 else "10" + str(exponent).translate(_RAISED)


def svg(figure: Figure, *, prefix: str, title: str) -> str:
    """The figure as an <svg> element for use inside a page; its ids begin with `prefix`."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)  # the page's own says the same
    text = re.sub(r"<[^<>]*>", lambda tag: _inline(tag[0], prefix), text)
    head, body = re.sub(r">\s+<", "><", text).split(">", maxsplit=1)
    name = f'role="img" aria-labelledby="{prefix}-title"><title id="{prefix}-title">{html.escape(title)}</title>'
    return f"{head} {name}{body}"


def _inline(tag: str, prefix: str) -> str:
    """A tag with its ids unique in the page, its series as classes and its placeholder colours as CSS."""
    tag = re.sub(r' id="series-(\w+)"', r' class="series of-\1"', tag)
    tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)
    return re.sub(r"(?<=: )#0101\w\w", lambda colour: _COLOURS[colour[0]], tag)


def styles_as_classes(page: str) -> tuple[str, str]:
    """SVG whose style attributes have become classes, and the style sheet of these: a strict policy allows a sheet by
    its hash, but no attributes."""
    sheet: dict[str, str] = {}

    def classed(tag: re.Match[str]) -> str:
        found = re.search(r' style="([^"]*)"', tag[0])
        if not found:
            return tag[0]
        name = "m" + hashlib.sha256(found[1].encode()).hexdigest()[:6]
        sheet[name] = found[1]
        rest = tag[0].replace(found[0], "")
        if ' class="' in rest:
            return rest.replace(' class="', f' class="{name} ', 1)
        return re.sub(r"(/?>)$", rf' class="{name}"\1', rest)

    text = re.sub(r"<[^<>]*>", classed, page)
    return text, "".join(f".{name}{{{html.unescape(sheet[name])}}}\n" for name in sorted(sheet))
