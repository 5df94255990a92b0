"""Axes of a grid: zero is always on them, and rectangular grids keep their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MARGIN = 0.2


def make_axes(
    count: int,
    span: float | Sequence[Sequence[float]] | None,
    points: int | Sequence[int],
    marked: np.ndarray | None,
) -> tuple[np.ndarray, ...]:
    """Return the coordinates along each axis.

    Args:
        count: Number of axes.
        span: Half the width of every axis, or (low, high) for each; by default what holds the marked points with a
            fifth to spare, or 1.
        points: Number of points on every axis, or on each.
        marked: Coordinates that the default must hold, shape (n, count).

    Returns:
        Increasing arrays, in the order of the axes.

    Raises:
        ValueError: An axis has fewer than three points, or does not hold zero inside.
    """
    sizes = [points] * count if isinstance(points, int) else list(points)
    if len(sizes) != count:
        raise ValueError(f"points is {points!r}; the surface has {count} axes, so give one number, or {count}")
    if span is None and marked is not None:
        ranges = [_around(marked[:, axis]) for axis in range(count)]
    elif span is None or isinstance(span, (int, float)):
        half = 1.0 if span is None else float(span)
        ranges = [(-half, half)] * count
    elif np.shape(span) == (count, 2):
        ranges = [(float(low), float(high)) for low, high in span]
    else:
        raise ValueError(
            f"span is {span!r}; the surface has {count} axes, so give half the width of all as one number, or "
            f"{count} pairs: [{', '.join(['(low, high)'] * count)}]"
        )
    return tuple(_axis(low, high, size) for (low, high), size in zip(ranges, sizes, strict=True))


def _around(values: np.ndarray) -> tuple[float, float]:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = _MARGIN * max(high - low, 1e-12)
    return low - room, high + room


def _axis(low: float, high: float, points: int) -> np.ndarray:
    """Place both ends and zero exactly; the steps on the two sides of zero differ only where they must."""
    if points < 3 or not low < 0 < high:
        raise ValueError(
            f"an axis of {points} points from {low:g} to {high:g} cannot hold the centre; it needs at least 3 points, "
            "and 0 between its ends"
        )
    below = min(max(round((points - 1) * -low / (high - low)), 1), points - 2)
    left, right = np.linspace(low, 0.0, below + 1), np.linspace(0.0, high, points - below)
    return np.concatenate([left, right[1:]])
