"""A loss surface as an interactive page that opens in any browser, by plotly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm

from landscape._errors import LandscapeError
from landscape.analysis._reading import RunLike
from landscape.analysis._surface import GROUP, contour_levels, grid_of, surface_row, visits_of

if TYPE_CHECKING:
    from landscape.surface import Surface  # of a package that loads torch


def write_surface_html(
    run: RunLike | xr.Dataset | Surface,
    out: str | Path,
    step: int | None = None,
    value: str = "loss",
    split: str = "train",
    group: str = GROUP,
) -> Path:
    """Write a recorded surface as one HTML file to turn and to look into, the trajectory above it.

    Heights are logarithms where the loss spans more than a decade; the labels under the pointer are the values
    themselves, of the trajectory the true losses and the distance from the plane. The file holds all that it needs, and
    is about 4.5 MB for that reason.

    Args:
        run: Path of a run file, an open run, a `Surface`, or what its `to_dataset` returned.
        out: File to write.
        step: Step of the row; the last one that did not fail by default.
        value: "loss" or "error".
        split: "train" or "held_out".
        group: Name of the group.

    Returns:
        The path.

    Raises:
        LandscapeError: plotly is not installed, or the surface is a line.
        FileError: The file cannot be read, or the run has no such row.
    """  # noqa: DOC502 - the reader raises one of them
    try:
        import plotly.graph_objects as go  # an extra: only this page needs it
    except ImportError:
        raise LandscapeError(
            'interactive pages are made by plotly, which is not installed: pip install "landscape-geometry[html]"'
        ) from None
    row = surface_row(run, step, group)
    heights, axes = grid_of(row, f"surface_{split}_{value}")
    if heights.ndim != 2:
        raise LandscapeError("this surface is a line, and an interactive page needs a plane; draw it with plot_surface")
    levels, norm = contour_levels(heights, value)

    def raised(values: np.ndarray) -> np.ndarray:
        shown = np.clip(values, levels[0], levels[-1])
        return np.log10(shown) if isinstance(norm, LogNorm) else shown

    hover = f"%{{x:.4g}}, %{{y:.4g}}<br>{value} %{{customdata:.5g}}<extra></extra>"
    ticks = raised(levels[::3])
    bar: dict[str, Any] = {"title": value, "tickvals": ticks, "ticktext": [f"{level:.2g}" for level in levels[::3]]}
    figure = go.Figure(
        go.Surface(
            x=axes[0], y=axes[1], z=raised(heights).T, customdata=heights.T, hovertemplate=hover,
            colorscale="Viridis", colorbar=bar, contours_z={"show": True, "usecolormap": True, "project_z": True},
        )
    )  # fmt: skip
    steps, places, residuals, losses = visits_of(row)
    if len(steps) and value == "loss":
        about = (
            "step %{customdata[0]}<br>loss %{customdata[1]:.5g}<br>%{customdata[2]:.3g} off the plane<extra></extra>"
        )
        figure.add_trace(
            go.Scatter3d(
                x=places[:, 0], y=places[:, 1], z=raised(losses), customdata=np.stack([steps, losses, residuals], 1),
                mode="lines+markers", marker={"size": 3}, line={"color": "#D55E00", "width": 4}, hovertemplate=about,
                name="training",
            )
        )  # fmt: skip
    scene = {
        "xaxis_title": "direction 1",
        "yaxis_title": "direction 2",
        "zaxis": {"title": value, "tickvals": ticks, "ticktext": bar["ticktext"]},
    }
    figure.update_layout(scene=scene, showlegend=False, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    figure.write_html(str(out), include_plotlyjs=True)
    return Path(out)
