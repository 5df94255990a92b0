"""The rise of the loss after one step of steepest ascent, of all examples together or of groups of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape._derivatives import require_gradient
from landscape._results import Estimate
from landscape._sampling_error import of_shares
from landscape.objective import Objective
from landscape.sharpness._ball import Radii, steepest
from landscape.sharpness._finite import require_finite


def one_step(
    objective: Objective, c: torch.Tensor | Radii, radii: Sequence[float], norm: str, group: int | None = None
) -> list[Estimate]:
    """Measure L(w + ρs) − L(w) for every ρ, s the unit step of steepest ascent in ‖δ ⊘ c‖.

    Args:
        objective: The loss over the measured examples.
        c: Radius of each coordinate in units of ρ, shape (P,).
        radii: The ρ.
        norm: "l2" or "linf".
        group: Examples a group; each group has its own loss and ascent, and the mean over groups counts.

    Returns:
        One estimate a ρ, with its standard error over examples: from the batches' rises along the common step, or over
        groups that have steps of their own.
    """
    require_gradient(objective)
    with objective.session():
        if group is None:
            shares = _rises(objective, c, radii, norm)
            errors = of_shares(objective.clusters, shares.T)
            values = shares.sum(dim=1).tolist()
            return [Estimate.exact(value, error) for value, error in zip(values, errors, strict=True)]
        rises = [_rises(part, c, radii, norm).sum(dim=1).tolist() for part in objective.split(group)]
    return [Estimate.over_groups(each, None) for each in zip(*rises, strict=True)]


def _rises(objective: Objective, c: torch.Tensor | Radii, radii: Sequence[float], norm: str) -> torch.Tensor:
    """Return what each batch contributes to the rise at every ρ, shape (radii, batches)."""
    with objective.session(), objective.same_kernels():
        shares, gradient = objective.shares_and_gradient()
        require_finite(shares.sum(), "loss")
        require_finite(gradient.sum(), "gradient")
        weights, step = objective.vector(), steepest(gradient, c, norm)
        del gradient
        return torch.stack([objective.loss_shares(weights.add(step, alpha=radius)) - shares for radius in radii])
