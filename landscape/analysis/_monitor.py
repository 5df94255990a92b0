"""The monitored sharpness over training, each quantity against the line at which the optimizer becomes unstable."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from landscape.analysis._error_bars import draw_band, lower_ends
from landscape.analysis._labels import label_of
from landscape.analysis._reading import RunLike, as_run
from landscape.analysis._stability import Threshold, preconditioned_threshold, stability_threshold
from landscape.analysis._style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    legend_above,
    log_where_positive,
    mark_failed,
    new_axes,
    panels,
    style,
)

GROUP = "sharpness_monitor"
_STEP = Threshold(2.0, 0.0, "2/η")
# column -> (colour, marker, label): curvature along the step, in units of 1/η
_ALONG = {
    "critical_sharpness": (BLUE, "o", "critical sharpness 2/ηc"),
    "critical_sharpness_quadratic": (ORANGE, "", "by the quadratic model"),
}
_PLAIN = {
    "lambda_max": (VERMILION, "s", "largest Hessian eigenvalue"),
    "directional_sharpness": (SKY, "", "directional sharpness (Hessian along the step)"),
}
_PRECONDITIONED = {"preconditioned_sharpness": (PURPLE, "^", "preconditioned sharpness")}


def plot_monitor(run: RunLike, ax: Any = None) -> Any:
    """Plot what `SharpnessMonitor` recorded, with the stability lines of the optimizer.

    Above: the critical sharpness 2/ηc and its quadratic model, with 2/η. A step above the line raised the loss. In the
    middle: the preconditioned sharpness with (2+2β₁)/((1−β₁)η) where it was recorded, else λmax with 2/η or (2+2β)/η
    and the curvature along the step. Below: the loss on the measured examples, and the gradient noise scale where it
    was recorded. Bands are ± one standard error over examples, and so are the bars of the noise scale. Values that are
    not positive are left out of logarithmic axes.

    Args:
        run: Path of a run file, or an open run.
        ax: Three axes to draw on; those of a new figure by default.

    Returns:
        Array of the three axes.

    Raises:
        FileError: The file cannot be read, or the run has no group `sharpness_monitor`.
        ValueError: `ax` does not hold three axes.
    """
    run = as_run(run)
    data, optimizer = run.dataset(GROUP), run.attributes.get("optimizer")
    with style():
        new = ax is None
        axes = panels(new_axes(3, 1, (7.0, 7.6), sharex=True, height_ratios=[2, 2, 1.2]) if new else ax, 3)
        above, middle, below = axes
        _draw(above, data, _ALONG, [_STEP])
        above.set_ylabel("sharpness along the step\n(units of 1/learning rate)")
        _draw(middle, data, *_eigenvalues(data, optimizer))
        middle.set_ylabel("curvature (not invariant)")
        _draw_loss(below, data)
        steps = data["step"].values
        mark_failed(above, steps[np.isin(data["status"].values, ("failed", "partial", "surrogate"))])
        below.set_xlabel(label_of("step"))
        for one in axes:
            legend_above(one, columns=3)
    return axes


def _eigenvalues(data: xr.Dataset, optimizer: Any) -> tuple[dict[str, tuple[str, str, str]], list[Threshold]]:
    """Choose what stands in the middle: curvatures in the optimizer's coordinates have another unit than plain ones."""
    columns, line = (
        (_PRECONDITIONED, preconditioned_threshold(optimizer))
        if "preconditioned_sharpness" in data
        else (_PLAIN, _plain(optimizer))
    )
    if "lambda_max" in data:
        columns = columns | {"lambda_max": _PLAIN["lambda_max"]}
    return columns, [] if line is None else [line]


def _plain(optimizer: Any) -> Threshold | None:
    """The line of λmax of the Hessian alone: coupled decay λ adds λ to every eigenvalue that the optimizer meets."""
    found = stability_threshold(optimizer)
    decay = float(optimizer.get("weight_decay") or 0.0) if isinstance(optimizer, dict) else 0.0
    return None if found is None else Threshold(found[0], -decay, found[1])


def _draw(ax: Any, data: xr.Dataset, columns: dict[str, tuple[str, str, str]], lines: list[Threshold]) -> None:
    steps, shown, bands = data["step"].values, [np.zeros(0)], []
    for name, (color, marker, label) in columns.items():
        if name not in data or not np.isfinite(data[name].values).any():
            continue
        values = np.where(np.isfinite(data[name].values), data[name].values, np.nan)
        dashes = "-" if marker else ":"
        ax.plot(steps, values, dashes, color=color, marker=marker, markersize=3, label=label)
        bands.append((values, _errors(data, name), color))
        shown.append(values[np.isfinite(values)])
    for line in lines:
        edge = line.at(data["learning_rate"].values)
        ax.plot(steps, edge, "--", color=BLACK, lw=1.4, label=line.label, zorder=5)
        shown.append(edge[np.isfinite(edge)])
    values = np.concatenate(shown)
    log_where_positive(ax, values[values > 0])
    for band in bands:
        draw_band(ax, steps, *band)


def _errors(data: xr.Dataset, name: str) -> np.ndarray:
    """Return the standard errors over examples of a column; NaN where the file has none."""
    sampled = f"{name}_stderr_sample"
    return data[sampled].values if sampled in data else np.full(data.sizes["step"], np.nan)


def _draw_loss(ax: Any, data: xr.Dataset) -> None:
    steps, losses = data["step"].values, data["train_loss"].values
    ax.plot(steps, losses, color=GREEN, label=label_of("train_loss"))
    ax.set_ylabel("training loss")
    log_where_positive(ax, losses)
    draw_band(ax, steps, losses, _errors(data, "train_loss"), GREEN)
    if "gradient_noise_scale" not in data:
        return
    other = ax.twinx()
    values, errors = data["gradient_noise_scale"].values, data["gradient_noise_scale_stderr"].values
    log_where_positive(other, values[np.isfinite(values)])
    ends = np.stack([values - lower_ends(other, values, errors), errors])
    other.errorbar(steps, values, ends, color=GREY, fmt=".", capsize=2, label="gradient noise scale")
    other.set_ylabel("noise scale (examples)")
    other.spines["right"].set_visible(True)
    handles, labels = other.get_legend_handles_labels()
    ax.plot([], [], ".", color=handles[0].lines[0].get_color(), label=labels[0])
