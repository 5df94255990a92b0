"""Predictions mixed with the uniform distribution, which gives a language model's loss an upper end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landscape.bounds._inputs import EPS, UP, scalar_or_array


def smoothed_bits(log_probabilities: Any, vocabulary: int, alpha: float) -> Any:
    """Compute the bits of tokens under smoothed predictions.

    −log2((1 − α) p + α/V), between the two ends of `smoothed_range`.

    Args:
        log_probabilities: ln p of the tokens that came, any shape; −infinity where p is 0.
        vocabulary: V.
        alpha: α, between 0 and 1. One chosen on the examples is charged; it may differ from token to token where a
            code that is counted computes it from what came before.

    Returns:
        Bits a token, a float or an array. Their mean within a document is its loss.

    Raises:
        ValueError: A probability is above 1 or NaN, α is not strictly between 0 and 1, or V is less than 2.

    Source: Lotfi et al. 2024, arXiv:2312.17173 (prediction smoothing).
    """
    low, high = smoothed_range(vocabulary, alpha)
    logs = np.asarray(log_probabilities, dtype=np.float64)
    if not (logs <= 1e-6).all():  # float32 logarithms of probabilities near 1 may round to just above 0
        raise ValueError("a log-probability is above 0 or NaN; expected ln p of the tokens, from log_softmax")
    bits = -np.logaddexp(math.log1p(-alpha) + np.minimum(logs, 0.0), math.log(alpha) - math.log(vocabulary))
    return scalar_or_array(np.clip(bits / math.log(2), low, high))


def smoothed_range(vocabulary: int, alpha: float) -> tuple[float, float]:
    """Return the least and the largest bits of a token under smoothed predictions.

    −log2(1 − α + α/V) and log2(V/α); their distance is log2(1 + (1 − α)V/α).

    Args:
        vocabulary: V, 2 at least.
        alpha: α, strictly between 0 and 1.

    Returns:
        The two ends, rounded outwards.

    Raises:
        ValueError: α is not strictly between 0 and 1, or V is less than 2.

    Source: Lotfi et al. 2024, arXiv:2312.17173.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie strictly between 0 and 1: without smoothing there is no bound")
    if vocabulary < 2:
        raise ValueError(f"vocabulary is {vocabulary}; expected the number of tokens, 2 at least")
    low = -math.log1p(-alpha * (1 - 1 / vocabulary)) / math.log(2)
    high = (math.log(vocabulary) - math.log(alpha)) / math.log(2)
    return low * (1 - 16 * EPS), high * UP
