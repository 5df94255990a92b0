"""The directions in which a training moved most: principal components of its recorded weights."""

from __future__ import annotations

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape.averaging import recorded_components
from landscape.averaging._window import RunLike, opened
from landscape.record import Run
from landscape.surface._directions import Directions

_BLOCK = 2**20
_MOST_ROWS = 256


def trajectory_directions(
    run: RunLike, count: int = 2, start: int | None = None, stop: int | None = None, every: int = 1
) -> Directions:
    """Take the leading principal components of a run's recorded weights, the last of them at the origin.

    Of a run that kept components along (`SWATrajectory(components=...)`) and not all weights, those are taken, and the
    window does not count.

    Memory: the window's weights in the recorded type; at most 256 rows, evenly chosen, are used.

    Args:
        run: The run, or the path of its file.
        count: Number of directions.
        start: Optimizer step from which the weights count.
        stop: Optimizer step up to which they count.
        every: Take every n-th recorded row.

    Returns:
        Orthonormal directions; coordinates are distances in weight space. `points` holds the trajectory's coordinates.

    Raises:
        MeasurementError: Fewer weights were recorded than directions need.

    Source: Li et al. 2018, arXiv:1712.09913, section 7.

    Where we differ: components of the covariance (weights less their mean); the paper's matrix of differences to the
    last weights is centred by its PCA as well.
    """
    file = opened(run)
    trajectory = file.trajectory(start, stop, every)
    center = _at_least_float32(next(trajectory.vectors(dtype=None, last=1)))
    if trajectory.has("components_turn") and len(file.trajectory()) < _events(file):
        return _recorded(file, count, center)
    if len(trajectory) > _MOST_ROWS:
        trajectory = trajectory.select(np.linspace(0, len(trajectory) - 1, _MOST_ROWS).round().astype(int).tolist())
    if len(trajectory) < count + 1:
        raise MeasurementError(
            f"{file.path} holds {len(trajectory)} rows of weights in this window, and {count} components need "
            f"{count + 1}; record more often, or take random directions"
        )
    rows = _at_least_float32(trajectory.matrix())
    mean = rows.mean(dim=0, dtype=torch.float64).to(rows.dtype)
    rows -= mean
    gram = torch.zeros((len(rows), len(rows)), dtype=torch.float64)
    for block in rows.split(_BLOCK, dim=1):
        gram.addmm_(block.double(), block.double().T)
    values, turns = torch.linalg.eigh(gram)
    if not values[-count] > 1e-12 * values[-1]:
        raise MeasurementError(f"the weights of {file.path} lie in fewer than {count} directions; take random ones")
    vectors = torch.cat([(turns[:, -count:].T @ block.double()).to(rows.dtype) for block in rows.split(_BLOCK, 1)], 1)
    vectors = vectors.flip(0)
    vectors = vectors / torch.linalg.vector_norm(vectors.double(), dim=1, keepdim=True).to(vectors)
    # An eigenvector's sign is arbitrary; this one is the same on every machine.
    vectors *= torch.sign(vectors.gather(1, vectors.abs().argmax(1, keepdim=True)))
    points = (rows.double() - (center - mean).double()) @ vectors.double().T
    return Directions(vectors, "trajectory", center=center, points=points.numpy())


def _at_least_float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.promote_types(values.dtype, np.float32)))


def _events(file: Run) -> int:
    return len(recorded_components(file).steps)


def _recorded(file: Run, count: int, center: torch.Tensor) -> Directions:
    found = recorded_components(file)
    if found.components is None or found.mean is None or len(found.components) < count:
        raise MeasurementError("the run has not ended, or kept fewer components; take random directions")
    vectors = torch.from_numpy(found.components[:count])
    origin = vectors.double() @ (center.double() - torch.from_numpy(found.mean).double())
    return Directions(vectors, "trajectory", center=center, points=found.coordinates[:, :count] - origin.numpy())
