"""Rank correlations of all flatness measures with one target, as dots with intervals."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd

from landscape.analysis._labels import label_of
from landscape.analysis._points import LARGEST_RATIO, is_unmatched, warn_unmatched
from landscape.analysis._ranking import rank_correlations
from landscape.analysis._style import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    caption,
    legend_below,
    literal,
    new_axes,
    panels,
    style,
)

# (column, its interval's columns, legend, colour, marker, height of the marker between two rows)
_CORRELATIONS = (
    ("tau", ("tau_low", "tau_high"), "Kendall's τ over all runs", BLUE, "o", 0.14),
    ("granulated", ("granulated_low", "granulated_high"), "granulated Ψ, one axis at a time", VERMILION, "s", -0.14),
)
_ERRORS = (
    ("sign_error", ("sign_error_low", "sign_error_high"), "mean over environments", PURPLE, "D", 0.14),
    ("worst_sign_error", ("worst_low", "worst_high"), "worst environment", ORANGE, "v", -0.14),
)
_LABEL_WIDTH = 42  # characters
_VARIES = " (not invariant)"


def plot_rank_correlations(runs: Any, ax: Any = None, **settings: Any) -> Any:
    """Plot how each flatness measure ranks the runs against how the target does, sorted by Kendall's tau.

    Left Kendall's tau over all runs and granulated Ψ, right the sign error over pairs of settings that differ in one
    hyper-parameter, in the mean and at worst, with 95 % bootstrap intervals. Measures that are large where the loss is
    flat enter with their sign turned. The caption says what was ranked, over which axes, and whether the training
    losses are matched.

    Args:
        runs: The table of `rank_correlations`, or what it takes: paths, open runs, a DataFrame with a column `run`.
        ax: Two axes to draw on; those of a new figure by default.
        **settings: Arguments of `rank_correlations`: measures, target, axes, matched_loss, examples, n_bootstrap, seed,
            confidence.

    Returns:
        Array of the two axes: correlations, sign errors.

    Raises:
        FileError: A file cannot be read, or no run has what is asked for.
        ValueError: An argument is out of range, settings stand beside a table, or `ax` does not hold two axes.
    """  # noqa: DOC503 - what makes the table and the panels raise some of it
    is_table = isinstance(runs, pd.DataFrame) and runs.index.name == "measure" and "target" in runs.attrs
    if is_table and settings:
        raise ValueError(f"{', '.join(settings)}: give settings to rank_correlations, which made this table")
    table = runs if is_table else rank_correlations(runs, **settings)
    with style():
        height = 2.6 + 0.36 * len(table)
        axes = panels(new_axes(1, 2, (10.6, height), width_ratios=[5, 3]) if ax is None else ax, 2)
        for panel, statistics in zip(axes, (_CORRELATIONS, _ERRORS), strict=True):
            _draw(panel, table, statistics)
            legend_below(panel)
        _decorate(axes[0], axes[1], table)
        _write(axes[0], axes[1], table)
    return axes


def _draw(ax: Any, table: pd.DataFrame, statistics: Any) -> None:
    places = np.arange(len(table))[::-1]  # the first row on top
    for column, (low, high), name, color, marker, shift in statistics:
        values = table[column].to_numpy(dtype=np.float64)
        known = np.isfinite(values)
        if not known.any():
            continue
        at = places + shift
        ends = table[[low, high]].to_numpy(dtype=np.float64)
        ax.hlines(at, ends[:, 0], ends[:, 1], color=color, linewidth=1.6, alpha=0.75)
        ax.plot(values[known], at[known], marker, color=color, markersize=6, markeredgecolor="black",
                markeredgewidth=0.5, label=name)  # fmt: skip


def _decorate(left: Any, right: Any, table: pd.DataFrame) -> None:
    labels = [
        textwrap.fill(
            ("− " if turned else "") + literal(text.replace(" (rise in loss)", "").replace(_VARIES, "†")), _LABEL_WIDTH
        )
        for text, turned in zip(table["label"], table["turned"], strict=True)
    ]
    ticks = np.arange(len(table))[::-1]
    left.set_yticks(ticks, labels)
    right.set_yticks(ticks, [])
    left.set_xlim(-1.06, 1.06)
    right.set_xlim(-0.04, 1.04)
    left.axvline(0, color=GREY, linewidth=1, zorder=0)
    right.axvline(0.5, color=GREY, linewidth=1, zorder=0)
    for panel in (left, right):
        panel.set_ylim(-0.6, len(table) - 0.4)
        for tick in ticks:
            panel.axhline(tick, color=GREY, linewidth=0.4, alpha=0.4, zorder=0)
    left.set_xlabel("rank correlation (0: none)")
    right.set_xlabel("sign error (1/2: chance)")
    if not np.isfinite(table["sign_error"]).any():
        right.text(0.5, 0.5, "no two runs differ\nin one setting alone", transform=right.transAxes, ha="center")


def _write(left: Any, right: Any, table: pd.DataFrame) -> None:
    """Say above the panels what was ranked, over which runs and axes, and what the marks of the labels mean."""
    told = table.attrs
    target = label_of(told["target"])
    counts = sorted(set(table["n"]))
    runs = f"{counts[0]} runs" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} runs"
    sentences = [f"Ranked against: {target}; {runs}."]
    low, high = told["losses"]
    if math.isnan(low):
        sentences.append("Training loss not recorded.")
    elif is_unmatched(low, high):
        sentences.append(
            f"NOT at matched loss: training losses {low:.3g} to {high:.3g}, more than a factor of {LARGEST_RATIO:g}."
        )
        warn_unmatched(f"training losses {low:.3g} to {high:.3g}")
    else:
        sentences.append(f"Training losses {low:.3g} to {high:.3g}.")
    if told["axes"]:
        axes = ", ".join(name.replace("_", " ") for name in told["axes"])
        sentences.append(f"Axes: {axes}; Ψ and mean resampled over {told['resampled']}.")
        if not np.isfinite(table["worst_low"]).any():
            sentences.append("Worst sign errors have no interval without several seeds a setting.")
    else:
        sentences.append("No two runs differ in one hyper-parameter alone, so there is no Ψ and no sign error.")
    sentences.append(f"Bars: {100 * told['confidence']:g} % bootstrap intervals.")
    if table["label"].str.contains(_VARIES, regex=False).any():
        sentences.append("†: not invariant to rescaling of layers.")
    if table["turned"].any():
        sentences.append("−: sign turned, for large is flat.")
    caption(left, sentences, until=right)
