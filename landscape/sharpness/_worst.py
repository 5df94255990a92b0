"""Worst-case sharpness: the largest rise of the loss within a ball around the weights, found by Auto-PGD."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

from landscape._derivatives import require_gradient
from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_shares
from landscape.objective import Objective
from landscape.sharpness._ball import Radii, any_moves, check, project_, steepest
from landscape.sharpness._finite import require_finite
from landscape.sharpness._ladder import Ladder, gather

_MOMENTUM = 0.75
# Share of the steps of a stretch that must have gained, below which the step is halved (Croce & Hein 2020, §3).
_PROGRESS = 0.75


@of_objective
def worst_case(
    objective: Objective,
    rho: float | Sequence[float] = 0.5,
    adaptive: bool = True,
    norm: str = "l2",
    steps: int = 20,
    group: int | None = None,
    seed: int = 0,
) -> Estimate | Ladder:
    """Measure the mean over groups S of max L_S(w + δ) − L_S(w) over ‖δ ⊘ c‖ ≤ ρ.

    c = |w| where adaptive (a weight of exactly zero stays), else 1. At a minimum and for small ρ with "l2" it is
    ½ρ² λmax(CHC), C = diag(c). The maximum is sought by Auto-PGD from δ = 0: steepest ascent with momentum .75, a first
    step of 2ρ that is halved, with a return to the best point, when progress stalls. What it finds is a lower bound
    on the true maximum, at least 0.

    Args:
        objective: The loss over the measured examples.
        rho: Radius in units of c, or a ladder of them, each with a search of its own.
        adaptive: Whether c = |w| or 1.
        norm: "l2" or "linf".
        steps: Ascent steps, one gradient and one loss each.
        group: Examples a group (the paper takes 128); by default all measured examples form one.
        seed: Seed of the first direction where the gradient is exactly zero; otherwise nothing is drawn.

    Returns:
        The rise in units of the loss. The standard error over examples is that of the mean over groups; without groups
        that of the rise at the perturbation that was found, which to first order is all: the maximum moves with the
        examples, but the loss is flat along its moves. Fewer examples have larger maxima. A `Ladder` for several ρ.

    Raises:
        MeasurementError: The loss at w is not finite.
        ValueError: An argument is out of range.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011, eq. 1; Croce & Hein 2020, arXiv:2003.01690 (Auto-PGD). The
    projection for "l2" is radial in the stretched coordinates δ ⊘ c.
    """
    radii = check(rho, norm)
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least one ascent step is needed")
    require_gradient(objective)
    with objective.session():
        estimates = []
        for radius in radii:
            ascend = functools.partial(_ascend, rho=radius, adaptive=adaptive, norm=norm, steps=steps, seed=seed)
            if group is None:
                estimates.append(Estimate.exact(*ascend(objective)))
            else:
                rises = objective.processes.map(ascend, objective.split(group))
                estimates.append(Estimate.over_groups([rise for rise, _ in rises], seed))
    return gather(rho, estimates)


def _ascend(objective: Objective, rho: float, adaptive: bool, norm: str, steps: int, seed: int) -> tuple[float, float]:
    """Return the largest rise found and its standard error over examples."""
    with objective.session():
        shares = _maximise(objective, rho, adaptive, norm, steps, seed)
    return float(shares.sum()), float(of_shares(objective.clusters, shares))


def _maximise(objective: Objective, rho: float, adaptive: bool, norm: str, steps: int, seed: int) -> torch.Tensor:
    """Return what each batch contributes to the largest rise found, shape (batches,)."""
    weights = objective.vector()
    c = Radii(weights, adaptive)
    start, gradient = objective.shares_and_gradient()
    center = float(start.sum())
    require_finite(start.sum(), "loss")
    if not any_moves(gradient, c):
        # Exactly stationary: no direction is steepest, so a random one breaks the tie.
        gradient = torch.from_numpy(np.random.default_rng(seed).standard_normal(len(weights))).to(weights)
    delta = previous = torch.zeros_like(weights)
    best, best_loss, best_gradient, best_shares = delta, center, gradient, start
    size = 2.0 * rho
    checkpoints = _checkpoints(steps)
    gained, stretch_start, halved, best_at_check = 0, 0, False, center
    last = center
    for step in range(steps):
        candidate = project_(steepest(gradient, c, norm).mul_(size).add_(delta), c, rho, norm)
        if step > 0:
            # δ + α(c − δ) + (1 − α)(δ − δ'), in place
            candidate.sub_(delta).mul_(_MOMENTUM).add_(delta).add_(delta, alpha=1 - _MOMENTUM)
            candidate = project_(candidate.sub_(previous, alpha=1 - _MOMENTUM), c, rho, norm)
        previous, delta = delta, candidate
        del candidate, gradient  # the next one takes its place
        shares, gradient = objective.shares_and_gradient(weights + delta)
        value = float(shares.sum())
        gained += value > last
        last = value
        if value > best_loss:
            best, best_loss, best_gradient, best_shares = delta, value, gradient, shares
        if math.isinf(value) or math.isnan(value):
            # The rise has no bound in this ball: said as it is, not repaired.
            return torch.full_like(start, value if math.isnan(value) else math.inf)
        if step + 1 in checkpoints:
            slow = gained < _PROGRESS * (step + 1 - stretch_start)
            stalled = not halved and best_loss <= best_at_check
            halved = slow or stalled
            if halved:
                size /= 2
                delta = previous = best
                last, gradient = best_loss, best_gradient
            best_at_check, gained, stretch_start = best_loss, 0, step + 1
    return best_shares - start


def _checkpoints(steps: int) -> set[int]:
    """Steps after which progress is judged, ever closer: fractions 0, .22, .41, .57, ... of the run."""
    fractions = [0.0, 0.22]
    while fractions[-1] < 1.0:
        fractions.append(fractions[-1] + max(fractions[-1] - fractions[-2] - 0.03, 0.06))
    return {math.ceil(fraction * steps) for fraction in fractions[1:]}
