"""The local free energy, the integral of λ̂ over the temperature."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.polynomial.legendre import leggauss

from landscape._given import of_objective
from landscape._results import Result
from landscape.objective import Objective
from landscape.volume._coefficient_grid import coefficient_grid
from landscape.volume._learning_coefficient import default_nbeta


@dataclasses.dataclass(frozen=True)
class FreeEnergy(Result):
    """The local free energy F with the λ̂ that it was integrated from.

    Attributes:
        value: F(nβ), in nats.
        stderr: Monte-Carlo standard error; it knows nothing of the quadrature's or of a step's bias.
        nbeta: nβ.
        gamma: γ.
        at: Inverse temperatures of the quadrature, shape (m,).
        coefficients: λ̂ there, shape (m,): dF/d ln(nβ).
        flags: What speaks against any of them.
        seed: Seed of the chains.
    """

    value: float
    stderr: float
    nbeta: float
    gamma: float
    at: np.ndarray
    coefficients: np.ndarray
    flags: tuple[str, ...]
    seed: int


@of_objective
def free_energy(
    objective: Objective,
    gamma: float = 100.0,
    nbeta: float | None = None,
    chains: int = 4,
    draws: int = 500,
    seed: int = 0,
    *,
    points: int = 12,
    decades: float = 6.0,
    method: str = "sgld",
    burn_in: int | None = None,
    full_batch: bool = False,
    parameters: str | Sequence[str] | None = None,
) -> FreeEnergy:
    """Integrate F(nβ) = −ln ∫ e^{−nβ (L(w) − L(w*))} N(w; w*, I/γ) dw over the temperature.

    dF/d ln(nβ) = λ̂, so F = ∫ λ̂ d ln(nβ) from −∞; Gauss–Legendre over the last `decades`, and below them λ̂ ∝ nβ, as
    for any loss with a mean over the tether alone. On a quadratic F = ½ ln det(I + nβ H/γ).

    Args:
        objective: The loss at a local minimum w*.
        gamma: γ > 0, the precision of the Gaussian that weighs the volume.
        nbeta: nβ; by default n / ln n.
        chains: Chains a point.
        draws: Recorded steps a chain.
        seed: Seed of the chains.
        points: Points of the quadrature.
        decades: Decades of nβ that they cover; more where λ̂ is not yet proportional to nβ at the lowest.
        method: As in `learning_coefficient`.
        burn_in: As in `learning_coefficient`.
        full_batch: As in `learning_coefficient`.
        parameters: As in `learning_coefficient`.

    Returns:
        F with its standard error, and λ̂ at the points. Chains at all points use the same random numbers; the standard
        error adds their errors up as if they went the same way.

    Raises:
        MeasurementError: As in `learning_coefficient`.
        ValueError: An argument is out of range.

    Source: Gelman & Meng 1998, doi:10.1214/ss/1028905934 (thermodynamic integration).
    """
    if not gamma > 0:
        raise ValueError(f"gamma is {gamma}; the free energy needs a tether, gamma > 0")
    if points < 2 or not decades > 0:
        raise ValueError(f"points is {points} and decades {decades}; at least 2 points and a range above 0 are needed")
    nbeta = default_nbeta(objective.n_examples) if nbeta is None else nbeta
    nodes, weights = leggauss(points)
    width = decades * np.log(10)
    at = nbeta * np.exp(width * (nodes - 1) / 2)
    grid = coefficient_grid(
        objective,
        [gamma],
        [float(one) for one in at],
        chains,
        draws,
        seed,
        method=method,
        burn_in=burn_in,
        full_batch=full_batch,
        parameters=parameters,
    )
    shares = weights * width / 2
    # ∫ λ̂ d ln(nβ) over all lower temperatures, with λ̂ proportional to nβ there.
    shares[0] += nbeta * 10.0**-decades / at[0]
    raised = {flag for flags in grid.flags[0] for flag in flags}
    return FreeEnergy(
        value=float(shares @ grid.value[0]),
        stderr=float(shares @ grid.stderr[0]),
        nbeta=nbeta,
        gamma=gamma,
        at=at,
        coefficients=grid.value[0],
        flags=tuple(sorted(raised)),
        seed=seed,
    )


def gaussian_free_energy(eigenvalues: np.ndarray, nbeta: float, gamma: float) -> tuple[float, float]:
    """Return F = ½ ln det(I + nβ H/γ) and λ = ½ N_eff(H, γ/nβ), what a quadratic loss has, from its spectrum.

    Args:
        eigenvalues: Those of H, none below −γ/nβ.
        nbeta: nβ.
        gamma: γ.

    Returns:
        F and λ.
    """
    ratio = nbeta * np.asarray(eigenvalues, dtype=np.float64) / gamma
    return float(np.log1p(ratio).sum() / 2), float((ratio / (1 + ratio)).sum() / 2)
