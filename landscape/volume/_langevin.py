"""One chain of stochastic gradient Langevin dynamics, plain, preconditioned, or Metropolis-adjusted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from landscape._fetching import fetched
from landscape.volume._noise import Noise, stream
from landscape.volume._posterior import LocalPosterior, pieces
from landscape.volume._walker import Walker

# A chain at home has an energy of about d/2; one a thousand times as high up does not come back.
_HIGHEST = 1000.0
# Steps from one look at the energies to the next: a look waits for the device.
_LOOK_EVERY = 16


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
        evaluations: Number of gradients taken. A chain that diverges takes up to fifteen more before that is seen.
    """

    excess: np.ndarray
    acceptance: float
    equilibrium: float
    squares: torch.Tensor | None
    evaluations: int


class _Energies:
    """The energies of a chain's steps: they stay on the device until a look fetches those since the last one.

    Attributes:
        excess: Rise of the loss at the steps that were looked at, shape (steps,); NaN for the others, and from the
            step at which the chain left.
    """

    def __init__(self, posterior: LocalPosterior, steps: int):
        self.excess = np.full(steps, np.nan)
        self._nbeta, self._highest = posterior.nbeta, _HIGHEST * max(posterior.size, 10)
        self._none = torch.zeros((), dtype=torch.float64, device=posterior.center.device)
        self._rises: list[torch.Tensor] = []
        self._tethers: list[torch.Tensor] = []
        self._seen = 0
        self._left = False

    def note(self, rise: torch.Tensor, tether: torch.Tensor | None = None) -> None:
        """Put down the rise of the loss at a step, and the tether's energy where it is known."""
        self._rises.append(rise)
        self._tethers.append(self._none if tether is None else tether)

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return len(self._rises) == _LOOK_EVERY

    def stayed(self) -> bool:
        """Look at the steps since the last look: whether the energy stayed below a thousand times that at home."""
        if self._left or not self._rises:
            return not self._left
        rises, tethers = fetched([*self._rises, *self._tethers]).reshape(2, -1)
        inside = self._nbeta * rises + tethers < self._highest  # a NaN is not
        count = len(rises) if inside.all() else int(inside.argmin())
        self.excess[self._seen : self._seen + count] = rises[:count]
        self._seen += count
        self._rises, self._tethers = [], []
        self._left = not inside.all()
        return not self._left


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

    Raises:
        Exception: The model failed at a point of a chain that had not diverged.
    """
    generator, picks = stream(*key, 0), _picks(posterior, steps, key)
    walker = Walker(posterior, proposal.step, proposal.scale)
    # A Metropolis test holds for independent noise only.
    noise = Noise(generator, walker.free, times=1 if proposal.adjusted else None)
    energies, squares = _Energies(posterior, steps), torch.zeros_like(walker.free) if squared else None
    alone = posterior.objective.processes.size == 1 and not squared
    ratios: list[torch.Tensor] = []
    balance: list[torch.Tensor] = []
    counted, evaluations = 0, 0
    state: tuple[torch.Tensor, torch.Tensor] | None = None
    ratio: torch.Tensor | None
    try:
        for t in range(steps):
            if energies.due and not energies.stayed():
                break
            batch = picks[t]
            probed = batch is None or t % probe_every == 0
            if batch is not None and not probed and alone:
                rise, gradients = walker.look(batch)
                evaluations += 1
                energies.note(rise)
                walker.move(gradients, noise)
                continue
            free = walker.free
            if state is None:
                state = posterior.excess_and_force(free, batch)
                evaluations += 1
            rise, force = state
            energies.note(rise, posterior.tether(free) if probed else None)
            if squares is not None and t >= record_from:
                counted += 1
                squares.add_(force.square().sub_(squares), alpha=1 / counted)
            xi = noise.vector()
            moved = _moved(free, force, xi, proposal)
            state, ratio = None, None
            if probed:
                there = posterior.excess_and_force(moved, batch)
                evaluations += 1
                climb = posterior.nbeta * (there[0] - rise) + posterior.tether(free, moved)
                ratio = _log_ratio(climb, force, there[1], xi, proposal)
                state = there if batch is None else None
                if t >= record_from:
                    ratios.append(ratio)
                    balance.append(posterior.equilibrium(free, force))
            if proposal.adjusted:
                assert ratio is not None
                assert state is not None
                drawn = torch.rand((), generator=generator).to(ratio)
                accepted = drawn < ratio.clamp(max=0.0).exp()  # a NaN is rejected
                state = torch.where(accepted, state[0], rise), torch.where(accepted, state[1], force)
                moved = torch.where(accepted, moved, free)
            walker.jump(moved)
    except Exception:
        # A model may refuse to be evaluated where a diverged chain has come to.
        if energies.stayed():
            raise
    if not energies.stayed():
        return Chain(energies.excess, math.nan, math.nan, squares, evaluations)
    acceptances = [math.exp(min(ratio, 0.0)) if not math.isnan(ratio) else 0.0 for ratio in fetched(ratios)]
    acceptance, equilibrium = (
        float(np.mean(found)) if len(found) else math.nan for found in (acceptances, fetched(balance))
    )
    return Chain(energies.excess, acceptance, equilibrium, squares, evaluations)


def _moved(free: torch.Tensor, force: torch.Tensor, xi: torch.Tensor, proposal: Proposal) -> torch.Tensor:
    if proposal.scale is None:
        return free.add(force, alpha=-proposal.step / 2).add_(xi, alpha=math.sqrt(proposal.step))
    moved = free.addcmul(proposal.scale, force, value=-proposal.step / 2)
    return moved.addcmul_(proposal.scale.sqrt(), xi, value=math.sqrt(proposal.step))


def _log_ratio(
    climb: torch.Tensor, force: torch.Tensor, there: torch.Tensor, xi: torch.Tensor, proposal: Proposal
) -> torch.Tensor:
    """Return −climb + ln q(back)/q(there), the logarithm of Metropolis' ratio.

    The way back takes the noise ½√(εG) (forces at both ends) − ξ.

    Returns:
        A float64 scalar.
    """
    ratio, scales = -climb, () if proposal.scale is None else (proposal.scale,)
    for part, other, noise, *scale in pieces(force, there, xi, *scales):
        drift = (part + other).mul_(math.sqrt(proposal.step) / 2)
        if scale:
            drift.mul_(scale[0].sqrt())
        # ½ξ² − ½(drift − ξ)², multiplied out
        ratio = ratio + (drift @ noise.sub(drift, alpha=0.5)).double()
    return ratio


def _picks(posterior: LocalPosterior, steps: int, key: tuple[int, ...]) -> list[int | None]:
    """Draw the batch of every step, each with its weight in the mean, so that gradients are unbiased."""
    if not posterior.batches:
        return [None] * steps
    weights = np.array(posterior.weights)
    draws = np.random.default_rng(np.random.SeedSequence((*key, 1))).choice(
        len(weights), size=steps, p=weights / weights.sum()
    )
    return [int(index) for index in draws]
