"""QᵀH_gQ, QᵀH_gΩ and ωᵀH_gω of groups of batches, gathered while test vectors Ω and a basis Q are multiplied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from landscape.curvature._operator import SymmetricOperator


class SketchForms:
    """Small matrices of every group of batches g, read off the products with test vectors and basis vectors.

    Beside the products they cost one multiplication of tall matrices a group, and no vectors of the parameters' length.

    Args:
        operator: The operator, which multiplies.
    """

    def __init__(self, operator: SymmetricOperator):
        self._operator = operator
        groups = 0 if operator.clusters is None else operator.clusters.count
        self._forms = np.zeros((groups, 0))
        self._core, self._upper = np.zeros((groups, 0, 0)), np.zeros((groups, 0, 0))

    def of_tests(self, basis: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Multiply new test vectors.

        Args:
            basis: Q so far, shape (P, q).
            fresh: The vectors, shape (P, more).

        Returns:
            Their products, shape (P, more).
        """
        rows, count = fresh.T, basis.shape[1]

        def read(images: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.linalg.vecdot(images, rows)[:, None], images @ basis], dim=1)

        images, found = self._operator.by_batch(fresh, read, (fresh.shape[1], 1 + count))
        if found is not None:
            host = found.double().cpu().numpy()
            self._forms = np.concatenate([self._forms, host[:, :, 0]], axis=1)
            self._upper = np.concatenate([self._upper, host[:, :, 1:].transpose(0, 2, 1)], axis=2)
        return images

    def of_basis(self, basis: torch.Tensor, tests: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Multiply new basis vectors.

        Args:
            basis: Q with the new vectors at its end, shape (P, q).
            tests: All test vectors, shape (P, n).
            fresh: The new basis vectors, shape (P, more).

        Returns:
            Their products, shape (P, more).
        """
        count, more = basis.shape[1], fresh.shape[1]
        left = (basis, tests)

        def read(images: torch.Tensor) -> torch.Tensor:
            return torch.cat([images @ each for each in left], dim=1)

        images, found = self._operator.by_batch(fresh, read, (more, count + tests.shape[1]))
        if found is not None:
            host = found.double().cpu().numpy()
            core = np.zeros((len(host), count, count))
            core[:, : count - more, : count - more] = self._core
            core[:, count - more :, :] = host[:, :, :count]
            core[:, :, count - more :] = host[:, :, :count].transpose(0, 2, 1)
            self._core = core
            self._upper = np.concatenate([self._upper, host[:, :, count:]], axis=1)
        return images

    def along(self, function: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> np.ndarray | None:
        """Apply a function of QᵀH_gQ (q, q), QᵀH_gΩ (q, n) and ω_iᵀH_gω_i (n,) to each group, shape (groups,).

        Args:
            function: The function.

        Returns:
            Its values; None where the groups are not known.
        """
        if self._operator.clusters is None:
            return None
        return np.array([function(*each) for each in zip(self._core, self._upper, self._forms, strict=True)])
