"""λ̂ over a grid of tethers and temperatures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from landscape._given import of_objective
from landscape._results import Result
from landscape.objective import Objective
from landscape.volume._learning_coefficient import check, sample
from landscape.volume._posterior import LocalPosterior


@dataclasses.dataclass(frozen=True)
class CoefficientGrid(Result):
    """λ̂ over a grid of γ and nβ; a plateau over nβ is what makes it a property of the weights.

    Attributes:
        gamma: The tethers, shape (g,).
        nbeta: The inverse temperatures, shape (b,).
        value: λ̂, shape (g, b); NaN where a chain diverged.
        stderr: Standard errors, shape (g, b).
        rhat: R̂, shape (g, b).
        flagged: Whether anything speaks against the value, shape (g, b).
        flags: What does, by γ and by nβ, as in `LocalLearningCoefficient`.
    """

    gamma: np.ndarray
    nbeta: np.ndarray
    value: np.ndarray
    stderr: np.ndarray
    rhat: np.ndarray
    flagged: np.ndarray
    flags: tuple[tuple[tuple[str, ...], ...], ...]


@of_objective
def coefficient_grid(
    objective: Objective,
    gammas: Sequence[float],
    nbetas: Sequence[float],
    chains: int = 4,
    draws: int = 500,
    seed: int = 0,
    *,
    method: str = "sgld",
    burn_in: int | None = None,
    full_batch: bool = False,
    parameters: str | Sequence[str] | None = None,
) -> CoefficientGrid:
    """Estimate λ̂ at every pair of a tether γ and an inverse temperature nβ, each with a step size of its own.

    Args:
        objective: The loss at a local minimum w*.
        gammas: Tethers.
        nbetas: Inverse temperatures.
        chains: Chains a pair; all pairs use the same random numbers, so that their differences are precise.
        draws: Recorded steps a chain.
        seed: Seed of the chains.
        method: As in `learning_coefficient`.
        burn_in: As in `learning_coefficient`.
        full_batch: As in `learning_coefficient`.
        parameters: As in `learning_coefficient`.

    Returns:
        The grid.

    Raises:
        MeasurementError: As in `learning_coefficient`.
        ValueError: An argument is out of range, or there are no settings.
    """
    if not len(gammas) or not len(nbetas):
        raise ValueError("gammas or nbetas is empty; give at least one of each")
    burn_in = draws // 2 if burn_in is None else burn_in
    for gamma in gammas:
        for nbeta in nbetas:
            check(chains, draws, gamma, nbeta, burn_in, method, None)
    with objective.session():
        first = LocalPosterior(objective, nbetas[0], gammas[0], parameters, full_batch or method == "mala")
        results = tuple(
            tuple(
                sample(
                    first.with_temperature(nbeta, gamma),
                    chains,
                    draws,
                    burn_in,
                    seed,
                    method,
                    None,
                    objective.n_examples,
                )
                for nbeta in nbetas
            )
            for gamma in gammas
        )
    return CoefficientGrid(
        gamma=np.array(gammas, dtype=np.float64),
        nbeta=np.array(nbetas, dtype=np.float64),
        value=np.array([[one.value for one in row] for row in results]),
        stderr=np.array([[one.stderr for one in row] for row in results]),
        rhat=np.array([[one.rhat for one in row] for row in results]),
        flagged=np.array([[bool(one.flags) for one in row] for row in results]),
        flags=tuple(tuple(one.flags for one in row) for row in results),
    )
