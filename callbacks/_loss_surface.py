"""Record the loss on a line or plane around the weights, with the training projected onto it."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape._distributed import ALONE, Processes
from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.callbacks._arguments import counts, listed, one_of, positive
from landscape.callbacks._axes import flat_layout, without_vectors
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.callbacks._weights_file import load_weights
from landscape.objective import Objective
from landscape.record import Coordinate, Run, Variable, open_run
from landscape.surface import (
    Directions,
    Surface,
    hessian_directions,
    loss_surface,
    plane_directions,
    project_run,
    random_directions,
    trajectory_directions,
)
from landscape.surface._journal import key_of
from landscape.surface._projection import true_losses

_KINDS = ("random", "hessian", "trajectory", "plane")


class LossSurface(LandscapeCallback):
    """Loss and error on a grid around the present weights, and where the training came from.

    Group `loss_surface`. Measured once, when the fit ends, unless a cadence is given. Each row holds the grid with its
    axes, the weights at its centre and the directions, so that it can be drawn and evaluated again; and of the weights
    that a `SWATrajectory` before it recorded: their coordinates, distance from the plane, and true loss. See
    `landscape.surface`.

    Stored: 3 P numbers and the grid. The points are also kept in a text file beside the run's while they are made, so
    that a training that was killed meanwhile goes on there when it is resumed.

    Args:
        directions: "random" (Gaussian, normalised), "hessian" (eigenvectors of the largest eigenvalues), "trajectory"
            (principal components of the recorded weights) or "plane" (through two other solutions).
        dimensions: 1 for a line, 2 for a plane.
        points: Points on every axis.
        span: Half the width of every axis, in units of the directions; by default what holds the trajectory or the
            other solutions with a fifth to spare, or 1.
        normalization: Of random directions: "filter", "layer" or "none".
        through: Of a plane: two run files or checkpoints whose weights it passes through.
        batchnorm: "keep" or "recompute": the statistics of batch normalisations on the grid.
        held_out: Whether to measure the held-out examples too, which doubles the cost.
        trajectory: Most recorded weights to project, evenly chosen; 0 for none.
        progress: Whether to show a progress bar; by default when stderr is a terminal.
        every_n_epochs: Measure at the end of every n-th epoch instead.
        every_n_steps: Measure after every n-th optimizer step instead, with every_n_epochs too: at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, log, name, overhead.
    """

    group = "loss_surface"
    description = "loss on a grid along directions in weight space, the measured weights at its centre"
    whole = "records directions of all trainable parameters, onto which trainings are projected"

    def __init__(
        self,
        directions: str = "random",
        dimensions: int = 2,
        points: int = 25,
        span: float | None = None,
        normalization: str = "filter",
        through: Sequence[str | Path] = (),
        batchnorm: str = "keep",
        held_out: bool = False,
        trajectory: int = 64,
        progress: bool | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        one_of(_KINDS, directions=directions)
        one_of(("filter", "layer", "none"), normalization=normalization)
        one_of(("keep", "recompute"), batchnorm=batchnorm)
        counts(3, points=points)
        counts(0, trajectory=trajectory)
        positive(span=span)
        listed(through=through)
        if dimensions not in (1, 2):
            raise ValueError(f"dimensions is {dimensions}; a surface has 1 or 2")
        if (directions == "plane") != (len(through) == 2) or (directions == "plane" and dimensions == 1):
            raise ValueError(
                "directions='plane' passes through the present weights and two others, in 2 dimensions: give their "
                "files with through=(one, other), and only then"
            )
        self.directions, self.dimensions, self.points, self.span = directions, dimensions, points, span
        self.normalization, self.through, self.batchnorm = normalization, tuple(map(str, through)), batchnorm
        self.held_out, self.trajectory, self.progress = held_out, trajectory, progress
        self._layout: ParameterLayout | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        names = ("directions", "dimensions", "points", "span", "normalization", "batchnorm", "held_out", "trajectory")
        return {name: getattr(self, name) for name in names} | {"through": list(self.through)}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("surface_max_train_loss",)

    def work(self) -> Work:
        """Return the expected work of one event."""
        grid = Work(**{"both" if self.held_out else "evaluations": float(self.points**self.dimensions)}, vectors=5)
        products = 40.0 if self.directions == "hessian" else 0.0
        return grid + Work(evaluations=self.trajectory, products=products)

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        grid = tuple(f"point_{axis}" for axis in range(self.dimensions))
        variables = [
            Variable(f"axis_{axis}", (dim,), description=f"coordinate along direction {axis}, in its own length")
            for axis, dim in enumerate(grid)
        ]
        for data in ("train", "held_out")[: 1 + self.held_out]:
            where = f"on the measured {data.replace('_', '-')} examples"
            variables += [
                Variable(f"surface_{data}_loss", grid, description=f"loss {where}"),
                Variable(f"surface_{data}_error", grid, description=f"fraction of wrong labels {where}"),
            ]
        visit = ("visit",)
        variables += [
            Variable("surface_max_train_loss", description="largest finite loss on the grid"),
            Variable("center", ("parameter",), "f4", description="weights at the origin"),
            Variable("directions", ("axis", "parameter"), "f4", description="displacement of one unit on each axis"),
            Variable("trajectory_step", visit, "i8", description="steps of recorded weights"),
            Variable(
                "trajectory_coordinates", ("visit", "axis"), description="their nearest point on the grid's plane"
            ),
            Variable("trajectory_residual", visit, description="their l2 distance from that point"),
            Variable(
                "trajectory_loss", visit, description="loss at the weights themselves, measured training examples"
            ),
        ]
        self._layout = flat_layout(self, trainer, module)
        corners = []
        if self.directions == "plane":
            about = "where the weights lie that the plane was laid through, the measured ones first"
            variables.append(Variable("plane_points", ("corner", "axis"), description=about))
            corners = [Coordinate("corner", 3, description="weights that a plane passes through")]
        axes = [
            *corners,
            *(Coordinate(dim, self.points, description="index on the axis") for dim in grid),
            Coordinate("axis", self.dimensions, description="direction"),
            Coordinate("parameter", self._layout.total, description="index in the flat vector"),
            Coordinate("visit", self.trajectory, description="recorded weights, in the order of the training"),
        ]
        return {"variables": variables, "coordinates": axes}

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Evaluate the grid around the present weights."""
        # Only the first process reads files: elsewhere they may be missing, or still be written.
        processes = ALONE if self._session is None else self._session.processes
        run = self._run() if processes.rank == 0 else None
        directions = self._directions(objective, run, processes)
        center = objective.vector()
        shared: dict[str, Any] = {"points": self.points, "span": self.span, "center": center}
        shared |= {"batchnorm": self.batchnorm, "statistics": objective, "progress": self.progress}
        row: dict[str, Any] = {"center": _stored(center), "directions": _stored(directions.vectors)}
        if self.directions == "plane":
            row["plane_points"] = directions.points
        for data, measured in (("train", objective), ("held_out", held_out))[: 1 + self.held_out]:
            if measured is None:
                continue
            path = self._points_file(processes, measured, data, center, directions)
            found = loss_surface(measured, directions, path=path, **shared)
            for left in () if path is None else path.parent.glob(f"{glob.escape(path.name.split('@')[0])}@*.points"):
                left.unlink(missing_ok=True)  # with those that a training which went another way left
            row |= _grid(found, data)
        row |= self._visits(objective, center, directions, run, processes)
        declared = self._layout or objective.layout.plain()
        return without_vectors(row, ("center", "directions"), objective.layout, declared)

    def _directions(self, objective: Objective, run: Run | None, processes: Processes) -> Directions:
        if self.directions == "random":
            return random_directions(objective, self.dimensions, self.seed, self.normalization)
        if self.directions == "hessian":
            return hessian_directions(objective, self.dimensions, seed=self.seed)
        read = processes.first(self._read_directions(objective, run) if processes.rank == 0 else None)
        assert read is not None
        return read

    def _read_directions(self, objective: Objective, run: Run | None) -> Directions:
        center = objective.vector().cpu()
        if self.directions == "plane":
            return plane_directions(center, *(load_weights(path, objective.layout).to(center) for path in self.through))
        window = None if run is None else run.trajectory().training(objective.layout)
        if run is None or window is None:
            raise MeasurementError(
                "the run holds no recorded weights of the parameters that train now, so it has no principal "
                "components; put a SWATrajectory before LossSurface, or take directions='random'"
            )
        return trajectory_directions(run, self.dimensions, start=int(window.steps[0]))

    def _visits(
        self,
        objective: Objective,
        center: torch.Tensor,
        directions: Directions,
        run: Run | None,
        processes: Processes,
    ) -> dict[str, Any]:
        chosen = None
        if run is not None and self.trajectory:
            whole = run.trajectory().training(objective.layout)
            count = 0 if whole is None else len(whole)
            indices = np.unique(np.linspace(0, count - 1, min(self.trajectory, count)).round())
            chosen = whole and whole.select(indices.astype(int).tolist())
        found = processes.first(None if chosen is None else project_run(chosen, center, directions))
        if found is None:
            return {}
        losses = true_losses(objective, chosen, processes)
        rest = self.trajectory - len(losses)
        assert found.steps is not None
        padded = {"trajectory_step": np.pad(found.steps, (0, rest), constant_values=-1)}
        for name, values in (("residual", found.residuals), ("loss", losses)):
            padded[f"trajectory_{name}"] = np.pad(values, (0, rest), constant_values=np.nan)
        missing = ((0, rest), (0, 0))
        padded["trajectory_coordinates"] = np.pad(found.coordinates, missing, constant_values=np.nan)
        return padded

    def _run(self) -> Run | None:
        """Return the run file where weights were recorded in it already."""
        if self._session is None or not self._session.path.exists():
            return None
        run = open_run(self._session.path)
        return run if run.has_weights else None

    def _points_file(
        self, processes: Processes, measured: Objective, data: str, center: torch.Tensor, directions: Directions
    ) -> Path | None:
        # A model that communicates by itself is evaluated by every process, so none may leave points out.
        if self._session is None or processes.rank > 0 or measured.processes.size < processes.size:
            return None
        where = key_of([center, directions.vectors], {})[:12]
        return self._session.path.with_name(f".{self._session.path.name}.{self._group}.{data}@{where}.points")


def _grid(found: Surface, data: str) -> dict[str, Any]:
    row: dict[str, Any] = {f"axis_{index}": axis for index, axis in enumerate(found.axes)}
    row |= {f"surface_{data}_loss": found.loss, f"surface_{data}_error": found.error}
    if data == "train":
        finite = found.loss[np.isfinite(found.loss)]
        row["surface_max_train_loss"] = finite.max() if len(finite) else np.nan
    return row


def _stored(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().float().numpy()
