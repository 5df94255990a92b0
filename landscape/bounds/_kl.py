"""The binary relative entropy and its inverse, rounded to the safe side."""

from __future__ import annotations

from typing import Any

import numpy as np

from landscape.bounds._inputs import EPS, FloatArray, require_errors, require_not_negative, scalar_or_array

_MOST_HALVINGS = 1200  # from 1 down to the least float


def binary_kl(q: Any, p: Any) -> Any:
    """Compute the relative entropy of two coins.

    kl(q‖p) = q ln(q/p) + (1 − q) ln((1 − q)/(1 − p)), in nats.

    Args:
        q: Probability of the first coin, any shape.
        p: Probability of the second coin, a shape that broadcasts with q's.

    Returns:
        A float, or an array; infinite where p is 0 or 1 and q is not.

    Raises:
        ValueError: A probability lies outside [0, 1].
    """
    first, second = kl_terms(require_errors(q, "q"), require_errors(p, "p"))
    return scalar_or_array(np.maximum(first + second, 0.0))


def kl_inverse(error: Any, budget: Any) -> Any:
    """Find the largest p whose relative entropy to the error is within a budget.

    max{p ≥ q: kl(q‖p) ≤ c}, rounded up.

    Bisection down to neighbouring floats; its upper end is always a point where kl, less all that rounding may have
    added to it, is above the budget. So the result is never below the exact inverse.

    Args:
        error: q, an empirical error rate or the mean of a loss in [0, 1]; any shape.
        budget: c in nats, 0 or more (infinity gives 1); a shape that broadcasts with the error's.

    Returns:
        p, a float or an array, at most 1.

    Raises:
        ValueError: An error lies outside [0, 1], or a budget is negative or NaN.

    Source: Langford 2005, "Tutorial on practical prediction theory for classification", JMLR 6.
    """
    q, c = np.broadcast_arrays(require_errors(error), require_not_negative(budget, "budget"))
    low, high = q.copy(), np.ones_like(q)
    for _ in range(_MOST_HALVINGS):
        middle = low + (high - low) / 2
        if ((middle <= low) | (middle >= high)).all():
            break
        first, second = kl_terms(q, middle)
        # The first term is negative and the second positive: this is the least that their sum can be.
        beyond = first * (1 + 8 * EPS) + second * (1 - 8 * EPS) > c * (1 + 2 * EPS)
        high = np.where(beyond, middle, high)
        low = np.where(beyond, low, middle)
    return scalar_or_array(high)


def kl_terms(q: FloatArray, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return q ln(q/p) and (1 − q) ln((1 − q)/(1 − p)), each to a few units in its last place, for p ≥ q."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rise, rest = p - q, 1 - q
        # Near q the quotients are near 1 and their logarithms need the difference, which is exact there. Far from it
        # the difference over a tiny q may overflow; and near p = 1 the logarithm needs 1 − p, exact there.
        first = np.where(q > 0, q * np.where(rise < q, -np.log1p(rise / q), np.log(q / p)), 0.0)
        second = np.where(
            rest > 0, rest * np.where(rise < rest / 2, -np.log1p(-rise / rest), np.log(rest / (1 - p))), 0.0
        )
    return first, second
