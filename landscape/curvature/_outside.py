"""An operator outside of eigenvectors that are known, for estimates of what they leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._pairs import Eigenpairs
from landscape.curvature._products import Reader
from landscape.curvature._quadrature import Quadrature

# A column that keeps less of its length beside the others holds a direction that they hold already.
_OWN_SHARE = 0.5


class Outside(SymmetricOperator):
    """(I − VVᵀ) H (I − VVᵀ), where the columns of V are known eigenvectors.

    Only pairs that are converged count, and each direction once, though two searches may have found it.

    Attributes:
        values: The eigenvalues that were taken out, shape (k,).
        residuals: ‖Hv − λv‖ of each, shape (k,).
        rest: Dimension of what is left, P − k.
        parts: What each group of batches contributes to the values, shape (groups, k); None where it is not known.
    """

    def __init__(self, operator: SymmetricOperator, known: Sequence[Eigenpairs]):
        super().__init__(operator.shape[0], operator.dtype, operator.device, operator.layout)
        self._operator = operator
        sure = [pairs.converged_each & np.isfinite(pairs.values) for pairs in known]
        chosen = [torch.from_numpy(np.flatnonzero(each)) for each in sure]
        nothing = torch.empty((self.shape[0], 0), dtype=self.dtype, device=self.device)
        vectors = [p.vectors.to(nothing)[:, at.to(self.device)] for p, at in zip(known, chosen, strict=True)]
        values = np.concatenate([np.empty(0), *(p.values[each] for p, each in zip(known, sure, strict=True))])
        residuals = np.concatenate([np.empty(0), *(p.residuals[each] for p, each in zip(known, sure, strict=True))])
        basis = torch.cat([nothing, *vectors], dim=1)
        own = torch.linalg.qr(basis)[1].diagonal().abs().cpu().numpy() if len(values) else np.empty(0)
        kept = np.pad(own > _OWN_SHARE, (0, len(values) - len(own)))
        self._basis = torch.linalg.qr(basis[:, torch.from_numpy(kept).to(self.device)])[0]
        self.values, self.residuals = values[kept], residuals[kept]
        self.rest = self.shape[0] - len(self.values)
        self.clusters = operator.clusters if all(pairs.parts is not None for pairs in known) else None
        self.parts: np.ndarray | None = None
        if self.clusters is not None:
            found = [p.parts[:, each] for p, each in zip(known, sure, strict=True) if p.parts is not None]
            self.parts = np.concatenate(found, axis=1)[:, kept]

    def probe(self, seed: int, index: int) -> torch.Tensor:
        """Draw a vector uniformly from the sphere of radius √rest in what is left, equal for one (seed, index)."""
        draws = np.random.default_rng((seed, index)).standard_normal(self.shape[0])
        outside = self._project(torch.from_numpy(draws).to(self.device, self.dtype))
        return outside * (np.sqrt(self.rest) / torch.linalg.vector_norm(outside))

    def join(self, own: Quadrature) -> Quadrature:
        """Return a quadrature of what is left together with the known eigenvalues, points of mass 1/P each."""
        size, count, steps = self.shape[0], len(self.values), len(own.nodes)
        parts = None
        if self.parts is not None and own.parts is not None:
            parts = np.zeros((len(self.parts), count + steps, count + steps))
            at = np.arange(count)
            parts[:, at, at] = self.parts / size
            parts[:, count:, count:] = own.parts * (self.rest / size)
        masses = np.append(np.full(count, 1 / size), own.weights * (self.rest / size))
        return Quadrature(np.append(self.values, own.nodes), masses, parts)

    def _project(self, vector: torch.Tensor) -> torch.Tensor:
        for _ in range(2):  # the second time for what rounding left
            vector = vector - self._basis @ (self._basis.T @ vector)
        return vector

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._project(self._operator @ self._project(vector))

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # Read of unprojected images: whoever reads multiplies by vectors of what is left.
        product, readings = self._operator.by_batch(self._project(block), read, shape)
        return self._project(product), readings


def shifts(values: np.ndarray, residuals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bound how far the couplings that are left in the residuals move each eigenvalue, shape (k,).

    Args:
        values: The eigenvalues, shape (k,).
        residuals: Their residuals, shape (k,).
        others: Eigenvalues (or nodes that stand for them) of what is left.

    Returns:
        The lesser of residual and residual² over the distance to the nearest of the others.
    """
    gaps = np.abs(values[:, None] - others[None, :]).min(axis=1, initial=np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.fmin(residuals, residuals**2 / gaps)
