"""Evidence that extreme eigenpairs are the extreme ones: small residuals alone do not say that none was missed."""

from __future__ import annotations

import numpy as np

from landscape.curvature._convergence import negligible, select, slack
from landscape.curvature._ritz_space import RitzSpace

# Fewer steps than this do not show a missed eigenvalue.
LEAST_LOOK = 8
MOST_LOOK = 16
# A random direction has a component of at least a fiftieth of the usual size on an eigenvector, 98 times in a hundred.
_UNLUCKY = 0.02
# Values nearer than that many tolerances count as one where it is asked which of them may have a further copy.
_APART = 10


def second_look(budget: int) -> int:
    """Products of a budget that are kept for a second look; none where it leaves too little for that."""
    return 0 if budget < 2 * LEAST_LOOK else min(MOST_LOOK, max(LEAST_LOOK, budget // 6))


def evidence(diagonal: np.ndarray, off_diagonal: np.ndarray, at: float, size: int) -> float:
    """Tell how surely a Lanczos chain from a random start rules out an eigenvalue that it has not met.

    A unit eigenvector with eigenvalue λ has a component c on the unit start vector with c² Σ_j p_j(λ)² ≤ 1, where p_j
    are the orthonormal polynomials of the chain (the sum is the inverse Christoffel function). A random start has
    c² ≈ χ²/P. So where the sum is far above P, the eigenvalue is not there, or the start was very unlucky.

    Args:
        diagonal: Of the chain's tridiagonal matrix, shape (s,).
        off_diagonal: Beside the diagonal, the norm of the residual last, shape (s,).
        at: The eigenvalue λ in question.
        size: Dimension P; 2P where half of the start is random, for its component is half as large in the mean.

    Returns:
        P/Σ p_j(λ)²: the component's squared size, in units of the usual one, that the start would have at most.
    """
    before, present, total, coupling = 0.0, 1.0, 1.0, 0.0
    for a, b in zip(diagonal, off_diagonal, strict=True):
        if b == 0.0:
            return 0.0
        before, present = present, ((at - a) * present - coupling * before) / b
        coupling = b
        total += present**2
    return size / total


def look(space: RitzSpace, wanted: tuple[tuple[int, str], ...], tol: float, most: int) -> list[np.ndarray]:
    """Search for eigenvalues that a converged space has missed, from a random direction orthogonal to it.

    A Krylov space holds one vector of a multiple eigenvalue, and none to which its start vector is orthogonal. What
    it does hold is out of the way of the new chain, so a further copy stands far out there, and few steps suffice:
    they end as soon as the `evidence` says that nothing was missed. Half of the direction may be a hint of the look
    at a part of the examples; the other half is random.

    Args:
        space: The space, which grows by the steps taken.
        wanted: The wanted pairs, (k, which) each.
        tol: Relative difference of values that counts.
        most: Most products to spend.

    Returns:
        For each of `wanted` one flag a pair: whether no eigenvalue turned up that should have come before it.
    """
    before = [_chosen(space, k, which) for k, which in wanted]
    places = marks(space, wanted, tol)
    most = min(most, space.capacity - sum(k for k, _ in wanted) - 1)
    if space.count + most > space.capacity:
        space.restart(outer(space.ritz()[0], wanted, space.capacity - most))
    space.inject()
    for _ in range(most):
        space.grow(1)
        diagonal, off_diagonal = space.chain
        if all(evidence(diagonal, off_diagonal, mark, space.start_size) <= _UNLUCKY**2 for mark, _ in places):
            break
    return unmoved(before, space, wanted, tol)


def unmoved(
    before: list[np.ndarray], space: RitzSpace, wanted: tuple[tuple[int, str], ...], tol: float
) -> list[np.ndarray]:
    """Tell which wanted values are the same as before, and all that are further out."""
    flags = []
    for old, (k, which) in zip(before, wanted, strict=True):
        new = _chosen(space, k, which)[: len(old)]
        same = np.abs(new - old) <= slack(new, space.ritz()[0], tol)
        if which == "BE":
            top = len(old) - len(old) // 2
            same[:top] = np.logical_and.accumulate(same[:top])
            same[top:] = np.logical_and.accumulate(same[top:][::-1])[::-1]
        else:
            same = np.logical_and.accumulate(same)
        flags.append(same)
    return flags


def outer(values: np.ndarray, wanted: tuple[tuple[int, str], ...], count: int) -> np.ndarray:
    """Return ascending indices of about `count` values: the wanted ones and those next to them."""
    spare = max(0, count - sum(k for k, _ in wanted))
    kept: set[int] = set()
    for k, which in wanted:
        kept.update(select(values, k + spare // len(wanted), which).tolist())
    return np.array(sorted(kept))


def _chosen(space: RitzSpace, k: int, which: str) -> np.ndarray:
    values = space.ritz()[0]
    return values[select(values, k, which)]


def marks(space: RitzSpace, wanted: tuple[tuple[int, str], ...], tol: float) -> list[tuple[float, int]]:
    """Return where a missed eigenvalue would be hardest to rule out.

    The first chain rules out what lies apart from its own Ritz values. What it cannot see are further eigenvalues at
    one of those, and of the innermost one these do not count.

    Returns:
        Such values for every group and end, each with 1 at the top and −1 at the bottom.
    """
    values = space.ritz()[0]
    least = negligible(values, tol)
    places: list[tuple[float, int]] = []
    for k, which in wanted:
        chosen = values[select(values, k, which)]
        if which == "LM":
            reach = _innermost(np.abs(chosen), tol, least)
            places += [(reach, 1), (-reach, -1)]
            continue
        top = len(chosen) if which == "LA" else 0 if which == "SA" else len(chosen) - len(chosen) // 2
        if top:
            places.append((_innermost(chosen[:top], tol, least), 1))
        if top < len(chosen):
            bottom = chosen[top:][::-1] if which == "BE" else chosen
            places.append((-_innermost(-bottom, tol, least), -1))
    return places


def _innermost(chosen: np.ndarray, tol: float, least: float) -> float:
    """Return the last of descending values that is not as good as equal to the last one, or what lies just above it."""
    size = max(abs(float(chosen[-1])), least)
    apart = chosen[chosen > chosen[-1] + _APART * tol * size]
    return float(apart[-1]) if len(apart) else float(chosen[-1]) + tol * size
