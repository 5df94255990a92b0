"""The step size and the preconditioner of a chain, chosen by curvature and a pilot run."""

from __future__ import annotations

import dataclasses
import math

import torch

from landscape._errors import MeasurementError
from landscape.curvature import SymmetricOperator, top_eigenpairs
from landscape.sharpness._congruence import stretched
from landscape.volume._langevin import Proposal, run_chain
from landscape.volume._posterior import LocalPosterior

_STIFFNESS = {False: 0.2, True: 1.0}  # ε times the largest curvature: biased and Metropolis-adjusted chains
_ACCEPTANCE = 0.6
_MOST_HALVINGS = 30
_PILOT = 2**31  # a stream that no chain has


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A proposal and what was found on the way.

    Attributes:
        proposal: How the chains move.
        stiffness: ε times the largest eigenvalue of G^½ (nβ H + γ) G^½ at w*.
        evaluations: Gradients taken by the pilots.
    """

    proposal: Proposal
    stiffness: float
    evaluations: int


def tune(posterior: LocalPosterior, method: str, step_size: float | None, burn_in: int, seed: int) -> Tuned:
    """Choose the preconditioner, and the step size where none is given.

    The step is a fifth (adjusted chains: all) of the inverse of the largest curvature at w*, halved until a pilot
    accepts 0.6 of its steps. RMSProp's preconditioner is G ∝ 1/√V with V the mean squared gradient of a plain pilot,
    scaled to a mean of one; it is the same for all chains and stays fixed, so that they have a stationary law.

    Args:
        posterior: What will be sampled.
        method: "sgld", "rmsprop" or "mala".
        step_size: ε, or None.
        burn_in: Steps of a pilot.
        seed: Seed of the pilots.

    Returns:
        Proposal, stiffness, cost.

    Raises:
        MeasurementError: No step size is stable.
    """
    adjusted = method == "mala"
    curvature = posterior.curvature()
    largest = _largest(posterior, curvature, None, seed)
    evaluations, scale = 0, None
    if method == "rmsprop":
        plain, spent, squares = _pilot(posterior, _first(largest, None, False), burn_in, seed, squared=True)
        assert squares is not None
        root = squares.sqrt()
        scale = 1 / (root + 1e-3 * root.mean())
        scale = scale / scale.mean()
        largest = _largest(posterior, curvature, scale, seed)
        evaluations += spent
        if not torch.isfinite(scale).all():
            raise MeasurementError(f"the gradients of a chain with the step {plain.step:g} vanish or are not finite")
    if step_size is not None:
        proposal = Proposal(step_size, scale, adjusted)
    else:
        proposal, spent, _ = _pilot(posterior, _first(largest, scale, adjusted), burn_in, seed)
        evaluations += spent
    return Tuned(proposal, proposal.step * largest, evaluations)


def _largest(posterior: LocalPosterior, curvature: SymmetricOperator, scale: torch.Tensor | None, seed: int) -> float:
    operator = curvature if scale is None else stretched(curvature, scale.sqrt())
    top = max(float(top_eigenpairs(operator, k=1, tol=0.05, seed=seed, verify=False).values[0]), 0.0)
    tether = posterior.gamma * (1.0 if scale is None else float(scale.max()))
    return posterior.nbeta * top + tether


def _first(largest: float, scale: torch.Tensor | None, adjusted: bool) -> Proposal:
    """Return the longest step to try."""
    if not 0 < largest < math.inf:
        raise MeasurementError(
            f"the log posterior has the largest curvature {largest:g} at these weights, which sets no step size; give "
            "gamma > 0 or step_size"
        )
    return Proposal(_STIFFNESS[adjusted] / largest, scale, adjusted)


def _pilot(
    posterior: LocalPosterior, first: Proposal, steps: int, seed: int, squared: bool = False
) -> tuple[Proposal, int, torch.Tensor | None]:
    """Halve the step until a run of the given length accepts enough."""
    evaluations, proposal = 0, first
    for _ in range(_MOST_HALVINGS):
        chain = run_chain(posterior, proposal, steps, (seed, _PILOT), steps // 2, squared, probe_every=10)
        evaluations += chain.evaluations
        if chain.acceptance >= _ACCEPTANCE:
            return proposal, evaluations, chain.squares
        proposal = dataclasses.replace(proposal, step=proposal.step / 2)
    raise MeasurementError(
        f"no step size between {proposal.step:g} and {first.step:g} gives a chain that stays; the loss may not be "
        "continuous around these weights"
    )
