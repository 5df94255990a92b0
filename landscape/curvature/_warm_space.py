"""A space begun with vectors that are nearly eigenvectors, and grown where the wanted pairs still lean out of it."""

from __future__ import annotations

import numpy as np
import torch

from landscape.curvature._batch_forms import BatchForms
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator

# Residuals that make up less than this share of one another's span add no direction of their own.
_DEPENDENT = 1e-4
# A known vector must have this share of its length outside of the start: rounding of its image grows by the inverse.
_NEARLY_WITHIN = 0.05


class WarmSpace:
    """An orthonormal basis W with HW, and the pairs that H has by what is known of it.

    With S = WᵀHW and the residuals HW − WS = QC, Q orthonormal,

        H ≈ [W Q] [[S, Cᵀ], [C, τ I]] [W Q]ᵀ,

    where all but the last block is exact. It holds the curvature of the residual directions; of those that were
    multiplied it is known, and τ is their mean. What that leaves wrong of an eigenvalue λ with eigenvector v is
    vᵀQ (QᵀHQ − τ) Qᵀv, where Rayleigh–Ritz on W lacks about (λ − τ) ‖Qᵀv‖²: the correction costs no products.

    Memory: (3 c, P) numbers of the operator's type for c directions, and (2 c, P) for a moment.

    Args:
        operator: The operator, shape (P, P).
        start: Vectors to begin with, shape (P, m), all of which are multiplied.
        k: Number of wanted pairs, the largest ones.
        known: A vector v and its product Hv, each of shape (P,), that cost no further product. It is left out where it
            lies nearly within the start, as rounding would then decide its image.
        known_forms: vᵀH_g v of the groups of batches g, shape (groups,); without, the errors over examples are unknown
            where v is taken in.

    Attributes:
        values: The wanted eigenvalues, largest first, shape (k,), float64.
        correction: Relative difference between them and what Rayleigh–Ritz on W gives, shape (k,).
        bounds: Bounds on the relative errors of the Ritz values, shape (k,): residual²/gap, the gap being that to the
            next Ritz value but one beyond the wanted ones, where there is one.

    Source: Davidson 1975, doi:10.1016/0021-9991(75)90065-0 (one direction after the other, from the residuals).
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        start: torch.Tensor,
        k: int,
        known: tuple[torch.Tensor, torch.Tensor] | None = None,
        known_forms: np.ndarray | None = None,
    ):
        self._operator = operator
        self._k = k
        self.basis = torch.linalg.qr(start.to(operator.device, operator.dtype))[0]
        begun = start.shape[1]
        beside = self.basis[:, :0] if known is None else known[0].to(self.basis)[:, None]
        beside = beside / torch.linalg.vector_norm(beside, dim=0)
        read = torch.cat([self.basis, beside], dim=1)
        self.image, forms = operator.by_batch(self.basis, lambda rows: rows @ read, (begun, read.shape[1]))
        clusters, matrices = operator.clusters, None if forms is None else forms[:, :, :begun]
        if known is not None:
            own = self._take_in(*(part.to(self.basis) for part in known))
            if own is not None and forms is not None:
                matrices = None if known_forms is None else _bordered(forms.double().cpu(), known_forms, *own)
                clusters = None if known_forms is None else clusters
        self._begun_with = self.count
        self._given = self.count - begun
        self.forms = BatchForms(clusters)
        self.forms.begin(matrices)
        self._solve()

    def _take_in(self, vector: torch.Tensor, product: torch.Tensor) -> tuple[torch.Tensor, float, float] | None:
        """Add a vector whose product is known, less what lies within the basis.

        Returns:
            The unit vector's coefficients in the basis before, the length of what was outside of it, and the vector's
            length; None where the vector is left out.
        """
        length = torch.linalg.vector_norm(vector)
        direction = _without(vector[:, None] / length, self.basis)
        rest = torch.linalg.vector_norm(direction)
        if not rest > _NEARLY_WITHIN:
            return None
        inside = self.basis.T @ vector[:, None] / length
        image = (product[:, None] / length - self.image @ inside) / rest
        self.basis = torch.cat([self.basis, direction / rest], dim=1)
        self.image = torch.cat([self.image, image], dim=1)
        return inside[:, 0].double().cpu(), float(rest), float(length)

    @property
    def count(self) -> int:
        """Number of directions."""
        return self.basis.shape[1]

    @property
    def products(self) -> int:
        """Number of products: one a direction, but for the known one."""
        return self.count - self._given

    def grow(self) -> None:
        """Multiply one more direction: the one in which most of the wanted eigenvectors lies that is outside of W.

        Where W is invariant, it is a random one.
        """
        if self._beside.shape[1]:
            outside = self._coefficients[self.count :, : self._k]
            direction = self._beside @ torch.linalg.svd(outside)[0][:, :1].to(self.basis)
        else:  # W is invariant: only a random direction can show what it lacks
            direction = rademacher(self._operator.shape[0], self.count)[:, None].to(self.basis)
        direction = _without(direction, self.basis)
        direction /= torch.linalg.vector_norm(direction)
        self.basis = torch.cat([self.basis, direction], dim=1)
        column, row = self._operator.by_batch(direction[:, 0], lambda image: image @ self.basis, (self.count,))
        self.forms.add(row)
        self.image = torch.cat([self.image, column[:, None]], dim=1)
        self._solve()

    def leading(self, count: int) -> torch.Tensor:
        """Return that many of the largest approximate eigenvectors, orthonormal, shape (P, count)."""
        whole = torch.cat([self.basis, self._beside], dim=1)
        return whole @ self._coefficients[:, :count].to(whole)

    def ritz(self) -> tuple[torch.Tensor, np.ndarray]:
        """Return the wanted Ritz vectors in W, shape (P, k), and their residuals ‖Hv − θv‖, which are exact."""
        chosen = self._within.to(self.basis)
        vectors, images = self.basis @ chosen, self.image @ chosen
        residuals = torch.linalg.vector_norm(images - vectors * (vectors * images).sum(dim=0), dim=0)
        return vectors, residuals.double().cpu().numpy()

    def parts(self) -> np.ndarray | None:
        """Return vᵀH_g v of the wanted Ritz vectors for each group of batches, shape (groups, k); None if unknown."""
        return self.forms.along(self._within.numpy())

    def _solve(self) -> None:
        count = self.count
        inner = self.basis.T @ self.image
        inner = 0.5 * (inner + inner.T)
        rest = _without(self.image - self.basis @ inner, self.basis)
        self._beside = _orthonormal(rest, self.basis)
        small = inner.double().cpu()
        measured = small.diagonal()[self._begun_with :]
        # Negative curvature is rare there and far from the wanted end: it says nothing about the other directions.
        curvature = float(measured.mean().clamp_min(0.0)) if len(measured) else 0.0
        size = count + self._beside.shape[1]
        model = torch.zeros((size, size), dtype=torch.float64)
        model[:count, :count] = small
        model[count:, :count] = (self._beside.T @ rest).double().cpu()  # the lower triangle is what eigh reads
        model[count:, count:] = curvature * torch.eye(size - count, dtype=torch.float64)
        values, coefficients = torch.linalg.eigh(model)
        self._coefficients = coefficients.flip(1)
        exact, within = torch.linalg.eigh(small)
        ritz = exact.flip(0).numpy()
        self._within = within.flip(1)[:, : self._k]
        self.values = values.flip(0)[: self._k].numpy()
        # Values near zero are measured by the largest.
        sizes = np.maximum(np.abs(self.values), 1e-3 * np.abs(self.values).max())
        self.correction = np.abs(self.values - ritz[: self._k]) / sizes
        # The next value but one: the next is often close, and its vector well within W.
        gaps = ritz[: self._k] - ritz[min(self._k + 1, count - 1)]
        residuals = torch.linalg.vector_norm(model[count:, :count] @ self._within, dim=0).numpy()
        self.bounds = residuals**2 / np.maximum(gaps, np.finfo(float).tiny) / sizes


def _bordered(forms: torch.Tensor, known: np.ndarray, inside: torch.Tensor, rest: float, length: float) -> torch.Tensor:
    """Return the groups' matrices over the basis Q and the direction u that a known vector v adds to it.

    With a = Qᵀv/‖v‖ and u = (v/‖v‖ − Qa)/r: Qᵀ H_g u = (Qᵀ H_g v/‖v‖ − Qᵀ H_g Q a)/r, and likewise uᵀ H_g u.

    Args:
        forms: Qᵀ H_g [Q, v/‖v‖], shape (groups, b, b + 1).
        known: vᵀ H_g v, shape (groups,).
        inside: a, shape (b,).
        rest: r.
        length: ‖v‖.

    Returns:
        Shape (groups, b + 1, b + 1).
    """
    within, across = forms[:, :, :-1], forms[:, :, -1]
    within = (within + within.mT) / 2
    own = torch.as_tensor(known, dtype=torch.float64) / length**2
    border = (across - within @ inside) / rest
    corner = (own - 2 * across @ inside + (within @ inside) @ inside) / rest**2
    last = torch.cat([border, corner[:, None]], dim=1)
    return torch.cat([torch.cat([within, border[:, :, None]], dim=2), last[:, None, :]], dim=1)


def _without(block: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Take the basis out of the columns of a block, twice for the rounding of the first time."""
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    return block


def _orthonormal(block: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Return an orthonormal basis of what the columns of a block span, orthogonal to a basis."""
    lengths = torch.linalg.vector_norm(block, dim=0)
    factor, triangle = torch.linalg.qr(block / lengths.clamp_min(torch.finfo(block.dtype).tiny))
    turn, sizes, _ = torch.linalg.svd(triangle.double().cpu())
    factor = factor @ turn[:, sizes > _DEPENDENT].to(factor)
    return torch.linalg.qr(_without(factor, basis))[0]
