"""Sharpness over training, with error bands, above the loss that it must be read with."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from landscape.analysis._error_bars import draw_band, error_bars
from landscape.analysis._labels import base_of, is_rise, label_of
from landscape.analysis._reading import RunLike, as_run, group_tables
from landscape.analysis._style import (
    BLACK,
    BLUE,
    GREEN,
    MARKERS,
    ORANGE,
    PALETTE,
    VERMILION,
    legend_above,
    log_where_positive,
    mark_failed,
    new_axes,
    panels,
    style,
)

GROUP = "sharpness"
# measure -> (setting that holds its radius, colour, marker)
_MEASURES = {
    "average_case": ("rho_average", BLUE, "o"),
    "worst_case": ("rho_worst", VERMILION, "s"),
    "sam": ("rho_sam", GREEN, "^"),
}


def plot_sharpness(run: RunLike, ax: Any = None) -> Any:
    """Plot the sharpness measures over training, and below them the training and held-out loss.

    All measures that are rises of the loss are drawn, each rung of a ladder as a line of its own. Bands are ± one
    standard error. A falling sharpness beside a falling loss may be the loss alone.

    Args:
        run: Path of a run file, or an open run.
        ax: Two axes to draw on; those of a new figure by default.

    Returns:
        Array of the two axes: sharpness, loss.

    Raises:
        FileError: The file cannot be read, or the run has no sharpness.
        ValueError: `ax` does not hold two axes.
    """
    table, settings = group_tables(as_run(run), [GROUP])[GROUP]
    with style():
        axes = panels(new_axes(2, 1, (6.8, 5.6), sharex=True, height_ratios=[2, 1]) if ax is None else ax, 2)
        upper, lower = axes
        others = [name for name in table if name not in _MEASURES and is_rise(name)]
        looks = itertools.cycle(zip(PALETTE[3:], MARKERS[3:], strict=False))
        named = {name: look for name, (_, *look) in _MEASURES.items()} | dict(zip(others, looks, strict=False))
        shown = [_draw_measure(upper, table, name, settings, *look) for name, look in named.items()]
        log_where_positive(upper, np.concatenate(shown))
        losses = {"train_loss": (BLACK, "-"), "held_out_loss": (ORANGE, "--")}
        drawn = [_draw_line(lower, table, name, *look, label_of(name)) for name, look in losses.items()]
        log_where_positive(lower, np.concatenate(drawn))
        for panel, lines in ((upper, named), (lower, losses)):
            for name in (name for name in lines if name in table):
                draw_band(panel, table["step"], table[name], error_bars(table, name), lines[name][0])
        mark_failed(upper, table["step"][table["status"] == "failed"])
        upper.set_ylabel("sharpness (rise in loss)")
        lower.set_ylabel("loss")
        lower.set_xlabel(label_of("step"))
        legend_above(upper, columns=2)
        legend_above(lower, columns=2)
    return axes


def _draw_measure(
    ax: Any, table: pd.DataFrame, name: str, settings: dict[str, Any], color: str, marker: str
) -> np.ndarray:
    label = label_of(name).replace(" (rise in loss)", "")
    radius = _radius(name, settings.get("settings", settings))
    label = label if radius is None else f"{label}, ρ = {radius:g}"
    return _draw_line(ax, table, name, color, "-", label, marker=marker)


def _radius(name: str, settings: dict[str, Any]) -> float | None:
    """Find the one radius that a column was measured at; a rung of a ladder says it in its own label."""
    entries = [
        entry
        for entry in settings.get("measures") or ()
        if isinstance(entry, dict) and entry.get("name") == base_of(name)
    ]
    old = settings.get(_MEASURES[name][0]) if name in _MEASURES else None
    radius = entries[0].get("rho", old) if entries else old
    return radius if isinstance(radius, (int, float)) else None


def _draw_line(
    ax: Any, table: pd.DataFrame, name: str, color: str, dashes: str, label: str, marker: str = ""
) -> np.ndarray:
    """Draw a column over the steps and return its finite values; nothing is drawn where there are none."""
    if name not in table or not np.isfinite(table[name]).any():
        return np.zeros(0)
    values = table[name].to_numpy(dtype=np.float64)
    ax.plot(table["step"], values, marker=marker, ls=dashes, color=color, markersize=4, label=label)
    return values[np.isfinite(values)]
