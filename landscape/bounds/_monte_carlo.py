"""The empirical risk of a posterior from a number of sampled networks, with its own confidence."""

from __future__ import annotations

import math

from landscape.bounds._inputs import UP, require_delta, require_errors, require_examples
from landscape.bounds._kl import kl_inverse


def sampled_risk_bound(*, error: float, draws: int, delta: float) -> float:
    """Bound a posterior's mean error on given examples from the mean error of sampled networks.

    R̂(Q) ≤ max{p: kl(R̂_m‖p) ≤ ln(1/δ)/m} with probability 1 − δ over m networks drawn from Q independently.

    Args:
        error: R̂_m, the mean of the m networks' error rates, all on the same examples; or over m pairs of a network
            and an example, both drawn anew each time.
        draws: m.
        delta: δ, the probability that the sampling fails; it adds to that of the bound.

    Returns:
        The bound of R̂(Q).

    Raises:
        ValueError: The error lies outside [0, 1], δ is not strictly between 0 and 1, or there are no draws.

    Source: Langford & Caruana 2001; Dziugaite & Roy 2017, arXiv:1703.11008.

    Where we differ: they write ln(2/δ)/m, for both sides; only one is needed.
    """
    errors = require_errors(error)
    budget = -math.log(require_delta(delta)) / require_examples(draws, "draws")
    return float(kl_inverse(errors, budget * UP))
