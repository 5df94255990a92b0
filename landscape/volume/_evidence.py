"""Laplace's evidence and the Occam curve: how well a Gaussian prior of each width explains the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Result
from landscape.curvature import SymmetricOperator, diagonal, ggn, hessian, kfac
from landscape.objective import Objective
from landscape.sharpness._finite import require_finite

_LARGEST_DENSE = 2048
_CURVATURES: dict[str, Callable[[Objective], SymmetricOperator]] = {"ggn": ggn, "hessian": hessian}


@dataclasses.dataclass(frozen=True)
class LaplaceEvidence(Result):
    """The evidence over prior precisions, in nats, with its parts: log_evidence = fit + prior + occam.

    Attributes:
        precision: τ, shape (m,).
        log_evidence: ln ∫ e^{−n L(w)} N(w; 0, I/τ) dw by Laplace, shape (m,); NaN where the posterior has a direction
            of no curvature or less.
        fit: −n L(w*).
        prior: −τ/2 ‖w*‖² + (P/2) ln τ, shape (m,).
        occam: −½ ln det(nH + τ), with the shift of the maximum where `shifted`, shape (m,).
        n_eff: Σ n h/(n h + τ), the number of parameters that the data set, shape (m,).
        n: Number of examples.
        structure: "full", "kfac" or "diagonal".
        curvature: "ggn" or "hessian".
        shifted: Whether the maximum of each posterior was found by a Newton step.
    """

    precision: np.ndarray
    log_evidence: np.ndarray
    fit: float
    prior: np.ndarray
    occam: np.ndarray
    n_eff: np.ndarray
    n: int
    structure: str
    curvature: str
    shifted: bool

    @property
    def best_precision(self) -> float:
        """The τ among the measured ones with the largest evidence; NaN where there is none."""
        known = np.isfinite(self.log_evidence)
        return float(self.precision[known][np.argmax(self.log_evidence[known])]) if known.any() else math.nan


@of_objective
def laplace_evidence(
    objective: Objective,
    precision: float | Sequence[float] = 1.0,
    structure: str = "full",
    curvature: str = "ggn",
    n: int | None = None,
    shifted: bool = False,
    seed: int = 0,
) -> LaplaceEvidence:
    """Compute ln p(D) ≈ −n L(w*) − τ/2 ‖w*‖² + (P/2) ln τ − ½ ln det(nH + τ I), for one τ or the curve over several.

    L must be a mean negative log likelihood in nats; what it leaves out of a normalised one (−½ ln 2π an example for
    half a squared error) is left out here. w* is the maximum of the posterior of one τ at most; `shifted` puts every
    other one's maximum where the quadratic model has it, + ½ ∇ᵀ(nH + τ)⁻¹∇ with ∇ = n∇L + τ w*, which is exact for
    linear regression.

    Of Kronecker factors, ln det(nK + τ) = Σ ln(n a_i b_j + τ) over the eigenvalues of each layer's A and B.

    Memory: "full" holds two dense matrices of P² numbers, "kfac" two copies of the factors.

    Args:
        objective: The loss at trained weights.
        precision: Precision τ of the prior N(0, I/τ), or several.
        structure: "full" (up to 2048 parameters), "kfac" (one Kronecker product a layer, by `curvature.kfac` with its
            conditions: the extra `kfac`, a plain loss, all parameters in linear or convolutional layers), or "diagonal"
            (estimated by `curvature.diagonal`).
        curvature: "ggn" (never negative; the only one of "kfac") or "hessian".
        n: Number of training examples; by default those of the objective.
        shifted: Whether to correct for a maximum elsewhere.
        seed: Seed of the diagonal's estimate.

    Returns:
        The evidence with its parts; an array entry for each τ.

    Raises:
        MeasurementError: The loss is not finite, or has no Gauss-Newton matrix, or no Kronecker factors for all
            parameters.
        ValueError: An argument is out of range.

    Source: MacKay 1992, doi:10.1162/neco.1992.4.3.448; Immer et al. 2021, arXiv:2104.04975; factors: Martens & Grosse
    2015, arXiv:1503.05671.
    """
    taus = np.atleast_1d(np.asarray(precision, dtype=np.float64))
    if not taus.size or not (np.isfinite(taus) & (taus > 0)).all():
        raise ValueError(f"precision is {precision}; it must be one or several positive finite numbers")
    for name, value, allowed in (
        ("structure", structure, ("full", "kfac", "diagonal")),
        ("curvature", curvature, ("ggn", "hessian")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it must be {' or '.join(map(repr, allowed))}")
    if structure == "kfac" and curvature != "ggn":
        raise ValueError("curvature is 'hessian', but Kronecker factors are those of the Gauss-Newton matrix, 'ggn'")
    if structure == "full" and objective.n_parameters > _LARGEST_DENSE:
        raise ValueError(
            f"a dense matrix of {objective.n_parameters} parameters is too large (limit {_LARGEST_DENSE}); use "
            "structure='diagonal' or 'kfac'"
        )
    examples = objective.n_examples if n is None else n
    with objective.session():
        loss, gradient = objective.loss_and_gradient()
        require_finite(loss, "loss")
        weights = objective.vector().double()
        values, rotated = _spectrum(objective, structure, curvature, seed)
        weights, gradient = rotated(weights), rotated(gradient.double())
    curvatures = examples * values.cpu().numpy()
    if curvature == "ggn":
        curvatures = curvatures.clip(min=0)  # rounding, or the error of the diagonal's estimate
    w, g = weights.cpu().numpy(), examples * gradient.double().cpu().numpy()
    posterior = curvatures + taus[:, None]
    posterior[(posterior <= 0).any(axis=1)] = np.nan
    occam = -np.log(posterior).sum(axis=1) / 2
    if shifted:
        occam += ((g + taus[:, None] * w) ** 2 / posterior).sum(axis=1) / 2
    fit = -examples * float(loss)
    prior = len(w) / 2 * np.log(taus) - taus / 2 * float(w @ w)
    return LaplaceEvidence(
        precision=taus,
        log_evidence=fit + prior + occam,
        fit=fit,
        prior=prior,
        occam=occam,
        n_eff=(curvatures / posterior).sum(axis=1),
        n=examples,
        structure=structure,
        curvature=curvature,
        shifted=shifted,
    )


def _spectrum(
    objective: Objective, structure: str, curvature: str, seed: int
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Return eigenvalues, and what takes a vector to their eigenvectors."""
    if structure == "kfac":
        factors = kfac(objective)
        assert factors.layout is not None
        if without := sorted(set(objective.layout.names) - set(factors.layout.names)):
            raise MeasurementError(
                f"Kronecker factors know linear and two-dimensional convolutional layers only, so {', '.join(without)} "
                "would have no curvature; use structure='diagonal', or 'full' for few parameters"
            )
        return factors.eigenbasis()
    operator = _CURVATURES[curvature](objective)
    if structure == "diagonal":
        return torch.as_tensor(diagonal(operator, seed=seed).value).double(), lambda vector: vector
    identity = torch.eye(operator.shape[0], device=operator.device, dtype=operator.dtype)
    values, vectors = torch.linalg.eigh((operator @ identity).double())
    return values, lambda vector: vectors.T @ vector
