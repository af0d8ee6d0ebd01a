"""The figures of a report: frames in, SVG elements out, byte-identical for the same frame.

Colours are placeholders that become CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import dataclasses
import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from harness.report.reading import REFERENCE, Frame

LIMIT = 30.0
"""K: the ratio up to which rounding explains a difference (calibrated, see the design)."""

POINTS = 200  # a curve on a screen shows no more
ROWS = 40
WIDTH = 5.0  # inches, 360 SVG units: on a telephone one unit is about one pixel

INK, MUTED, RULE = "#010101", "#010102", "#010103"
SERIES = ("#010110", "#010111", "#010112", "#010113", "#010114", "#010115")
MARKERS = "os^DvpX"  # one more than colours: no two of the first 42 frameworks look the same
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)"}
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


def loss_curves(rows: Frame, frameworks: Sequence[str], *, prefix: str, title: str) -> str:
    """Loss against steps; the reference is a broad band, the frameworks dashes that take turns along one line.

    rows: (framework, step, loss) of one case. Returns an <svg> element whose ids begin with `prefix`.
    """
    curves = [_curve(rows, name, "loss", name, i - 1) for i, name in enumerate([REFERENCE, *frameworks])]
    with _curves(curves, ylabel="loss on all training data") as (figure, axes):
        for curve in curves:
            if curve.label == REFERENCE:
                _ = axes.plot(curve.x, curve.y, color=MUTED, alpha=0.35, linewidth=6, solid_capstyle="round")
            else:
                dashes = (4.0 * curve.index, (4, 4 * (len(frameworks) - 1))) if len(frameworks) > 1 else "solid"
                _draw(axes, curve, among=len(curves), markers=8, linewidth=2, linestyle=dashes)
        losses = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
        if len(losses) and losses.min() > 0 and losses.max() > 100 * losses.min():
            axes.set_yscale("log")
            _log(axes.yaxis)
        _label(axes, curves)
        return _svg(figure, prefix=prefix, title=title)


def distance_curves(rows: Frame, frameworks: Sequence[str], *, prefix: str, title: str) -> str:
    """Distance of the parameters to the reference's by step on a log axis: float32 solid, float64 dashed.

    rows: (framework, step, distance32, distance64) of one case. Distances of 0 are dots on a floor line below the rest.
    """
    curves = [
        _curve(rows, name, f"distance{bits}", f"{name} {bits}", i)
        for bits in (32, 64)
        for i, name in enumerate(frameworks)
    ]
    distances = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves] or [np.empty(0)])
    lowest = distances[distances > 0].min() if (distances > 0).any() else 1e-16
    floor = 10.0 ** (np.floor(np.log10(lowest)) - 1)
    curves = [dataclasses.replace(curve, y=np.maximum(curve.y, floor)) for curve in curves]
    with _curves(curves, ylabel="distance of parameters, relative") as (figure, axes):
        for curve in curves:
            style = "solid" if curve.label.endswith("32") else (0, (3, 1.5))
            above = dataclasses.replace(curve, y=np.where(curve.y > floor, curve.y, np.nan))
            _draw(axes, above, among=len(frameworks), markers=4, linewidth=1.4, linestyle=style)
            zeros = _thin(curve.x[curve.y == floor], 25)
            _ = axes.plot(zeros, np.full(len(zeros), floor), color=_look(curve.index)[0], linestyle="", marker=".")
        axes.set(yscale="log", ylim=(floor / 3, 3 * max(floor * 100, distances.max(initial=0.0))))
        _log(axes.yaxis)
        if (distances == 0).any():
            _ = axes.axhline(floor, color=MUTED, linewidth=1, linestyle=":", zorder=0)
            _ = axes.text(0.04, floor, "0, exactly", color=MUTED, transform=axes.get_yaxis_transform(), va="bottom")
        _label(axes, curves)
        return _svg(figure, prefix=prefix, title=title)


def gradient_strip(rows: Frame, frameworks: Sequence[str], *, prefix: str, title: str) -> str:
    """One line for each gradient in backward order: d64 / budget from the median step to the worst, by framework.

    rows: (framework, name, median, worst, different) of one case. Beyond ROWS gradients only the worst are drawn.
    A ratio of 0 lies on the left edge, one that is not finite on the right edge; hollow: beyond K, yet not
    judged different.
    """
    worst = rows.groupby("name", observed=True, sort=False)["worst"].max()
    names = list(worst[worst.rank(ascending=False, method="first", na_option="bottom") <= ROWS].index)
    rows = rows[rows["name"].isin(names)]
    low, high = _limits(rows[["median", "worst"]].to_numpy())
    labels = [short(name, 14) for name in frameworks]
    columns = max(1, 38 // (4 + max(map(len, labels), default=0)))
    above = 0.4 + 0.2 * -(-len(labels) // columns)
    height = 0.55 + above + 0.085 * len(names) * (2 + len(frameworks))
    with _drawing(height=height) as figure:
        left = 0.05 + 0.017 * max((len(short(name)) for name in names), default=1)
        axes = figure.add_axes((left, 0.55 / height, 0.96 - left, 1 - (0.55 + above) / height))
        axes.set(xlim=(low, high), ylim=(len(names) - 0.5, -0.5), xlabel="d64 / budget64, median step to worst step")
        axes.set_xscale("log")
        _log(axes.xaxis)
        lines = {name: k for k, name in enumerate(names)}
        for i, name in enumerate(frameworks):
            of = rows[rows["framework"] == name]
            y = of["name"].map(lines).to_numpy(float) + (i - (len(frameworks) - 1) / 2) * 0.8 / len(frameworks)
            _spans(axes, of, y, _look(i), labels[i])
        for k in range(1, len(names)):
            _ = axes.axhline(k - 0.5, color=RULE, linewidth=0.8)
        _ = axes.axvline(LIMIT, color=INK, linewidth=1, linestyle="--")
        _ = axes.annotate(
            f"K = {LIMIT:g}", (LIMIT, 1), (3, 2), xycoords=axes.get_xaxis_transform(), textcoords="offset points"
        )
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.tick_params(axis="y", length=0)
        if len(worst) > len(names):
            _ = figure.text(0.01, 0.01, f"the {ROWS} worst of {len(worst)}", color=MUTED, va="bottom", fontsize=9)
        if frameworks:
            _ = figure.legend(loc="upper center", ncols=columns, frameon=False, handletextpad=0.1, columnspacing=1)
        return _svg(figure, prefix=prefix, title=title)


def _spans(axes: Axes, of: Frame, y: np.ndarray, look: tuple[str, str], label: str) -> None:
    """One framework's lines from median to worst, its marker there; what lies outside the axes goes to their edge."""
    colour, marker = look
    marks: dict[str, Any] = {"color": colour, "linestyle": "", "marker": marker, "markersize": 4.5, "clip_on": False}
    start, end = (np.clip(of[column].to_numpy(), *axes.get_xlim()) for column in ("median", "worst"))
    hollow = (of["worst"] > LIMIT).to_numpy() & ~of["different"].to_numpy()
    _ = axes.hlines(y, start, end, color=colour, linewidth=1.5)
    _ = axes.plot(end[~hollow], y[~hollow], label=label, **marks)
    _ = axes.plot(end[hollow], y[hollow], markerfacecolor="none", **marks)


