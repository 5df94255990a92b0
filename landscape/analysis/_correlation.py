"""Rank correlation of two measures over runs, with a bootstrap interval."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from landscape._results import Result

_BLOCK = 500  # resamples held in memory at once


@dataclasses.dataclass(frozen=True)
class Correlation(Result):
    """Kendall's rank correlation with what is needed to trust it.

    Attributes:
        tau: Kendall's tau-b; NaN where it is not defined.
        low: Lower end of the bootstrap interval; NaN where there is none.
        high: Upper end.
        n: Number of pairs.
        confidence: Nominal coverage of the interval.
        seed: Seed of the resampling.
    """

    tau: float
    low: float
    high: float
    n: int
    confidence: float
    seed: int

    def __str__(self) -> str:
        percent = f"{100 * self.confidence:g} %"
        if np.isnan(self.low):  # too few pairs
            return f"τ = {self.tau:.2f} (n = {self.n}, no interval)".replace("-", "−")
        text = f"τ = {self.tau:.2f} [{self.low:.2f}, {self.high:.2f}] ({percent} bootstrap interval, n = {self.n})"
        return text.replace("-", "−")


def kendall(x: Any, y: Any, n_bootstrap: int = 2000, seed: int = 0, confidence: float = 0.95) -> Correlation:
    """Measure Kendall's tau-b between two measures, with a percentile interval from a bootstrap over pairs.

    τ = (C − D) / √((N − T_x)(N − T_y)), C concordant and D discordant pairs of points of N, T_x and T_y ties.

    Each resample draws n pairs with replacement, so that a run enters or leaves as a whole. Resamples in which a
    measure takes one value only have no tau and are left out; where these are more than half, there is no interval.
    Memory grows with n²: this is for runs, not for the rows of a run.

    Args:
        x: One value a run, shape (n,).
        y: One value a run, shape (n,).
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.
        confidence: Nominal coverage of the interval, between 0 and 1.

    Returns:
        The correlation. A NaN among the values, fewer than two pairs or a constant measure give NaN; fewer than three
        pairs have no interval.

    Raises:
        ValueError: The two have different lengths, or an argument is out of range.

    Source: Kendall 1945 (tau-b); Efron & Tibshirani 1993, chapter 13 (percentile interval).
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y need one value a run each; found the shapes {x.shape} and {y.shape}")
    check_resampling(n_bootstrap, confidence)
    n = len(x)
    if n < 2 or np.isnan(x).any() or np.isnan(y).any():
        return Correlation(np.nan, np.nan, np.nan, n, confidence, seed)
    signs = _signs(x), _signs(y)
    tau = float(_tau(np.ones((1, n)), *signs)[0])
    low, high = _interval(signs, n, n_bootstrap, seed, confidence) if n > 2 else (np.nan, np.nan)
    return Correlation(tau, low, high, n, confidence, seed)


def check_resampling(n_bootstrap: int, confidence: float) -> None:
    """Check the settings of a bootstrap.

    Raises:
        ValueError: One is out of range.
    """
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; at least one resample is needed")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1, such as 0.95")


def percentile_interval(sample: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the interval between the quantiles of resampled values; NaN where half of them or more are undefined."""
    defined = sample[~np.isnan(sample)]
    if len(defined) <= len(sample) / 2:
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _signs(values: np.ndarray) -> np.ndarray:
    """Return sign(values_i − values_j), shape (n, n), without a difference that infinities would spoil."""
    column, row = values[:, None], values[None, :]
    return (column > row).astype(np.float64) - (column < row)


def _tau(counts: np.ndarray, signs_x: np.ndarray, signs_y: np.ndarray) -> np.ndarray:
    """Return tau-b of resamples that hold point i counts[i] times, shape (resamples,), from the signs alone.

    With S the signs, C − D = ½ cᵀ(S_x ∘ S_y)c and N − T_x = ½ cᵀ|S_x|c: a resample needs no sorting.
    """
    agreement, untied_x, untied_y = (
        np.einsum("bi,bi->b", counts @ matrix, counts)
        for matrix in (signs_x * signs_y, np.abs(signs_x), np.abs(signs_y))
    )
    scale = np.sqrt(untied_x * untied_y)  # of whole numbers, so that a perfect order gives exactly 1
    return np.divide(agreement, scale, out=np.full(len(counts), np.nan), where=scale > 0)


def _interval(
    signs: tuple[np.ndarray, np.ndarray], n: int, n_bootstrap: int, seed: int, confidence: float
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    taus: list[np.ndarray] = []
    for start in range(0, n_bootstrap, _BLOCK):
        drawn = rng.integers(0, n, size=(min(_BLOCK, n_bootstrap - start), n))
        counts = np.zeros(drawn.shape)
        np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1.0)
        taus.append(_tau(counts, *signs))
    return percentile_interval(np.concatenate(taus), confidence)
