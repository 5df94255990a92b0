"""Curves through weight space, given by control points: the straight line, Bézier curves and polygonal chains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from landscape._layout import ParameterLayout
from landscape.connectivity._profile import PathProfile, check_policy, profile
from landscape.objective import Objective


def _bernstein(n_points: int, t: float) -> list[float]:
    """Bernstein polynomials of degree n − 1: a straight line for two points, a quadratic for three."""
    degree = n_points - 1
    return [math.comb(degree, k) * (1 - t) ** (degree - k) * t**k for k in range(n_points)]


def _hats(n_points: int, t: float) -> list[float]:
    """Piecewise linear: the chain runs from point to point, each segment through an equal share of t."""
    position = t * (n_points - 1)
    return [max(0.0, 1 - abs(position - k)) for k in range(n_points)]


# Weight of each control point at t. A further kind of curve is one more entry here.
_BASES: dict[str, Callable[[int, float], list[float]]] = {"linear": _bernstein, "bezier": _bernstein, "chain": _hats}


class Owned(tuple[torch.Tensor, ...]):
    """Control points that a curve keeps without a copy: nobody else writes to them."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """A curve γ(t), t ∈ [0, 1], between two weight vectors, through which it passes at t = 0 and t = 1.

    linear: γ(t) = (1−t) a + t b.   bezier: γ(t) = Σ_k (d choose k) (1−t)^(d−k) t^k p_k, of degree d with d − 1 bends
    between p_0 = a and p_d = b.   chain: straight from each control point to the next, an equal share of t for each.

    Memory: one flat vector a control point.

    Attributes:
        kind: "linear", "bezier" or "chain".
        points: Control points as flat vectors of shape (P,), ends first and last; copied and left as they are.
        layout: Names and shapes behind the flat vectors.
        end_buffers: The buffers of start and end by name; what is missing is taken from the measured model.
        batchnorm: "recompute", "interpolate" or "keep": how the curve was trained, and is measured by default; see
            `profile`.
        objective: The loss it was made for, or None.

    Raises:
        ValueError: The kind is unknown, or control points do not fit it or the layout.

    Source: Garipov et al. 2018, arXiv:1802.10026.
    """

    kind: str
    points: tuple[torch.Tensor, ...]
    layout: ParameterLayout
    end_buffers: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]] = ({}, {})
    batchnorm: str = "recompute"
    objective: Objective | None = None

    def __post_init__(self) -> None:
        n_bends(self.kind, len(self.points) - 2)
        check_policy(self.batchnorm)
        points = tuple(self.points)
        if not isinstance(self.points, Owned):
            points = tuple(torch.as_tensor(point).detach().clone() for point in points)
        for name, point in zip(_point_names(len(points)), points, strict=True):
            if tuple(point.shape) != (self.layout.total,):
                raise ValueError(
                    f"the {name} of the curve has shape {tuple(point.shape)}; expected a flat vector of shape "
                    f"({self.layout.total},), one number a trainable parameter"
                )
        object.__setattr__(self, "points", points)

    def coefficients(self, t: float) -> list[float]:
        """Return the weight of each control point at t; they sum to 1."""
        return _BASES[self.kind](len(self.points), float(t))

    def point(self, t: float) -> torch.Tensor:
        """Return γ(t), shape (P,), a new tensor; exactly the ends at t = 0 and t = 1."""
        total = torch.zeros_like(self.points[0])
        for coefficient, point in zip(self.coefficients(t), self.points, strict=True):
            if coefficient != 0:
                total.add_(point, alpha=coefficient)
        return total

    def buffers(self, t: float) -> dict[str, torch.Tensor]:
        """Return the ends' buffers at t, by name.

        Floating-point buffers are interpolated linearly (variances stay positive so), integers and booleans are those
        of the nearer end; at t = 0 and t = 1 all are exactly the end's own.
        """
        first, last = self.end_buffers
        both = {name: (first[name], last[name]) for name in first if name in last}
        return {name: _between(start, end, float(t)) for name, (start, end) in both.items()}

    def evaluate(
        self,
        batches: Objective | Iterable[Any] | None = None,
        t: Sequence[float] | np.ndarray | None = None,
        batchnorm: str | None = None,
        refine: int = 0,
    ) -> PathProfile:
        """Measure loss and error at points of the curve; `profile` says how.

        Recomputed statistics of batch normalisations come from the examples that the curve was made for, whatever
        examples are measured.

        Args:
            batches: An objective, or batches for the curve's own loss; by default those it was made for.
            t: Positions in [0, 1]; by default 21 points from 0 to 1, equally spaced.
            batchnorm: "recompute", "interpolate" or "keep"; by default as the curve was trained.
            refine: Rounds in which points are added on both sides of the highest one.

        Returns:
            `.t`, `.loss` and `.error`, arrays of one length.

        Raises:
            ValueError: The curve carries no loss and no objective is given, or an argument is out of range.
        """
        if isinstance(batches, Objective):
            return profile(self, batches, t, batchnorm, refine=refine)
        if self.objective is None:
            raise ValueError("this curve carries no model and loss; give an Objective to evaluate it on")
        measured = self.objective if batches is None else self.objective.restrict(batches)
        return profile(self, measured, t, batchnorm, refine=refine)

    def __repr__(self) -> str:
        return f"Curve(kind={self.kind!r}, P={self.layout.total}, batchnorm={self.batchnorm!r})"


def n_bends(kind: str, bends: int | None = None) -> int:
    """Check a kind of curve and its number of control points between the ends.

    Args:
        kind: Name of the kind.
        bends: The number wanted; by default 0 for a line and 1 for all others.

    Returns:
        The number.

    Raises:
        ValueError: The kind is unknown, or cannot have so many.
    """
    if kind not in _BASES:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(_BASES)}")
    default = 0 if kind == "linear" else 1
    bends = default if bends is None else bends
    if (bends != 0) if kind == "linear" else (bends < 1):
        wanted = "no control points" if kind == "linear" else "at least one control point"
        raise ValueError(f"a {kind} curve has {wanted} between its ends, found {bends}")
    return bends


def _point_names(n_points: int) -> list[str]:
    return ["start", *["bend"] * (n_points - 2), "end"]


def _between(start: torch.Tensor, end: torch.Tensor, t: float) -> torch.Tensor:
    if t in (0.0, 1.0) or not start.is_floating_point():
        return start if t < 0.5 else end
    return (1 - t) * start + t * end.to(start)
