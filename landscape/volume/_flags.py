"""What speaks against a learning coefficient."""

from __future__ import annotations

import numpy as np

from landscape.volume._tuning import Tuned

FLAGS = ("diverged", "large_step", "gradient_noise", "not_mixed", "negative")
_LARGE_STIFFNESS, _LEAST_ACCEPTANCE, _LEAST_ADJUSTED = 0.5, 0.5, 0.2
_LARGEST_NOISE, _LARGEST_RHAT, _LEAST_ESS, _LEAST_EQUILIBRIUM = 0.2, 1.05, 10, 0.8


def flags(
    chains: int,
    recorded: np.ndarray,
    tuned: Tuned,
    dynamics: tuple[float, float, float],
    found: tuple[float, float, float, float],
) -> tuple[str, ...]:
    """Name what speaks against λ̂; what is no number counts against it.

    Args:
        chains: Number of chains.
        recorded: Rise of the loss at every recorded step, shape (chains, draws).
        tuned: How the chains moved.
        dynamics: Acceptance, equilibrium, gradient noise.
        found: λ̂, its standard error, R̂, effective sample size.

    Returns:
        Those of `FLAGS` that are raised, as described at `LocalLearningCoefficient`.
    """
    acceptance, equilibrium, noise = dynamics
    value, stderr, rhat, ess = found
    adjusted = tuned.proposal.adjusted
    # Comparisons are written so that a NaN raises its flag.
    least = _LEAST_ADJUSTED if adjusted else _LEAST_ACCEPTANCE
    mixed = rhat <= _LARGEST_RHAT and ess >= _LEAST_ESS * chains and equilibrium >= _LEAST_EQUILIBRIUM
    raised = {
        "diverged": not np.isfinite(recorded).all(),
        "large_step": not acceptance >= least or (not adjusted and tuned.stiffness > _LARGE_STIFFNESS),
        "gradient_noise": noise > _LARGEST_NOISE,
        "not_mixed": not mixed,
        "negative": value < -2 * stderr,
    }
    return tuple(name for name in FLAGS if raised[name])
