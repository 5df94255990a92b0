"""The slope of the loss at the weights, plain or stretched."""

from __future__ import annotations

import torch

from landscape._derivatives import require_gradient
from landscape._given import of_objective
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ball import scale
from landscape.sharpness._finite import require_finite


@of_objective
def gradient_norm(objective: Objective, adaptive: bool = False) -> Estimate:
    """Measure ‖c ⊙ g‖, the l2 norm of the gradient of the mean loss.

    It is the slope of `sam` and `worst_case` at ρ = 0: how steep the loss is, not how curved.

    Args:
        objective: The loss over the measured examples.
        adaptive: Whether c = |w|, which is invariant to rescaling of layers and neurons, or 1.

    Returns:
        The norm in units of the loss (over those of the weights where plain); nothing is sampled.

    Raises:
        MeasurementError: The gradient is not finite.

    Source: Zhao, Zhang & Hu 2022, arXiv:2202.03599 (as a penalty).
    """
    require_gradient(objective)
    with objective.session():
        gradient = objective.gradient().double()
        require_finite(gradient.sum(), "gradient")
        return Estimate.exact(float(torch.linalg.vector_norm(scale(objective.vector(), adaptive) * gradient)))