def short(name: str, length: int = 18) -> str:
    """A name on one line that fits a figure: the middle of a long one is left out."""
    name = " ".join(name.split())
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """One curve, thinned; `index` chooses its look, -1 the reference's. total, broken: before thinning."""

    label: str
    index: int
    x: np.ndarray
    y: np.ndarray
    total: int
    broken: float | None


def _curve(rows: Frame, framework: str, column: str, label: str, index: int) -> _Curve:
    of = rows[rows["framework"] == framework]
    x, y = of["step"].to_numpy(float), of[column].to_numpy(float)
    finite = np.isfinite(y)
    broken = None if finite.all() else float(x[~finite][0])
    y = np.where(finite, y, np.nan)
    return _Curve(label=label, index=index, x=_thin(x, POINTS), y=_thin(y, POINTS), total=len(x), broken=broken)


def _thin(values: np.ndarray, points: int) -> np.ndarray:
    if len(values) <= points:
        return values
    return values[np.linspace(0, len(values) - 1, points).round().astype(int)]


@contextmanager
def _curves(curves: list[_Curve], *, ylabel: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure with axes against steps, tall enough for the remarks on what it leaves out."""
    most = max((curve.total for curve in curves), default=0)
    remarks = [f"{POINTS} of {most:,} points drawn"] if most > POINTS else []
    remarks += [f"{c.label}: not finite from step {c.broken:,.0f}" for c in curves if c.broken is not None]
    height = 3.3 + 0.16 * len(remarks)
    with _drawing(height=height) as figure:
        axes = figure.add_axes((0.17, 0.5 / height, 0.53, 2.5 / height))
        axes.set(xlabel="step (updates)")
        _ = figure.text(0.01, 1 - 0.02 / height, ylabel, va="top")  # level, and never in the way of long tick labels
        above = "\n".join(short(remark, 60) for remark in remarks)
        _ = figure.text(0.01, 1 - 0.2 / height, above, color=MUTED, fontsize=9, va="top")
        axes.grid(axis="y", linewidth=0.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        yield figure, axes


def _draw(axes: Axes, curve: _Curve, *, among: int, markers: int, linewidth: float, linestyle: Any) -> None:
    """A curve whose markers stand between those of the others, so that coinciding curves can be told apart."""
    colour, marker = _look(curve.index)
    spacing = max(1, len(curve.x) // markers)
    _ = axes.plot(
        *(curve.x, curve.y), color=colour, linewidth=linewidth, linestyle=linestyle, marker=marker, markersize=4,
        markevery=((curve.index + 1) * spacing // (among + 1), spacing),
    )  # fmt: skip


def _label(axes: Axes, curves: list[_Curve]) -> None:
    """Names at the curves' ends, pushed apart."""
    curves = [curve for curve in curves if np.isfinite(curve.y).any()]
    axes.autoscale_view()  # now, not when drawn: the labels' places depend on it
    ends = [_end(axes, curve) for curve in curves]
    heights = _spread([y for _, y in ends], gap=0.08)
    for curve, (x, y), height in zip(curves, ends, heights, strict=True):
        colour, marker = (MUTED, "") if curve.index < 0 else _look(curve.index)
        outside = {"transform": axes.transAxes, "clip_on": False, "color": colour}
        _ = axes.plot([x, 1.07], [y, height], linewidth=0.7, **outside)
        _ = axes.plot([1.07], [height], marker=marker, markersize=4, **outside)
        _ = axes.text(1.1, height, short(curve.label, 14), va="center", transform=axes.transAxes, fontsize=9.5)


def _end(axes: Axes, curve: _Curve) -> tuple[float, float]:
    last = np.flatnonzero(np.isfinite(curve.y))[-1]
    x, y = axes.transAxes.inverted().transform(axes.transData.transform((curve.x[last], curve.y[last])))
    return float(x), float(y)


def _spread(heights: list[float], *, gap: float) -> list[float]:
    """Heights in 0 to 1 moved from the top down until neighbours are `gap` apart, leaving room for those below."""
    placed = [0.0] * len(heights)
    above = max(1.0, gap * (len(heights) - 1)) + gap
    for rank, i in enumerate(sorted(range(len(heights)), key=lambda i: -heights[i])):
        placed[i] = above = min(above - gap, max(heights[i], gap * (len(heights) - 1 - rank)))
    return placed


def _look(i: int) -> tuple[str, str]:
    return SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]


