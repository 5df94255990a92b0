"""Ideal lengths of sequences of symbols in closed form, functions of the counts alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln


def static_bits(counts: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    """Length in bits of any sequence with these symbol counts, coded with probabilities in proportion to weights.

    n log2 W - Σ_a n_a log2 w_a, for n symbols and weights of sum W.

    Args:
        counts: How often each symbol of the alphabet occurs, shape (K,).
        weights: The weights, positive where a count is, shape (K,).

    Returns:
        The length, in bits.
    """
    counts, weights = np.asarray(counts, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    seen = counts > 0
    return float(counts.sum() * np.log2(weights.sum()) - counts[seen] @ np.log2(weights[seen]))


def kt_bits(counts: npt.ArrayLike) -> float:
    """Length in bits of any sequence with these symbol counts, coded by the Krichevsky-Trofimov estimator.

    log2 Γ(n + K/2) - log2 Γ(K/2) - Σ_a [log2 Γ(n_a + 1/2) - log2 Γ(1/2)], for n symbols of an alphabet of K.

    Args:
        counts: How often each symbol of the alphabet occurs, zeros included, shape (K,).

    Returns:
        The length, in bits; 0 for an alphabet of one symbol, and for no symbols.

    Source: Krichevsky and Trofimov 1981, "The performance of universal encoding".
    """
    counts = np.asarray(counts)
    size, seen = len(counts), counts[counts > 0]
    nats = gammaln(seen.sum() + size / 2) - gammaln(size / 2) - (gammaln(seen + 0.5) - gammaln(0.5)).sum()
    return float(nats / math.log(2)) if size > 1 else 0.0
