"""Standard errors of a run's columns: over random draws, over examples, and both together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from landscape.analysis._labels import sample_column, stderr_column


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


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
