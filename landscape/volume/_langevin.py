"""One chain of stochastic gradient Langevin dynamics, plain, preconditioned, or Metropolis-adjusted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from landscape.volume._noise import Noise, stream
from landscape.volume._posterior import LocalPosterior, pieces
from landscape.volume._walker import Walker

# A chain at home has an energy of about d/2; one a thousand times as high up does not come back.
_HIGHEST = 1000.0


@dataclasses.dataclass(frozen=True)
class Proposal:
    """How a chain moves: w ← w − ε/2 G ∇U_b(w) + √(εG) ξ, with ξ standard normal.

    Attributes:
        step: ε.
        scale: Diagonal of G, shape (d,); None for the identity.
        adjusted: Whether steps are accepted or rejected (Metropolis), which removes the error of a finite ε.
    """

    step: float
    scale: torch.Tensor | None = None
    adjusted: bool = False


@dataclasses.dataclass(frozen=True)
class Chain:
    """What one chain recorded.

    Attributes:
        excess: Loss minus loss at w* at every step, of the batch that the step saw; NaN from where it diverged.
        acceptance: Mean probability with which a Metropolis test would accept (or accepts) a step.
        equilibrium: Mean of (w − w*)·∇U / d; 1 for a chain that has reached the posterior's width in every direction.
        squares: Mean squared gradient of the energy, shape (d,); None where it was not asked for.
        evaluations: Number of gradients taken.
    """

    excess: np.ndarray
    acceptance: float
    equilibrium: float
    squares: torch.Tensor | None
    evaluations: int


def run_chain(
    posterior: LocalPosterior,
    proposal: Proposal,
    steps: int,
    key: tuple[int, ...],
    record_from: int = 0,
    squared: bool = False,
    probe_every: int = 20,
) -> Chain:
    """Run one chain from w*.

    With all examples every step's acceptance is known from the gradients of the walk itself; with batches some steps
    take a second gradient of their batch.

    Args:
        posterior: What is sampled.
        proposal: How.
        steps: Number of steps.
        key: Names the streams of the noise and of the batches.
        record_from: Acceptance and squared gradients count from this step on.
        squared: Whether to average squared gradients.
        probe_every: With batches, the steps from one second gradient to the next.

    Returns:
        What it recorded. It ends early where it diverges.
    """
    generator, picks = stream(*key, 0), _picks(posterior, steps, key)
    walker = Walker(posterior, proposal.step, proposal.scale)
    # A Metropolis test holds for independent noise only.
    noise = Noise(generator, walker.free, times=1 if proposal.adjusted else None)
    highest = _HIGHEST * max(posterior.size, 10)
    excess, squares = np.full(steps, np.nan), torch.zeros_like(walker.free) if squared else None
    alone = posterior.objective.processes.size == 1 and not squared
    accepted, balance = [], []
    counted, evaluations = 0, 0
    state: tuple[float, torch.Tensor] | None = None
    for t in range(steps):
        batch = picks[t]
        probed = batch is None or t % probe_every == 0
        if batch is not None and not probed and alone:
            rise, gradients = walker.look(batch)
            evaluations += 1
            if not posterior.nbeta * rise < highest:
                return Chain(excess, math.nan, math.nan, squares, evaluations)
            excess[t] = rise
            walker.move(gradients, noise)
            continue
        free = walker.free
        if state is None:
            state = posterior.excess_and_force(free, batch)
            evaluations += 1
        rise, force = state
        if not posterior.nbeta * rise + (posterior.tether(free) if probed else 0.0) < highest:
            return Chain(excess, math.nan, math.nan, squares, evaluations)
        excess[t] = rise
        if squares is not None and t >= record_from:
            counted += 1
            squares.add_(force.square().sub_(squares), alpha=1 / counted)
        xi = noise.vector()
        moved = _moved(free, force, xi, proposal)
        state, probability = None, math.nan
        if probed:
            there = posterior.excess_and_force(moved, batch)
            evaluations += 1
            climb = posterior.nbeta * (there[0] - rise) + posterior.tether(free, moved)
            probability = _acceptance(climb, force, there[1], xi, proposal)
            state = there if batch is None else None
            if t >= record_from:
                accepted.append(probability)
                balance.append(posterior.equilibrium(free, force))
        if proposal.adjusted and not torch.rand((), generator=generator).item() < probability:
            state = (rise, force)
        else:
            walker.jump(moved)
    acceptance, equilibrium = (float(np.mean(found)) if found else math.nan for found in (accepted, balance))
    return Chain(excess, acceptance, equilibrium, squares, evaluations)


def _moved(free: torch.Tensor, force: torch.Tensor, xi: torch.Tensor, proposal: Proposal) -> torch.Tensor:
    if proposal.scale is None:
        return free.add(force, alpha=-proposal.step / 2).add_(xi, alpha=math.sqrt(proposal.step))
    moved = free.addcmul(proposal.scale, force, value=-proposal.step / 2)
    return moved.addcmul_(proposal.scale.sqrt(), xi, value=math.sqrt(proposal.step))


def _acceptance(climb: float, force: torch.Tensor, there: torch.Tensor, xi: torch.Tensor, proposal: Proposal) -> float:
    """Return min(1, e^{−climb} q(back)/q(there)); the way back takes the noise ½√(εG) (forces at both ends) − ξ."""
    ratio, scales = -climb, () if proposal.scale is None else (proposal.scale,)
    for part, other, noise, *scale in pieces(force, there, xi, *scales):
        drift = (part + other).mul_(math.sqrt(proposal.step) / 2)
        if scale:
            drift.mul_(scale[0].sqrt())
        # ½ξ² − ½(drift − ξ)², multiplied out
        ratio += float(drift @ noise.sub(drift, alpha=0.5))
    return math.exp(min(ratio, 0.0)) if not math.isnan(ratio) else 0.0


def _picks(posterior: LocalPosterior, steps: int, key: tuple[int, ...]) -> list[int | None]:
    """Draw the batch of every step, each with its weight in the mean, so that gradients are unbiased."""
    if not posterior.batches:
        return [None] * steps
    weights = np.array(posterior.weights)
    draws = np.random.default_rng(np.random.SeedSequence((*key, 1))).choice(
        len(weights), size=steps, p=weights / weights.sum()
    )
    return [int(index) for index in draws]
