"""Curves and marked weights on the picture of a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.patheffects as outline
import numpy as np

from landscape.analysis._style import BLACK, VERMILION

if TYPE_CHECKING:
    from landscape.connectivity import PlaneCurve  # of a package that loads torch

_DASHES = ("-", "--", ":", "-.")


def draw_curves(ax: Any, curves: Sequence[PlaneCurve], dark: bool) -> list[str]:
    """Draw curves, each in its own dashes, with their inner control points; say how far off the plane they run.

    Args:
        ax: Axes of the plane.
        curves: The curves, projected onto it.
        dark: Whether the background is.

    Returns:
        A sentence on the distances, none without curves.
    """
    inner, outer = ("white", BLACK) if dark else (BLACK, "white")
    edge = [outline.Stroke(linewidth=3.4, foreground=outer), outline.Normal()]
    for index, curve in enumerate(curves):
        dashes = _DASHES[index % len(_DASHES)]
        ax.plot(*curve.coordinates.T, dashes, color=inner, lw=1.8, path_effects=edge, zorder=4, label="curve")
        bends = curve.control_points[1:-1]
        ax.plot(*bends.T, "D", color=inner, markeredgecolor=outer, markersize=6, zorder=5, label="control point")
    if not curves:
        return []
    off = max(float(curve.distances.max()) for curve in curves)
    scale = max(float(np.ptp(curve.coordinates, axis=0).max()) for curve in curves)
    where = "on the plane" if off < 1e-5 * scale else f"up to {off:.3g} off the plane"
    return [f"{'Curves' if len(curves) > 1 else 'Curve'} {where}, diamonds: control points."]


def draw_corners(ax: Any, points: np.ndarray) -> None:
    """Mark the weights that a plane was laid through by crosses and letters."""
    for letter, (x, y) in zip("ABC", points, strict=False):
        ax.plot(x, y, "+", color=VERMILION, markersize=13, markeredgewidth=2.2, zorder=6)
        ax.annotate(
            letter,
            (x, y),
            (7, 7),
            textcoords="offset points",
            color="white",
            fontweight="bold",
            path_effects=[outline.withStroke(linewidth=2.5, foreground=BLACK)],
            zorder=7,
        )
