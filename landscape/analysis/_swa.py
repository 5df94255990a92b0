"""The running weight average beside the iterate it is taken from: loss and error over training."""

from __future__ import annotations

from typing import Any

import numpy as np

from landscape.analysis._labels import label_of
from landscape.analysis._reading import RunLike, as_run, group_tables
from landscape.analysis._style import (
    BLUE,
    VERMILION,
    legend_above,
    log_where_positive,
    mark_failed,
    new_axes,
    panels,
    style,
)

GROUP = "swa_trajectory"
# (column prefix, name, colour), (split, name, line)
_WEIGHTS = (("", "iterate", BLUE), ("swa_", "SWA", VERMILION))
_SPLITS = (("train", "training", "-"), ("held_out", "held-out", "--"))


def plot_swa(run: RunLike, ax: Any = None) -> Any:
    """Plot loss and error of the weight average and of the current iterate over training, on both data sets.

    Args:
        run: Path of a run file, or an open run.
        ax: Two axes to draw on; those of a new figure by default.

    Returns:
        Array of the two axes: loss, error.

    Raises:
        FileError: The file cannot be read, or the run has no weight trajectory.
        ValueError: `ax` does not hold two axes.
    """
    table, _ = group_tables(as_run(run), [GROUP])[GROUP]
    with style():
        axes = panels(new_axes(1, 2, (9.2, 4.0)) if ax is None else ax, 2)
        for panel, kind in zip(axes, ("loss", "error"), strict=True):
            shown = []
            for prefix, weights, color in _WEIGHTS:
                for split, data, dashes in _SPLITS:
                    column = f"{prefix}{split}_{kind}"
                    if column not in table or not np.isfinite(table[column]).any():
                        continue
                    values = table[column].to_numpy(dtype=np.float64)
                    panel.plot(
                        table["step"],
                        values,
                        marker=".",
                        ls=dashes,
                        color=color,
                        markersize=5,
                        label=f"{weights}, {data}",
                    )
                    shown.append(values[np.isfinite(values)])
            if shown and kind == "loss":
                log_where_positive(panel, np.concatenate(shown))
            if not shown:
                panel.text(0.5, 0.5, f"no {kind} recorded", transform=panel.transAxes, ha="center", va="center")
            mark_failed(panel, table["step"][table["status"] == "failed"])
            legend_above(panel, columns=2)
            panel.set_xlabel(label_of("step"))
            panel.set_ylabel(kind if kind == "loss" else "error (fraction of labels)")
    return axes
