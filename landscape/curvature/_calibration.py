"""Standard errors of averaged quadratic forms that hold for few probes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import chdtr

# Probes of signs vary less than the model says by what the matrix has on its diagonal, which the spread alone can tell:
# the model counts for no more samples than this.
_WEIGHT_OF_SIGNS = 6.0
# Below this probability a small spread is no accident: the form is the same for every probe (a diagonal matrix).
_NO_ACCIDENT = 1e-4


def form_error(
    samples: np.ndarray, second: float, fourth: float, size: int, signs: bool, mean: float | None = None
) -> tuple[float, float]:
    """Compute the standard error of the mean of vᵀAv over random v with E vvᵀ = I, and its degrees of freedom.

    The spread of four samples is hardly known, and where one eigenvalue dominates the samples are skewed, too. But for
    rotation-invariant v the variance is known: Var vᵀAv = 2 (tr A² − (tr A)²/p), where tr A² is a quadratic form of the
    same products and averages over all eigenvalues. For vectors of signs it is an upper bound, 2 (tr A² − Σ A_ii²)
    being right. So the known variance and the observed one are pooled, each by its degrees of freedom: n tr(A²)²/tr A⁴
    for the known one, and (n−1)/(1 + 6 tr A⁴/tr(A²)²) for the observed one, which has the samples' kurtosis in it.

    Args:
        samples: The forms vᵀAv, at least two.
        second: An estimate of tr A².
        fourth: An estimate of tr A⁴.
        size: Dimension p of the space that v is drawn in.
        signs: Whether v has independent signs; otherwise it is rotation-invariant.
        mean: The mean of the forms where the samples have more in them than those.

    Returns:
        The standard error of the samples' mean and its degrees of freedom.
    """
    n = len(samples)
    centre = float(np.mean(samples)) if mean is None else float(mean)
    observed = float(np.var(samples, ddof=1))
    known = 2 * max(second - centre**2 / size, 0.0)
    if not signs:
        known *= size / (size + 2)
    if known <= 0 or chdtr(n - 1, (n - 1) * observed / known) < _NO_ACCIDENT:
        return float(np.sqrt(observed / n)), float(n - 1)
    rank = float(np.clip(second**2 / fourth, 1.0, size)) if fourth > 0 else 1.0
    dof_known, dof_observed = n * rank, (n - 1) / (1 + 6 / rank)
    weight = min(dof_known, _WEIGHT_OF_SIGNS) if signs else dof_known
    pooled = (weight * known + dof_observed * observed) / (weight + dof_observed)
    dof = (weight + dof_observed) ** 2 / (weight**2 / dof_known + dof_observed)
    return float(np.sqrt(pooled / n)), dof


def fourth_power(squares: Sequence[float] | np.ndarray, size: int) -> float:
    """Estimate tr A⁴ from forms that estimate tr A², whose variance is twice that."""
    mean = float(np.mean(squares))
    return float(np.clip(np.var(squares, ddof=1) / 2, mean**2 / size, mean**2))
