"""m-sharpness: SAM's rise with an ascent of its own for every few examples."""

from __future__ import annotations

from collections.abc import Sequence

from landscape._given import of_objective
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ascent import one_step
from landscape.sharpness._ball import Radii, check
from landscape.sharpness._ladder import Ladder, gather


@of_objective
def m_sharpness(
    objective: Objective,
    rho: float | Sequence[float] = 0.05,
    m: int = 128,
    adaptive: bool = False,
    norm: str = "l2",
) -> Estimate | Ladder:
    """Measure the mean over groups S of m examples of L_S(w + ρ g_S/‖g_S‖) − L_S(w).

    Small groups have gradients of their own also where the mean gradient vanishes, so this one does not fade at a
    minimum of the whole loss as `sam` does; it grows as m falls.

    Args:
        objective: The loss over the measured examples.
        rho: Length of the step, in units of the weights' norm; or a ladder of them, from the same gradients.
        m: Examples a group. Batches are cut, never joined, so a batch's last group may be smaller; it counts as one.
        adaptive: As in `sam`.
        norm: As in `sam`.

    Returns:
        The mean rise in units of the loss with its standard error over examples, from the groups; a `Ladder` for
        several ρ.

    Raises:
        MeasurementError: Loss or gradient of a group is not finite.
        ValueError: An argument is out of range.

    Source: Foret et al. 2021, arXiv:2010.01412.
    """
    radii = check(rho, norm)
    return gather(rho, one_step(objective, Radii(objective.vector(), adaptive), radii, norm, m))
