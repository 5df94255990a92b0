"""The divergence of two Gaussians with independent coordinates: what a posterior over weights costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from landscape._errors import MeasurementError
from landscape.bounds._inputs import EPS


def gaussian_kl(mean: Any, std: Any, prior_mean: Any, prior_std: Any) -> float:
    """Compute the divergence of a diagonal Gaussian posterior from a diagonal Gaussian prior.

    KL(Q‖P) = Σ_i ½ [r_i² − 1 − ln r_i² + ((μ_i − ν_i)/τ_i)²], r_i = σ_i/τ_i, Q = N(μ, diag σ²), P = N(ν, diag τ²).

    Args:
        mean: μ, shape (P,), a numpy array.
        std: σ, standard deviations (not variances), shape (P,) or a number.
        prior_mean: ν, shape (P,) or a number; fixed without the examples of the bound, such as the initial weights.
        prior_std: τ, shape (P,) or a number. One chosen on the examples is charged (`choices` of `pac_bayes_bound`).

    Returns:
        Nats, rounded up.

    Raises:
        ValueError: A standard deviation is not positive, the shapes do not match, or there are no weights.
        MeasurementError: A value is not finite.

    Source: Kullback & Leibler 1951; as in Dziugaite & Roy 2017, arXiv:1703.11008.
    """
    values = [np.asarray(value, dtype=np.float64) for value in (mean, std, prior_mean, prior_std)]
    if not all(np.isfinite(value).all() for value in values):
        raise MeasurementError("a mean or a standard deviation is NaN or infinite; such a posterior has no divergence")
    shape = values[0].shape
    if values[0].size == 0 or any(value.shape not in ((), shape) for value in values[1:]):
        raise ValueError(f"the shapes are {[value.shape for value in values]}; expected those of the mean, or numbers")
    if not all((value > 0).all() for value in values[1::2]):
        raise ValueError("a standard deviation is not positive; posterior and prior need noise on every weight")
    center, sigma, origin, tau = values
    # Ratios first: the squares of tiny deviations underflow.
    log_ratio = np.log(sigma) - np.log(tau)
    with np.errstate(over="ignore"):
        # expm1(x) − x is not negative, and keeps its digits where both deviations are nearly equal.
        widths = np.broadcast_to(np.expm1(2 * log_ratio) - 2 * log_ratio, shape)
        shifts = ((center - origin) / tau) ** 2
        reaction = np.abs(np.expm1(2 * log_ratio))
    size = np.abs(np.log(sigma)) + np.abs(np.log(tau)) + 1
    # The logarithms round by EPS of their size, to which width reacts by |r² − 1|; sums of numpy by less than 64 EPS.
    slack = 16 * EPS * float(np.sum(np.broadcast_to(size * reaction + np.abs(log_ratio), shape)))
    return (0.5 * float(np.sum(widths) + np.sum(shifts)) + slack) * (1 + 64 * EPS)
