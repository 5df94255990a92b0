"""Standard errors of a run's columns: over random draws, over examples, and both together, also as bands in plots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from landscape.analysis._labels import sample_column, stderr_column

_MEANING = "± 1 standard error"


def error_bars(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return the standard errors of a column, shape (rows,): √(s² + e²).

    s is the error over random draws (probes, perturbations), e that over examples. They are independent. Where only one
    of the two is known, it stands alone.

    Args:
        table: A run's table.
        name: The column.

    Returns:
        The errors; NaN where neither is known.
    """
    drawn, sampled = (_column(table, each) for each in (stderr_column(name), sample_column(name)))
    both = np.hypot(np.nan_to_num(drawn), np.nan_to_num(sampled))
    return np.where(np.isnan(drawn) & np.isnan(sampled), np.nan, both)


def draw_band(ax: Any, steps: Any, values: Any, errors: Any, color: str) -> None:
    """Draw ± one standard error around a line; nothing where no error is known.

    Call it once the scale of the axis is set (`lower_ends`), and before the legend, where the first band of an axis is
    explained.

    Args:
        ax: The axes.
        steps: Positions of the values, shape (n,).
        values: The line, shape (n,).
        errors: Standard errors, shape (n,); NaN where they are not known.
        color: Colour of the line.
    """
    values, errors = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if not np.isfinite(errors).any():
        return
    ax.fill_between(steps, lower_ends(ax, values, errors), values + errors, color=color, alpha=0.25, linewidth=0)
    if _MEANING not in ax.get_legend_handles_labels()[1]:
        ax.fill_between([], [], color="0.6", alpha=0.35, linewidth=0, label=_MEANING)


def lower_ends(ax: Any, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return the lower ends of ± one standard error, shape (n,).

    On a logarithmic axis an end at or below zero would make the whole bar vanish: it becomes a tenth of the value.
    """
    low = values - errors
    if ax.get_yscale() == "log":
        low = np.where(values > 0, np.maximum(low, values / 10), np.nan)
    return low


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
