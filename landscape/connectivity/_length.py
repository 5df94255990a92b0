"""The length of a curve, and the mean of loss and error along it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from landscape._results import Result
from landscape.averaging._mean import PIECE
from landscape.connectivity._curves import Curve
from landscape.connectivity._profile import PathProfile

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclasses.dataclass(frozen=True)
class PathIntegral(Result):
    """Means over a path by arc length.

    Attributes:
        length: Length of the path, ∫ ‖γ'(t)‖ dt, in units of the weights.
        loss: Mean loss over the path, ∫ L(γ(t)) ‖γ'(t)‖ dt / length.
        error: Mean error rate over the path, likewise.
    """

    length: float
    loss: float
    error: float


def path_integral(curve: Curve, profile: PathProfile) -> PathIntegral:
    """Average loss and error over a path by arc length, ∫ L(γ(t)) ‖γ'(t)‖ dt / ∫ ‖γ'(t)‖ dt.

    Unlike the mean over t it does not change with how the path is parametrised. Arc lengths come from the control
    points, in float64 and exactly up to quadrature; between the points of the profile the values are taken as straight
    (trapezoids).

    Args:
        curve: The path.
        profile: Its loss and error; the grid must hold t = 0 and t = 1.

    Returns:
        Length and means; the means are NaN where the path has no length.

    Raises:
        ValueError: An end is missing on the grid.

    Source: Garipov et al. 2018, arXiv:1802.10026, equation 1.
    """
    order = np.argsort(profile.t)
    t = profile.t[order]
    if t[0] != 0 or t[-1] != 1:
        raise ValueError(
            f"the t grid runs from {t[0]:g} to {t[-1]:g}; an integral over the path needs both ends, 0 and 1"
        )
    steps = arc_lengths(curve, t)
    length = float(steps.sum())
    means = []
    for values in (profile.loss[order], profile.error[order]):
        mean = steps @ (values[1:] + values[:-1]) / 2 / length if length > 0 else math.nan
        means.append(float(mean))
    return PathIntegral(length, means[0], means[1])


def arc_lengths(curve: Curve, t: np.ndarray) -> np.ndarray:
    """Return the length of the curve between neighbouring positions.

    Args:
        curve: The curve.
        t: Ascending positions in [0, 1], shape (n,).

    Returns:
        Lengths, shape (n − 1,).
    """
    gram = _gram(curve.points)
    n_edges = len(gram)
    if curve.kind == "chain":
        # Position along a chain in edges: straight pieces, so lengths add up exactly.
        ends = np.concatenate([[0.0], np.cumsum(np.sqrt(np.diag(gram)))])
        return np.diff(np.interp(t * n_edges, np.arange(n_edges + 1), ends))
    if n_edges == 1:
        return np.diff(t) * math.sqrt(gram[0, 0])
    start, width = t[:-1, None], np.diff(t)[:, None]
    positions = start + width * (1 + _NODES) / 2
    binomials = [math.comb(n_edges - 1, k) for k in range(n_edges)]
    basis = np.stack([c * (1 - positions) ** (n_edges - 1 - k) * positions**k for k, c in enumerate(binomials)])
    squared = n_edges**2 * np.einsum("kij,kl,lij->ij", basis, gram, basis)
    lengths: np.ndarray = (np.sqrt(np.maximum(squared, 0)) @ _WEIGHTS) * width[:, 0] / 2
    return lengths


def _gram(points: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the scalar products of the edges between neighbouring points, in float64 and piece by piece."""
    gram = torch.zeros((len(points) - 1,) * 2, dtype=torch.float64, device=points[0].device)
    for pieces in zip(*(point.split(PIECE) for point in points), strict=True):
        edges = torch.stack([piece.double() for piece in pieces]).diff(dim=0)
        gram += edges @ edges.T
    return gram.cpu().numpy()
