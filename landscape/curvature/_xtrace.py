"""The small matrices that XTrace and XDiag share, and the error of averages of estimates that share a subspace."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._sketch_forms import SketchForms


@dataclasses.dataclass
class Sketch:
    """Test vectors Ω, their images HΩ, an orthonormal basis Q of those, and its images HQ; grown in blocks.

    Memory: four blocks of (P, count) numbers.

    Attributes:
        forms: ΩᵀH_gΩ, QᵀH_gΩ and QᵀH_gQ of the groups of batches g, where they are known.
    """

    operator: SymmetricOperator
    tests: torch.Tensor
    images: torch.Tensor
    basis: torch.Tensor
    basis_images: torch.Tensor
    forms: SketchForms

    @classmethod
    def empty(cls, operator: SymmetricOperator) -> Sketch:
        """Start without test vectors."""
        nothing = torch.empty((operator.shape[0], 0), dtype=operator.dtype, device=operator.device)
        return cls(operator, nothing, nothing, nothing, nothing, SketchForms(operator))

    @property
    def count(self) -> int:
        """Number of test vectors."""
        return self.tests.shape[1]

    def grow(self, fresh: torch.Tensor) -> None:
        """Add test vectors, shape (P, more), for two products each."""
        fresh = fresh.to(self.operator.device, self.operator.dtype)
        images = self.forms.of_tests(self.basis, fresh)
        basis = extend(self.basis, images)
        self.tests, self.images = torch.cat([self.tests, fresh], 1), torch.cat([self.images, images], 1)
        self.basis = torch.cat([self.basis, basis], 1)
        self.basis_images = torch.cat([self.basis_images, self.forms.of_basis(self.basis, self.tests, basis)], 1)

    def parts(self, small: Small) -> np.ndarray | None:
        """Return what each group of batches contributes to the mean of `Small.traces`, shape (groups,), or None.

        The estimates are linear in QᵀHQ, QᵀHΩ and ωᵀHω once the test vectors' parts in the subspace are fixed.
        """
        return self.forms.along(lambda core, upper, forms: small.linear(core, upper, forms).mean())

    def small(self) -> Small:
        """Multiply out what the estimates need."""
        core = (self.basis.T @ self.basis_images).double().cpu().numpy()
        return Small(
            (core + core.T) / 2,
            (self.basis_images.double().T @ self.basis_images.double()).cpu().numpy(),
            (self.basis.T @ self.images).double().cpu().numpy(),
            (self.basis.T @ self.tests).double().cpu().numpy(),
            (self.tests.double() * self.images.double()).sum(dim=0).cpu().numpy(),
            float((self.images.double() ** 2).sum(dim=0).mean()),
            self.operator.shape[0],
            float(torch.finfo(self.tests.dtype).eps),
        )


@dataclasses.dataclass(frozen=True)
class Small:
    """QᵀHQ, QᵀH²Q, R = QᵀHΩ, QᵀΩ, the forms ω_iᵀHω_i and the mean ‖Hω_i‖², which estimates ‖H‖²_F."""

    core: np.ndarray
    gram: np.ndarray
    upper: np.ndarray
    inside: np.ndarray
    forms: np.ndarray
    square: float
    size: int
    eps: float

    def without(self, j: int) -> tuple[np.ndarray, Small]:
        """Leave test vector j out of everything; return the rotation of the basis and the rest."""
        rest = np.arange(len(self.forms)) != j
        rotation, upper = np.linalg.qr(self.upper[:, rest])
        core, gram = rotation.T @ self.core @ rotation, rotation.T @ self.gram @ rotation
        inside = rotation.T @ self.inside[:, rest]
        return rotation, dataclasses.replace(
            self, core=core, gram=gram, upper=upper, inside=inside, forms=self.forms[rest]
        )

    def dual(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the directions s_i that only test vector i adds to the basis, and how far s_iᵀR_i it does.

        The subspace without vector i is Q(I − s_i s_iᵀ)Qᵀ, where s_i is column i of R⁻ᵀ, normalised.
        """
        left, spread, right = np.linalg.svd(self.upper)
        # A rank below the number of tests leaves directions that carry nothing; they are floored, not made infinite.
        dual = left @ np.diag(1.0 / np.maximum(spread, max(self.eps * spread[0], 1e-140))) @ right
        dual = dual / np.linalg.norm(dual, axis=0)
        return dual, (dual * self.upper).sum(axis=0)

    def projected(self) -> np.ndarray:
        """Coefficients in Q of each test vector's part in the subspace that it is held out of, in columns."""
        dual, _ = self.dual()
        return self.inside - dual * (dual * self.inside).sum(axis=0)

    def outside(self) -> np.ndarray:
        """Estimate the trace of the residual part once from each test vector, shape (n,)."""
        return self._outside(self.core, self.upper, self.forms)

    def _outside(self, core: np.ndarray, upper: np.ndarray, forms: np.ndarray) -> np.ndarray:
        part = self.projected()
        within = forms - 2 * (part * upper).sum(axis=0) + (part * (core @ part)).sum(axis=0)
        return within * self._scale(part)

    def traces(self) -> np.ndarray:
        """Estimate tr H once from each test vector, held out of the subspace that the others span; shape (n,)."""
        return self.linear(self.core, self.upper, self.forms)

    def linear(self, core: np.ndarray, upper: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """Estimate the trace of another operator with the same subspaces, from its QᵀHQ, QᵀHΩ and ω_iᵀHω_i."""
        dual, _ = self.dual()
        inside = np.trace(core) - (dual * (core @ dual)).sum(axis=0)
        return inside + self._outside(core, upper, forms)

    def residual_squares(self) -> np.ndarray:
        """Estimate the squared Frobenius norm of the residual part once from each test vector, shape (n,)."""
        dual, _ = self.dual()
        part = self.projected()
        within = self.upper - self.core @ part  # QᵀH of the vector's part outside its subspace
        whole = (self.upper * (self.upper - 2 * self.core @ part)).sum(axis=0) + (part * (self.gram @ part)).sum(axis=0)
        inside = (within**2).sum(axis=0) - (dual * within).sum(axis=0) ** 2
        return np.maximum(whole - inside, 0.0) * self._scale(part)

    def _scale(self, part: np.ndarray) -> np.ndarray:
        return (self.size - len(self.forms) + 1) / (self.size - (part**2).sum(axis=0))

    @property
    def rounding(self) -> float:
        """The error of the trace by rounding, which is all that is left when the basis holds the whole range."""
        return self.eps * float(np.abs(self.core).sum() + np.abs(self.forms).mean())


def extend(basis: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Orthonormal directions that the images add to the basis; done twice against rounding."""
    for _ in range(2):
        images = images - basis @ (basis.T @ images)
        images = torch.linalg.qr(images)[0]
    return images


def exchangeable_factor(jackknife: float, spread: float, most: float = 1.8) -> float:
    """How much the spread of exchangeable estimates that share all but one of their test vectors is too small.

    Split the error of their mean into interactions of s test vectors (Hoeffding). The variance of the single estimates
    over n, as the paper has it, counts each 1/s times, for it takes the estimates for independent. The jackknife, which
    leaves each vector out of everything, counts each s times (Efron & Stein 1981). The geometric mean of both is right.
    Where the spectrum decays by orders of magnitude within the sketch, what the jackknife loses by a smaller subspace
    dominates it; on all spectra that we tried the variance is then no more than twice the spread, so that the factor
    is capped.

    Args:
        jackknife: Jackknife variance of the mean, summed over quantities.
        spread: Variance of the single estimates over n, summed over the same.
        most: The cap.

    Returns:
        The factor on the variance, between 1 and `most`.
    """
    return float(np.clip(np.sqrt(jackknife / spread), 1.0, most)) if spread > 0 else 1.0
