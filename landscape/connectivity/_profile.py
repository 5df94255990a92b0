"""Loss and error along a curve through weight space."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from landscape._layout import ParameterLayout
from landscape._results import Result
from landscape.averaging._batchnorm import recompute_batchnorm
from landscape.objective import Objective

POLICIES = ("recompute", "keep")
_DEFAULT_POINTS = 21


class Path(Protocol):
    """What a profile is taken of: weights and buffers at every t, and how they are to be measured."""

    @property
    def layout(self) -> ParameterLayout:
        """Names and shapes behind the flat vectors."""

    @property
    def batchnorm(self) -> str:
        """The policy by default: "recompute" or "keep"."""

    @property
    def objective(self) -> Objective | None:
        """The loss it was made for, if any."""

    def point(self, t: float) -> torch.Tensor:
        """Return the weights at t, shape (P,)."""

    def buffers(self, t: float) -> dict[str, torch.Tensor]:
        """Return the buffers at t by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class PathProfile(Result):
    """Loss and error rate at points of a path.

    Attributes:
        t: Positions on the path, from 0 (its start) to 1 (its end), shape (n,).
        loss: Mean loss at each, in the loss function's unit, shape (n,).
        error: Fraction of wrongly classified targets at each, shape (n,); NaN where the loss knows no classes.
    """

    t: np.ndarray
    loss: np.ndarray
    error: np.ndarray


def profile(
    curve: Path,
    objective: Objective,
    t: Sequence[float] | np.ndarray | None = None,
    batchnorm: str | None = None,
    statistics: Objective | None = None,
) -> PathProfile:
    """Measure the mean loss L(γ(t)) and the error rate at points of a curve γ.

    With batchnorm="recompute" the running statistics of batch normalisations are computed anew at every t, the ends
    included: those of the ends do not fit the weights between them, and would show a barrier that is not there (Jordan
    et al. 2023, arXiv:2211.08403). "keep" takes the ends' own buffers, interpolated linearly. Nothing is changed in the
    model.

    Args:
        curve: The curve.
        objective: The loss over the examples to measure on. One of mode "train" is measured as it is, with its dropout.
        t: Positions in [0, 1]; by default 21 points from 0 to 1, equally spaced.
        batchnorm: "recompute" or "keep"; by default as the curve was trained.
        statistics: Where recomputed statistics come from: training examples, also when `objective` holds others. By
            default the objective that the curve carries, else `objective`.

    Returns:
        The values, in the order of t.

    Raises:
        ValueError: A t outside [0, 1], an unknown policy, or a curve for another model.
    """
    policy = check_policy(curve.batchnorm if batchnorm is None else batchnorm)
    grid = _grid(t)
    if curve.layout != objective.layout:
        raise ValueError(
            f"the curve runs through {curve.layout.total} parameters of another model than the objective's "
            f"{objective.n_parameters}; measure it on a model with the same names and shapes"
        )
    source = statistics or curve.objective or objective
    losses, errors = [], []
    # The objective's session comes last, so that its train/eval flags are the ones that hold.
    with contextlib.ExitStack() as stack:
        for each in dict.fromkeys((source, objective)):
            stack.enter_context(each.session())
        for position in grid:
            vector, buffers = curve.point(position), curve.buffers(position)
            if policy == "recompute" and objective.mode == "eval":
                buffers |= recompute_batchnorm(source, vector, buffers)
            evaluation = objective.evaluate(vector, buffers)
            losses.append(evaluation.loss)
            errors.append(evaluation.error)
    return PathProfile(grid, np.array(losses), np.array(errors))


def check_policy(batchnorm: str) -> str:
    """Return the policy if it is one.

    Raises:
        ValueError: It is unknown.
    """
    if batchnorm not in POLICIES:
        raise ValueError(f"batchnorm is {batchnorm!r}; it must be one of {', '.join(POLICIES)}")
    return batchnorm


def _grid(t: Sequence[float] | np.ndarray | torch.Tensor | None) -> np.ndarray:
    grid = np.linspace(0.0, 1.0, _DEFAULT_POINTS) if t is None else np.array(t, dtype=np.float64)
    if grid.ndim != 1 or len(grid) == 0 or not ((grid >= 0) & (grid <= 1)).all():
        raise ValueError(f"t is {t!r}; it must be a list of positions from 0 to 1")
    return grid
