"""The rise of the loss after one step of steepest ascent, of all examples together or of groups of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape._derivatives import require_gradient
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ball import steepest
from landscape.sharpness._finite import require_finite


def one_step(
    objective: Objective, c: torch.Tensor, radii: Sequence[float], norm: str, group: int | None = None
) -> list[Estimate]:
    """Measure L(w + ρs) − L(w) for every ρ, s the unit step of steepest ascent in ‖δ ⊘ c‖.

    Args:
        objective: The loss over the measured examples.
        c: Radius of each coordinate in units of ρ, shape (P,).
        radii: The ρ.
        norm: "l2" or "linf".
        group: Examples a group; each group has its own loss and ascent, and the mean over groups counts.

    Returns:
        One estimate a ρ: exact for one group, else with the standard error over groups.
    """
    require_gradient(objective)
    with objective.session():
        groups = [objective] if group is None else objective.split(group)
        rises = [_rises(part, c, radii, norm) for part in groups]
    by_radius = list(zip(*rises, strict=True))
    return [Estimate.exact(r[0]) if len(r) == 1 else Estimate.from_samples(r, None) for r in by_radius]


def _rises(objective: Objective, c: torch.Tensor, radii: Sequence[float], norm: str) -> list[float]:
    with objective.session(), objective.same_kernels():
        loss, gradient = objective.loss_and_gradient()
        require_finite(loss, "loss")
        require_finite(gradient.sum(), "gradient")
        weights, step = objective.vector(), steepest(gradient, c, norm)
        return [float(objective.loss(weights.add(step, alpha=radius))) - float(loss) for radius in radii]
