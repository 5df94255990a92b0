"""How far the weights can go in a random direction before the loss has risen by a given amount."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_shares
from landscape.objective import Objective
from landscape.sharpness._ball import scale
from landscape.sharpness._finite import require_finite
from landscape.sharpness._ladder import Ladder, gather, rungs
from landscape.sharpness._noise import draw

_MOST_DOUBLINGS = 40
# The slope of the rise is taken from points whose losses differ by at least so many roundings.
_ROUNDINGS = 1000


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
        rises so far along one of them. A radius moves by −dR/R' where the rise R moves by dR with the examples, R' the
        slope; the mean of these gives the standard error over examples. It is NaN where the rise is not found to grow.
        A `Ladder` for several thresholds.

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
        weights, start = objective.vector(), objective.loss_shares()
        require_finite(start.sum(), "loss")
        c = scale(weights, adaptive)
        found = []
        for index in range(draws):
            unit = draw(len(weights), "l2", seed, index).to(weights)
            ray = _Ray(objective, weights, start, c * unit / torch.linalg.vector_norm(unit))
            radii = [ray.radius(rise, tol) for rise in rises]
            found.append([(radius, ray.shift(radius)) for radius in radii])
    return gather(threshold, [_mean(objective, each, seed) for each in zip(*found, strict=True)], "threshold")


def _mean(objective: Objective, found: Sequence[tuple[float, torch.Tensor]], seed: int) -> Estimate:
    radii = [radius for radius, _ in found]
    if any(math.isinf(radius) for radius in radii):
        return Estimate(math.inf, math.nan, len(radii), seed)
    error = float(of_shares(objective.clusters, torch.stack([shift for _, shift in found]).mean(dim=0)))
    return dataclasses.replace(Estimate.from_samples(radii, seed), stderr_sample=error)


class _Ray:
    """The rise of the loss along one direction, every point evaluated once."""

    def __init__(self, objective: Objective, weights: torch.Tensor, start: torch.Tensor, direction: torch.Tensor):
        self._objective, self._weights, self._start, self._direction = objective, weights, start, direction
        self._center = float(start.sum().to(objective.dtype))
        self._known: dict[float, float] = {0.0: 0.0}
        self._shares: dict[float, torch.Tensor] = {}

    def passes(self, radius: float, rise: float) -> bool:
        if radius not in self._known:
            shares = self._objective.loss_shares(self._weights.add(self._direction, alpha=radius))
            self._known[radius] = float(shares.sum().to(self._objective.dtype)) - self._center
            self._shares[radius] = shares
        # A loss that is no number any more has left every threshold behind.
        return not self._known[radius] < rise

    def shift(self, radius: float) -> torch.Tensor:
        """Return how far each batch moves a radius that was found, to first order, shape (batches,)."""
        inner = max((at for at in self._known if at < radius), default=0.0)
        outer = min((at for at in self._known if at > radius), default=math.inf)
        if not (inner > 0 and math.isfinite(outer) and math.isfinite(self._known[outer])):
            return torch.full_like(self._start, math.nan)
        rises = (self._shares[inner] + self._shares[outer]) / 2 - self._start
        return -rises / self._slope(radius, float(rises.sum()))

    def _slope(self, radius: float, rise: float) -> float:
        """Return the slope of the rise R at a radius r, p R/r by the power law R ~ r^p through the points beside it.

        The points are the nearest whose losses differ by more than rounding; NaN where there are none.
        """
        least = _ROUNDINGS * float(torch.finfo(self._objective.dtype).eps) * (abs(self._center) + rise)
        below = sorted((at for at in self._known if 0 < at < radius), reverse=True)
        above = sorted(at for at in self._known if at > radius)
        for inner, outer in zip(below, above, strict=False):
            low, high = self._known[inner], self._known[outer]
            if low > 0 and low + least < high < math.inf:
                return math.log(high / low) / math.log(outer / inner) * rise / radius
        return math.nan

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
