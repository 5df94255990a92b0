"""A spectral density on a grid of cells, from the quadrature nodes and weights of the file."""

from __future__ import annotations

import numpy as np


def cell_masses(positions: np.ndarray, weights: np.ndarray, edges: np.ndarray, bandwidth: float) -> np.ndarray:
    """Return the fraction of eigenvalues in each cell, averaged over the probes.

    Each node is spread by an Epanechnikov kernel, which keeps its mass (but for what lies outside the grid) and ends
    at a finite distance, so that cells far from every node hold exactly nothing.

    Args:
        positions: Nodes in the coordinate in which the cells are cut, shape (probe, node).
        weights: Their weights, which sum to 1 for a probe, shape (probe, node); padding has weight 0.
        edges: Ascending edges of the cells, shape (cell + 1,).
        bandwidth: Half-width of the kernel, in units of the positions.

    Returns:
        Masses, shape (cell,); NaN everywhere where no probe has a weight.
    """
    used = np.isfinite(positions) & np.isfinite(weights) & (weights > 0)
    probes = int(used.any(axis=-1).sum())
    if probes == 0:
        return np.full(len(edges) - 1, np.nan)
    at, mass = positions[used], weights[used] / probes
    below = _kernel_cdf((edges[:, None] - at) / bandwidth) @ mass
    # Differences of sums that are equal in exact arithmetic leave rounding errors, which are no mass.
    found = np.diff(below)
    return np.where(found > 1e-13, found, 0.0)


def _kernel_cdf(distance: np.ndarray) -> np.ndarray:
    t = np.clip(distance, -1.0, 1.0)
    return 0.5 + 0.75 * t - 0.25 * t**3


def step_edges(steps: np.ndarray) -> np.ndarray:
    """Return the borders between recorded steps: halfway, and the first and the last step themselves."""
    steps = np.asarray(steps, dtype=np.float64)
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[:-1] + steps[1:]) / 2
    return np.concatenate([steps[:1], middle, steps[-1:]])
