"""The slope of the loss at the weights, plain or stretched."""

from __future__ import annotations

from landscape._derivatives import require_gradient
from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_contributions
from landscape.objective import Objective
from landscape.sharpness._ball import Radii, stretch_, stretched_norm
from landscape.sharpness._finite import require_finite

# Up to this many parameters the gradient of each group of batches is kept, for the error over examples.
_MOST_KEPT = 2**22


@of_objective
def gradient_norm(objective: Objective, adaptive: bool = False) -> Estimate:
    """Measure ‖c ⊙ g‖, the l2 norm of the gradient of the mean loss.

    It is the slope of `sam` and `worst_case` at ρ = 0: how steep the loss is, not how curved.

    Args:
        objective: The loss over the measured examples.
        adaptive: Whether c = |w|, which is invariant to rescaling of layers and neurons, or 1.

    Returns:
        The norm in units of the loss (over those of the weights where plain); nothing is drawn. Its standard error over
        examples is that of uᵀ(c ⊙ g), u = c ⊙ g/‖c ⊙ g‖ held fixed, from the gradients of the groups of batches. From 4
        million parameters on these would take too much memory, and the error is NaN. It does not include the bias: the
        noise of the examples makes the norm larger by about tr Σ/(2n‖c ⊙ g‖), Σ the covariance of c ⊙ g of one example.
        Near a minimum this exceeds the error, and `gradient_noise_scale` has an unbiased |g|².

    Memory: up to 16 vectors of the parameters' length, one a group of batches, below 4 million parameters.

    Raises:
        MeasurementError: The gradient is not finite.

    Source: Zhao, Zhang & Hu 2022, arXiv:2202.03599 (as a penalty).
    """
    require_gradient(objective)
    with objective.session():
        size, c = objective.n_parameters, Radii(objective.vector(), adaptive)
        if size < _MOST_KEPT:
            gradient, parts = objective.gradient_by_group(lambda part: part, (size,))
        else:
            gradient, parts = objective.gradient(), None
        require_finite(gradient.sum(), "gradient")
        norm = stretched_norm(gradient, c)
        if parts is None:
            return Estimate.exact(float(norm))
        # Of a gradient of zero the norm has no derivative, and 0/0 says so.
        slope = stretch_(stretch_(gradient.double(), c), c) / norm
        forms = (parts @ slope.to(parts)).cpu().numpy()
        return Estimate.exact(float(norm), float(of_contributions(objective.clusters, forms)))
