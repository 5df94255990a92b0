"""First-order sharpness as sharpness-aware minimisation sees it."""

from __future__ import annotations

import torch

from landscape._errors import MeasurementError
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ball import check


def sam(objective: Objective, rho: float = 0.05) -> Estimate:
    """Measure L(w + ρ g/‖g‖) − L(w), the rise after one ascent step of length ρ.

    It is meant for weights away from a minimum: where the gradient vanishes its direction is noise, and the order of
    two solutions by this number can be the reverse of that by curvature.

    Args:
        objective: The loss over the measured examples.
        rho: Length of the step, in units of the weights' l2 norm.

    Returns:
        The rise in units of the loss; nothing is sampled, so its standard error is 0. At a gradient of exactly zero the
        step is zero, and so is the rise.

    Raises:
        MeasurementError: Loss or gradient is not finite.
        ValueError: rho is not positive.

    Source: Foret et al. 2021, arXiv:2010.01412, with ρ = 0.05 for CIFAR-10.
    """
    check(rho, "l2")
    with objective.session():
        loss, gradient = objective.loss_and_gradient()
        require_finite(loss, "loss")
        require_finite(gradient.sum(), "gradient")
        length = torch.linalg.vector_norm(gradient.double())
        step = gradient * (rho / length).to(gradient) if length > 0 else gradient
        return Estimate.exact(float(objective.loss(objective.vector() + step)) - float(loss))


def require_finite(value: torch.Tensor, what: str) -> None:
    """Refuse to measure around a point where the loss or gradient is not a number.

    Raises:
        MeasurementError: It is not finite.
    """
    if not torch.isfinite(value):
        raise MeasurementError(
            f"the {what} on the measured examples is {float(value)}, so there is no sharpness around it; look at the "
            "weights, the learning rate and the data"
        )
