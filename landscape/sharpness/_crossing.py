"""Where a mean over noise of growing size crosses a threshold: the search that noise tolerances share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

_MOST_DOUBLINGS = 20


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Between which sizes of the noise the excess changes its sign.

    Attributes:
        at: Where it crosses zero, interpolated; 0 where the least noise exceeds, infinite where no noise does.
        inner: A size within the threshold; NaN where there is no crossing.
        outer: A size beyond it; likewise.
    """

    at: float
    inner: float = math.nan
    outer: float = math.nan


def crossing(excess: Callable[[float], float], start: float, tol: float) -> Crossing:
    """Find the largest size of noise whose excess over a threshold is not positive.

    From `start` the size is doubled or halved until the sign changes, then bisected in its logarithm, and at the end
    interpolated there. An excess that is no number any more counts as positive.

    Args:
        excess: The excess at a size; called again at sizes that it was called at before.
        start: Where to begin, positive.
        tol: Relative width of the bracket when the search ends.

    Returns:
        The crossing with its bracket.
    """
    inner = outer = start
    for _ in range(_MOST_DOUBLINGS):
        if not excess(outer) <= 0:
            break
        inner, outer = outer, 2 * outer
    else:
        return Crossing(math.inf)
    for _ in range(2 * _MOST_DOUBLINGS):
        if excess(inner) <= 0:
            break
        inner, outer = inner / 2, inner
    else:
        return Crossing(0.0)
    while outer / inner > 1 + tol:
        middle = math.sqrt(inner * outer)
        inner, outer = (inner, middle) if not excess(middle) <= 0 else (middle, outer)
    beyond = excess(outer)
    share = excess(inner) / (excess(inner) - beyond) if math.isfinite(beyond) else 0.0
    return Crossing(inner * (outer / inner) ** share, inner, outer)
