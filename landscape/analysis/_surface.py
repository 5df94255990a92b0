"""The loss on a line or plane in weight space, with the training drawn where it came nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.patheffects as outline
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter

from landscape._errors import FileError
from landscape.analysis._reading import RunLike, as_run
from landscape.analysis._style import BLACK, BLUE, VERMILION, caption, literal, new_axes, spans_decade, style
from landscape.analysis._surface_curves import draw_corners, draw_curves

if TYPE_CHECKING:
    from landscape.connectivity import PlaneCurve  # of a package that loads torch
    from landscape.surface import Surface

GROUP = "loss_surface"
KINDS = ("filled", "contour", "3d")
_LEVELS = 14
# Far from a minimum a cross-entropy grows without end: beyond this multiple of the median no level is drawn.
_TALL = 20.0
_UNITS = {
    "random": "random direction {axis}, in lengths of the {normalization}s",
    "hessian": "eigenvector {axis}, l2 distance",
    "trajectory": "principal component {axis} of the training, l2 distance",
    "plane": "direction {axis} of the plane, l2 distance",
}
_LARGE = ("center", "directions")


def plot_surface(
    run: RunLike | xr.Dataset | Surface,
    step: int | None = None,
    kind: str = "filled",
    value: str = "loss",
    split: str = "train",
    trajectory: bool = True,
    group: str = GROUP,
    ax: Any = None,
    curve: PlaneCurve | Sequence[PlaneCurve] = (),
) -> Any:
    """Draw a recorded loss surface: contours of a plane, or the curve along a line.

    The cross is the measured weights; the white line is the recorded trajectory at its nearest points of the plane.
    The caption says how far off the plane it runs, which no picture of a plane shows. Of a plane through three weights,
    A, B and C are those.

    Args:
        run: Path of a run file, an open run, a `Surface`, or what its `to_dataset` returned.
        step: Step of the row; the last one that did not fail by default.
        kind: Of a plane: "filled" contours, "contour" lines, or "3d".
        value: "loss" or "error".
        split: "train" or "held_out".
        trajectory: Whether to draw the trajectory where one was recorded.
        group: Name of the group.
        ax: Axes to draw on (with a 3-D projection for "3d"); those of a new figure by default.
        curve: Curves on the plane, `landscape.connectivity.curve_on_plane(curve, plane)` with the same plane; for
            "filled" and "contour".

    Returns:
        The axes.

    Raises:
        FileError: The file cannot be read, or the run has no such row.
        ValueError: An unknown kind or value, or curves where none can be drawn.
    """  # noqa: DOC503 - the reader raises one of them
    if kind not in KINDS or value not in ("loss", "error"):
        raise ValueError(f"kind={kind!r} and value={value!r}: expected one of {', '.join(KINDS)}, and loss or error")
    row = surface_row(run, step, group)
    heights, axes = grid_of(row, f"surface_{split}_{value}")
    curves = [curve] if hasattr(curve, "coordinates") else list(curve)
    if curves and (heights.ndim == 1 or kind == "3d"):
        raise ValueError("a curve is drawn on a plane, with kind='filled' or 'contour'; leave curve= out here")
    name = "loss" if value == "loss" else "error (fraction of labels)"
    with style():
        if heights.ndim == 1:
            return _line(row, heights, axes[0], value, split, name, trajectory, ax)
        if kind == "3d":
            return _relief(row, heights, axes, value, name, trajectory, ax)
        ax = new_axes(size=(6.4, 5.2)) if ax is None else ax
        levels, norm = contour_levels(heights, value)
        grid = np.ma.masked_invalid(heights.T)
        if kind == "filled":
            drawn = ax.contourf(*axes, grid, levels=levels, norm=norm, cmap="viridis", extend="max")
        else:
            drawn = ax.contour(*axes, grid, levels=levels, norm=norm, cmap="viridis")
            ax.clabel(drawn, fmt=lambda level: f"{level:.2g}", fontsize=8)
        bar = ax.figure.colorbar(drawn, ax=ax, label=name, format=FuncFormatter(lambda level, _: f"{level:.2g}"))
        bar.minorticks_off()
        dark = kind == "filled"
        shown = _draw_visits(ax, row, dark) if trajectory else []
        shown += draw_curves(ax, curves, dark)
        if "plane_points" in row:
            draw_corners(ax, row["plane_points"].values)
        else:
            ax.plot(0, 0, "+", color=VERMILION, markersize=13, markeredgewidth=2.2, zorder=5, label="measured weights")
        ax.set_xlabel(_axis_name(row, 0))
        ax.set_ylabel(_axis_name(row, 1))
        ax.set_xlim(axes[0][0], axes[0][-1])
        ax.set_ylim(axes[1][0], axes[1][-1])
        caption(ax, [_title(row, split, name), *shown])
    return ax


def surface_row(run: RunLike | xr.Dataset | Surface, step: int | None, group: str) -> xr.Dataset:
    """Return one row of a surface group without its weight vectors, or the surface that was given.

    Raises:
        FileError: There is no such row.
    """
    if isinstance(run, xr.Dataset):
        return run
    if hasattr(run, "to_dataset"):
        return run.to_dataset()
    run = as_run(run)
    contents = run._source.read([group], lambda schema: [n for n in schema.all_variables if n not in _LARGE])[group]
    data = contents.to_dataset()
    measured = data["step"].values[data["status"].values != "failed"]
    if len(measured) == 0:
        raise FileError(f"{run.path} has no row of {group!r} that succeeded; landscape show prints why.")
    if step is not None and step not in measured:
        raise FileError(f"{run.path} has no {group!r} at step {step}; it has {', '.join(map(str, measured))}.")
    row = data.sel(step=measured[-1] if step is None else step)
    settings = data.attrs.get("settings", {})
    about = {
        name: str(settings.get(of, "")) for name, of in (("kind", "directions"), ("normalization", "normalization"))
    }
    return row.assign_attrs(about)


def grid_of(row: xr.Dataset, variable: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the values on the grid and the coordinates along its axes.

    Raises:
        FileError: They were not recorded.
    """
    if variable not in row:
        raise FileError(f"there is no {variable!r} in this surface; it has {', '.join(map(str, row.data_vars))}.")
    heights = np.asarray(row[variable].values, dtype=np.float64)
    return heights, [np.asarray(row[f"axis_{axis}"].values) for axis in range(heights.ndim)]


