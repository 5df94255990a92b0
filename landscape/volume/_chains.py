"""What Markov chains tell about themselves: rank-normalised split R-hat, effective sample size, error of the mean."""

from __future__ import annotations

import math

import numpy as np
from scipy.fft import next_fast_len
from scipy.special import ndtri
from scipy.stats import rankdata


def split_rhat(draws: np.ndarray) -> float:
    """Compute the rank-normalised split R̂ of Vehtari et al.: how much wider all chains together are than each.

    The larger of two: that of the draws, which sees chains around different values, and that of their distances from
    the median, which sees chains of different widths. 1 for chains that agree; above 1.01 (the paper) or 1.05 they
    have not met.

    Args:
        draws: Shape (chains, draws), at least 4 draws; halves of one chain are compared where there is only one.

    Returns:
        R̂; NaN where a draw is not finite; infinite where chains stand still at different values.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, arXiv:1903.08008, eqs. 3–4 and 14.
    """
    halves = _split(draws)
    if not np.isfinite(halves).all():
        return math.nan
    folded = np.abs(halves - np.median(halves))
    return max(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def effective_sample_size(draws: np.ndarray, ranks: bool = False) -> float:
    """Compute how many independent draws would give the mean as precisely.

    N/τ, τ = 1 + 2 Σ ρ_t, with the autocorrelations ρ_t of all split chains together, cut off by Geyer's initial
    monotone sequence. At most N log10 N, for antithetic chains.

    Args:
        draws: Shape (chains, draws), at least 4 draws.
        ranks: Whether draws are replaced by normal scores of their ranks first ("bulk" in the paper), which also has a
            meaning where the variance is infinite; without, it is the one behind the standard error of the mean.

    Returns:
        The number; NaN where a draw is not finite or all are equal.

    Source: Vehtari et al. 2021, arXiv:1903.08008, eqs. 10–13; Geyer 1992, doi:10.1214/ss/1177011137.
    """
    halves = _split(draws)
    if not np.isfinite(halves).all() or np.ptp(halves) == 0:
        return math.nan
    chains = _normal_scores(halves) if ranks else halves
    count, length = chains.shape
    covariance = _autocovariance(chains)
    within, total = _variances(chains)
    rho = 1 - (within - covariance.mean(axis=0)) / total
    rho[0] = 1.0
    usable = 2 * max((length - 3) // 2, 1)  # the last lags rest on one product a chain
    pairs = rho[:usable].reshape(-1, 2).sum(axis=1)
    kept = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    monotone = np.minimum.accumulate(pairs[:kept])
    after = rho[2 * kept] if 2 * kept < length else 0.0
    tau = -1 + 2 * monotone.sum() + max(after, 0.0)
    drawn = count * length
    return drawn / max(tau, 1 / math.log10(drawn))


def mean_error(draws: np.ndarray) -> float:
    """Compute the Monte-Carlo standard error of the mean over all chains, sd/√ESS; NaN where there is none."""
    return float(np.std(draws, ddof=1) / math.sqrt(effective_sample_size(draws)))


def _split(draws: np.ndarray) -> np.ndarray:
    draws = np.atleast_2d(np.asarray(draws, dtype=np.float64))
    if draws.ndim != 2 or draws.shape[1] < 4:
        raise ValueError(f"the draws have the shape {draws.shape}; (chains, draws) with at least 4 draws is needed")
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    ranks = rankdata(draws, method="average").reshape(draws.shape)
    return np.asarray(ndtri((ranks - 0.375) / (draws.size + 0.25)))


def _variances(chains: np.ndarray) -> tuple[float, float]:
    """Return the mean variance within chains and the estimate of the total one."""
    length = chains.shape[1]
    within = float(chains.var(axis=1, ddof=1).mean())
    return within, within * (length - 1) / length + float(chains.mean(axis=1).var(ddof=1))


def _rhat(chains: np.ndarray) -> float:
    within, total = _variances(chains)
    if within == 0:
        return 1.0 if total == 0 else math.inf
    return math.sqrt(total / within)


def _autocovariance(chains: np.ndarray) -> np.ndarray:
    length = chains.shape[1]
    size = next_fast_len(2 * length)
    spectrum = np.fft.rfft(chains - chains.mean(axis=1, keepdims=True), n=size)
    return np.asarray(np.fft.irfft(np.abs(spectrum) ** 2, n=size)[:, :length] / length)
