"""Compare a claimed derivative with difference quotients, and say whether the two are the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

# Two quotients agree with each other where they differ by less than this share of their distance to the claim.
_CONSISTENT = 1 / 20


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Steps to try one after another, and the relative errors that confirm or contradict a derivative.

    Attributes:
        steps: Lengths, relative to the weights.
        confirmed: A relative error up to this one confirms the derivative.
        contradicted: A consistent relative error above this one contradicts it.
        unit: Rounding unit of the arithmetic behind the quotients.
    """

    steps: tuple[float, ...]
    confirmed: float
    contradicted: float
    unit: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a claimed derivative compares with difference quotients.

    Attributes:
        agrees: Whether it is confirmed; None where the quotients are too noisy to tell.
        error: |quotient − claim| / max(|quotient|, |claim|) at the step that decided, else the least one seen.
        claimed: The claim, or the norm of a vector.
        measured: The quotient at that step, or its norm.
        steps: The steps that were tried.
    """

    agrees: bool | None
    error: float
    claimed: float
    measured: float
    steps: tuple[float, ...]


def compare(
    quotient: Callable[[float], torch.Tensor], claimed: torch.Tensor, ladder: Ladder, magnitude: float
) -> Comparison:
    """Compare a claimed derivative with difference quotients of growing steps.

    One step that confirms the claim is enough: quotients do not agree with a wrong number by chance. A contradiction
    needs two neighbouring steps that agree with each other twenty times better than with the claim. So it is never
    caused by a kink, a jump or rounding: their share of a quotient changes with the step.

    Args:
        quotient: Maps a step to a difference quotient of the claim's shape.
        claimed: The derivative.
        ladder: The steps and tolerances.
        magnitude: Size of the numbers that are subtracted, which rounding is relative to.

    Returns:
        The comparison.
    """
    claim = _number(claimed)
    before, gap_before = None, math.inf
    best = Comparison(None, math.inf, claim, math.nan, ())
    for count, step in enumerate(ladder.steps, 1):
        found = quotient(step)
        tried = ladder.steps[:count]
        measured = _number(found)
        size = max(abs(measured), abs(claim))
        gap = float(torch.linalg.vector_norm(found - claimed))
        error = gap / size if size > 0 else gap
        rounding = 500 * ladder.unit * magnitude / step
        if error <= ladder.confirmed and (gap or size > rounding):
            return Comparison(True, error, claim, measured, tried)
        if before is not None:
            spread = float(torch.linalg.vector_norm(found - before))
            closest = min(gap, gap_before)
            if error > ladder.contradicted and closest > max(rounding, spread / _CONSISTENT):
                return Comparison(False, error, claim, measured, tried)
        if error < best.error:
            best = Comparison(None, error, claim, measured, tried)
        before, gap_before = found, gap
    return dataclasses.replace(best, steps=ladder.steps)


def largest_error(comparisons: Sequence[Comparison]) -> float:
    """Return the largest error of the comparisons that told something; NaN where none did."""
    told = [comparison.error for comparison in comparisons if comparison.agrees is not None]
    return max(told, default=math.nan)


def _number(tensor: torch.Tensor) -> float:
    return float(tensor if tensor.ndim == 0 else torch.linalg.vector_norm(tensor))
