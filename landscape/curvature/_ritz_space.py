"""A growing orthonormal basis with the operator projected on it: Lanczos steps, thick restarts, fresh directions."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch

from landscape.curvature._batch_forms import BatchForms
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import checked_later, require_finite_products
from landscape.curvature._quadrature import Quadrature

# Columns rotated at a time in a restart, so that it needs no second basis.
_CHUNK = 1 << 15


class RitzSpace:
    """An orthonormal basis Q of at most `capacity` vectors and S = QᵀHQ in float64, grown by Lanczos steps.

    HQ = QS + q hᵀ + R holds throughout, with the next direction q, its coupling h, and a remainder R of known norm:
    what was dropped where a fresh direction cut off a chain. So residuals of Ritz pairs cost nothing. Where the basis
    is full, the restart keeps the Ritz vectors that are asked for and goes on with q (thick restart, which is
    equivalent to implicitly restarted Lanczos).

    Every new direction is orthogonalised against the whole basis. What the recurrence says is taken out first, so
    that one pass through the basis is enough in all but a few steps: that pass is the cost beside the products. The
    host waits for the device once a step, at the end of that pass.

    Where the operator knows its groups of batches, `forms` gathers what each of them contributes to S.

    Memory: (capacity, P) numbers of the operator's type; pages of the basis are touched as it grows.

    Source: Wu & Simon 2000, doi:10.1137/S0895479898334605.
    """

    def __init__(self, operator: SymmetricOperator, start: torch.Tensor, capacity: int, seed: int = 0):
        self._operator = operator
        self._generator = torch.Generator().manual_seed(seed)
        self.size = operator.shape[0]
        self.capacity = min(capacity, self.size)
        self._basis = torch.empty((self.capacity, self.size), dtype=operator.dtype, device=operator.device)
        self._projected = np.zeros((self.capacity, self.capacity))
        start = start.to(operator.device, operator.dtype)
        self._next = start / torch.linalg.vector_norm(start)
        self._tail = np.zeros(0)  # h
        self._lost: list[np.ndarray] = []  # rows that bound the remainder R
        self._ritz: tuple[np.ndarray, np.ndarray] | None = None
        self._chain = 0  # where the present chain of steps begins
        self.count = 0
        self.steps = 0
        self.recurrence: tuple[list[float], list[float]] = ([], [])  # diagonal and off-diagonal of the first chain
        self._first_chain = True
        self.forms = BatchForms(operator.clusters)
        self._group: int | None = None  # whose examples alone the present chain is of
        self._hint: torch.Tensor | None = None  # where the next fresh chain may meet something
        self.start_size = self.size  # P over the part of the present chain's start that is random

    @property
    def basis(self) -> torch.Tensor:
        """The basis, one vector a row, shape (count, P)."""
        return self._basis[: self.count]

    @property
    def groups_alone(self) -> bool:
        """Whether a chain can be of one group of batches at its share of the cost."""
        return self._operator.groups_alone

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.count == self.size

    @property
    def chain(self) -> tuple[np.ndarray, np.ndarray]:
        """Diagonal and off-diagonal of the chain since the last fresh direction, the residual's norm last."""
        block = self._projected[self._chain : self.count, self._chain : self.count]
        return np.diagonal(block).copy(), np.append(np.diagonal(block, 1), self._tail[-1])

    def grow(self, steps: int) -> None:
        """Take that many more steps, ending early when the basis is full."""
        for _ in range(min(steps, self.capacity - self.count)):
            self._step()

    @checked_later()
    def _step(self) -> None:
        index = self.count
        self._basis[index] = self._next
        product = self._multiply(self._next)
        self.steps += self._group is None
        self.count += 1
        self._projected[index, :index] = self._projected[:index, index] = self._tail
        form = torch.dot(product, self._next)  # stays on the device
        coupled = np.flatnonzero(self._tail)
        if len(coupled) <= 1:
            residual = product.addcmul_(self._next, form, value=-1)
            for other in coupled:
                residual.add_(self._basis[other], alpha=-float(self._tail[other]))
        else:
            tail = torch.as_tensor(self._tail, dtype=self._basis.dtype, device=self._basis.device)
            residual = product.sub_(torch.mv(self.basis.T, torch.cat([tail, form[None]])))
        residual, correction, (norm, diagonal) = self._orthogonalise(residual, form)
        require_finite_products(diagonal)
        # Beside rounding, a chain that began afresh has a true coupling to the end of the one before.
        self._projected[index, : self.count] += correction
        self._projected[:index, index] = self._projected[index, :index]
        diagonal += correction[-1]
        self._projected[index, index] = diagonal
        scale = float(np.abs(self._projected[: self.count, : self.count]).max())
        self._tail = np.zeros(self.count)
        if norm > 10 * torch.finfo(residual.dtype).eps * scale or self.complete:
            self._tail[-1] = 0.0 if self.complete else norm
            self._next = residual.div_(norm) if norm > 0 else residual
        else:
            self._next = self._fresh()
        if self._first_chain:
            self.recurrence[0].append(diagonal)
            self.recurrence[1].append(float(self._tail[-1]))
        self._ritz = None

    def _multiply(self, vector: torch.Tensor) -> torch.Tensor:
        """Multiply the newest basis vector, and gather what each group of batches contributes to S."""
        if self._group is not None:
            return self._operator.of_group(vector, self._group)
        if self._operator.clusters is None:
            return self._operator @ vector
        basis = self._basis[: self.count + 1]
        product, row = self._operator.by_batch(vector, lambda image: torch.mv(basis, image), (len(basis),))
        self.forms.add(row)
        return product

    def _orthogonalise(
        self, vector: torch.Tensor, *others: torch.Tensor
    ) -> tuple[torch.Tensor, np.ndarray, list[float]]:
        """Take the basis out of a vector, in place.

        Args:
            vector: The vector, shape (P,).
            *others: Scalars on the device that are fetched along with what is decided by.

        Returns:
            The vector, the coefficients of what was taken out, shape (count,), and the norm of what is left with the
            fetched scalars.
        """
        total = torch.zeros(self.count, dtype=vector.dtype, device=vector.device)
        after = torch.linalg.vector_norm(vector)
        for _ in range(4):
            before = after
            overlap = torch.mv(self.basis, vector)
            vector.addmv_(self.basis.T, overlap, alpha=-1)
            total += overlap
            # By Pythagoras; where little was cancelled, what is left is orthogonal to rounding.
            removed, after = torch.linalg.vector_norm(overlap), torch.linalg.vector_norm(vector)
            found = torch.cat([total, torch.stack([before, removed, after, *others])])
            numbers = found.double().cpu().numpy()
            size, taken, *rest = numbers[self.count :].tolist()
            if taken <= 0.5 * size or size == 0.0:
                break
        return vector, numbers[: self.count], rest

    def _fresh(self, hint: torch.Tensor | None = None) -> torch.Tensor:
        direction = torch.randn(self.size, generator=self._generator, dtype=torch.float32).to(self._basis)
        direction = self._orthogonalise(direction)[0]
        direction.div_(torch.linalg.vector_norm(direction))
        if hint is not None:  # half of the direction stays random, which is what evidence rests on
            direction = self._orthogonalise(direction.add_(hint))[0]
            direction.div_(torch.linalg.vector_norm(direction))
        return direction

    def inject(self, start: torch.Tensor | None = None, group: int | None = None) -> np.ndarray:
        """Begin a new chain orthogonal to the basis; the residual of the old one is dropped.

        What the first chain cannot hold, such as the second vector of a double eigenvalue, is met by the new one.

        Args:
            start: Direction to begin from, shape (P,), changed in place; by default a random one.
            group: A group of batches: the chain is of its matrix alone (`Products.of_group`), and no part of the space.
                Look at `chain`, then `forget_chain`.

        Returns:
            The coefficients of `start` in the basis, and the norm of what lies outside of it.
        """
        self.forms.end_first_chain()
        self._lost.append(self._tail)
        self._group = group
        self.start_size = self.size
        if start is None:
            hint = None
            if group is None:
                hint, self._hint = self._hint, None
            self.start_size *= 1 if hint is None else 2
            self._next, inside = self._fresh(hint), np.append(np.zeros(self.count), 1.0)
        else:
            direction, coefficients, (norm,) = self._orthogonalise(start.to(self._basis))
            self._next, inside = direction.div_(norm), np.append(coefficients, norm)
        self._tail = np.zeros(self.count)
        self._chain = self.count
        self._first_chain = False
        self._ritz = None
        return inside

    def forget_chain(self, hint: bool = False) -> None:
        """Take back the last `inject` and what grew from it; no steps can follow but those of another chain.

        Args:
            hint: Whether the next fresh chain begins half from the chain's outermost Ritz vector of either sign.
        """
        if hint and self.count > self._chain:
            values, vectors = np.linalg.eigh(self._projected[self._chain : self.count, self._chain : self.count])
            outer = vectors[:, [-1, 0] if values[0] < 0 < values[-1] else [-1]].sum(axis=1)
            along = torch.as_tensor(outer, dtype=self._basis.dtype, device=self._basis.device)
            self._hint = torch.mv(self._basis[self._chain : self.count].T, along / torch.linalg.vector_norm(along))
        if self._group is not None and self._operator.clusters is not None:
            self.steps += math.ceil((self.count - self._chain) * self._operator.clusters.shares[self._group] - 1e-9)
            self._group = None
        self.count, self._tail = self._chain, self._lost.pop()
        self.forms.shrink(self.count)
        self._ritz = None

    def restart(self, kept: np.ndarray) -> None:
        """Shrink the basis to the Ritz vectors with the given indices (of ascending values)."""
        values, vectors = self.ritz()
        values, vectors = values[kept], vectors[:, kept]
        self.forms.end_first_chain()
        self.forms.rotate(vectors)
        self._rotate(vectors)
        self._tail = self._tail @ vectors
        self._lost = [row @ vectors[: len(row)] for row in self._lost]
        self._projected[:] = 0.0
        np.fill_diagonal(self._projected[: len(kept), : len(kept)], values)
        self._chain = self.count = len(kept)
        self._first_chain = False
        self._ritz = None

    def _rotate(self, vectors: np.ndarray) -> None:
        """Put combinations of the basis in the place of its first vectors."""
        rotation = torch.as_tensor(vectors.T.copy(), dtype=self._basis.dtype, device=self._basis.device)
        for begin in range(0, self.size, _CHUNK):
            part = self._basis[:, begin : begin + _CHUNK]
            part[: len(rotation)] = rotation @ part[: self.count]

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Return Ritz values (ascending, (count,)) and their coefficients in the basis, in columns."""
        if self._ritz is None:
            self._ritz = np.linalg.eigh(self._projected[: self.count, : self.count])
        return self._ritz

    def quadrature(self) -> Quadrature:
        """Return the Gauss quadrature for the start vector, from the first chain of steps."""
        diagonal, off_diagonal = (np.array(entries) for entries in self.recurrence)
        nodes, vectors = scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal[:-1])
        return Quadrature.of(nodes, vectors, self.forms.first_chain())

    def residuals(self, vectors: np.ndarray) -> np.ndarray:
        """Residual norms ‖Hv − θv‖ of Ritz pairs: bounds by the couplings, joined with a bound on rounding."""
        bound = np.abs(self._tail @ vectors)
        if not self.complete:
            bound = bound + sum(np.abs(row @ vectors[: len(row)]) for row in self._lost)
        return np.hypot(bound, torch.finfo(self._operator.dtype).eps * float(np.abs(self.ritz()[0]).max()))

    def lift(self, vectors: np.ndarray) -> torch.Tensor:
        """Turn columns of coefficients (count, k) into vectors of the whole space, shape (P, k)."""
        rotation = torch.as_tensor(vectors.T.copy(), dtype=self._basis.dtype, device=self._basis.device)
        return (rotation @ self.basis).T

    def become(self, vectors: np.ndarray) -> torch.Tensor:
        """Do what `lift` does in the basis's own memory, most of which is given back; the space is used up by it."""
        self._rotate(vectors)
        count = vectors.shape[1]
        basis, self._basis = self._basis, self._basis[:0]
        return basis[:count].T if 2 * count >= len(basis) else basis[:count].clone().T
