"""Loss and error along the paths between two sets of weights, with the height of the barrier."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from landscape._errors import FileError
from landscape._results import with_error
from landscape.analysis._reading import RunLike, as_run
from landscape.analysis._style import BLACK, BLUE, VERMILION, legend_above, new_axes, panels, style

GROUP = "mode_connectivity"
_PATHS = {"linear": ("linear", VERMILION), "bezier": ("Bézier", BLUE)}
_SPLITS = (("train", "training", "-"), ("held_out", "held-out", "--"))
_DEFINITIONS = {
    "interpolated": "above the line between the ends",
    "mean_of_ends": "above the mean of the ends",
    "worse_end": "above the worse end",
}


def plot_connectivity(run: RunLike, step: int | None = None, definition: str = "interpolated", ax: Any = None) -> Any:
    """Plot loss and error along the linear and the curved path, on training and held-out examples.

    The axes are linear, because a barrier is a difference. The arrow is the barrier of the linear path in training loss
    or error, the bar at its head its standard error over examples; the legend has the numbers of both paths
    with one standard error.

    Args:
        run: Path of a run file, or an open run.
        step: Step of the row; the last one that did not fail by default.
        definition: Which barrier: "interpolated" (above the line between the ends), "mean_of_ends" or "worse_end".
        ax: Two axes to draw on; those of a new figure by default.

    Returns:
        Array of the two axes: loss, error.

    Raises:
        FileError: The file cannot be read, or the run has no such row.
        ValueError: An unknown definition, or `ax` does not hold two axes.
    """  # noqa: DOC503 - the panels raise one of them
    if definition not in _DEFINITIONS:
        raise ValueError(f"definition is {definition!r}; expected one of {', '.join(_DEFINITIONS)}")
    run = as_run(run)
    row = _row(run.path, run.dataset(GROUP), step)
    with style():
        axes = panels(new_axes(1, 2, (11.4, 4.6)) if ax is None else ax, 2)
        for panel, kind in zip(axes, ("loss", "error"), strict=True):
            drawn = [_draw_path(panel, row, path, kind, definition) for path in _PATHS]
            panel.set_xlabel("position t along the path")
            panel.set_ylabel(kind if kind == "loss" else "error (fraction of labels)")
            if not any(drawn):
                panel.text(0.5, 0.5, f"no {kind} recorded", transform=panel.transAxes, ha="center", va="center")
                continue
            _mark_barrier(panel, row, kind, definition)
            bars = " (± 1 standard error)" if f"barrier_train_{kind}_stderr" in row else ""
            legend_above(panel, columns=2, title=f"barrier {_DEFINITIONS[definition]}{bars}")
    return axes


def _row(path: Any, data: xr.Dataset, step: int | None) -> xr.Dataset:
    measured = data["step"].values[data["status"].values != "failed"]
    if len(measured) == 0:
        raise FileError(f"{path} has no row of {GROUP!r} that succeeded; landscape show prints why.")
    if step is not None and step not in measured:
        raise FileError(f"{path} has no {GROUP!r} at step {step}; it has {', '.join(map(str, measured))}.")
    return data.sel(step=measured[-1] if step is None else step)


def _draw_path(ax: Any, row: xr.Dataset, path: str, kind: str, definition: str) -> int:
    """Draw a path's curves and return how many were recorded."""
    name, color = _PATHS[path]
    drawn = 0
    for split, data, dashes in _SPLITS:
        if f"curve_{split}_{kind}" not in row or path not in row["path"]:
            continue
        values = row[f"curve_{split}_{kind}"].sel(path=path).values
        if np.isfinite(values).any():
            found = height, _ = _barrier(row, split, kind, path, definition)
            label = f"{name}, {data}" if np.isnan(height) else f"{name}, {data}: {with_error(*found)}"
            # A smaller form measures fewer points: the line joins those, and dots show where they are.
            there = np.isfinite(values)
            marker = "" if there.all() else "."
            ax.plot(row["t"].values[there], values[there], ls=dashes, marker=marker, color=color, label=label)
            drawn += 1
    return drawn


def _barrier(row: xr.Dataset, split: str, kind: str, path: str, definition: str) -> tuple[float, float]:
    """Return the height and its standard error, NaN where they were not recorded."""
    name = f"barrier_{split}_{kind}"
    height, stderr = (
        float(row[each].sel(path=path, definition=definition)) if each in row else float("nan")
        for each in (name, f"{name}_stderr")
    )
    return height, stderr


def _mark_barrier(ax: Any, row: xr.Dataset, kind: str, definition: str) -> None:
    """Draw the linear path's barrier in training loss or error as an arrow from where it is counted to its top."""
    height, stderr = _barrier(row, "train", kind, "linear", definition)
    values, t = row[f"curve_train_{kind}"].sel(path="linear").values, row["t"].values
    values, t = values[np.isfinite(values)], t[np.isfinite(values)]
    if not height > 0 or len(t) < 2 or t[0] != 0 or t[-1] != 1:
        return
    base = {
        "interpolated": (1 - t) * values[0] + t * values[-1],
        "mean_of_ends": np.full(len(t), (values[0] + values[-1]) / 2),
        "worse_end": np.full(len(t), max(values[0], values[-1])),
    }[definition]
    top = int(np.argmax(values - base))
    ax.plot(t, base, ":", color=BLACK, lw=1)
    ax.annotate(
        "", (t[top], values[top]), (t[top], base[top]), arrowprops={"arrowstyle": "<->", "color": BLACK, "lw": 1.2}
    )
    if np.isfinite(stderr):
        ax.errorbar(t[top], values[top], stderr, color=BLACK, lw=1.2, capsize=5, zorder=4)
    ax.annotate(
        f"barrier {height:.3g}",
        (t[top], (values[top] + base[top]) / 2),
        (5, 0),
        textcoords="offset points",
        va="center",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )
