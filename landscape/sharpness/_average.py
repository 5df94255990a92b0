"""Average-case sharpness: the mean rise of the loss under random perturbations of the weights."""

from __future__ import annotations

import numpy as np
import torch

from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ball import check, scale
from landscape.sharpness._sam import require_finite


def average_case(
    objective: Objective,
    rho: float = 0.1,
    adaptive: bool = True,
    norm: str = "l2",
    draws: int = 20,
    seed: int = 0,
    antithetic: bool = True,
) -> Estimate:
    """Measure E[L(w + δ)] − L(w) with δ ~ N(0, ρ² diag(c²)), or uniform in [−ρc, ρc] for norm "linf".

    c = |w| where adaptive (invariant to rescaling of layers and neurons; a weight of exactly zero stays), else 1. At a
    minimum and for small ρ it is ½ρ² Tr(CHC) with C = diag(c).

    Each draw is used with both signs by default, which cancels the linear term exactly and leaves the expectation as it
    is; the standard error is then over pairs.

    Args:
        objective: The loss over the measured examples.
        rho: Standard deviation (l2) or half-width (linf) of the perturbation, in units of c.
        adaptive: Whether c = |w| or 1.
        norm: "l2" for Gaussian, "linf" for uniform perturbations.
        draws: Number of evaluated perturbations, at least 2 (4 for a standard error with pairs).
        seed: Seed of the draws; the same draws on every device.
        antithetic: Whether perturbations come in pairs ±δ.

    Returns:
        The mean rise in units of the loss, with its standard error over independent draws.

    Raises:
        MeasurementError: The loss at w is not finite.
        ValueError: An argument is out of range.

    Source: Andriushchenko et al. 2023, arXiv:2302.07011, eq. 2. They take one draw a batch; all draws see all examples
    here.
    """
    check(rho, norm)
    if draws < 2:
        raise ValueError(f"draws is {draws}; at least 2 perturbations are needed")
    with objective.session():
        weights = objective.vector()
        center = objective.loss()
        require_finite(center, "loss")
        c = scale(weights, adaptive)
        rises = []
        for index in range(draws // 2 if antithetic else draws):
            delta = rho * c * _draw(len(weights), norm, seed, index).to(weights)
            signs = (1, -1) if antithetic else (1,)
            rises.append(np.mean([float(objective.loss(weights + sign * delta)) - float(center) for sign in signs]))
    return Estimate.from_samples(rises, seed)


def _draw(size: int, norm: str, seed: int, index: int) -> torch.Tensor:
    generator = np.random.default_rng((seed, index))
    if norm == "linf":
        return torch.from_numpy(generator.uniform(-1.0, 1.0, size))
    return torch.from_numpy(generator.standard_normal(size))
