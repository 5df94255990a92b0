"""A second look at a part of the examples, which rules out most missed eigenvalues at a share of the cost."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from landscape.curvature._convergence import select
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._verification import MOST_LOOK, evidence, marks, outer

# Larger groups save little, and few of them do not tell how they scatter.
_LARGEST_SHARE = 0.25
# How far below the mean over all examples a group may see a missed eigenvalue, in standard deviations of a group.
_DEVIATIONS = 3.0
# Where the groups scatter more than this, a part of the examples tells nothing.
_MOST_BELOW = 0.5
# Stricter than in a whole look: together with a group that sees too little, the risk is the same.
_UNLUCKY = 0.005


def ruled_out(space: RitzSpace, wanted: tuple[tuple[int, str], ...], tol: float, most: int) -> bool:
    """Tell whether the examples of one group of batches rule out that a converged space has missed an eigenvalue.

    Let v be a missed unit eigenvector, Hv = λv, orthogonal to the space. Its form with the group's own matrix A,
    vᵀAv, scatters about λ as the forms of the eigenvectors that were found do. By Courant and Fischer, A projected on
    the complement of the space has an eigenvalue of at least vᵀAv. So a chain of A in the complement, from a random
    start, must meet one not far below λ; the `evidence` that it does not rules out v. The chain costs the group's
    share of as many products. Where it meets such an eigenvalue nothing is known, as that may be one of the group's
    own: then the whole look must follow, and begins half from what the chain met.

    Args:
        space: The space; it keeps what it had, but is restarted where the chain finds no room.
        wanted: The wanted pairs, (k, which) each.
        tol: Relative difference of values that counts.
        most: Most products to spend.

    Returns:
        Whether nothing that counts was missed; False also where a part of the examples cannot tell.

    Source: Kuczyński & Woźniakowski 1992, doi:10.1137/0613066 (random starts); Horn & Johnson 2013, Theorem 4.2.6.
    """
    group = _group(space)
    if group is None:
        return False
    share, below = group[1], _DEVIATIONS * _scatter(space, wanted, group[1])
    places = marks(space, wanted, tol)
    if not below <= _MOST_BELOW or any(place * end <= 0 for place, end in places):
        return False
    sought = [place * (1 - below) for place, _ in places]
    steps = min(MOST_LOOK, int(most / share), space.capacity - sum(k for k, _ in wanted) - 1)
    if space.count + steps > space.capacity:
        space.restart(outer(space.ritz()[0], wanted, space.capacity - steps))
    space.inject(group=group[0])
    found = False
    for _ in range(steps):
        space.grow(1)
        diagonal, off_diagonal = space.chain
        seen = scipy.linalg.eigvalsh_tridiagonal(diagonal, off_diagonal[:-1])
        if any(seen[0] <= place <= seen[-1] for place in sought):
            break
        if all(evidence(diagonal, off_diagonal, place, space.size) <= _UNLUCKY**2 for place in sought):
            found = True
            break
    space.forget_chain(hint=not found)
    return found


def _group(space: RitzSpace) -> tuple[int, float] | None:
    """Choose the group of middle size: its number and its share of the examples; None where no group is small."""
    clusters = space.forms.clusters
    if clusters is None or not space.groups_alone:
        return None
    middle = int(np.argsort(clusters.shares, kind="stable")[clusters.count // 2])
    share = float(clusters.shares[middle])
    return (middle, share) if share <= _LARGEST_SHARE else None


def _scatter(space: RitzSpace, wanted: tuple[tuple[int, str], ...], share: float) -> float:
    """Return the largest relative standard deviation of one group's form about that of all, among the wanted pairs."""
    values, vectors = space.ritz()
    chosen = np.concatenate([select(values, k, which) for k, which in wanted])
    parts = space.forms.along(vectors[:, chosen])
    assert space.forms.clusters is not None
    assert parts is not None
    sizes = np.maximum(np.abs(values[chosen]), np.finfo(np.float64).tiny)
    # A group is a part of the whole that it is compared with.
    return float((space.forms.clusters.spread(parts) / sizes).max()) * (1 / share - 1) ** 0.5
