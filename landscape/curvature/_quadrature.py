"""Gauss quadratures of Lanczos runs, with what each group of batches contributes to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Quadrature:
    """A Gauss quadrature ∫ f dμ ≈ Σ_i τ_i f(θ_i) of the start vector's spectral measure.

    Attributes:
        nodes: θ_i, shape (steps,).
        weights: τ_i, shape (steps,); they sum to 1.
        parts: What each group of batches g contributes, (qᵀu_i)(qᵀu_j) u_iᵀH_g u_j with the unit start vector q and the
            Ritz vectors u_i, shape (groups, steps, steps). None where the groups are not known.
    """

    nodes: np.ndarray
    weights: np.ndarray
    parts: np.ndarray | None = None

    @classmethod
    def of(cls, nodes: np.ndarray, vectors: np.ndarray, forms: np.ndarray | None) -> Quadrature:
        """Make it from the tridiagonal matrix of a Lanczos run.

        Args:
            nodes: Its eigenvalues, shape (steps,).
            vectors: Its eigenvectors in columns, shape (steps, steps).
            forms: QᵀH_gQ for the groups and the basis Q of the run, shape (groups, steps, steps).

        Returns:
            The quadrature.
        """
        parts = None if forms is None else vectors[0][:, None] * (vectors.T @ forms @ vectors) * vectors[0]
        return cls(nodes, vectors[0] ** 2, parts)


def change(function: Callable[[np.ndarray], np.ndarray], nodes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Compute how each group of batches changes ∫ f dμ to first order, Σ_ij f[θ_i, θ_j] parts[g, i, j].

    f[x, y] is the divided difference (f(x) − f(y))/(x − y), and f' where x = y: the derivative of a function of a
    matrix (Daleckii & Krein 1965). Start vector and number of steps are held fixed.

    Args:
        function: Vectorised f.
        nodes: θ, shape (steps,).
        parts: As in `Quadrature`, shape (groups, steps, steps).

    Returns:
        The changes, shape (groups,).
    """
    step = 1e-5 * np.maximum(np.abs(nodes), 1e-3 * np.abs(nodes).max(initial=0.0)) + np.finfo(np.float64).tiny
    slopes = (function(nodes + step) - function(nodes - step)) / (2 * step)
    apart = nodes[:, None] - nodes[None, :]
    near = np.abs(apart) <= np.minimum(step[:, None], step[None, :])
    values = function(nodes)
    ratios = (values[:, None] - values[None, :]) / np.where(near, 1.0, apart)
    found: np.ndarray = np.einsum("ij,gij->g", np.where(near, (slopes[:, None] + slopes) / 2, ratios), parts)
    return found


def stacked(quadratures: list[Quadrature]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Stack quadratures of different lengths, padded with nodes of weight 0.

    Args:
        quadratures: One a probe.

    Returns:
        Nodes and weights, shape (probes, steps), and parts, shape (probes, groups, steps, steps), or None.
    """
    longest = max(len(each.nodes) for each in quadratures)
    padded = [(each, (0, longest - len(each.nodes))) for each in quadratures]
    nodes = np.stack([np.pad(each.nodes, room, mode="edge") for each, room in padded])
    weights = np.stack([np.pad(each.weights, room) for each, room in padded])
    parts = [np.pad(each.parts, ((0, 0), room, room)) for each, room in padded if each.parts is not None]
    return nodes, weights, np.stack(parts) if len(parts) == len(quadratures) else None
