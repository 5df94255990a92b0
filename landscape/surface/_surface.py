"""The loss on a grid along one or two directions."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Result
from landscape.averaging import recompute_batchnorm
from landscape.connectivity import Plane
from landscape.objective import Objective
from landscape.surface._directions import Directions, directions_of
from landscape.surface._grid import make_axes
from landscape.surface._journal import Journal, key_of
from landscape.surface._projection import project

_BATCHNORM = ("keep", "recompute")


@dataclasses.dataclass(frozen=True, eq=False)
class Surface(Result):
    """Loss and error at center + Σ axes[i][·] · directions.vectors[i].

    Attributes:
        axes: Coordinates along each direction, float64, increasing, with 0 among them.
        loss: Mean loss, shape (n_0,) or (n_0, n_1): `loss[i, j]` belongs to `axes[0][i]` and `axes[1][j]`.
        error: Fraction of wrong labels, of the same shape; NaN where the loss knows no classes.
        center: Weights at the origin, shape (P,).
        directions: What spans the axes.
        batchnorm: "keep" or "recompute".
    """

    axes: tuple[np.ndarray, ...]
    loss: np.ndarray
    error: np.ndarray
    center: torch.Tensor
    directions: Directions
    batchnorm: str

    @property
    def center_index(self) -> tuple[int, ...]:
        """Index of the origin in `loss`."""
        return tuple(int(np.flatnonzero(axis == 0)[0]) for axis in self.axes)

    def vector(self, *coordinates: float) -> torch.Tensor:
        """Return the weights at coordinates, shape (P,)."""
        return self.directions.at(self.center, *coordinates)

    def to_dataset(self) -> xr.Dataset:
        """Return loss, error and axes as `landscape.analysis.plot_surface` takes them, without the vectors."""
        dims = tuple(f"point_{axis}" for axis in range(len(self.axes)))
        data: dict[str, Any] = {
            "surface_train_loss": (dims, self.loss),
            "surface_train_error": (dims, self.error),
        }
        data |= {f"axis_{i}": (dims[i], axis) for i, axis in enumerate(self.axes)}
        if self.directions.kind == "plane" and self.directions.points is not None:
            data["plane_points"] = (("corner", "axis"), self.directions.points)
        attributes = {name: getattr(self.directions, name) for name in ("kind", "normalization")}
        return xr.Dataset(data, attrs=attributes)

    def __repr__(self) -> str:
        shape = " x ".join(str(len(axis)) for axis in self.axes)
        return f"Surface({shape}, {self.directions.kind}, center={self.loss[self.center_index]:.6g})"


@of_objective
def loss_surface(
    objective: Objective,
    directions: Directions | Plane,
    points: int | Sequence[int] = 51,
    span: float | Sequence[Sequence[float]] | None = None,
    center: torch.Tensor | None = None,
    batchnorm: str = "keep",
    statistics: Objective | None = None,
    path: str | Path | None = None,
    error: bool = True,
    progress: bool | None = None,
) -> Surface:
    """Evaluate loss and error on a grid, L(center + a·d_0 + b·d_1).

    One weight vector is displaced at a time; the module's own weights never are. All of torch's threads work on each
    evaluation (`torch.set_num_threads`).

    Memory: four weight vectors beside the directions.

    Args:
        objective: The loss.
        directions: One or two, with the weights at the origin where they say so; or the plane through three weights,
            `landscape.connectivity.plane_through(...)`.
        points: Points on every axis, or on each: (n_0, n_1).
        span: Half the width of every axis, or (low, high) for each, ((low, high), (low, high)), in units of the
            directions. By default what holds `directions.points` with a fifth to spare, or 1.
        center: Weights at the origin, shape (P,); by default the directions' own, or else the objective's point.
        batchnorm: "keep" leaves the statistics of batch normalisations as they are, as slices are usually drawn;
            "recompute" takes them anew at every point, for planes through several solutions.
        statistics: With "recompute": the loss over the examples that they are taken of, training examples; the measured
            ones by default.
        path: A text file for the evaluated points: where it exists, the surface goes on from it. Of several processes
            that share an objective the first reads and writes it.
        error: Whether to look for the error rate too, which costs a few percent of a small network's time.
        progress: Whether to show a progress bar; by default where stderr is a terminal.

    Returns:
        The surface. A loss that is not finite is recorded as it is.

    Raises:
        TypeError: The directions are something else.
        ValueError: There are not one or two directions, or an argument is out of range.
        MeasurementError: Directions or center are of another length than the weights.

    Source: Li et al. 2018, arXiv:1712.09913; Goodfellow et al. 2015, arXiv:1412.6544 (lines).

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> objective = Objective(model, torch.nn.MSELoss(), [(torch.ones(2, 1), torch.zeros(2, 1))])
        >>> from landscape.surface import given_directions
        >>> loss_surface(objective, given_directions([torch.ones(1)]), points=3).loss
        array([0., 1., 4.])
    """
    if batchnorm not in _BATCHNORM:
        raise ValueError(f"batchnorm is {batchnorm!r}; it must be 'keep' or 'recompute'")
    if not isinstance(directions, (Directions, Plane)):
        raise TypeError(
            f"directions is a {type(directions).__name__}; give Directions (given_directions([d0, d1]) wraps your own "
            "vectors), or a plane_through(...)"
        )
    if isinstance(directions, Plane):
        directions = directions_of(directions, objective.vector())
    if len(directions) not in (1, 2):
        raise ValueError(f"there are {len(directions)} directions; a surface has one or two axes")
    marked = directions.points
    if marked is not None and center is not None and directions.center is not None:
        marked = marked + project([directions.center], center, directions).coordinates
    axes = make_axes(len(directions), span, points, marked)
    origin = directions.center if center is None else center
    origin = objective.vector() if origin is None else torch.as_tensor(origin).to(objective.device, objective.dtype)
    vectors = directions.vectors.to(objective.device, objective.dtype)
    if origin.shape != (objective.n_parameters,) or vectors.shape[1:] != origin.shape:
        raise MeasurementError(
            f"center {tuple(origin.shape)} and directions {tuple(vectors.shape)} do not fit the "
            f"{objective.n_parameters} weights of {type(objective.module).__name__}"
        )
    shape = tuple(len(axis) for axis in axes)
    shown = sys.stderr.isatty() if progress is None else progress
    losses, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    with contextlib.ExitStack() as stack:
        journal = None
        processes = objective.processes
        with processes.together():
            if path is not None and processes.rank == 0:
                settings = {
                    "batchnorm": batchnorm,
                    "data": objective.fingerprint,
                    "mode": objective.mode,
                    "error": error,
                }
                settings["statistics"] = (statistics or objective).fingerprint
                journal = Journal(path, key_of([origin, vectors, *axes], settings))
                stack.callback(journal.close)
        known = processes.first({} if journal is None else journal.values)  # all leave out the same points
        stack.enter_context(objective.session())
        bar = stack.enter_context(tqdm(total=losses.size, desc="surface", disable=processes.rank > 0 or not shown))
        row, point = torch.empty_like(origin), torch.empty_like(origin)
        for i in range(shape[0]):
            torch.add(origin, vectors[0], alpha=float(axes[0][i]), out=row)
            for index in itertools.product((i,), *(range(size) for size in shape[1:])):
                if index in known:
                    losses[index], errors[index] = known[index]
                else:
                    if len(shape) == 2:
                        torch.add(row, vectors[1], alpha=float(axes[1][index[1]]), out=point)
                    at = row if len(shape) == 1 else point
                    fresh = recompute_batchnorm(statistics or objective, at) if batchnorm == "recompute" else None
                    if error:
                        found = objective.evaluate(at, fresh)
                        losses[index], errors[index] = found.loss, found.error
                    else:
                        losses[index] = float(objective.loss(at, fresh))
                    if journal is not None:
                        journal.add(index, losses[index], errors[index])
                bar.update()
    used = dataclasses.replace(directions, vectors=vectors, center=origin, points=marked)
    return Surface(axes, losses, errors, origin, used, batchnorm)
