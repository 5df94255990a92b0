"""What a quadrature of few nodes cannot tell: the error of its integrals, and how far apart its nodes stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

_LOOK_BACK = 4
# Weights below this share come from directions that a Lanczos run drew afresh when its Krylov space was exhausted.
_EXHAUSTED = 1e-20


def quadrature_error(
    nodes: np.ndarray, weights: np.ndarray, size: int, function: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Estimate how far the mean of the probes' quadratures stands from the integral that infinitely many nodes give.

    The rules of the four Lanczos steps before the last err as the last one does, and where f has a kink, with changing
    sign: half their root mean square distance is the error. But where f varies on a scale far below the distance of the
    nodes, as N_eff(z) at small z does, rules approach the integral slowly from one side, by less a step than what is
    still missing: an error that falls like one over the steps is what the second half of them changed. The larger of
    the two counts. Where f is a polynomial of low degree, or the Krylov space was exhausted, it is 0.

    Args:
        nodes: Nodes, shape (probes, m).
        weights: Their weights, shape (probes, m); those of 0 are padding.
        size: Number of eigenvalues P; rules of so many nodes are exact.
        function: Vectorised f of the eigenvalue.

    Returns:
        The error of ∫ f.
    """
    differences = np.zeros((len(nodes), _LOOK_BACK + 1))
    for index, (points, masses) in enumerate(zip(nodes, weights, strict=True)):
        if np.count_nonzero(masses) < size:
            differences[index] = _shorter_rules(points, masses, function)
    means = differences.mean(axis=0)
    recent, halving = means[:-1], abs(means[-1])
    # An error c/n of n steps changes by 4 c/n² in the last four of them. What is exact by now has stopped changing.
    missing = min(halving, nodes.shape[1] / _LOOK_BACK * float(np.abs(recent).max()))
    return max(float(np.sqrt((recent**2).mean()) / 2), missing)


def _shorter_rules(nodes: np.ndarray, weights: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Differences to the full rule of the Gauss rules that the same probe gave some Lanczos steps before.

    The Jacobi matrix of the m-point rule is that of the Lanczos run, and its leading blocks are those of shorter runs;
    it comes back from nodes and weights by a Lanczos run on the discrete measure itself.

    Returns:
        The differences one, two, three and four steps before, and at half of the steps; 0 for what is too short for a
        rule, and where the Krylov space was exhausted.
    """
    used = weights > _EXHAUSTED
    if (weights[~used] > 0).any() or (nodes[~used] != nodes[-1]).any():
        return np.zeros(_LOOK_BACK + 1)
    nodes, weights = nodes[used], weights[used]
    alpha, beta = _jacobi(nodes, weights / weights.sum())
    full = float((weights * function(nodes)).sum())
    found = np.zeros(_LOOK_BACK + 1)
    steps = len(nodes)
    counts = [*range(steps - 1, steps - 1 - _LOOK_BACK, -1), steps // 2]
    for index, count in enumerate(counts):
        if count < 2:
            continue
        values, vectors = scipy.linalg.eigh_tridiagonal(alpha[:count], beta[: count - 1])
        found[index] = float((vectors[0] ** 2 * function(values)).sum()) - full
    # What rounding leaves of equal sums is no error.
    return np.where(np.abs(found) > 1e-12 * max(float((weights * np.abs(function(nodes))).sum()), 1e-300), found, 0.0)


def _jacobi(nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = len(nodes)
    basis = np.zeros((size, size))
    basis[0] = np.sqrt(weights)
    alpha, beta = np.zeros(size), np.zeros(max(size - 1, 0))
    for step in range(size):
        image = nodes * basis[step]
        alpha[step] = basis[step] @ image
        for _ in range(2):
            image = image - basis[: step + 1].T @ (basis[: step + 1] @ image)
        if step + 1 < size:
            beta[step] = np.linalg.norm(image)
            if beta[step] > 0:
                basis[step + 1] = image / beta[step]
    return alpha, beta


def node_widths(nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far the mass of each node may reach, shape (m,); 0 for padding and single nodes.

    A node whose Ritz vector has converged is an eigenvalue, known to its residual β|s_last|, however far its neighbours
    are. Others stand for all eigenvalues around them, beyond the farther neighbour. The width is four residuals, at
    most twice the distance of that neighbour. The last β is not in the rule; the one before stands for it.
    """
    widths = np.zeros(len(nodes))
    used = np.flatnonzero(weights > _EXHAUSTED)
    if len(used) < 2:
        return widths
    order = used[np.argsort(nodes[used], kind="stable")]
    gaps = np.diff(nodes[order])
    reach = np.maximum(np.append(gaps, 0.0), np.append(0.0, gaps))
    alpha, beta = _jacobi(nodes[order], weights[order] / weights[order].sum())
    residuals = beta[-1] * np.abs(scipy.linalg.eigh_tridiagonal(alpha, beta)[1][-1])
    exhausted = len(used) < len(nodes) and (weights[weights <= _EXHAUSTED] > 0).any()
    widths[order] = 0.0 if exhausted else np.minimum(2 * reach, 4 * residuals)
    return widths
