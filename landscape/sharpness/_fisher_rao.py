"""The Fisher–Rao norm: the length of the weights as the network's outputs feel it."""

from __future__ import annotations

import math

from landscape._given import of_objective
from landscape._results import Estimate
from landscape.curvature import fisher
from landscape.objective import Objective


@of_objective
def fisher_rao(objective: Objective, kind: str = "empirical", draws: int = 1, seed: int = 0) -> Estimate:
    """Measure ‖w‖_fr = √(wᵀ F w), F the Fisher information at w.

    Without biases and with ReLU, wᵀ∇f is the depth times f, so that the norm depends on the outputs alone: it is
    ‖w‖_fr = depth · √E⟨∂ℓ/∂f, f⟩². It is invariant to every rescaling that leaves the function as it is, and falls with
    the loss: near a perfect fit it says how confident the network is, not how flat.

    Args:
        objective: The loss over the measured examples.
        kind: "empirical": the true labels, F = E[∇ℓ ∇ℓᵀ], as the norm is defined; "exact" and "mc": labels from the
            model's own distribution, as Fisher's information is (see `landscape.curvature.fisher`).
        draws: Labels drawn for each target ("mc").
        seed: Their seed.

    Returns:
        The norm in units of the loss ("empirical") or of its square root (the others). For "mc" its spread over labels
        is not known from one draw, and the standard error NaN.

    Raises:
        MeasurementError: As in `landscape.curvature.fisher`.
        ValueError: The kind is unknown.

    Source: Liang et al. 2019, arXiv:1711.01530.
    """
    weights = objective.vector()
    square = float(weights.double() @ (fisher(objective, kind, draws=draws, seed=seed) @ weights).double())
    value = math.sqrt(max(square, 0.0))
    return Estimate(value, math.nan, draws, seed) if kind == "mc" else Estimate.exact(value)
