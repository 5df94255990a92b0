"""The plane through three points of weight space, and what lies on it or near it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._results import Result
from landscape.connectivity._curves import Curve


@dataclasses.dataclass(frozen=True, eq=False)
class Plane(Result):
    """A plane in weight space with an orthonormal basis: w(x, y) = origin + x·u + y·v.

    Attributes:
        origin: Flat weights at (0, 0), shape (P,).
        basis: u and v, orthonormal, shape (2, P).
        corners: Coordinates of the three points it was laid through, shape (3, 2); the first two lie on y = 0.
    """

    origin: torch.Tensor
    basis: torch.Tensor
    corners: np.ndarray

    def point(self, x: float, y: float) -> torch.Tensor:
        """Return the flat weights at (x, y), shape (P,)."""
        return self.origin + x * self.basis[0] + y * self.basis[1]

    def project(self, vectors: Sequence[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Project weights onto the plane.

        Args:
            vectors: n flat vectors of shape (P,).

        Returns:
            Coordinates of shape (n, 2), and distances from the plane of shape (n,).
        """
        coordinates, distances = np.empty((len(vectors), 2)), np.empty(len(vectors))
        for index, vector in enumerate(vectors):
            offset = vector.detach().to(self.origin) - self.origin
            found = self.basis @ offset
            coordinates[index] = found.cpu().numpy()
            distances[index] = float(torch.linalg.vector_norm(offset - found @ self.basis))
        return coordinates, distances


@dataclasses.dataclass(frozen=True, eq=False)
class PlaneCurve(Result):
    """A curve as it is seen from a plane.

    Attributes:
        t: Positions on the curve, shape (n,).
        coordinates: Of their projections, shape (n, 2).
        distances: Their distances from the plane, shape (n,): what the drawing does not show.
        control_points: Coordinates of the curve's control points, ends first and last, shape (k, 2).
        control_distances: Their distances, shape (k,).
    """

    t: np.ndarray
    coordinates: np.ndarray
    distances: np.ndarray
    control_points: np.ndarray
    control_distances: np.ndarray


def plane_through(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> Plane:
    """Lay a plane through three points of weight space.

    u points from the first to the second, v is what of the way to the third is orthogonal to u; both of length one, so
    distances on the plane are distances of weights. Computed and held in float64.

    Memory: three flat vectors of float64.

    Args:
        first: Flat weights, shape (P,), such as `objective.vector()` gives them: the origin.
        second: Flat weights, shape (P,).
        third: Flat weights, shape (P,).

    Returns:
        The plane.

    Raises:
        MeasurementError: The three lie on one line.
        ValueError: They are not flat vectors of one length.

    Source: Garipov et al. 2018, arXiv:1802.10026, appendix A.2.

    Example:
        >>> import torch
        >>> plane_through(torch.zeros(3), torch.tensor([2.0, 0, 0]), torch.tensor([1.0, 3.0, 0])).corners.tolist()
        [[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]]
    """
    shapes = {tuple(vector.shape) for vector in (first, second, third)}
    if len(shapes) != 1 or first.ndim != 1:
        raise ValueError(f"the three points have shapes {sorted(shapes)}; expected three flat vectors of one length")
    origin, along, beside = (vector.detach().double() for vector in (first, second, third))
    along, beside = along - origin, beside - origin
    width = torch.linalg.vector_norm(along)
    reach = torch.linalg.vector_norm(beside)
    u = along / width
    across = beside - (u @ beside) * u
    across = across - (u @ across) * u  # a second time, against rounding
    height = torch.linalg.vector_norm(across)
    if not width > 0 or not height > 1e-7 * torch.maximum(width, reach):
        raise MeasurementError(
            "the three points lie on one line, so no one plane goes through them; give a third point off it"
        )
    corners = np.array([[0.0, 0.0], [float(width), 0.0], [float(u @ beside), float(height)]])
    return Plane(origin, torch.stack([u, across / height]), corners)


def curve_on_plane(curve: Curve, plane: Plane, t: Sequence[float] | np.ndarray | None = None) -> PlaneCurve:
    """Project a curve onto a plane, with the distances that the drawing leaves out; `plot_surface(curve=)` draws it.

    A quadratic Bézier curve lies in the plane through its three control points; any other curve is seen from it.

    Args:
        curve: The curve.
        plane: The plane.
        t: Positions in [0, 1]; by default 61, equally spaced.

    Returns:
        Coordinates and distances of curve and control points.
    """
    grid = np.linspace(0.0, 1.0, 61) if t is None else np.asarray(t, dtype=np.float64)
    coordinates, distances = plane.project([curve.point(position) for position in grid])
    return PlaneCurve(grid, coordinates, distances, *plane.project(curve.points))
