"""The invariant curvatures λmax(CHC) and Tr(CHC): the Hessian in units of the weights."""

from __future__ import annotations

import dataclasses

import torch

from landscape._given import of_objective
from landscape._results import Estimate
from landscape.curvature import SymmetricOperator, TraceEstimate, hessian, top_eigenpairs, trace
from landscape.objective import Objective
from landscape.sharpness._congruence import stretched


@dataclasses.dataclass(frozen=True)
class TopCurvature(Estimate):
    """A largest eigenvalue with the evidence for it; nothing is sampled but the start vector, so `stderr` is 0.

    Attributes:
        value: The eigenvalue.
        stderr: 0.
        n: 1.
        seed: Seed of the start vector.
        dof: Infinite.
        spread: None.
        stderr_sample: Standard error over examples of the eigenvalue, the weights C held fixed.
        residual: ‖Av − λv‖ of the unit eigenvector v.
        converged: Whether it met the tolerance.
        n_matvecs: Number of products spent.
    """

    residual: float
    converged: bool
    n_matvecs: int


@of_objective
def lambda_max_chc(
    objective: Objective,
    operator: SymmetricOperator | None = None,
    tol: float = 1e-3,
    seed: int = 0,
    max_matvecs: int | None = None,
) -> TopCurvature:
    """Compute λmax(CHC), C = diag(|w|): the largest curvature along a direction measured in units of the weights.

    Invariant to rescaling of layers and neurons. At a minimum ½ρ² λmax(CHC) is the adaptive worst case for a small ρ.

    Args:
        objective: The loss over the measured examples.
        operator: The curvature H over all its parameters; by default its Hessian. `ggn(objective)` serves too.
        tol: Relative accuracy.
        seed: Seed of the start vector.
        max_matvecs: Most products to spend.

    Returns:
        The eigenvalue with its residual and `converged`.

    Raises:
        MeasurementError: A product is not finite.
        ValueError: The operator is not over all parameters.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011 (the limit of the worst case).
    """
    pairs = top_eigenpairs(_in_units_of_weights(objective, operator), 1, tol=tol, seed=seed, max_matvecs=max_matvecs)
    value, residual = float(pairs.values[0]), float(pairs.residuals[0])
    sampled = float(pairs.stderr_sample[0])
    return TopCurvature(value, 0.0, 1, seed, residual, bool(pairs.converged), pairs.n_matvecs, stderr_sample=sampled)


@of_objective
def trace_chc(
    objective: Objective,
    operator: SymmetricOperator | None = None,
    method: str = "xtrace",
    tol: float = 0.02,
    seed: int = 0,
    max_matvecs: int = 200,
) -> TraceEstimate:
    """Estimate Tr(CHC) = Σ w_i² H_ii, C = diag(|w|).

    Invariant to rescaling of layers and neurons. At a minimum ½ρ² Tr(CHC) is the adaptive average case for a small ρ.

    Args:
        objective: The loss over the measured examples.
        operator: The curvature H over all its parameters; by default its Hessian. `ggn(objective)` serves too.
        method: Method of `landscape.curvature.trace`.
        tol: Relative standard error to reach.
        seed: Seed of the test vectors.
        max_matvecs: Most products to spend.

    Returns:
        The trace with its standard error, and whether it reached the tolerance.

    Raises:
        MeasurementError: A product is not finite.
        ValueError: The operator is not over all parameters, or as in `landscape.curvature.trace`.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011 (the limit of the average case).
    """
    scaled = _in_units_of_weights(objective, operator)
    return trace(scaled, method, tol=tol, seed=seed, max_matvecs=max_matvecs)


def _in_units_of_weights(objective: Objective, operator: SymmetricOperator | None) -> SymmetricOperator:
    weights: torch.Tensor = objective.vector()
    return stretched(hessian(objective) if operator is None else operator, weights.abs())
