"""The noise that a network's accuracy stands: the sharpness in PAC-Bayes bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._fetching import fetched
from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import Clusters, of_contributions
from landscape.objective import Objective
from landscape.sharpness._crossing import crossing
from landscape.sharpness._finite import require_finite
from landscape.sharpness._ladder import Ladder, gather, rungs
from landscape.sharpness._noise import draw

# Half-width in ln σ of the stretch from which the slope of the drop, and so the error of σ, is taken.
_SLOPE_WIDTH = 0.2


@dataclasses.dataclass(frozen=True)
class NoiseTolerance(Estimate):
    """1/σ² for the largest noise that a network's accuracy stands.

    Attributes:
        value: 1/σ²; NaN where no σ was found.
        stderr: Its standard error over perturbations, to first order.
        n: Number of perturbations.
        seed: Their seed.
        dof: Degrees of freedom behind the standard error.
        spread: None.
        stderr_sample: Standard error over examples with these perturbations, to first order: that of the mean drop at σ
            over the slope of the drop, times 2/σ².
        sigma: σ; infinite where no noise costs that much accuracy, 0 where the least noise does.
        n_evaluations: Number of passes over the measured examples.
    """

    sigma: float
    n_evaluations: int


@of_objective
def pac_bayes(
    objective: Objective,
    drop: float | Sequence[float] = 0.1,
    magnitude_aware: bool = False,
    epsilon: float = 1e-3,
    draws: int = 20,
    tol: float = 0.01,
    seed: int = 0,
) -> Estimate | Ladder:
    """Measure 1/σ² for the largest σ at which the mean error rate under noise rises by no more than `drop`.

    The noise is N(0, σ²) on every weight, or N(0, σ² w² + ε²) where magnitude-aware. σ is a standard deviation (a known
    public implementation passes σ² as one). The same perturbations serve every σ: the mean drop is then nearly smooth
    in σ, and its crossing is found by doubling or halving, bisection and interpolation in ln σ.

    It depends on the loss through the predicted classes alone, so scaling the loss, or the outputs, changes nothing. It
    is a number of a trained network: near the error of guessing no noise costs that much accuracy.

    Args:
        objective: The loss over the measured examples; it must classify, so that there is an error rate.
        drop: Rise of the error rate, a fraction of the examples; or a ladder, with the same perturbations.
        magnitude_aware: Whether the noise follows the size of the weights. With ε > 0 this is nearly, not exactly,
            invariant to rescaling, and weights of zero move; ε = 0 makes it exact.
        epsilon: ε.
        draws: Number of perturbations, at least 2.
        tol: Relative width of the bracket around σ when the search ends.
        seed: Seed of the perturbations.

    Returns:
        1/σ² (large means sharp) with its standard error and σ itself (`NoiseTolerance`); a `Ladder` for several drops.

    Raises:
        MeasurementError: The loss knows no classes, so there is no error rate; or it is not finite.
        ValueError: An argument is out of range.

    Source: Jiang et al. 2020, arXiv:1912.02178, appendix C.2 (PAC-Bayes measures); σ' and ε as there.
    """
    drops = rungs(drop, "drop")
    if draws < 2:
        raise ValueError(f"draws is {draws}; at least 2 perturbations are needed")
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon is {epsilon}; it must be a finite number, 0 at least")
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}; it must lie between 0 and 1")
    with objective.session():
        noisy = _Noisy(objective, magnitude_aware, epsilon, draws, seed)
        return gather(drop, [_measure(noisy, one, tol) for one in drops], "drop")


class _Noisy:
    """The rises of the error rate under noise of a given σ, each σ evaluated once."""

    def __init__(self, objective: Objective, magnitude_aware: bool, epsilon: float, draws: int, seed: int):
        self._objective, self._weights = objective, objective.vector()
        self._aware, self._epsilon = magnitude_aware, epsilon
        self.draws, self.seed = draws, seed
        losses, wrong, counted = objective.tallies().cpu().numpy().T
        require_finite(torch.tensor(losses.sum()), "loss")
        self._wrong, self._counted = wrong, counted
        self._total = float(counted.sum())
        self.n_evaluations = 1
        if not self._total:
            raise MeasurementError(
                "the loss knows no classes, so there is no error rate for noise to raise; use average_case or "
                "random_radius, which look at the loss"
            )
        self._known: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        size = float(torch.linalg.vector_norm(self._weights.double())) / math.sqrt(len(self._weights))
        self.start = 1.0 if magnitude_aware or size == 0 else size

    def drops(self, sigma: float) -> np.ndarray:
        """Return the rise of the error rate under each perturbation, shape (draws,)."""
        return self._at(sigma)[0]

    def by_batch(self, sigma: float) -> np.ndarray:
        """Return what each batch contributes to the mean rise, shape (batches,)."""
        return self._at(sigma)[1]

    def stderr_sample(self, by_batch: np.ndarray) -> float:
        """Return the standard error over examples of what batches contribute to, a mean over classified targets."""
        clusters: Clusters | None = self._objective.clusters
        if clusters is None:
            return math.nan
        own = clusters.dividing_by(self._counted)
        return float(of_contributions(own, own.add_up(by_batch)))

    def _at(self, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        if sigma not in self._known:
            deviation = self._deviation(sigma)
            tallies = []
            for index in range(self.draws):
                noise = draw(len(self._weights), "l2", self.seed, index).to(self._weights)
                tallies.append(self._objective.tallies(self._weights + deviation * noise)[:, 1])
            self.n_evaluations += self.draws
            rises = (fetched(tallies) - self._wrong) / self._total
            self._known[sigma] = rises.sum(axis=1), rises.mean(axis=0)
        return self._known[sigma]

    def _deviation(self, sigma: float) -> torch.Tensor:
        if not self._aware:
            return torch.full_like(self._weights, sigma)
        return torch.hypot(sigma * self._weights, torch.full_like(self._weights, self._epsilon))


def _measure(noisy: _Noisy, drop: float, tol: float) -> NoiseTolerance:
    sigma = crossing(lambda size: float(noisy.drops(size).mean()) - drop, noisy.start, tol).at
    value = stderr = sampled = math.nan
    if 0 < sigma < math.inf:
        value = sigma**-2
        sides = [sigma * math.exp(side * _SLOPE_WIDTH) for side in (-1, 1)]
        low, high = (noisy.drops(side) for side in sides)
        slope = float((high - low).mean()) / (2 * _SLOPE_WIDTH)
        # To first order ln σ errs by the error of the mean drop over its slope; between the two points, as the drop
        # itself is a step function of few examples.
        error = float(((high + low) / 2).std(ddof=1)) / math.sqrt(noisy.draws)
        if slope > 0:
            by_batch = (noisy.by_batch(sides[0]) + noisy.by_batch(sides[1])) / 2
            stderr, sampled = (2 * value * each / slope for each in (error, noisy.stderr_sample(by_batch)))
    dof = float(noisy.draws - 1)
    return NoiseTolerance(
        value,
        stderr,
        noisy.draws,
        noisy.seed,
        sigma=sigma,
        n_evaluations=noisy.n_evaluations,
        dof=dof,
        stderr_sample=sampled,
    )
