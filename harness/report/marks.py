"""Marks of a report, one line or place for each quantity: how far gradients and slots agree, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from harness.report.drawing import INK, LIMIT, MUTED, RULE, decades, drawing, look, series, short, svg, thin
from harness.report.reading import Frame

ROWS = 40


def agreement(rows: Frame, frameworks: Sequence[str], *, prefix: str, title: str) -> str:
    """One line for each quantity in the order of the computation: d64 / budget from the median step to the worst.

    rows: (framework, name, median, worst, different) of one case. Beyond ROWS quantities only the worst are drawn.
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
    below = 0.55 if len(worst) == len(names) else 0.75
    height = below + above + 0.085 * len(names) * (2 + len(frameworks))
    with drawing(height=height) as figure:
        left = 0.05 + 0.017 * max((len(short(name)) for name in names), default=1)
        axes = figure.add_axes((left, below / height, 0.96 - left, 1 - (below + above) / height))
        axes.set(xlim=(low, high), ylim=(len(names) - 0.5, -0.5), xlabel="d64 / budget64, median step to worst step")
        axes.set_xscale("log")
        decades(axes.xaxis)
        lines = {name: k for k, name in enumerate(names)}
        for i, name in enumerate(frameworks):
            of = rows[rows["framework"] == name]
            y = of["name"].map(lines).to_numpy(float) + (i - (len(frameworks) - 1) / 2) * 0.8 / len(frameworks)
            _spans(axes, of, y, i, labels[i])
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
        return svg(figure, prefix=prefix, title=title)


def _spans(axes: Axes, of: Frame, y: np.ndarray, index: int, label: str) -> None:
    """One framework's lines from median to worst, its marker there; what lies outside the axes goes to their edge."""
    colour, marker = look(index)
    marks: dict[str, Any] = {"linestyle": "", "marker": marker, "markersize": 4.5, "clip_on": False}
    marks |= {"color": colour, "gid": series(index)}
    start, end = (np.clip(of[column].to_numpy(), *axes.get_xlim()) for column in ("median", "worst"))
    hollow = (of["worst"] > LIMIT).to_numpy() & ~of["different"].to_numpy()
    _ = axes.hlines(y, start, end, color=colour, linewidth=1.5, gid=series(index))
    _ = axes.plot(end[~hollow], y[~hollow], label=label, **marks)
    _ = axes.plot(end[hollow], y[hollow], markerfacecolor="none", **marks)


