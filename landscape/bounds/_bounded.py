"""The bound of a loss other than the error rate, where it has two ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from landscape._errors import MeasurementError
from landscape.bounds._countable import countable_bound
from landscape.bounds._inputs import EPS, UP


def bounded_loss_bound(
    *,
    loss: float,
    low: float,
    high: float,
    n: int,
    bits: float,
    delta: float,
    method: str = "kl",
    choices: int | Sequence[int] = 1,
) -> float:
    """Bound the mean on new examples of a loss with values in [low, high].

    R ≤ low + (high − low) · B((L − low)/(high − low)), B the bound of a loss in [0, 1] (`countable_bound`).

    Args:
        loss: L, the mean over the n examples.
        low: The least value that the loss can take on any example, seen or not.
        high: The largest. A cross-entropy has none; with smoothed predictions it has (`smoothed_bits`). Clipping the
            loss gives one as well, and the bound is then of the clipped loss.
        n: Number of examples.
        bits: Length of a self-delimiting code of the network.
        delta: δ, the probability of failure.
        method: "hoeffding", "kl" or "catoni".
        choices: How many alternatives were chosen from by looking at these examples.

    Returns:
        The bound in the units of the loss, `high` at most.

    Raises:
        MeasurementError: The loss is unbounded: an end is infinite or NaN.
        ValueError: The loss lies outside its ends, the method is "exact" (which knows counts of errors only), or
            another argument is out of range.

    Source: Hoeffding 1963; that kl holds for any loss in [0, 1]: Maurer 2004, arXiv:cs/0411099.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MeasurementError(
            f"the loss lies between {low} and {high}; an unbounded loss has no bound of this kind. Bound the error "
            "rate, clip the loss, or smooth the predictions (smoothed_bits)"
        )
    if not low < high or not low <= loss <= high:
        raise ValueError(
            f"the loss is {loss} and its ends are {low} and {high}; expected low ≤ loss ≤ high, low < high"
        )
    if method == "exact":
        raise ValueError('the method "exact" counts wrong answers; for the mean of a loss use "kl"')
    span = high - low
    # The difference is rounded relative to the numbers, not to itself.
    error = min((loss - low + EPS * (abs(loss) + abs(low))) / span * UP, 1.0)
    share = countable_bound(error=error, n=n, bits=bits, delta=delta, method=method, choices=choices)
    rounding = (abs(low) + span) * (UP - 1)
    return min(low + span * share + rounding, high)
