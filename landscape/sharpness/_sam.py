"""First-order sharpness as sharpness-aware minimisation sees it."""

from __future__ import annotations

from collections.abc import Sequence

from landscape._given import of_objective
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ascent import one_step
from landscape.sharpness._ball import Radii, check
from landscape.sharpness._ladder import Ladder, gather


@of_objective
def sam(
    objective: Objective,
    rho: float | Sequence[float] = 0.05,
    adaptive: bool = False,
    norm: str = "l2",
    seed: int = 0,
) -> Estimate | Ladder:
    """Measure L(w + ρ g/‖g‖) − L(w), the rise after one ascent step of length ρ.

    It is meant for weights away from a minimum: where the gradient vanishes its direction is noise, and the order of
    two solutions by this number can be the reverse of that by curvature.

    Args:
        objective: The loss over the measured examples.
        rho: Length of the step, in units of the weights' norm; or a ladder of them, from one gradient.
        adaptive: Whether the step is the steepest for ‖δ ⊘ |w|‖ instead, ρ c² g/‖c g‖ with c = |w|, as in
            `asam(variant="elementwise")`.
        norm: "l2", or "linf" for the step ρ c sign(g).
        seed: Of no effect, for nothing is drawn; taken so that `average_case`, `worst_case` and `sam` are called alike.

    Returns:
        The rise in units of the loss; nothing is drawn, so its standard error is 0. The standard error over examples is
        that of the rise along the measured step. At a gradient of exactly zero the step is zero, and so is the rise. A
        `Ladder` for several ρ.

    Raises:
        MeasurementError: Loss or gradient is not finite.
        ValueError: rho is not positive, or the norm is unknown.

    Source: Foret et al. 2021, arXiv:2010.01412, with ρ = 0.05 for CIFAR-10 and 0.1 for CIFAR-100.
    """
    radii = check(rho, norm)
    return gather(rho, one_step(objective, Radii(objective.vector(), adaptive), radii, norm))
