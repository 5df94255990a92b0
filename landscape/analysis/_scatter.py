"""Drawing a comparison of runs: a point a run by group and colour, error bars, the way there, colour bar and legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize, to_rgba
from matplotlib.lines import Line2D

from landscape.analysis._labels import label_of
from landscape.analysis._members import Group
from landscape.analysis._points import Track
from landscape.analysis._style import BLUE, GREY, MARKERS, PALETTE, literal, plain_log_ticks, spans_decade

# Without viridis' last yellow, whose lines vanish on white.
COLOR_MAP = ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.94, 256)))


def draw_runs(ax: Any, tracks: Sequence[Track], color: str | None, group: Group | None, trajectories: bool) -> None:
    """Draw the runs: markers tell the groups, colours the third measure (grey where it is NaN).

    Args:
        ax: The axes.
        tracks: The runs.
        color: Name of the third measure; None colours the groups instead.
        group: What gives the groups.
        trajectories: Whether the rows before and after the chosen one are drawn too.
    """
    labels = [_group_label(run, group) for run in tracks]
    order = sorted(set(labels), key=_sort_key)
    norm = _norm(np.hstack([run.color if trajectories else run.color[run.chosen] for run in tracks]))
    for index, label in enumerate(order):
        inside = [run for run, own in zip(tracks, labels, strict=True) if own == label]
        plain = GREY if color is not None else PALETTE[index % len(PALETTE)] if group is not None else BLUE
        if trajectories:
            for run in inside:
                _draw_way(ax, run, plain, norm)
        _draw_bars(ax, inside)
        marker = MARKERS[index % len(MARKERS)]
        _draw_points(ax, [run for run in inside if not _is_grey(run)], marker, norm=norm)
        _draw_points(ax, [run for run in inside if _is_grey(run)], marker, plain=plain)
    if color is not None and norm is not None:
        _color_bar(ax, color, norm)
    _legend(ax, order if group is not None else [], group, color, any(_is_grey(run) for run in tracks))


def _draw_points(ax: Any, runs: Sequence[Track], marker: str, norm: Normalize | None = None, plain: str = GREY) -> None:
    if not runs:
        return
    paint: dict[str, Any] = {"color": plain}
    if norm is not None:
        paint = {"c": [run.color[run.chosen] for run in runs], "cmap": COLOR_MAP, "norm": norm}
    x, y = [run.x[run.chosen] for run in runs], [run.y[run.chosen] for run in runs]
    ax.scatter(x, y, marker=marker, s=52, edgecolors="black", linewidths=0.6, zorder=4, **paint)


def _draw_bars(ax: Any, runs: Sequence[Track]) -> None:
    x, y = [run.x[run.chosen] for run in runs], [run.y[run.chosen] for run in runs]
    x_error = np.array([run.x_stderr[run.chosen] for run in runs])
    y_error = np.array([run.y_stderr[run.chosen] for run in runs])
    for name, error in (("xerr", x_error), ("yerr", y_error)):
        if (error > 0).any():
            ax.errorbar(x, y, **{name: error}, fmt="none", ecolor="#5A5A5A", elinewidth=1, capsize=2, zorder=3)


def _norm(values: np.ndarray) -> Normalize | None:
    """Return what maps the known values to colours; None where there are none."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return None
    low, high = known.min(), known.max()
    if low == high:
        low, high = low - 0.05 * abs(low) - 1e-12, high + 0.05 * abs(high) + 1e-12
    return LogNorm(low, high) if spans_decade(known) else Normalize(low, high)


def _draw_way(ax: Any, run: Track, plain: str, norm: Normalize | None) -> None:
    """Draw the rows of a run joined in order, fainter the earlier; an open circle is where it begins."""
    paints = [plain if norm is None or np.isnan(value) else COLOR_MAP(norm(value)) for value in run.color]
    corners = np.column_stack([run.x, run.y])
    strength = np.linspace(0.3, 1.0, max(1, len(corners) - 1))
    lines = LineCollection(
        list(np.stack([corners[:-1], corners[1:]], axis=1)),
        colors=[to_rgba(paint, alpha) for paint, alpha in zip(paints[1:], strength, strict=False)],
        linewidths=1.4,
        zorder=1,
    )
    ax.add_collection(lines)
    ax.scatter(run.x[1:], run.y[1:], s=7, color=paints[1:], zorder=1)
    ax.plot(run.x[:1], run.y[:1], "o", color=paints[0], markerfacecolor="white", markersize=5, zorder=2)


def _is_grey(run: Track) -> bool:
    return not np.isfinite(run.color[run.chosen])


def _group_label(run: Track, group: Group | None) -> str:
    value = None if group is None else run.member.value(group)
    return f"{value:g}" if isinstance(value, float) else str("not recorded" if value is None else value)


def _sort_key(label: str) -> tuple[bool, float, str]:
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _title(name: str) -> str:
    """Return the label of a measure, or the name of a hyper-parameter without underscores."""
    label = label_of(name)
    return label.replace("_", " ") if label == name else label


def _color_bar(ax: Any, color: str, norm: Normalize) -> None:
    bar = ax.figure.colorbar(ScalarMappable(norm, COLOR_MAP), ax=ax, label=literal(_title(color)))
    if isinstance(norm, LogNorm):
        plain_log_ticks(bar.ax.yaxis, [norm.vmin, norm.vmax])


def _legend(ax: Any, order: Sequence[str], group: Group | None, color: str | None, some_grey: bool) -> None:
    def handle(index: int, face: str, label: str) -> Line2D:
        marker = MARKERS[index % len(MARKERS)]
        return Line2D(
            [], [], marker=marker, linestyle="", markerfacecolor=face, markeredgecolor="black", label=literal(label)
        )

    faces = [PALETTE[index % len(PALETTE)] if color is None else "white" for index in range(len(order))]
    handles = [handle(index, face, label) for index, (face, label) in enumerate(zip(faces, order, strict=True))]
    if color is not None and some_grey:
        handles.append(handle(0, GREY, f"{_title(color)} not recorded"))
    if handles:
        ax.legend(handles=handles, title=literal(_title(group)) if isinstance(group, str) else None, loc="best")
