"""Record how two solutions are connected: along the straight line, and along a trained curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._session import Session
from landscape.callbacks._weights_file import load_weights
from landscape.connectivity import DEFINITIONS, PathProfile, barrier, fit_curve, profile
from landscape.objective import Objective
from landscape.record import Coordinate, Variable

_PATHS = ("linear", "bezier")


class ModeConnectivity(LandscapeCallback):
    """The linear path and a trained quadratic Bézier curve between two solutions, and the barriers along both.

    Group `mode_connectivity`. Measured once, when the fit ends, unless a cadence is given. One end is the present
    weights; the other is this run's own weights after epoch `since`, or another training's final weights (`other`). The
    curve is trained on functional parameters: no special model classes, and the training itself is not touched. See
    `landscape.connectivity`.

    Args:
        other: A run file with a recorded SWATrajectory, or a Lightning or torch checkpoint of the same architecture,
            whose weights are the other end.
        since: Without `other`: the other end is this run's weights at the end of this epoch (1 is the first).
        points: Number of points t on each path, both ends included.
        curve_steps: Optimisation steps that the bend is trained for.
        curve_learning_rate: Their learning rate.
        progress: Whether the curve's training shows a progress bar; by default when stderr is a terminal.
        every_n_epochs: Measure at the end of every n-th epoch instead.
        every_n_steps: Measure after every n-th optimizer step instead, with every_n_epochs too: at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, log, name.
    """

    group = "mode_connectivity"
    description = "loss and error along paths in weight space between two solutions"

    def __init__(
        self,
        other: str | Path | None = None,
        since: int = 1,
        points: int = 21,
        curve_steps: int = 1000,
        curve_learning_rate: float = 0.01,
        progress: bool | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        if since < 1 or points < 2:
            raise ValueError(f"since={since} and points={points}: since must be at least 1, points at least 2")
        self.other = other
        self.since = since
        self.points = points
        self.curve_steps = curve_steps
        self.curve_learning_rate = curve_learning_rate
        self.progress = progress
        self._anchor: torch.Tensor | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        other = None if self.other is None else str(self.other)
        names = ("since", "points", "curve_steps", "curve_learning_rate")
        return {"other": other} | {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("linear_barrier", "bezier_barrier")

    def logged(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """Return the training-loss barriers by the first definition."""
        barriers = np.asarray(measured["barrier_train_loss"])
        return {f"{path}_barrier": barriers[i, 0] for i, path in enumerate(_PATHS)}

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        variables = []
        for data in ("train", "held_out"):
            for kind, unit in (("loss", "loss"), ("error", "fraction of wrong labels")):
                name = f"{data}_{kind}"
                where = f"{unit} on the measured {data.replace('_', '-')} examples"
                variables.append(Variable(f"curve_{name}", ("path", "t"), description=f"{where} along the path"))
                variables.append(
                    Variable(f"barrier_{name}", ("path", "definition"), description=f"barrier of the {where}")
                )
        vector = ("parameter",)
        variables += [
            Variable("end_a", vector, "f4", description="weights at t=0: the other solution"),
            Variable("control", vector, "f4", description="bend of the Bezier curve"),
            Variable("end_b", vector, "f4", description="weights at t=1: this training at the row's step"),
            Variable("distance", description="l2 distance of the two ends"),
        ]
        size = sum(p.numel() for p in module.parameters() if p.requires_grad)
        coordinates = [
            Coordinate("path", _PATHS, description="straight line, or quadratic Bezier curve with a trained bend"),
            Coordinate("t", np.linspace(0.0, 1.0, self.points), description="position on the path"),
            Coordinate("definition", DEFINITIONS, description="what the largest value is compared with"),
            Coordinate("parameter", size, description="index in the flat vector"),
        ]
        return {"variables": variables, "coordinates": coordinates}

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Forget the weights of a former training that this callback was used in."""
        if trainer.global_step == 0:
            self._anchor = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the weights of epoch `since`, then measure where the cadence says so."""
        if self.other is None and self._anchor is None and trainer.current_epoch + 1 == self.since:
            parts = [p.detach().reshape(-1).float().cpu() for p in pl_module.parameters() if p.requires_grad]
            self._anchor = torch.cat(parts)
        super().on_train_epoch_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Keep the anchor's weights for a resumed training."""
        anchor = {} if self._anchor is None else {"anchor": self._anchor}
        return super().state_dict() | anchor

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the anchor's weights up again."""
        super().load_state_dict(state_dict)
        self._anchor = state_dict.get("anchor")

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Train the curve and measure both paths."""
        start = self._other_end(objective).to(objective.device, objective.dtype)
        end = objective.vector()
        line = fit_curve(objective, start, end, kind="linear")
        bezier = fit_curve(
            objective,
            start,
            end,
            steps=self.curve_steps,
            learning_rate=self.curve_learning_rate,
            seed=self.seed,
            progress=self.progress,
        )
        t = np.linspace(0.0, 1.0, self.points)
        row: dict[str, Any] = {
            "end_a": _stored(start),
            "control": _stored(bezier.points[1]),
            "end_b": _stored(end),
            "distance": float(torch.linalg.vector_norm((end - start).double())),
        }
        profiles = {"train": [profile(curve, objective, t) for curve in (line, bezier)]}
        if held_out is not None:
            profiles["held_out"] = [profile(curve, held_out, t) for curve in (line, bezier)]
        for data, measured in profiles.items():
            row |= _columns(data, measured)
        return row

    def _other_end(self, objective: Objective) -> torch.Tensor:
        if self.other is not None:
            return load_weights(self.other, objective.layout)
        if self._anchor is None:
            raise MeasurementError(
                f"the weights after epoch {self.since} were not seen, so there is nothing to connect to; train for "
                "more than that, or set since= or other="
            )
        return self._anchor


def _columns(data: str, profiles: list[PathProfile]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for kind in ("loss", "error"):
        columns[f"curve_{data}_{kind}"] = np.stack([getattr(profile, kind) for profile in profiles])
        columns[f"barrier_{data}_{kind}"] = [
            [barrier(profile, definition, which=kind) for definition in DEFINITIONS] for profile in profiles
        ]
    return columns


def _stored(vector: torch.Tensor) -> np.ndarray:
    return vector.detach().cpu().float().numpy()
