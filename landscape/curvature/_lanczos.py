"""The Lanczos process with full reorthogonalisation, as a growing Krylov basis."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch

from landscape._fetching import fetched
from landscape.curvature._batch_forms import BatchForms
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import checked_later, require_finite_products
from landscape.curvature._quadrature import Quadrature


class Krylov:
    """An orthonormal Krylov basis Q of a symmetric operator H and the tridiagonal T = QᵀHQ, grown step by step.

    Each new direction is orthogonalised against the whole basis (twice where the first pass cancels much), so no ghost
    copies of converged eigenvalues appear. T is kept in float64. When the Krylov space is exhausted the process
    continues with a random direction orthogonal to it (an off-diagonal zero in T), so that eigenvalues of higher
    multiplicity, and those that the start vector missed, are found too. The host waits for the device once a step.

    Memory: (steps, P) numbers of the operator's type, and a quarter to spare; twice that for the moment of growing.
    """

    def __init__(self, operator: SymmetricOperator, start: torch.Tensor, seed: int = 0):
        self._operator = operator
        self._generator = torch.Generator().manual_seed(seed)
        self._basis = torch.empty((16, start.shape[0]), dtype=operator.dtype, device=operator.device)
        start = start.to(operator.device, operator.dtype)
        self._next = start / torch.linalg.vector_norm(start)
        self.alpha: list[float] = []
        self._forms = BatchForms(operator.clusters)
        self.beta: list[float] = []  # beta[j] couples steps j and j + 1; the last one is the residual's norm

    @property
    def steps(self) -> int:
        """Number of products taken."""
        return len(self.alpha)

    @property
    def basis(self) -> torch.Tensor:
        """The basis, one vector a row, shape (steps, P)."""
        return self._basis[: self.steps]

    @property
    def scale(self) -> float:
        """An estimate of the spectral norm of the operator."""
        return float(np.abs(self.ritz()[0]).max())

    def grow(self, steps: int) -> None:
        """Take that many more steps, ending early when the whole space is spanned."""
        for _ in range(min(steps, self._operator.shape[0] - self.steps)):
            self._step()

    @checked_later()
    def _step(self) -> None:
        count = self.steps
        if count == len(self._basis):
            room = min(max(16, count // 4), self._operator.shape[0] - count)
            self._basis = torch.cat([self._basis, self._basis.new_empty((room, self._basis.shape[1]))])
        self._basis[count] = self._next
        product = self._multiply(self._next)
        form = torch.dot(product.double(), self._next.double())
        # What the recurrence says goes first, so that one pass through the basis is nearly always enough.
        product.addcmul_(self._next, form.to(product), value=-1)
        if count and self.beta[-1]:
            product.add_(self._basis[count - 1], alpha=-self.beta[-1])
        residual, (norm, diagonal) = self._orthogonalise(product, count + 1, form)
        require_finite_products(diagonal)
        self.alpha.append(diagonal)
        size = max(abs(self.alpha[-1]), max((abs(b) for b in self.beta), default=0.0), max(map(abs, self.alpha)))
        if norm <= 10 * torch.finfo(residual.dtype).eps * size and self.steps < self._operator.shape[0]:
            self.beta.append(0.0)
            self._next = self._fresh_direction()
        else:
            self.beta.append(norm)
            self._next = residual / norm if norm > 0 else residual

    def _multiply(self, vector: torch.Tensor) -> torch.Tensor:
        if self._operator.clusters is None:
            return self._operator @ vector
        basis = self._basis[: self.steps + 1]
        product, row = self._operator.by_batch(vector, lambda image: torch.mv(basis, image), (len(basis),))
        self._forms.add(row)
        return product

    def quadrature(self) -> Quadrature:
        """Return the Gauss quadrature for the start vector."""
        return Quadrature.of(*self.ritz(), self._forms.first_chain())

    def _orthogonalise(
        self, vector: torch.Tensor, count: int, *others: torch.Tensor
    ) -> tuple[torch.Tensor, list[float]]:
        """Take the first basis vectors out of a vector.

        Returns:
            What is left, and its norm with the other scalars, which are fetched along with it.
        """
        basis, after = self._basis[:count], torch.linalg.vector_norm(vector)
        for _ in range(3):
            before = after
            vector = vector - basis.T @ (basis @ vector)
            after = torch.linalg.vector_norm(vector)
            norm = torch.linalg.vector_norm(vector.double())
            size, left, *rest = fetched([one.double() for one in (before, after, norm, *others)]).tolist()
            if left > 0.5 * size or left == 0.0:
                break  # little was cancelled, so what is left is orthogonal to rounding
        return vector, rest

    def _fresh_direction(self) -> torch.Tensor:
        direction = torch.randn(self._basis.shape[1], generator=self._generator, dtype=torch.float64)
        direction = self._orthogonalise(direction.to(self._basis), self.steps)[0]
        return direction / torch.linalg.vector_norm(direction)

    def ritz(self, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return Ritz values (ascending, (steps,)) and the eigenvectors of T in columns, now or after earlier steps."""
        count = self.steps if steps is None else steps
        return scipy.linalg.eigh_tridiagonal(np.array(self.alpha[:count]), np.array(self.beta[: count - 1]))

    def residuals(self, vectors: np.ndarray) -> np.ndarray:
        """Residual norms ‖Hv − θv‖ of Ritz pairs: the recurrence's |β s_last| joined with a bound on rounding."""
        rounding = torch.finfo(self._operator.dtype).eps * self.scale
        return np.hypot(self.beta[-1] * np.abs(vectors[-1]), rounding)

    def lift(self, vectors: np.ndarray) -> torch.Tensor:
        """Turn columns of coefficients (steps, k) into vectors of the whole space, shape (P, k)."""
        return self.basis.T @ torch.as_tensor(vectors.copy(), dtype=self._basis.dtype, device=self._basis.device)


def rademacher(size: int, seed: int, index: int = 0) -> torch.Tensor:
    """Draw a vector of independent signs ±1, equal on every device and process for one (seed, index)."""
    draws = np.random.default_rng((seed, index)).integers(0, 2, size=size, dtype=np.int8)
    return torch.from_numpy(draws).to(torch.float32).mul_(2).sub_(1)
