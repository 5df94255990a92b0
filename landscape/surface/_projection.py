"""Where weights lie beside a line or plane: coordinates, and how far off they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from landscape._distributed import ALONE, Processes
from landscape._errors import MeasurementError
from landscape._results import Result
from landscape.averaging._window import RunLike, opened
from landscape.objective import Objective
from landscape.record import Trajectory
from landscape.surface._directions import Directions


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Projection(Result):
    """Weights projected onto a line or plane.

    Attributes:
        coordinates: In units of the directions, shape (n, k): those of the nearest point of the plane.
        residuals: l2 distance of the weights from it, shape (n,).
        distances: l2 distance of the weights from the center, shape (n,).
        steps: Optimizer steps; None where the weights have none.
        loss: Loss at the weights themselves, not at their projections; None where it was not asked for.
    """

    coordinates: np.ndarray
    residuals: np.ndarray
    distances: np.ndarray
    steps: np.ndarray | None = None
    loss: np.ndarray | None = None

    def __repr__(self) -> str:
        farthest = f", residuals up to {self.residuals.max():.4g}" if len(self.residuals) else ""
        return f"Projection(n={len(self.residuals)}{farthest})"


def project(vectors: Iterable[Any], center: torch.Tensor, directions: Directions) -> Projection:
    """Project weights onto center + Σ a_i d_i by least squares, one vector in memory at a time.

    Args:
        vectors: Flat weights, shape (P,) each.
        center: Weights at the origin, shape (P,).
        directions: What spans the plane; they need not be orthogonal.

    Returns:
        Coordinates and distances.
    """
    basis = directions.vectors.detach().cpu().double()
    origin = center.detach().cpu().double()
    gram = basis @ basis.T
    coordinates, residuals, distances = [], [], []
    for vector in vectors:
        offset = torch.as_tensor(vector).detach().cpu().double() - origin
        place = torch.linalg.solve(gram, basis @ offset)
        coordinates.append(place.numpy())
        residuals.append(float(torch.linalg.vector_norm(offset - place @ basis)))
        distances.append(float(torch.linalg.vector_norm(offset)))
    return Projection(np.array(coordinates).reshape(-1, len(directions)), np.array(residuals), np.array(distances))


def project_run(
    run: RunLike | Trajectory,
    center: torch.Tensor,
    directions: Directions,
    objective: Objective | None = None,
) -> Projection:
    """Project the recorded weights of a run, with the true loss at each.

    Args:
        run: The run, the path of its file, or a window of it (`run.trajectory(...)`).
        center: Weights at the origin, shape (P,).
        directions: What spans the plane.
        objective: Evaluates the loss at the recorded weights, each with its own recorded buffers; by default the loss
            that was recorded with them.

    Returns:
        Coordinates, distances, steps and losses.

    Raises:
        MeasurementError: The recorded weights are of other parameters than the center.
    """
    trajectory = run if isinstance(run, Trajectory) else opened(run).trajectory()
    if trajectory.layout.total != len(center):
        raise MeasurementError(
            f"{trajectory.path} holds vectors of {trajectory.layout.total} weights in this window, and the center has "
            f"{len(center)}: other parameters train; take a window in which the same ones do (run.trajectory(start))"
        )
    found = project(trajectory.vectors(), center, directions)
    loss = trajectory.scalars["train_loss"] if objective is None else true_losses(objective, trajectory)
    return dataclasses.replace(found, steps=trajectory.steps, loss=loss)


def true_losses(objective: Objective, trajectory: Trajectory | None, processes: Processes = ALONE) -> np.ndarray:
    """Evaluate the loss at recorded weights, each with its own recorded buffers.

    Args:
        objective: The loss.
        trajectory: The weights; in other processes than the first, which read no file, None.
        processes: Those that evaluate together.

    Returns:
        Losses, shape (n,), equal in all processes.
    """
    own = {name for name, _ in objective.module.named_buffers()}
    vectors = iter(()) if trajectory is None else trajectory.vectors()
    losses = np.empty(processes.first(0 if trajectory is None else len(trajectory)))
    with objective.session():
        for index in range(len(losses)):
            read = None if trajectory is None else (next(vectors), trajectory.buffers(index))
            vector, buffers = processes.first(read)  # type: ignore[misc]  # the first process has one
            kept = {name: tensor for name, tensor in buffers.items() if name in own}
            losses[index] = objective.evaluate(torch.from_numpy(vector), kept).loss
    return losses
