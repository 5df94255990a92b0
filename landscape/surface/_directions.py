"""Directions in weight space: random, of the Hessian, through given points; and what scales random ones fairly."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._layout import ParameterLayout
from landscape._results import Result
from landscape.connectivity import Plane, plane_through
from landscape.curvature import hessian, top_eigenpairs
from landscape.objective import Objective

NORMALIZATIONS = ("filter", "layer", "none")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Directions(Result):
    """One or two directions that span a line or a plane.

    Attributes:
        vectors: The directions, shape (k, P): one unit on axis i is the displacement vectors[i].
        kind: "random", "hessian", "trajectory", "plane" or "given".
        normalization: What was done to their length: "filter", "layer" or "none".
        seed: Seed of what was drawn; None where nothing was.
        center: Weights that belong at the origin, shape (P,); None for an objective's present ones.
        points: Coordinates of weights that the picture is about (a trajectory, three checkpoints), shape (n, k).
    """

    vectors: torch.Tensor
    kind: str
    normalization: str = "none"
    seed: int | None = None
    center: torch.Tensor | None = None
    points: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"Directions({self.kind}, {len(self)} of P={self.vectors.shape[1]}, normalization={self.normalization})"

    def at(self, center: torch.Tensor, *coordinates: float) -> torch.Tensor:
        """Return the weights at coordinates, center + Σ coordinates[i] · vectors[i], shape (P,)."""
        point = center.clone()
        for coordinate, vector in zip(coordinates, self.vectors, strict=True):
            point.add_(vector.to(point), alpha=float(coordinate))
        return point


@of_objective
def random_directions(
    objective: Objective, count: int = 2, seed: int = 0, normalization: str = "filter", biases: bool = False
) -> Directions:
    """Draw Gaussian directions and give them the scale of the weights, layer by layer or filter by filter.

    Args:
        objective: The loss at whose default point the weights are taken.
        count: Number of directions: 1 or 2.
        seed: Seed; the first direction does not depend on the count.
        normalization: As in `normalize`.
        biases: As in `normalize`.

    Returns:
        The directions.

    Raises:
        ValueError: There is nothing to draw, or the normalization is unknown.

    Source: Li et al. 2018, arXiv:1712.09913.
    """
    if count < 1:
        raise ValueError(f"count is {count}; draw at least one direction")
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(objective.n_parameters, generator=generator) for _ in range(count)]
    weights = objective.vector()
    vectors = torch.stack(drawn).to(weights)
    scaled = normalize(vectors, weights, objective.layout, normalization, biases)
    return Directions(scaled, "random", normalization, seed)


def normalize(
    vectors: torch.Tensor, weights: torch.Tensor, layout: ParameterLayout, how: str, biases: bool = False
) -> torch.Tensor:
    """Scale directions like the weights, so that surfaces of different networks compare.

    "filter": d_f · ‖w_f‖/‖d_f‖ for every filter f, a row of the first dimension of each tensor with two or more (an
    output channel of a convolution, the inputs of a unit of a linear layer); "layer": the same for whole tensors;
    "none": as they are. Tensors with one dimension or none, biases and the parameters of normalisations, are left out
    (direction 0) with both scalings unless `biases` is set, which then scales them as a whole.

    Args:
        vectors: Directions, shape (k, P).
        weights: Weights, shape (P,).
        layout: Names and shapes behind them.
        how: "filter", "layer" or "none".
        biases: Whether tensors with one dimension move too.

    Returns:
        Scaled copies, shape (k, P). A filter of zeros has direction 0.

    Raises:
        ValueError: `how` is unknown.

    Source: Li et al. 2018, arXiv:1712.09913: filter normalisation; the authors' code has the choice to leave biases and
    batch-normalisation parameters out, and their figures do.
    """
    if how not in NORMALIZATIONS:
        raise ValueError(f"normalization is {how!r}; it must be one of {', '.join(NORMALIZATIONS)}")
    scaled = vectors.clone()
    if how == "none":
        return scaled
    for vector in scaled:
        for part, weight in zip(layout.unflatten(vector), layout.unflatten(weights), strict=True):
            if weight.ndim < 2 and not biases:
                part.zero_()
                continue
            rows = how == "filter" and weight.ndim >= 2
            shape = (len(weight), -1) if rows else (1, -1)
            if weight.numel():
                _scale(part.reshape(shape), weight.reshape(shape))
    return scaled


def _scale(part: torch.Tensor, weight: torch.Tensor) -> None:
    """Give each row of a view the length of the weights' row, in place."""
    wanted = torch.linalg.vector_norm(weight.double(), dim=1, keepdim=True)
    present = torch.linalg.vector_norm(part.double(), dim=1, keepdim=True)
    part.mul_(torch.where(present > 0, wanted / present, 0.0).to(part))


@of_objective
def hessian_directions(
    objective: Objective, count: int = 2, which: str = "LA", normalization: str = "none", **search: Any
) -> Directions:
    """Take unit eigenvectors of the Hessian: the directions of largest curvature by default.

    Args:
        objective: The loss at whose default point the Hessian is taken.
        count: Number of directions.
        which: "LA" largest, "SA" most negative, "BE" one from each end, as in `top_eigenpairs`.
        normalization: As in `normalize`; "none" keeps them eigenvectors.
        **search: Further arguments of `top_eigenpairs`.

    Returns:
        The directions.

    Raises:
        MeasurementError: The search did not converge.
    """
    pairs = top_eigenpairs(hessian(objective), count, which=which, **search)
    if not pairs.converged:
        raise MeasurementError(
            f"the eigenvectors did not converge in {pairs.n_matvecs} products (residuals {pairs.residuals}); allow "
            "more with max_matvecs=, or take random directions"
        )
    vectors = normalize(pairs.vectors.T.contiguous(), objective.vector(), objective.layout, normalization)
    return Directions(vectors, "hessian", normalization, pairs.seed)


def plane_directions(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> Directions:
    """Span the plane through three weight vectors by orthonormal directions, the first of them at the origin.

    Axis 0 leads from the first to the second. Coordinates are distances in weight space, those of
    `landscape.connectivity.plane_through`.

    Args:
        first: Weights, shape (P,).
        second: Others.
        third: A third.

    Returns:
        The directions, with the three places in `points`.

    Raises:
        MeasurementError: The three lie on one line.
        ValueError: They are not flat vectors of one length.

    Source: Garipov et al. 2018, arXiv:1802.10026.
    """  # noqa: DOC502 - plane_through raises them
    return directions_of(plane_through(first, second, third), first)


def directions_of(plane: Plane, like: torch.Tensor) -> Directions:
    """Return a plane's basis as directions, of a tensor's type and device."""
    return Directions(plane.basis.to(like), "plane", center=plane.origin.to(like), points=plane.corners)


def given_directions(vectors: Sequence[torch.Tensor] | torch.Tensor, center: torch.Tensor | None = None) -> Directions:
    """Wrap directions of one's own.

    Args:
        vectors: One or two flat vectors, shape (P,) each.
        center: Weights at the origin, shape (P,); by default an objective's present ones.

    Returns:
        The directions.
    """
    return Directions(torch.stack(list(vectors)), "given", center=center)
