"""Loss and error along a curve through weight space."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from landscape._layout import ParameterLayout
from landscape._results import Result
from landscape.averaging._batchnorm import recompute_batchnorm
from landscape.connectivity._examples import influence, watch_examples
from landscape.objective import Objective

POLICIES = ("recompute", "interpolate", "keep")
_DEFAULT_POINTS = 21


class Path(Protocol):
    """What a profile is taken of: weights and buffers at every t, and how they are to be measured."""

    @property
    def layout(self) -> ParameterLayout:
        """Names and shapes behind the flat vectors."""

    @property
    def batchnorm(self) -> str:
        """The policy by default: "recompute", "interpolate" or "keep"."""

    @property
    def objective(self) -> Objective | None:
        """The loss it was made for, if any."""

    def point(self, t: float) -> torch.Tensor:
        """Return the weights at t, shape (P,)."""

    def buffers(self, t: float) -> dict[str, torch.Tensor]:
        """Return the buffers at t by name."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PathProfile(Result):
    """Loss and error rate at points of a path.

    Attributes:
        t: Positions on the path, from 0 (its start) to 1 (its end), shape (n,).
        loss: Mean loss at each, in the loss function's unit, shape (n,).
        error: Fraction of wrongly classified targets at each, shape (n,); NaN where the loss knows no classes.
        examples: What each measured example adds to loss and error about their means, shape (n, 2, examples), from
            which `barriers` takes standard errors; None where the loss does not tell.
    """

    t: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    examples: np.ndarray | None = None

    def __repr__(self) -> str:
        finite = "" if np.isnan(self.error).all() else f", error {self.error.min():.4g} to {self.error.max():.4g}"
        return f"PathProfile(n={len(self.t)}, loss {self.loss.min():.4g} to {self.loss.max():.4g}{finite})"

    def to_dict(self) -> dict[str, Any]:
        """Return t, loss and error by name."""
        return {"t": self.t, "loss": self.loss, "error": self.error}


def profile(
    curve: Path,
    objective: Objective,
    t: Sequence[float] | np.ndarray | None = None,
    batchnorm: str | None = None,
    statistics: Objective | None = None,
    refine: int = 0,
) -> PathProfile:
    """Measure the mean loss L(γ(t)) and the error rate at points of a curve γ.

    With batchnorm="recompute" the running statistics of batch normalisations are computed anew at every t, the ends
    included: those of the ends do not fit the weights between them, and would show a barrier that is not there (Jordan
    et al. 2023, arXiv:2211.08403). "interpolate" takes the ends' own buffers, interpolated linearly; "keep" the
    measured model's own all along, as software does that only loads other weights. Nothing is changed in the model.

    A grid can miss the top of a narrow barrier. Each round of `refine` halves the intervals on both sides of the
    largest loss, and of the largest excess over the line between the ends' losses.

    Memory: beside the objective's, two numbers an example and point.

    Args:
        curve: The curve.
        objective: The loss over the examples to measure on. One of mode "train" is measured as it is, with its dropout.
        t: Positions in [0, 1]; by default 21 points from 0 to 1, equally spaced.
        batchnorm: "recompute", "interpolate" or "keep"; by default as the curve was trained.
        statistics: Where recomputed statistics come from: training examples, also when `objective` holds others. By
            default the objective that the curve carries, else `objective`.
        refine: Rounds of refinement; each adds at most four points.

    Returns:
        The values, in the order of t; in ascending order where it was refined.

    Raises:
        ValueError: A t outside [0, 1], a negative number of rounds, an unknown policy, or a curve for another model.
    """
    policy = check_policy(curve.batchnorm if batchnorm is None else batchnorm)
    grid = _grid(t)
    if refine < 0:
        raise ValueError(f"refine is {refine}; it is a number of rounds, 0 for none")
    if curve.layout != objective.layout:
        raise ValueError(
            f"the curve runs through {curve.layout.total} parameters of another model than the objective's "
            f"{objective.n_parameters}; measure it on a model with the same names and shapes"
        )
    source = statistics or curve.objective or objective
    # The objective's session comes last, so that its train/eval flags are the ones that hold.
    with contextlib.ExitStack() as stack:
        for each in dict.fromkeys((source, objective)):
            stack.enter_context(each.session())
        points = [_point(curve, objective, source, policy, position) for position in grid]
        for _ in range(refine):
            points.sort(key=lambda point: point[0])
            added = _around_the_top(np.array([point[:2] for point in points]))
            points += [_point(curve, objective, source, policy, position) for position in added]
    if refine:
        points.sort(key=lambda point: point[0])
    shares = [point[3] for point in points]
    known = (
        None if any(share is None for share in shares) else np.stack([share for share in shares if share is not None])
    )
    columns = np.array([point[:3] for point in points], dtype=np.float64)
    return PathProfile(columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy(), known)


def buffers_at(curve: Path, t: float, policy: str) -> dict[str, torch.Tensor] | None:
    """Return the buffers to measure with at t, before any are recomputed; None for the measured model's own."""
    return None if policy == "keep" else curve.buffers(t)


def check_policy(batchnorm: str) -> str:
    """Return the policy if it is one.

    Raises:
        ValueError: It is unknown.
    """
    if batchnorm not in POLICIES:
        raise ValueError(f"batchnorm is {batchnorm!r}; it must be one of {', '.join(POLICIES)}")
    return batchnorm


def _point(
    curve: Path, objective: Objective, source: Objective, policy: str, t: float
) -> tuple[float, float, float, np.ndarray | None]:
    vector, buffers = curve.point(t), buffers_at(curve, t, policy)
    if policy == "recompute" and objective.mode == "eval":
        buffers = (buffers or {}) | recompute_batchnorm(source, vector, buffers)
    with watch_examples() as watcher:
        evaluation = objective.evaluate(vector, buffers)
    shares = influence(objective, watcher, evaluation.loss, evaluation.error)
    return float(t), evaluation.loss, evaluation.error, shares


def _around_the_top(points: np.ndarray) -> list[float]:
    """Return the middles of the intervals next to the highest points; `points` is sorted, columns t and loss."""
    t, loss = points.T
    with np.errstate(invalid="ignore"):
        excess = loss - np.interp(t, t[[0, -1]], loss[[0, -1]])
    tops = {int(np.argmax(values)) for values in (loss, excess) if not np.isnan(values).any()}
    sides = {(k, k + 1) for top in tops for k in (top - 1, top) if 0 <= k < len(t) - 1 and t[k] < t[k + 1]}
    return [float((t[k] + t[other]) / 2) for k, other in sorted(sides)]


def _grid(t: Sequence[float] | np.ndarray | torch.Tensor | None) -> np.ndarray:
    given = np.linspace(0.0, 1.0, _DEFAULT_POINTS) if t is None else t
    # numpy warns where torch makes its array.
    grid = np.array(given.tolist() if isinstance(given, torch.Tensor) else given, dtype=np.float64)
    if grid.ndim != 1 or len(grid) == 0 or not ((grid >= 0) & (grid <= 1)).all():
        raise ValueError(f"t is {t!r}; it must be a list of positions from 0 to 1")
    return grid
