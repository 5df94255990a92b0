"""AᵀHA for a linear map A, as an operator: the curvature in other coordinates or in a few of them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from landscape.curvature import SymmetricOperator
from landscape.curvature._products import Reader


class Congruence(SymmetricOperator):
    """AᵀHA for a symmetric operator H, which counts the products too; one product of H each."""

    def __init__(
        self,
        parent: SymmetricOperator,
        size: int,
        forward: Callable[[torch.Tensor], torch.Tensor],
        back: Callable[[torch.Tensor], torch.Tensor],
    ):
        """Take A and Aᵀ as functions of a vector or of a block of columns."""
        super().__init__(size, parent.dtype, parent.device)
        self.parent = parent
        self.clusters = parent.clusters
        self._forward = forward
        self._back = back

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._back(self.parent @ self._forward(vector))

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self._matvec(block)

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        product, readings = self.parent.by_batch(
            self._forward(block), lambda rows: read(self._back(rows.movedim(0, -1)).movedim(0, -1)), shape
        )
        return self._back(product), readings


def stretched(parent: SymmetricOperator, c: torch.Tensor) -> SymmetricOperator:
    """Return CHC with C = diag(c): the curvature in the coordinates δ ⊘ c.

    Args:
        parent: The operator H, shape (P, P).
        c: The scales, shape (P,); zeros give zero rows and columns.

    Returns:
        The operator, shape (P, P).

    Raises:
        ValueError: c has another length.
    """
    if c.shape != (parent.shape[0],):
        raise ValueError(f"c has the shape {tuple(c.shape)}; an operator of shape {parent.shape} needs one scale a row")
    c = c.detach().to(parent.device, parent.dtype, copy=True)

    def scale(vector: torch.Tensor) -> torch.Tensor:
        return c * vector if vector.ndim == 1 else c[:, None] * vector

    return Congruence(parent, len(c), scale, scale)
