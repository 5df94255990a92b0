"""How far the weights can go in a random direction before the loss has risen by a given amount."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from landscape._given import of_objective
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ball import scale
from landscape.sharpness._finite import require_finite
from landscape.sharpness._ladder import Ladder, gather, rungs
from landscape.sharpness._noise import draw

_MOST_DOUBLINGS = 40


@of_objective
def random_radius(
    objective: Objective,
    threshold: float | Sequence[float] = 0.1,
    adaptive: bool = True,
    draws: int = 20,
    tol: float = 0.01,
    seed: int = 0,
) -> Estimate | Ladder:
    """Measure the mean radius r at which L(w + r c ⊙ u) = L(w) + threshold, u uniform on the unit sphere.

    Large means flat. In a high dimension a random direction meets the mean curvature, not the largest one: at a
    minimum and for a small threshold r ≈ √(2 threshold / uᵀCHCu), C = diag(c).

    Each radius is found by doubling or halving from 1 until the rise passes the threshold, then by bisection of the
    logarithm; an excursion of the loss that lies within one factor of two is not seen.

    Args:
        objective: The loss over the measured examples.
        threshold: Rise of the loss, in its own units; or a ladder, along the same directions.
        adaptive: Whether c = |w| (invariant to rescaling of layers and neurons) or 1.
        draws: Number of directions.
        tol: Relative accuracy of each radius.
        seed: Seed of the directions.

    Returns:
        The mean radius with its standard error over directions; infinite, with an error of NaN, where the loss never
        rises so far along one of them. A `Ladder` for several thresholds.

    Raises:
        MeasurementError: The loss at w is not finite.
        ValueError: An argument is out of range.

    Source: Izmailov et al. 2018, arXiv:1803.05407, who draw the loss along random rays; the radius is ours.
    """
    rises = rungs(threshold, "threshold")
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least one direction is needed")
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}; it must lie between 0 and 1")
    with objective.session():
        weights, center = objective.vector(), objective.loss()
        require_finite(center, "loss")
        c = scale(weights, adaptive)
        found = []
        for index in range(draws):
            unit = draw(len(weights), "l2", seed, index).to(weights)
            ray = _Ray(objective, weights, float(center), c * unit / torch.linalg.vector_norm(unit))
            found.append([ray.radius(rise, tol) for rise in rises])
    return gather(threshold, [_mean(radii, seed) for radii in zip(*found, strict=True)], "threshold")


def _mean(radii: Sequence[float], seed: int) -> Estimate:
    if any(math.isinf(radius) for radius in radii):
        return Estimate(math.inf, math.nan, len(radii), seed)
    return Estimate.from_samples(radii, seed)


class _Ray:
    """The rise of the loss along one direction, every point evaluated once."""

    def __init__(self, objective: Objective, weights: torch.Tensor, center: float, direction: torch.Tensor):
        self._objective, self._weights, self._center, self._direction = objective, weights, center, direction
        self._known: dict[float, float] = {}

    def passes(self, radius: float, rise: float) -> bool:
        if radius not in self._known:
            moved = self._weights.add(self._direction, alpha=radius)
            self._known[radius] = float(self._objective.loss(moved)) - self._center
        # A loss that is no number any more has left every threshold behind.
        return not self._known[radius] < rise

    def radius(self, rise: float, tol: float) -> float:
        """Find where the rise passes the threshold."""
        if not self._direction.any():
            return math.inf
        inner, outer = 0.0, 1.0
        if self.passes(outer, rise):
            while outer > 2.0**-_MOST_DOUBLINGS and self.passes(outer / 2, rise):
                outer /= 2
            inner = outer / 2
        else:
            while not self.passes(outer, rise):
                if outer >= 2.0**_MOST_DOUBLINGS:
                    return math.inf
                inner, outer = outer, 2 * outer
        while outer / inner > 1 + tol:
            middle = math.sqrt(inner * outer)
            inner, outer = (inner, middle) if self.passes(middle, rise) else (middle, outer)
        return math.sqrt(inner * outer)