def visits_of(row: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, coordinates, residuals and true losses of the projected trajectory; empty where there is none."""
    if "trajectory_step" not in row:
        return np.zeros(0, int), np.zeros((0, 2)), np.zeros(0), np.zeros(0)
    there = row["trajectory_step"].values >= 0
    names = ("trajectory_step", "trajectory_coordinates", "trajectory_residual", "trajectory_loss")
    return tuple(row[name].values[there] for name in names)  # type: ignore[return-value]


def contour_levels(heights: np.ndarray, value: str) -> tuple[np.ndarray, Any]:
    """Return the levels of contours and how colours follow them: geometric for losses over more than a decade."""
    finite = heights[np.isfinite(heights)]
    if not len(finite) or finite.max() <= finite.min():
        low = float(finite[0]) if len(finite) else 0.0
        return np.linspace(low - 0.5, low + 0.5, _LEVELS), Normalize(low - 0.5, low + 0.5)
    low, high = float(finite.min()), float(min(finite.max(), _TALL * np.median(finite)))
    high = high if high > low else float(finite.max())
    if value == "loss" and spans_decade([low, high]):
        return np.geomspace(low, high, _LEVELS), LogNorm(low, high)
    return np.linspace(low, high, _LEVELS), Normalize(low, high)


def _line(
    row: xr.Dataset, heights: np.ndarray, axis: np.ndarray, value: str, split: str, name: str, trajectory: bool, ax: Any
) -> Any:
    ax = new_axes(size=(6.4, 4.2)) if ax is None else ax
    ax.plot(axis, heights, ".-", color=BLUE, label=name)
    middle = int(np.flatnonzero(axis == 0)[0])
    ax.plot(0, heights[middle], "+", color=VERMILION, markersize=13, markeredgewidth=2.2)
    ax.set_xlabel(_axis_name(row, 0))
    ax.set_ylabel(name)
    steps, places, residuals, losses = visits_of(row)
    if trajectory and value == "loss" and split == "train" and len(steps):
        ax.plot(places[:, 0], losses, "o", color=VERMILION, markersize=4, label="training: its true loss")
        ax.legend()
    shown = [f"Dots lie up to {residuals.max():.3g} off the line."] if trajectory and len(steps) else []
    caption(ax, [_title(row, split, name), *shown])
    return ax


def _relief(
    row: xr.Dataset, heights: np.ndarray, axes: list[np.ndarray], value: str, name: str, trajectory: bool, ax: Any
) -> Any:
    ax = plt.figure(figsize=(7.0, 5.6), layout="constrained").add_subplot(projection="3d") if ax is None else ax
    levels, norm = contour_levels(heights, value)
    logarithmic = isinstance(norm, LogNorm)
    shown = np.clip(heights, levels[0], levels[-1])
    raised = np.log10(shown) if logarithmic else shown
    where = np.meshgrid(*axes, indexing="ij")
    colors = plt.get_cmap("viridis")(norm(shown))
    ax.plot_surface(*where, raised, facecolors=colors, rcount=80, ccount=80, linewidth=0, antialiased=False)
    steps, places, _, losses = visits_of(row)
    if trajectory and value == "loss" and len(steps):
        height = np.log10(losses) if logarithmic else losses
        ax.plot(places[:, 0], places[:, 1], height, "o-", color=VERMILION, markersize=3, zorder=10)
    if logarithmic:
        ax.zaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10**power:.2g}"))
    for axis, label in enumerate(("x", "y")):
        getattr(ax, f"set_{label}label")(_axis_name(row, axis), fontsize=8, labelpad=8)
    ax.set_zlabel(name, labelpad=8)
    ax.tick_params(labelsize=8)
    ax.set_box_aspect((1, 1, 0.7), zoom=0.85)
    return ax


def _draw_visits(ax: Any, row: xr.Dataset, dark: bool) -> list[str]:
    """Draw the trajectory, and return a sentence on how far from the plane it ran."""
    steps, places, residuals, _ = visits_of(row)
    if not len(steps):
        return []
    inner, outer = ("white", BLACK) if dark else (BLACK, "white")
    edge = [outline.Stroke(linewidth=2.6, foreground=outer), outline.Normal()]
    ax.plot(*places.T, "-o", color=inner, lw=1.2, markersize=3.5, path_effects=edge, zorder=4, label="training")
    far = int(np.argmax(residuals))
    text = f"Line: training from step {steps[0]} to {steps[-1]}, up to {residuals[far]:.3g} off the plane"
    return [f"{text} (at step {steps[far]})."]


def _axis_name(row: xr.Dataset, axis: int) -> str:
    kind, normalization = row.attrs.get("kind", ""), row.attrs.get("normalization", "none")
    if kind == "random" and normalization == "none":
        return f"random direction {axis + 1}, as drawn"
    return literal(_UNITS.get(kind, "direction {axis}").format(axis=axis + 1, normalization=normalization))


def _title(row: xr.Dataset, split: str, name: str) -> str:
    data = "training" if split == "train" else "held-out"
    at = f" at step {int(row['step'])}" if "step" in row.coords else ""
    return f"{name[0].upper()}{name[1:]} on the measured {data} examples{at}."
