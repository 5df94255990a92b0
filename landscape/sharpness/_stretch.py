"""Find how far a step can be stretched before the loss is back at its start, by few evaluations of the loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

# A search without a bracket moves at most by this factor at a time, and at least by the second one.
_FARTHEST, _NEAREST = 8.0, 1.5


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Where the loss along a step is back at its start.

    Attributes:
        at: The multiple of the step; NaN where no crossing was met.
        inner: Largest multiple known to lie before the crossing; 0 where none is.
        outer: Smallest multiple known to lie beyond it; infinite where none is.
        closed: Whether the two are as close as asked.
        largest: Largest finite change of the loss that was met, in absolute value.
    """

    at: float
    inner: float
    outer: float
    closed: bool
    largest: float


def stretch(rise: Callable[[float], float], start: float, slope: float | None, tol: float, most: int) -> Stretch:
    """Find the multiple c of a step at which rise(c) = L(w + cΔ) − L(w) turns positive.

    The search works on the mean slope rise(c)/c, which is linear in c where the loss is quadratic. Each new point lies
    just beside the root of a line through two known points, on the side of the farther end of the bracket. So two
    points close the bracket where the line is right. Where the bracket did not shrink to half, the next point halves
    it, in the logarithm.

    Args:
        rise: The change of the loss; a value that is not finite counts as a rise.
        start: Where to begin, positive.
        slope: The mean slope at c = 0, negative; None where it is not known.
        tol: Relative width of the bracket to reach.
        most: Most evaluations of `rise`.

    Returns:
        The crossing with its bracket.
    """
    known = [] if slope is None or not slope < 0 else [(0.0, slope)]  # (c, mean slope) of the line's points
    inner, outer, largest, halve = 0.0, math.inf, 0.0, False
    c = start
    for _ in range(most):
        value = rise(c)
        before = _width(inner, outer)
        inner, outer = (c, outer) if value <= 0 else (inner, c)
        if math.isfinite(value):
            largest = max(largest, abs(value))
            known = _line([*known, (c, value / c)], inner, outer)
        if outer <= (1 + tol) * inner:
            break
        halve = not halve and math.isfinite(before) and _width(inner, outer) > before / 2
        c = _next(known, inner, outer, tol, halve)
    bracketed = inner > 0 and math.isfinite(outer)
    at = _within(_root(known), inner, outer) if bracketed else math.nan
    return Stretch(at, inner, outer, bracketed and outer <= (1 + tol) * inner, largest)


def _width(inner: float, outer: float) -> float:
    return math.log(outer / inner) if inner > 0 else math.inf


def _line(points: list[tuple[float, float]], inner: float, outer: float) -> list[tuple[float, float]]:
    """Keep the two points that the line goes through: the ends of the bracket, or the last two where it is open."""
    ends = [point for point in points if point[0] in (inner, outer)]
    return ends if len(ends) == 2 else points[-2:]


def _root(points: list[tuple[float, float]]) -> float:
    """Return where the line through two points is zero; NaN where it is not, or there is one point."""
    if len(points) < 2:
        return math.nan
    (first, low), (second, high) = points
    return first - low * (second - first) / (high - low) if high != low else math.nan


def _within(root: float, inner: float, outer: float) -> float:
    return root if inner <= root <= outer else math.sqrt(inner * outer)


def _next(points: list[tuple[float, float]], inner: float, outer: float, tol: float, halve: bool) -> float:
    root, beside = _root(points), 1 + tol / 3
    if math.isinf(outer):
        aim = root * beside if root > inner else 2 * inner
        return min(max(aim, _NEAREST * inner), _FARTHEST * inner)
    if inner == 0:
        aim = root / beside if 0 < root < outer else outer / 2
        return max(min(aim, outer / _NEAREST), outer / _FARTHEST)
    middle = math.sqrt(inner * outer)
    if halve or not inner < root < outer:
        return middle
    aim = root * beside if outer / root > root / inner else root / beside
    return aim if inner < aim < outer else middle
