"""SWAG: a Gaussian around the weight average whose covariance comes from the trajectory, and mixtures of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape.averaging._moments import RunningMoments
from landscape.averaging._window import RunLike, named_average, opened
from landscape.objective import Objective
from landscape.record import Trajectory


@dataclasses.dataclass(frozen=True, eq=False)
class Swag:
    """The Gaussian N(mean, ½ (diag(variance) + D Dᵀ / (K − 1))) over weights, with its K deviations in D.

    Attributes:
        mean: Average of the recorded weights, shape (P,), float64.
        variance: Their variance entry by entry, shape (P,), float64.
        deviations: The last K weights less the mean, shape (K, P); K = 0 leaves the diagonal, which then is not halved.
        n: Number of weights behind mean and variance.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    deviations: torch.Tensor
    n: int
    _trajectory: Trajectory

    def vector(self, seed: int, scale: float = 1.0) -> torch.Tensor:
        """Draw flat weights, shape (P,), float64.

        Args:
            seed: Seed of the draw.
            scale: Factor on the covariance; 1 is the paper's.

        Returns:
            The draw.

        Raises:
            ValueError: `scale` is negative.
        """
        if scale < 0:
            raise ValueError(f"scale is {scale}; it multiplies the covariance, so it must be at least 0")
        generator = torch.Generator().manual_seed(seed)
        rank = len(self.deviations)
        noise = self.variance.sqrt() * torch.randn(len(self.mean), generator=generator, dtype=torch.float64)
        if rank:
            weights = torch.randn(rank, generator=generator, dtype=torch.float64).to(self.deviations.dtype)
            low_rank = (weights @ self.deviations).to(torch.float64) / (rank - 1) ** 0.5
            noise = (noise + low_rank) / 2**0.5
        return self.mean + scale**0.5 * noise

    def sample(self, seed: int, scale: float = 1.0, objective: Objective | None = None) -> dict[str, Any]:
        """Draw weights by name, for `load_state_dict`.

        Args:
            seed: Seed of the draw.
            scale: Factor on the covariance; 1 is the paper's, and larger ones spread the predictions.
            objective: The loss over the training examples to take batch-normalisation statistics of, anew for each
                sample. Without it they are those of the last weights, with a warning.

        Returns:
            torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes.
        """
        return named_average(self._trajectory, self.vector(seed, scale), objective)

    def __repr__(self) -> str:
        return f"Swag(P={len(self.mean)}, n={self.n}, rank={len(self.deviations)})"


def swag(run: RunLike, start: int | None = None, stop: int | None = None, every: int = 1, rank: int = 20) -> Swag:
    """Fit SWAG to the recorded weights of a run.

    Mean and variance over all rows of the window, by Welford's update in float64; deviations of the last K rows from
    the final mean. Then w ~ N(mean, ½ (diag(variance) + D Dᵀ/(K − 1))).

    Memory: two float64 vectors and K vectors of the recorded type; the trajectory itself is read row by row, twice.

    Args:
        run: The run, or the path of its file.
        start: Optimizer step from which the weights count; the first recorded one by default.
        stop: Optimizer step up to which they count; the last by default.
        every: Take every n-th recorded row.
        rank: Most deviations K to keep; the paper's 20 by default. 0 leaves the diagonal (SWAG-Diagonal).

    Returns:
        The Gaussian.

    Raises:
        ValueError: `rank` is 1 or negative: one deviation has no covariance.
        MeasurementError: The window holds one row.

    Source: Maddox et al. 2019, arXiv:1902.02476.

    Where we differ: the paper takes each deviation from the running mean at its time; from the final mean, with all
    rows kept, D Dᵀ/(K − 1) is the rows' covariance. Mean square less squared mean, as in the paper, is avoided.
    """
    if rank < 0 or rank == 1:
        raise ValueError(f"rank is {rank}; it must be 0 (the diagonal alone) or at least 2")
    trajectory = opened(run).trajectory(start, stop, every)
    if len(trajectory) < 2:
        raise MeasurementError(
            f"{trajectory.path} holds one vector of weights in this window (step {trajectory.steps[0]}), which has no "
            "variance; take a longer window"
        )
    moments = RunningMoments()
    for vector in trajectory:
        moments.update(torch.from_numpy(vector))
    mean = moments.mean
    latest = trajectory.vectors(last=rank) if rank else iter(())
    recorded = torch.from_numpy(np.zeros(0, trajectory.dtype)).dtype
    deviations = [(torch.from_numpy(vector) - mean).to(recorded) for vector in latest]
    kept = torch.stack(deviations) if deviations else torch.zeros((0, len(mean)))
    return Swag(mean, moments.variance(), kept, moments.count, trajectory)


@dataclasses.dataclass(frozen=True, eq=False)
class MultiSwag:
    """A mixture of SWAG Gaussians with equal weights.

    Attributes:
        members: The Gaussians, one a run.
    """

    members: tuple[Swag, ...]

    def member(self, seed: int) -> int:
        """Return which member the draw with this seed comes from: each equally often in members · k seeds in a row."""
        return seed % len(self.members)

    def sample(self, seed: int, scale: float = 1.0, objective: Objective | None = None) -> dict[str, Any]:
        """Draw weights by name; arguments as in `Swag.sample`."""
        return self.members[self.member(seed)].sample(seed // len(self.members), scale, objective)


def multiswag(
    runs: Sequence[RunLike],
    start: int | None = None,
    stop: int | None = None,
    every: int = 1,
    rank: int = 20,
) -> MultiSwag:
    """Fit SWAG to each of several runs: a mixture over the solutions that trainings end in.

    Draws with consecutive seeds go through the members in turn, so that a model average over a multiple of their number
    weighs them equally.

    Args:
        runs: Runs of one architecture, or paths of their files.
        start: As in `swag`, for all.
        stop: As in `swag`, for all.
        every: As in `swag`, for all.
        rank: As in `swag`, for all.

    Returns:
        The mixture.

    Raises:
        ValueError: There are no runs.
        MeasurementError: They are of different architectures.

    Source: Wilson & Izmailov 2020, arXiv:2002.08791.
    """
    if not runs:
        raise ValueError("there are no runs; give the files of at least one training")
    files = [opened(run) for run in runs]
    layouts = [file.trajectory(start, stop, every).layout for file in files]
    for file, layout in zip(files, layouts, strict=True):
        if layout != layouts[0]:
            raise MeasurementError(f"{file.path} is of another architecture than {files[0].path}: no mixture of both")
    return MultiSwag(tuple(swag(file, start, stop, every, rank) for file in files))
