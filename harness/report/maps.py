"""Maps of a report: where in a tensor two sides differ, and the paths of descent over a landscape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from harness.report.drawing import INK, MUTED, RULE, decades, drawing, look, series, short, svg

LEVELS = 14


def heat(gap: np.ndarray, of: Mapping[str, Any], *, prefix: str, title: str) -> str:
    """Where a tensor differs: |reference - candidate| in float64, entry by entry or block by block.

    gap (rows, columns). of: the map's row of the header (budget, shape, block). Empty cells: rounding explains them.
    """
    shown = np.where(gap > of["budget"], gap, np.nan)
    finite = shown[np.isfinite(shown)]
    with drawing(height=2.9) as figure:
        axes = figure.add_axes((0.13, 0.2, 0.7, 0.66))
        _ = figure.text(0.01, 0.99, "largest difference in float64", va="top")
        block = of["block"]
        unit = "" if block == [1, 1] else f", the worst of each {block[0]} x {block[1]}"
        axes.set(xlabel=f"entries behind the first axis{unit}", ylabel="first axis")
        extent = (-0.5, gap.shape[1] * block[1] - 0.5, gap.shape[0] * block[0] - 0.5, -0.5)
        if len(finite):
            high = finite.max()
            norm = LogNorm(vmin=min(finite.min(), high / 10), vmax=high)
            options: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
            image = axes.imshow(shown, norm=norm, cmap="cividis", **options)
            bar = figure.colorbar(image, cax=figure.add_axes((0.86, 0.2, 0.03, 0.66)))
            decades(bar.ax.yaxis)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if not np.isfinite(gap).all():
            _ = figure.text(0.01, 0.9, "a cross: not finite", color=MUTED, fontsize=9, va="top")
            y, x = np.nonzero(~np.isfinite(gap))
            _ = axes.plot((x[:500] + 0.5) * block[1] - 0.5, (y[:500] + 0.5) * block[0] - 0.5, "x", color=INK)
        return svg(figure, prefix=prefix, title=title)


def landscape(
    terms: Sequence[tuple[float, int, int]],
    paths: Mapping[str, np.ndarray],
    ends: Sequence[str],
    frameworks: Sequence[str],
    *,
    reference: str,
    prefix: str,
    title: str,
) -> str:
    """Level lines of a polynomial with every framework's path and the kind of its end point.

    terms: (coefficient, power of u, power of v). paths: framework -> (evaluations, points, 2). ends: kind of the end of
    each point's path.
    """
    low, high = _view(paths)
    margin = 0.15 * np.maximum(high - low, 1e-3)
    u, v = (np.linspace(a, b, 80) for a, b in zip(low - margin, high + margin, strict=True))
    powers = np.zeros((1 + max(i for _, i, _ in terms), 1 + max(j for *_, j in terms)))
    for coefficient, i, j in terms:
        powers[i, j] += coefficient
    values = np.polynomial.polynomial.polygrid2d(u, v, powers).T
    with drawing(height=4.2) as figure:
        axes = figure.add_axes((0.14, 0.13, 0.82, 0.7))
        axes.set(xlabel="u", ylabel="v")
        levels = np.unique(np.quantile(values, np.linspace(0.01, 0.99, LEVELS)))
        if len(levels) > 1:
            _ = axes.contour(u, v, values, levels=levels, colors=[RULE], linewidths=1, linestyles="solid")
        for i, name in enumerate([reference, *frameworks], start=-1):
            path = paths.get(name)
            if path is None:
                continue
            colour, marker = (MUTED, "") if i < 0 else look(i)
            for point in range(path.shape[1]):
                label = short(name, 14) if point == 0 else None
                if i < 0:
                    style: dict[str, Any] = {"alpha": 0.35, "linewidth": 6, "solid_capstyle": "round"}
                else:
                    style = {"linewidth": 1.8, "linestyle": (4.0 * i, (4, 4 * max(len(frameworks) - 1, 0.5)))}
                    style |= {"marker": marker, "markersize": 3.5, "markevery": (i * 2, 24)}
                _ = axes.plot(*path[:, point].T, color=colour, label=label, gid=series(i), **style)
        axes.set(xlim=(u[0], u[-1]), ylim=(v[0], v[-1]))
        _ends(axes, next(iter(paths.values())), ends)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.02, 1.0), "ncols": 3}
        _ = figure.legend(frameon=False, handletextpad=0.4, columnspacing=1, fontsize=9, **place)
        return svg(figure, prefix=prefix, title=title)


def _view(paths: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (u, v) to be drawn: of the paths, but not of what runs away to many times the starts."""
    steps = np.concatenate([path.reshape(-1, 2) for path in paths.values()])
    starts = np.concatenate([path[0] for path in paths.values()])
    near = np.isfinite(steps).all(axis=1) & (np.abs(steps) <= 3 * max(np.abs(starts).max(), 0.1)).all(axis=1)
    return (steps[near].min(axis=0), steps[near].max(axis=0)) if near.any() else (np.zeros(2), np.ones(2))


def _ends(axes: Any, path: np.ndarray, ends: Sequence[str]) -> None:
    """A star and the kind at each end point; one label for several that end together, an arrow for what left."""
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    said: dict[tuple[int, ...], tuple[np.ndarray, list[str]]] = {}
    for point, kind in zip(range(path.shape[1]), ends, strict=False):
        finite = path[np.isfinite(path[:, point]).all(axis=1), point]
        if not len(finite):
            continue
        outside = ((finite[-1] < low) | (finite[-1] > high)).any() or len(finite) < len(path)
        at = np.clip(finite[-1], low, high)
        place = tuple(np.round((at - low) / (high - low) * 12).astype(int).tolist())
        _, kinds = said.setdefault(place, (at, []))
        kinds.append("leaves" if outside else kind)
    for i, (at, kinds) in enumerate(sorted(said.values(), key=lambda end: end[0][0])):
        _ = axes.plot(*at, marker="*", markersize=9, color=INK, linestyle="", zorder=5, clip_on=False)
        right = at[0] > (low[0] + high[0]) / 2  # towards the middle, so that no label leaves the drawing
        height = 8 + 12 * (i % 3)  # neighbours on lines of their own
        above = height if at[1] < low[1] + 0.85 * (high[1] - low[1]) else -height - 8
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "right" if right else "left", "fontsize": 9}
        _ = axes.annotate(", ".join(dict.fromkeys(kinds)), tuple(at), (-8 if right else 8, above), zorder=6, **style)
