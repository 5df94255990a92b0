"""Exact inversion of the binomial tail, in logarithms: the tail of a bound that matters is far below 1e-308."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from landscape.bounds._inputs import EPS
from landscape.bounds._kl import kl_inverse, kl_terms

_FIRST_CHUNK = 1 << 10
_LARGEST_CHUNK = 1 << 18


def binomial_inverse(wrong: int, n: int, nats: float) -> float:
    """Find the largest error rate under which so few errors are not too improbable.

    max{p: P(Bin(n, p) ≤ k) ≥ e^−c}, rounded up, and never below k/n (where it lies only for c below about ln 2).

    Bisection; the upper end is always a p whose tail, with all that rounding and the terms left out may add, is
    below e^−c.

    Args:
        wrong: k, between 0 and n.
        n: Number of examples.
        nats: c.

    Returns:
        p.

    Source: Langford 2005, "Tutorial on practical prediction theory for classification", JMLR 6;
    Clopper & Pearson 1934.
    """
    low = wrong / n
    # Chernoff's bound of the same tail: the inverse of kl is at least the exact one.
    high = kl_inverse(low, nats / n * (1 + 4 * EPS))
    while high - low > 4 * EPS * high:
        middle = low + (high - low) / 2
        if log_tail(wrong, n, middle) < -nats:
            high = middle
        else:
            low = middle
    return high


def log_tail(wrong: int, n: int, p: float) -> float:
    """Bound ln P(Bin(n, p) ≤ k) from above, tight to about 1e-12 and rounding, for k/n ≤ p < 1.

    The terms are summed downwards from k, each from the one before by its ratio, scaled by the first, whose logarithm
    is Stirling's formula with the divergence n kl(k/n‖p): a difference of three lnΓ loses six digits at n = 1e9.

    Args:
        wrong: k.
        n: Number of examples.
        p: The error rate.

    Returns:
        The logarithm, 0 at most.
    """
    first, second = (float(term) for term in kl_terms(np.asarray(wrong / n), np.asarray(p)))
    log_term = -n * (first + second)
    if 0 < wrong < n:
        log_term += 0.5 * math.log(n / wrong / (n - wrong) / (2 * math.pi))
        log_term += _stirling_rest(n) - _stirling_rest(wrong) - _stirling_rest(n - wrong)
    total, terms = _sum_of_ratios(wrong, n, p)
    # The quotient wrong / n is rounded too, which matters most where hardly any answer is right.
    slack = 1e-12 + 16 * EPS * n * (second - first) * n / (n - wrong) + 4 * EPS * terms
    return min(log_term + math.log(total) + slack, 0.0)


def _sum_of_ratios(wrong: int, n: int, p: float) -> tuple[float, int]:
    """Return Σ_{i ≤ k} P(i)/P(k) or slightly more, and how many terms were summed."""
    total, product, at, chunk = 1.0, 1.0, wrong, _FIRST_CHUNK
    odds = (1 - p) / p
    while at > 0:
        index = np.arange(at, max(at - chunk, 0), -1, dtype=np.float64)
        ratios = index / (n - index + 1) * odds
        products = product * np.cumprod(ratios)
        total += float(products.sum())
        product, ratio = float(products[-1]), float(ratios[-1])
        at -= len(index)
        # What is left is below a geometric series, as the ratios fall with i, and all are below 1 for p ≥ k/n.
        rest = product * ratio / (1 - ratio)
        if rest <= EPS * total:
            return total + rest, wrong - at
        chunk = min(2 * chunk, _LARGEST_CHUNK)
    return total, wrong


def _stirling_rest(n: int) -> float:
    """Return ln n! − ½ ln(2πn) − n ln n + n."""
    if n < 16:
        return float(gammaln(n + 1)) - 0.5 * math.log(2 * math.pi * n) - n * math.log(n) + n
    square = float(n) * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / square) / square) / square) / n
