"""What Markov chains tell about themselves, by ArviZ: R-hat, effective sample size, error of the mean."""

from __future__ import annotations

import math

import numpy as np
from arviz_stats.base import array_stats


def split_rhat(draws: np.ndarray) -> float:
    """Compute the rank-normalised split R̂ of Vehtari et al.: how much wider all chains together are than each.

    The larger of two: that of the draws, which sees chains around different values, and that of their distances from
    the median, which sees chains of different widths. 1 for chains that agree; above 1.01 (the paper) or 1.05 they
    have not met. Computed by ArviZ.

    Args:
        draws: Shape (chains, draws), at least 4 draws. Of a single chain the two halves count as chains.

    Returns:
        R̂; NaN where a draw is not finite, or a single chain has fewer than 8; infinite where chains stand still at
        different values.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, arXiv:1903.08008, eqs. 3–4 and 14.
    """
    draws = _checked(draws)
    if len(draws) == 1:
        # ArviZ compares two chains or more.
        half = draws.shape[1] // 2
        draws = np.concatenate([draws[:, :half], draws[:, -half:]])
    if not np.isfinite(draws).all() or draws.shape[1] < 4:
        return math.nan
    if np.ptp(draws) == 0:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that stand still
        return float(array_stats.rhat(draws, method="rank"))


def effective_sample_size(draws: np.ndarray, ranks: bool = False) -> float:
    """Compute how many independent draws would give the mean as precisely.

    N/τ, τ = 1 + 2 Σ ρ_t, with the autocorrelations ρ_t of all split chains together, cut off by Geyer's initial
    monotone sequence. At most N log10 N, for antithetic chains. Computed by ArviZ.

    Args:
        draws: Shape (chains, draws), at least 4 draws.
        ranks: Whether draws are replaced by normal scores of their ranks first ("bulk" in the paper), which also has a
            meaning where the variance is infinite; without, it is the one behind the standard error of the mean.

    Returns:
        The number; NaN where a draw is not finite or all are equal.

    Source: Vehtari et al. 2021, arXiv:1903.08008, eqs. 10–13; Geyer 1992, doi:10.1214/ss/1177011137.
    """
    draws = _checked(draws)
    if not np.isfinite(draws).all() or np.ptp(draws) == 0:
        return math.nan
    # ArviZ takes draws that differ by less than 1e-15 for equal ones; rises of a loss may be as small.
    scaled = (draws - draws.mean()) / np.ptp(draws)
    return float(array_stats.ess(scaled, method="bulk" if ranks else "mean"))


def mean_error(draws: np.ndarray) -> float:
    """Compute the Monte-Carlo standard error of the mean over all chains, sd/√ESS; NaN where there is none."""
    return float(np.std(draws, ddof=1) / math.sqrt(effective_sample_size(draws)))


def _checked(draws: np.ndarray) -> np.ndarray:
    draws = np.atleast_2d(np.asarray(draws, dtype=np.float64))
    if draws.ndim != 2 or draws.shape[1] < 4:
        raise ValueError(f"the draws have the shape {draws.shape}; (chains, draws) with at least 4 draws is needed")
    return draws