def _limits(ratios: np.ndarray) -> tuple[float, float]:
    """Decades round K and all positive finite ratios, none of which touches an edge."""
    seen = ratios[np.isfinite(ratios) & (ratios > 0)]
    low, high = (seen.min(), seen.max()) if len(seen) else (0.1, 1.0)
    return 10.0 ** (np.ceil(np.log10(min(low, 0.1))) - 1), 10.0 ** (np.floor(np.log10(max(high, 100.0))) + 1)


def _log(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(_decade))
    axis.set_minor_locator(NullLocator())


def _decade(value: float, _: int) -> str:
    exponent = round(np.log10(value))
    return f"{value:g}" if -2 <= exponent <= 3 else "10" + str(exponent).translate(_RAISED)


@contextmanager
def _drawing(*, height: float) -> Iterator[Figure]:
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # Text stays text: a glyph that the measuring font lacks (an emoji) comes from the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=(WIDTH, height), facecolor="none")


def _svg(figure: Figure, *, prefix: str, title: str) -> str:
    """The figure as an <svg> element for use inside a page."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = re.sub(r"<[^<>]*>", lambda tag: _inline(tag[0], prefix), svg[svg.index("<svg") :])
    head, body = re.sub(r">\s+<", "><", svg).split(">", maxsplit=1)
    name = f'role="img" aria-labelledby="{prefix}-title"><title id="{prefix}-title">{html.escape(title)}</title>'
    return f"{head} {name}{body}"


def _inline(tag: str, prefix: str) -> str:
    """A tag with its ids unique in the page and its placeholder colours as CSS."""
    tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)
    return re.sub(r"(?<=: )#0101\w\w", lambda colour: _COLOURS[colour[0]], tag)
