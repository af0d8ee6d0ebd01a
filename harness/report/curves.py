"""Curves of a report against steps, epochs and time: the losses, and the distance of the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.report.drawing import (
    BAND,
    LIMIT,
    MUTED,
    POINTS,
    decades,
    drawing,
    look,
    series,
    short,
    svg,
    thin,
)
from harness.report.reading import Frame

X_LABELS = {
    "step": "step (updates)",
    "epoch": "epoch (passes over the data)",
    "seconds": "time of the float32 run (s)",
    "milliseconds": "time of the float32 run (ms)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One curve, thinned; `index` chooses its look, -1 the reference's. total, broken: before thinning."""

    label: str
    index: int
    x: np.ndarray
    y: np.ndarray
    total: int
    broken: float | None


def loss_curves(
    rows: Frame, frameworks: Sequence[str], *, reference: str, x: str, of: str, prefix: str, title: str
) -> str:
    """Loss against steps or time; the reference is a broad band, the frameworks dashes that take turns along one line.

    rows: (framework, step, epoch, seconds, loss) of one case. of: what the loss is of. Returns an <svg> element.
    """
    rows, x = _readable(rows, x)
    curves = [_curve(rows, name, "loss", name, i - 1, x) for i, name in enumerate([reference, *frameworks])]
    with _curves(curves, x, ylabel=f"loss, {of}", epochs=_epochs(rows) if x == "step" else 0.0) as (figure, axes):
        for curve in curves:
            if curve.index < 0:
                band: dict[str, Any] = {"alpha": 0.35, "linewidth": 6, "solid_capstyle": "round", "gid": series(-1)}
                _ = axes.plot(curve.x, curve.y, color=MUTED, **band)
            else:
                dashes = (4.0 * curve.index, (4, 4 * (len(frameworks) - 1))) if len(frameworks) > 1 else "solid"
                _draw(axes, curve, among=len(curves), markers=8, linewidth=2, linestyle=dashes)
        _scale(axes, curves)
        _label(axes, curves)
        return svg(figure, prefix=prefix, title=title)


def mode_curves(rows: Frame, cases: Sequence[tuple[str, str]], *, x: str, of: str, prefix: str, title: str) -> str:
    """Loss of one framework in each batching mode against epochs or time, both on a log axis, the start left out.

    rows: (case, epoch, seconds, loss) of one framework. cases: (case, label).
    """
    rows, x = _readable(rows[(rows["step"] > 0) & (rows[x] > 0)].assign(framework=rows["case"]), x)
    curves = [_curve(rows, case, "loss", label, i, x) for i, (case, label) in enumerate(cases)]
    with _curves(curves, x, ylabel=f"loss, {of}") as (figure, axes):
        for curve in curves:
            style = ("solid", (0, (5, 2)), (0, (1, 1.5)))[curve.index % 3]
            _draw(axes, curve, among=len(curves), markers=6, linewidth=1.8, linestyle=style)
        if len(rows):
            axes.set_xscale("log")
            decades(axes.xaxis)
        _scale(axes, curves)
        _label(axes, curves)
        return svg(figure, prefix=prefix, title=title)


