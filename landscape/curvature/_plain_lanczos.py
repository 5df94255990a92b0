"""The Lanczos process without a basis: a tridiagonal matrix in three vectors, and what its eigenvalues stand for."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import torch

from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._quadrature import Quadrature

# Least weight of an eigenvalue, in units of eps².
_GHOST = 10.0
# A random direction has a component of at least a fiftieth of the usual size on an eigenvector, 98 times in a hundred.
_UNLUCKY = 0.02
# Eigenvalues of T nearer than this many roundings of the largest one are copies of one eigenvalue.
_COPIES = 50.0


class PlainLanczos:
    """Lanczos steps by the three-term recurrence alone; no direction is orthogonalised against earlier ones.

    Rounding costs the directions their orthogonality once an eigenvalue has converged. From then on the tridiagonal
    matrix T holds further copies of it. Its other eigenvalues stay right (Paige 1980), and so does the quadrature that
    T gives for the start vector (Greenbaum 1989). `distinct` tells copies and ghosts from eigenvalues.

    Coefficients stay on the device until they are asked for, so a step waits for nothing but the product.

    Memory: three vectors of the operator's length, the product among them.

    Args:
        operator: The symmetric operator, shape (P, P).
        start: Start vector, shape (P,); taken over and changed.

    Source: Paige 1972, doi:10.1093/imamat/10.3.373 (the order of the operations).
    """

    def __init__(self, operator: SymmetricOperator, start: torch.Tensor):
        self._operator = operator
        start = start.to(operator.device, operator.dtype)
        self.current = start.div_(torch.linalg.vector_norm(start))
        self._previous: torch.Tensor | None = None
        self._diagonal: list[torch.Tensor] = []
        self._couplings: list[torch.Tensor] = []

    @property
    def steps(self) -> int:
        """Number of products taken."""
        return len(self._diagonal)

    @property
    def exhausted(self) -> bool:
        """Whether the directions span all that the operator makes of the start vector."""
        return bool(self._couplings) and float(self._couplings[-1]) == 0.0

    def grow(self, steps: int) -> None:
        """Take that many more steps."""
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        residual = self._operator @ self.current
        if self._previous is not None:
            residual.addcmul_(self._previous, self._couplings[-1], value=-1)
        diagonal = torch.dot(residual, self.current)
        residual.addcmul_(self.current, diagonal, value=-1)
        coupling = torch.linalg.vector_norm(residual)
        self._diagonal.append(diagonal)
        self._couplings.append(coupling)
        # Where the Krylov space is exhausted the next direction is zero, and `matrix` ends there.
        self._previous, self.current = self.current, residual.div_(coupling.clamp_min(torch.finfo(coupling.dtype).tiny))

    def matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """Return diagonal and off-diagonal of T, each (steps,), the norm of the residual last."""
        diagonal = torch.stack(self._diagonal).double().cpu().numpy()
        couplings = torch.stack(self._couplings).double().cpu().numpy()
        exhausted = np.flatnonzero(couplings == 0.0)
        end = int(exhausted[0]) + 1 if len(exhausted) else len(diagonal)
        return diagonal[:end], couplings[:end]

    def quadrature(self) -> Quadrature:
        """Return the Gauss quadrature for the start vector; what groups of batches contribute is not known."""
        diagonal, couplings = self.matrix()
        nodes, vectors = scipy.linalg.eigh_tridiagonal(diagonal, couplings[:-1])
        return Quadrature.of(nodes, vectors, None)

    def distinct(self) -> Distinct:
        """Return the eigenvalues that T stands for, each once, without ghosts."""
        return distinct(*self.matrix(), float(torch.finfo(self._operator.dtype).eps), self._operator.shape[0])


@dataclasses.dataclass(frozen=True)
class Distinct:
    """Eigenvalues of a tridiagonal Lanczos matrix, each once.

    Attributes:
        values: The values, ascending, shape (m,).
        residuals: Bounds on ‖Hv − λv‖ of their Ritz vectors, at least the rounding of √m steps, shape (m,).
        coefficients: Coefficients of the Ritz vectors in the Lanczos directions, in columns, shape (steps, m).
        n_ghosts: Number of eigenvalues that were left out as ghosts.
    """

    values: np.ndarray
    residuals: np.ndarray
    coefficients: np.ndarray
    n_ghosts: int


def distinct(diagonal: np.ndarray, couplings: np.ndarray, eps: float, size: int) -> Distinct:
    """Tell the eigenvalues of a Lanczos matrix from copies and ghosts, by the test of Cullum and Willoughby.

    Copies of one eigenvalue agree to rounding and count once. A ghost is a copy that has not converged yet. It is an
    eigenvalue of T, and also of T without its first row and column. The weight of a value is its squared first
    component, summed over copies. A ghost's weight begins at about eps² and grows while the copy converges; an
    eigenvalue of the operator has a weight of about 1/P. A value is left out as a ghost in two cases: its weight is
    below 10 eps², or its weight is below 4·10⁻⁴/P and a value that is known ten times better lies within its residual.

    Args:
        diagonal: Diagonal of T, shape (m,).
        couplings: Off-diagonal of T, and as the last entry the norm of the residual, shape (m,).
        eps: Rounding unit of the vectors.
        size: Dimension P of the operator.

    Returns:
        The eigenvalues.

    Source: Cullum & Willoughby 1981, J. Comput. Phys. 44, 329-358, where the matrix without its first row is
    diagonalised too; the weights decide the same without it.
    """
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, couplings[:-1])
    scale = float(np.abs(values).max(initial=0.0))
    weights, bounds = vectors[0] ** 2, couplings[-1] * np.abs(vectors[-1])
    # A group ends where the next value is further away than rounding moves copies.
    starts = np.flatnonzero(np.append(True, np.diff(values) > _COPIES * eps * scale))
    groups = np.split(np.arange(len(values)), starts[1:])
    best = np.array([members[int(np.argmin(bounds[members]))] for members in groups])
    # The rounding of every step moves T by about eps times the norm.
    rounding = eps * scale * len(diagonal) ** 0.5
    weights, residuals = np.add.reduceat(weights, starts), np.hypot(bounds[best], rounding)
    apart = np.abs(values[best][:, None] - values[best][None, :])
    copies = ((apart <= residuals[:, None]) & (residuals[None, :] < residuals[:, None] / 10)).any(axis=1)
    ghosts = (weights < _GHOST * eps**2) | (copies & (weights < _UNLUCKY**2 / size))
    kept = best[~ghosts]
    return Distinct(values[kept], residuals[~ghosts], vectors[:, kept], int(ghosts.sum()))
