"""Standard errors over examples: how a number would vary if other examples of the same kind had been measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from landscape._results import student_quantile

# More groups make the error hardly better known, and each costs work beside the products.
MOST_GROUPS = 16


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Groups of batches, read as independent samples of the examples' distribution.

    A measured number θ = Σ_g c_g is a mean over examples. Group g contributes c_g and has the weight p_g in the mean,
    so c_g/p_g estimates θ from that group alone. The examples of a group move θ by d_g = c_g − p_g θ, to first order,
    also where the weight itself depends on the examples (targets, masks). The variance of d_g is proportional to the
    group's number of examples n_g, which gives

        Var θ ≈ Σ_g d_g²/π_g / (m − 2 + Σ_g p_g²/π_g),    π_g = n_g/n,

    for m groups. For equal groups this is the sample variance of the c_g/p_g over m. The error is that of the measured
    examples as a sample of the training distribution, from the noise between batches. It assumes that the examples
    were drawn independently, and holds for the random draws (probes, perturbations) with which θ was measured.

    Attributes:
        weights: p_g, shape (m,); they sum to 1.
        shares: π_g, shape (m,); they sum to 1.
        group: Group of each batch, shape (batches,); −1 for a batch without a weight.

    Source: Cochran 1977, Sampling Techniques, §6.3 (ratio estimates) and §9A (clusters).
    """

    weights: np.ndarray
    shares: np.ndarray
    group: np.ndarray

    @classmethod
    def of(
        cls, weights: Sequence[float], sizes: Sequence[int], mean_over_batches: bool, most: int = MOST_GROUPS
    ) -> Clusters | None:
        """Group the batches of an objective, neighbours together.

        Args:
            weights: Weight of each batch in the mean.
            sizes: Number of examples in each.
            mean_over_batches: Whether the loss is a mean over whole batches, whose size then says nothing.
            most: Most groups to make.

        Returns:
            The groups; None where fewer than two batches have a weight, for the error cannot be known then.
        """
        p, n = np.asarray(weights, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
        counted = np.flatnonzero((p > 0) & (n > 0))
        if len(counted) < 2:
            return None
        share = p[counted] if mean_over_batches else n[counted]
        share = share / share.sum()
        middle = np.cumsum(share) - share / 2
        place = np.arange(len(counted)) if len(counted) <= most else np.minimum(middle * most, most - 1).astype(int)
        place = np.unique(place, return_inverse=True)[1].reshape(-1)
        if place.max() == 0:
            return None
        group = np.full(len(p), -1)
        group[counted] = place
        return cls(np.bincount(place, p[counted]) / p[counted].sum(), np.bincount(place, share), group)

    @property
    def count(self) -> int:
        """Number of groups m."""
        return len(self.weights)

    def add_up(self, by_batch: np.ndarray) -> np.ndarray:
        """Add what each batch contributes, shape (batches, ...), within the groups, shape (m, ...)."""
        given = np.asarray(by_batch, dtype=np.float64)
        total = np.zeros((self.count, *given.shape[1:]))
        counted = self.group >= 0
        np.add.at(total, self.group[counted], given[counted])
        return total

    def dividing_by(self, by_batch: np.ndarray) -> Clusters:
        """Return the same groups for a mean that divides by something else, such as the number of classified targets.

        Args:
            by_batch: What each batch adds to the divisor, shape (batches,); the sum is positive.

        Returns:
            The groups, with the weights p_g of that mean.
        """
        divisors = self.add_up(by_batch)
        return dataclasses.replace(self, weights=divisors / divisors.sum())

    def spread(self, contributions: np.ndarray) -> np.ndarray:
        """Return the standard error of Σ_g c_g as it is found, before Student's t widens it.

        Args:
            contributions: c_g, shape (m, ...).

        Returns:
            The standard errors, shape (...).
        """
        given = np.asarray(contributions, dtype=np.float64)
        p, share = (each.reshape(-1, *([1] * (given.ndim - 1))) for each in (self.weights, self.shares))
        freedom = self.count - 2 + float((self.weights**2 / self.shares).sum())
        with np.errstate(invalid="ignore"):  # of an infinite number the error is not known: inf - inf is NaN
            deviations = given - p * given.sum(axis=0)
            found: np.ndarray = np.sqrt((deviations**2 / share).sum(axis=0) / freedom)
        return found

    def stderr(self, contributions: np.ndarray) -> np.ndarray:
        """Return the standard error of Σ_g c_g, widened so that value ± 1.96·stderr is the 95 % interval.

        Args:
            contributions: c_g, shape (m, ...).

        Returns:
            The standard errors, shape (...): `spread` times t(0.975, m − 1)/1.96.
        """
        return self.spread(contributions) * self.widening

    @property
    def widening(self) -> float:
        """How much wider the interval by Student's t is than a normal one: 6.5 for two groups, 1.09 for sixteen."""
        return float(student_quantile(0.975, self.count - 1) / ndtri(0.975))


def of_contributions(clusters: Clusters | None, contributions: np.ndarray | None) -> np.ndarray:
    """Return `Clusters.stderr`, or NaN where the groups or their contributions are not known."""
    if clusters is None or contributions is None:
        return np.array(np.nan)
    return clusters.stderr(contributions)


def of_ratio(clusters: Clusters | None, above: np.ndarray, below: np.ndarray) -> float:
    """Return the standard error over examples of Σ a_b / Σ m_b, for what each batch adds to both, shape (batches,)."""
    total = float(np.sum(below))
    if clusters is None or not total > 0:
        return float("nan")
    return float(clusters.dividing_by(below).stderr(clusters.add_up(above) / total))


def of_shares(clusters: Clusters | None, by_batch: Any) -> np.ndarray:
    """Return the standard errors over examples of a sum over batches, from what each contributes.

    Args:
        clusters: Groups of the batches; None where there are fewer than two.
        by_batch: Contributions, a tensor or array of shape (batches, ...).

    Returns:
        The standard errors, shape (...); NaN without groups.
    """
    given = by_batch if isinstance(by_batch, np.ndarray) else by_batch.detach().cpu().numpy()
    if clusters is None:
        return np.full(given.shape[1:], np.nan)
    return clusters.stderr(clusters.add_up(given))
