"""A matrix at hand as an operator."""

from __future__ import annotations

import torch

from landscape._sampling_error import Clusters
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import Reader


class DenseOperator(SymmetricOperator):
    """A matrix at hand as an operator: of small blocks, and for tests.

    Args:
        matrix: The matrix, shape (P, P).
        parts: What each group of batches contributes to it, shape (groups, P, P).
        clusters: The groups.
    """

    def __init__(self, matrix: torch.Tensor, parts: torch.Tensor | None = None, clusters: Clusters | None = None):
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix
        self._parts = parts
        self.clusters = clusters if parts is not None else None

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self.matrix @ vector

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self.matrix @ block

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._parts is None:
            return self.matrix @ block, None
        return self.matrix @ block, torch.stack([read((part @ block).movedim(0, -1)) for part in self._parts])