def sizes(rows: Frame, frameworks: Sequence[str], *, reference: str, prefix: str, title: str) -> str:
    """How large each parameter's gradient is on the way back from the loss: the median over the steps of its largest
    entry, on a log axis; the reference is a broad band.

    rows: (framework, name, reference, candidate) of one case, in backward order.
    """
    names = list(dict.fromkeys(rows["name"]))
    places = {name: k for k, name in enumerate(names)}
    values = rows[["reference", "candidate"]].to_numpy(float)
    seen = values[np.isfinite(values) & (values > 0)]
    labels = [short(name, 14) for name in (reference, *frameworks)]
    columns = max(1, 44 // (6 + max(map(len, labels))))
    above = 0.35 + 0.18 * -(-len(labels) // columns)
    height = 3.0 + above
    with drawing(height=height) as figure:
        axes = figure.add_axes((0.17, 0.95 / height, 0.79, 2.0 / height))
        _ = figure.text(0.01, 1 - 0.02 / height, "largest entry of each gradient, median step", va="top")
        axes.set(xlim=(-0.5, max(len(names), 1) - 0.5), xlabel="the loss is on the left, the input on the right")
        for i, name in enumerate(frameworks):
            of = rows[rows["framework"] == name]
            x = of["name"].map(places).to_numpy(float)
            if i == 0:
                broad: dict[str, Any] = {"alpha": 0.35, "linewidth": 6, "label": labels[0], "gid": series(-1)}
                _ = axes.plot(x, _positive(of["reference"]), color=MUTED, solid_capstyle="round", **broad)
            colour, marker = look(i)
            dashes = (4.0 * i, (4, 4 * (len(frameworks) - 1))) if len(frameworks) > 1 else "solid"
            spread: dict[str, Any] = {
                "markevery": (i, max(len(frameworks), len(names) // 12)),
                "markersize": 4,
                "gid": series(i),
            }
            y = _positive(of["candidate"])
            _ = axes.plot(x, y, color=colour, marker=marker, linestyle=dashes, label=labels[i + 1], **spread)
        if len(seen):
            axes.set_yscale("log")
            low, high = np.floor(np.log10(seen.min())), np.ceil(np.log10(seen.max()))
            axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
            decades(axes.yaxis)
        axes.grid(axis="y", linewidth=0.8)
        ticks = thin(np.arange(len(names)), 14)
        axes.set_xticks(ticks, [short(names[k].removeprefix("dL/d"), 12) for k in ticks], rotation=60, ha="right")
        axes.tick_params(axis="x", labelsize=9)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, 1 - 0.2 / height), "ncols": columns}
        _ = figure.legend(frameon=False, handletextpad=0.4, columnspacing=1, fontsize=9, **place)
        return svg(figure, prefix=prefix, title=title)


def proof(cause: dict[str, Any], *, prefix: str, title: str) -> str:
    """The largest difference before and after the edit, in both precisions, on a log axis.

    cause: before32, after32, before64, after64; a difference of 0 lies on the left edge.
    """
    pairs = [(bits, cause.get(f"before{bits}"), cause.get(f"after{bits}")) for bits in (32, 64)]
    pairs = [(bits, before, after) for bits, before, after in pairs if before is not None]
    known = [float(value) for _, *both in pairs for value in both if value and np.isfinite(value)]
    high = 10.0 ** (np.ceil(np.log10(max(known, default=1.0))) + 0.5)
    low = min(10.0 ** (np.floor(np.log10(min(known, default=1e-16))) - 1), high * 1e-6)
    height = 0.9 + 0.22 * len(pairs)
    with drawing(height=height) as figure:
        axes = figure.add_axes((0.17, 0.56 / height, 0.79, 0.24 * len(pairs) / height))
        lines = (len(pairs) - 0.5, -0.5)
        axes.set(xlim=(low, high), ylim=lines, xscale="log", xlabel="largest difference of the two sides")
        decades(axes.xaxis)
        axes.set_yticks(range(len(pairs)), [f"float{bits}" for bits, *_ in pairs])
        axes.tick_params(axis="y", length=0)
        for y, (_, before, after) in enumerate(pairs):
            ends = [None if value is None else float(np.clip(value, low, high)) for value in (before, after)]
            if ends[0] is not None and ends[1] is not None:
                arrow = {"arrowstyle": "->", "color": MUTED, "linewidth": 1.2, "shrinkA": 5, "shrinkB": 5}
                _ = axes.annotate("", (ends[1], y), (ends[0], y), arrowprops=arrow)
            for i, (end, marker) in enumerate(zip(ends, "Xo", strict=True)):
                if end is not None:
                    label = ("before the edit", "after it")[i] if y == 0 else None
                    colour = look(1 - i)[0]
                    marks: dict[str, Any] = {"linestyle": "", "markersize": 6, "clip_on": False, "label": label}
                    _ = axes.plot([end], [y], marker=marker, color=colour, **marks)
        axes.grid(axis="x", linewidth=0.8)
        place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (0.98, 1.04)}
        _ = figure.legend(frameon=False, ncols=2, handletextpad=0.1, columnspacing=1, fontsize=9, **place)
        return svg(figure, prefix=prefix, title=title)


def _positive(values: Frame) -> np.ndarray:
    """For a log axis: a gap where there is nothing to draw."""
    sizes = values.to_numpy(float)
    return np.where(np.isfinite(sizes) & (sizes > 0), sizes, np.nan)


def _limits(ratios: np.ndarray) -> tuple[float, float]:
    """Decades round K and all positive finite ratios, none of which touches an edge."""
    seen = ratios[np.isfinite(ratios) & (ratios > 0)]
    low, high = (seen.min(), seen.max()) if len(seen) else (0.1, 1.0)
    return 10.0 ** (np.ceil(np.log10(min(low, 0.1))) - 1), 10.0 ** (np.floor(np.log10(max(high, 100.0))) + 1)
