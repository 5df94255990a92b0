"""Evidence that extreme eigenpairs are the extreme ones: small residuals alone do not say that none was missed."""

from __future__ import annotations

import numpy as np
import torch

from landscape.curvature._lanczos import Krylov, rademacher
from landscape.curvature._operator import SymmetricOperator

# Index of the start vector of the second look, past those that densities and traces draw.
_SECOND_LOOK = 1_000_003


class _Deflated(SymmetricOperator):
    """(I − VVᵀ) H (I − VVᵀ): the operator without the eigenpairs that are known."""

    def __init__(self, operator: SymmetricOperator, vectors: torch.Tensor):
        super().__init__(operator.shape[0], operator.dtype, operator.device)
        self._operator = operator
        self._vectors = torch.linalg.qr(vectors)[0]

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._without(self._operator @ self._without(vector))

    def _without(self, vector: torch.Tensor) -> torch.Tensor:
        return vector - self._vectors @ (self._vectors.T @ vector)


def outermost(operator: SymmetricOperator, vectors: torch.Tensor, steps: int, seed: int) -> tuple[float, float]:
    """Look for what is left of a spectrum when some eigenvectors are taken out, from another start vector.

    A Krylov space holds one vector of a multiple eigenvalue, and none to which its start vector is orthogonal. With the
    found vectors taken out and another start, a further copy is the outermost eigenvalue, which few steps suffice to
    see.

    Args:
        operator: The operator, shape (P, P).
        vectors: The eigenvectors found, in columns, shape (P, k).
        steps: Products to spend.
        seed: Seed of the start vector.

    Returns:
        The smallest and the largest Ritz value found; both lie within the remaining spectrum.
    """
    deflated = _Deflated(operator, vectors)
    start = rademacher(operator.shape[0], seed, _SECOND_LOOK).to(operator.device, operator.dtype)
    krylov = Krylov(deflated, deflated._without(start), seed)
    krylov.grow(min(steps, operator.shape[0] - vectors.shape[1]))
    values = krylov.ritz()[0]
    return float(values[0]), float(values[-1])


def ranked(values: np.ndarray, wanted: np.ndarray, met: np.ndarray, errors: np.ndarray, which: str) -> np.ndarray:
    """Tell which wanted Ritz pairs are known to be the ones they are taken for.

    Convergence goes from the ends inwards. A Ritz value inside of one that has not converged may belong to any
    eigenvalue, and so may one beyond the middle of the Krylov space. By magnitude, the outermost value of either sign
    that was left out must be known to be smaller.

    Args:
        values: All Ritz values, ascending, shape (m,).
        wanted: Indices of the wanted ones.
        met: Whether each Ritz pair met the tolerance, shape (m,).
        errors: Bounds on the errors of the Ritz values, shape (m,).
        which: "LA", "SA", "LM" or "BE".

    Returns:
        One flag a wanted pair.
    """
    count = len(values)
    from_bottom = np.logical_and.accumulate(met)
    from_top = np.logical_and.accumulate(met[::-1])[::-1]
    half = count // 2
    from_bottom[half:] = False
    from_top[: count - half] = False
    if which == "LA":
        return from_top[wanted]
    if which == "SA":
        return from_bottom[wanted]
    known = (from_top | from_bottom)[wanted]
    if which == "LM" and len(wanted) < count:
        left_out = np.setdiff1d(np.arange(count), wanted)[[0, -1]]
        rivals = (np.abs(values) + errors)[left_out].max()
        known &= np.abs(values[wanted]) + errors[wanted] >= rivals
    return known
