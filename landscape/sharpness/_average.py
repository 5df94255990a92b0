"""Average-case sharpness: the mean rise of the loss under random perturbations of the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from landscape._fetching import fetched
from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_shares
from landscape.objective import Objective
from landscape.sharpness._ball import Radii, check, stretch_
from landscape.sharpness._finite import require_finite
from landscape.sharpness._ladder import Ladder, gather
from landscape.sharpness._noise import draw


@of_objective
def average_case(
    objective: Objective,
    rho: float | Sequence[float] = 0.1,
    adaptive: bool = True,
    norm: str = "l2",
    draws: int = 20,
    seed: int = 0,
    antithetic: bool = True,
) -> Estimate | Ladder:
    """Measure E[L(w + δ)] − L(w) with δ ~ N(0, ρ² diag(c²)), or uniform in [−ρc, ρc] for norm "linf".

    c = |w| where adaptive (invariant to rescaling of layers and neurons; a weight of exactly zero stays), else 1. At a
    minimum and for small ρ it is ½ρ² Tr(CHC) with C = diag(c), a third of that for "linf".

    Each draw is used with both signs by default, which cancels the linear term exactly and leaves the expectation as it
    is; the standard error is then over pairs.

    Args:
        objective: The loss over the measured examples.
        rho: Standard deviation (l2) or half-width (linf) of the perturbation, in units of c; or a ladder of them, all
            measured with the same draws.
        adaptive: Whether c = |w| or 1.
        norm: "l2" for Gaussian, "linf" for uniform perturbations.
        draws: Number of evaluated perturbations, at least 2 (4 for a standard error with pairs).
        seed: Seed of the draws; the same draws on every device.
        antithetic: Whether perturbations come in pairs ±δ.

    Returns:
        The mean rise in units of the loss, with its standard error over independent draws and, from the rises of the
        single batches with these draws, over examples; a `Ladder` for several ρ.

    Raises:
        MeasurementError: The loss at w is not finite.
        ValueError: An argument is out of range.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011, eq. 2. They take one draw a batch; all draws see all examples
    here.
    """
    radii = check(rho, norm)
    if draws < 2:
        raise ValueError(f"draws is {draws}; at least 2 perturbations are needed")
    signs = (1, -1) if antithetic else (1,)
    with objective.session():
        weights = objective.vector()
        shares = objective.loss_shares()
        center = shares.sum()
        require_finite(center, "loss")
        c = Radii(weights, adaptive)
        losses = []
        # Fresh memory for every vector costs more than what is computed in it.
        noise = torch.empty(len(weights), dtype=torch.float32)
        moved = torch.empty_like(weights)
        moved_shares = shares.new_zeros((len(radii), len(shares)))
        for index in range(draws // len(signs)):
            direction = stretch_(draw(len(weights), norm, seed, index, out=noise).to(weights), c)
            for rung, radius in enumerate(radii):
                for sign in signs:
                    torch.add(weights, direction, alpha=sign * radius, out=moved)
                    found = objective.loss_shares(moved)
                    moved_shares[rung] += found
                    losses.append(found.sum())
        rises = fetched(losses).reshape(-1, len(radii), len(signs)) - float(center)
        mean_rises = moved_shares / draws - shares
    errors = of_shares(objective.clusters, mean_rises.T)
    estimates = [Estimate.from_samples(samples, seed) for samples in rises.mean(axis=2).T]
    return gather(
        rho, [dataclasses.replace(one, stderr_sample=float(e)) for one, e in zip(estimates, errors, strict=True)], "rho"
    )
