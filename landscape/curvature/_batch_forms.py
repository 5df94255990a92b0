"""QᵀH_gQ of every group of batches g, gathered while a basis Q grows: what eigenvalues' errors over examples need."""

from __future__ import annotations

import numpy as np
import torch

from landscape._sampling_error import Clusters


class BatchForms:
    """The small matrices QᵀH_gQ, whose sum over the groups is QᵀHQ.

    A step multiplies the newest basis vector q. The parts H_g q are added up within that product and read off as
    QᵀH_g q, so the matrices cost no products and no vectors of the parameters' length. Rows stay on the device until
    they are asked for.

    Memory: (groups, count, count) numbers for `count` basis vectors.

    Args:
        clusters: The groups; None where nothing is known of them, and nothing is gathered then.
    """

    def __init__(self, clusters: Clusters | None):
        self.clusters = clusters
        groups = 0 if clusters is None else clusters.count
        self._matrices = np.zeros((groups, 0, 0))
        self._pending: list[torch.Tensor] = []
        self._start: np.ndarray | None = None

    def begin(self, matrices: torch.Tensor | None) -> None:
        """Take QᵀH_gQ for a basis that begins with several vectors, shape (groups, count, count)."""
        if matrices is not None and self.clusters is not None:
            found = matrices.double().cpu().numpy()
            self._matrices = (found + found.transpose(0, 2, 1)) / 2

    def add(self, row: torch.Tensor | None) -> None:
        """Take QᵀH_g q for the newest basis vector q, shape (groups, count)."""
        if row is not None and self.clusters is not None:
            self._pending.append(row)

    def matrices(self) -> np.ndarray:
        """Return QᵀH_gQ, shape (groups, count, count), float64."""
        if self._pending:
            lengths = [row.shape[1] for row in self._pending]
            rows = torch.cat(self._pending, dim=1).double().cpu().numpy()
            count = lengths[-1]
            before, self._matrices = self._matrices, np.zeros((len(rows), count, count))
            self._matrices[:, : before.shape[1], : before.shape[1]] = before
            for length, row in zip(lengths, np.split(rows, np.cumsum(lengths)[:-1], axis=1), strict=True):
                self._matrices[:, length - 1, :length] = self._matrices[:, :length, length - 1] = row
            self._pending = []
        return self._matrices

    def along(self, vectors: np.ndarray) -> np.ndarray | None:
        """Return vᵀH_g v for vectors given by their coefficients in the basis.

        Args:
            vectors: Coefficients in columns, shape (count, k).

        Returns:
            The forms, shape (groups, k); None where they are not known.
        """
        if self.clusters is None:
            return None
        return np.einsum("ik,gij,jk->gk", vectors, self.matrices(), vectors, optimize=True)

    def end_first_chain(self) -> None:
        """Remember the matrices of the chain from the start vector, before the basis becomes another."""
        if self.clusters is not None and self._start is None:
            self._start = self.matrices().copy()

    def first_chain(self) -> np.ndarray | None:
        """Return QᵀH_gQ of the first chain, shape (groups, steps, steps); None where it is not known."""
        if self.clusters is None:
            return None
        return self.matrices() if self._start is None else self._start

    def rotate(self, vectors: np.ndarray) -> None:
        """Follow the basis to QV, for V of shape (count, k)."""
        if self.clusters is not None:
            self._matrices = vectors.T @ self.matrices() @ vectors

    def shrink(self, count: int) -> None:
        """Follow the basis back to its first vectors."""
        if self.clusters is not None:
            self._matrices = self.matrices()[:, :count, :count].copy()