def distance_curves(rows: Frame, frameworks: Sequence[str], *, prefix: str, title: str) -> str:
    """Distance of the parameters to the reference's by step on a log axis: float32 solid, float64 dashed.

    rows: (framework, step, distance32, distance64, budget) of one case. Distances of 0 are dots on a floor line below
    the rest; the band is what rounding explains in float64: up to LIMIT times the largest budget.
    """
    curves = [
        _curve(rows, name, f"distance{bits}", f"{name} {bits}", i, "step")
        for bits in (32, 64)
        for i, name in enumerate(frameworks)
    ]
    distances = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves] or [np.empty(0)])
    budget = LIMIT * rows.groupby("step")["budget"].max().where(lambda most: most > 0).dropna()
    budget = budget[np.isfinite(budget)]
    lowest = min(distances[distances > 0].min() if (distances > 0).any() else 1e-16, budget.min() if len(budget) else 1)
    floor = 10.0 ** (np.floor(np.log10(lowest)) - 1)
    curves = [dataclasses.replace(curve, y=np.maximum(curve.y, floor)) for curve in curves]
    with _curves(curves, "step", ylabel="distance of parameters / largest parameter") as (figure, axes):
        if len(budget):
            steps, most = (thin(values, POINTS // 4) for values in (budget.index.to_numpy(float), budget.to_numpy()))
            _ = axes.fill_between(steps, floor / 3, most, color=BAND, linewidth=0, zorder=0)
            level = axes.get_yaxis_transform()
            _ = axes.text(0.97, floor, "rounding explains", color=MUTED, transform=level, va="bottom", ha="right")
        for curve in curves:
            style = "solid" if curve.label.endswith("32") else (0, (3, 1.5))
            above = dataclasses.replace(curve, y=np.where(curve.y > floor, curve.y, np.nan))
            _draw(axes, above, among=len(frameworks), markers=4, linewidth=1.4, linestyle=style)
            zeros = thin(curve.x[curve.y == floor], 25)
            dots: dict[str, Any] = {"linestyle": "", "marker": ".", "gid": series(curve.index)}
            _ = axes.plot(zeros, np.full(len(zeros), floor), color=look(curve.index)[0], **dots)
        axes.set(yscale="log", ylim=(floor / 3, 3 * max(floor * 100, distances.max(initial=0.0))))
        decades(axes.yaxis)
        if (distances == 0).any():
            _ = axes.axhline(floor, color=MUTED, linewidth=1, linestyle=":", zorder=0)
            _ = axes.text(0.04, floor, "0, exactly", color=MUTED, transform=axes.get_yaxis_transform(), va="bottom")
        _label(axes, curves)
        return svg(figure, prefix=prefix, title=title)


def _readable(rows: Frame, x: str) -> tuple[Frame, str]:
    """Short times in milliseconds."""
    if x != "seconds" or not rows["seconds"].max() < 1:
        return rows, x
    return rows.assign(milliseconds=1e3 * rows["seconds"]), "milliseconds"


def _curve(rows: Frame, framework: str, column: str, label: str, index: int, x: str) -> Curve:
    of = rows[rows["framework"] == framework]
    at, y = of[x].to_numpy(float), of[column].to_numpy(float)
    finite = np.isfinite(y)
    broken = None if finite.all() else float(of["step"].to_numpy(float)[~finite][0])
    y = np.where(finite, y, np.nan)
    return Curve(label=label, index=index, x=thin(at, POINTS), y=thin(y, POINTS), total=len(at), broken=broken)


@contextmanager
def _curves(curves: list[Curve], x: str, *, ylabel: str, epochs: float = 0.0) -> Iterator[tuple[Figure, Axes]]:
    """A figure with axes, tall enough for the remarks on what it leaves out. epochs: for each step, a second axis."""
    most = max((curve.total for curve in curves), default=0)
    remarks = [f"{POINTS} of {most:,} points drawn"] if most > POINTS else []
    for step in dict.fromkeys(curve.broken for curve in curves if curve.broken is not None):
        labels = [curve.label for curve in curves if curve.broken == step]
        who = short(labels[0], 30) if len(labels) == 1 else f"{len(labels)} of {len(curves)} curves"
        remarks.append(f"{who}: not finite from step {step:,.0f}")
    above = 0.16 * len(remarks) + (0.42 if epochs else 0)
    height = 3.3 + above
    with drawing(height=height) as figure:
        axes = figure.add_axes((0.17, 0.5 / height, 0.53, 2.5 / height))
        axes.set(xlabel=X_LABELS[x])
        _ = figure.text(0.01, 1 - 0.02 / height, ylabel, va="top")  # level, and never in the way of long tick labels
        said = "\n".join(short(remark, 60) for remark in remarks)
        _ = figure.text(0.01, 1 - 0.2 / height, said, color=MUTED, fontsize=9, va="top")
        axes.grid(axis="y", linewidth=0.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0)
        whole = x == "step"
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=whole))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if whole else f"{value:g}"))
        if epochs:
            both: Any = (lambda step: step * epochs, lambda epoch: epoch / epochs)
            top = axes.secondary_xaxis("top", functions=both)
            top.set_xlabel("epoch (passes over the data)", color=MUTED, fontsize=9)
            top.tick_params(labelsize=9, labelcolor=MUTED, color=MUTED)
            top.xaxis.set_major_locator(MaxNLocator(nbins=4))
            top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        yield figure, axes


def _epochs(rows: Frame) -> float:
    """How many epochs a step is; 0 where that is not known."""
    steps, epochs = float(rows["step"].max()), float(rows["epoch"].max())
    return epochs / steps if steps > 0 and epochs > 0 else 0.0


def _scale(axes: Axes, curves: list[Curve]) -> None:
    """A log axis for losses that fall far."""
    losses = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves] or [np.empty(0)])
    if len(losses) and losses.min() > 0 and losses.max() > 100 * losses.min():
        axes.set_yscale("log")
        decades(axes.yaxis)
    elif len(losses) and losses.max() > losses.min() and losses.max() < 1e-3:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}" if value else "0"))


def _draw(axes: Axes, curve: Curve, *, among: int, markers: int, linewidth: float, linestyle: Any) -> None:
    """A curve whose markers stand between those of the others, so that coinciding curves can be told apart."""
    colour, marker = look(curve.index)
    spacing = max(1, len(curve.x) // markers)
    _ = axes.plot(
        *(curve.x, curve.y), color=colour, linewidth=linewidth, linestyle=linestyle, marker=marker, markersize=4,
        markevery=((curve.index + 1) * spacing // (among + 1), spacing), gid=series(curve.index),
    )  # fmt: skip


def _label(axes: Axes, curves: list[Curve]) -> None:
    """Names at the curves' ends, pushed apart."""
    curves = [curve for curve in curves if np.isfinite(curve.y).any()]
    axes.autoscale_view()  # now, not when drawn: the labels' places depend on it
    ends = [_end(axes, curve) for curve in curves]
    heights = _spread([y for _, y in ends], gap=0.08)
    for curve, (x, y), height in zip(curves, ends, heights, strict=True):
        colour, marker = (MUTED, "") if curve.index < 0 else look(curve.index)
        outside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "gid": series(curve.index)}
        _ = axes.plot([x, 1.07], [y, height], linewidth=0.7, color=colour, **outside)
        _ = axes.plot([1.07], [height], marker=marker, markersize=4, color=colour, **outside)
        _ = axes.text(1.1, height, short(curve.label, 14), va="center", fontsize=9.5, **outside)


def _end(axes: Axes, curve: Curve) -> tuple[float, float]:
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
