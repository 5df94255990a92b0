"""Record how two solutions are connected: along the straight line, and along a trained curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape._distributed import ALONE
from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.callbacks._arguments import counts, positive
from landscape.callbacks._axes import flat_by_name, flat_layout, without_vectors
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.callbacks._fork import fork_path, generator_states, restore_generators, save_fork, stored_states
from landscape.callbacks._session import Session
from landscape.callbacks._weights_file import load_weights
from landscape.connectivity import DEFINITIONS, PathProfile, barriers, path_integral, profile
from landscape.connectivity._curves import Owned
from landscape.connectivity._length import arc_lengths
from landscape.connectivity._training import fitted
from landscape.objective import Objective
from landscape.record import Coordinate, Variable

_PATHS = ("linear", "bezier")
_STEPS = (500, 250, 125, 60)  # steps of the curve in smaller forms
_LEAST_STEPS, _POINTS = 30, 7  # steps of the curve, and points on each path in the smallest form


class ModeConnectivity(LandscapeCallback):
    """The linear path and a trained quadratic Bézier curve between two solutions, and the barriers along both.

    Group `mode_connectivity`. Measured once, when the fit ends, unless a cadence is given. One end is the present
    weights; the other is this run's own weights after epoch `since`, or another training's final weights (`other`). The
    curve is trained on functional parameters: no special model classes, and the training itself is not touched. See
    `landscape.connectivity`.

    Linear mode connectivity of runs that share a prefix (Frankle et al. 2020, arXiv:1912.05671): with `fork_at` the
    training is kept as it is at the end of an epoch, in a checkpoint `<run file>-fork-epoch<n>.ckpt` beside the run
    file. Another training goes on from there with other noise, in a file of its own, and measures against the first:

        seed_everything(1)  # the first training had 0
        callbacks = [SWATrajectory(), ModeConnectivity(other="first/landscape.h5")]
        Trainer(callbacks=callbacks, ...).fit(module, ckpt_path="first/landscape-fork-epoch5.ckpt")

    The linear barrier in its file is the instability of the first training at that epoch. (A data loader with a seeded
    generator of its own needs another seed too.)

    Args:
        other: A run file with a recorded SWATrajectory, or a Lightning or torch checkpoint of the same architecture,
            whose weights are the other end.
        since: Without `other`: the other end is this run's weights at the end of this epoch (1 is the first).
        fork_at: Keep the training at the end of this epoch (1 is the first), so that others can go on from there.
        replay: In a training that goes on from such a checkpoint, also take up the random generators of the first
            (torch's, numpy's, Python's and those of the training loader), so that it does the same again.
        points: Number of points t on each path, both ends included.
        curve_steps: Optimisation steps that the bend is trained for.
        curve_learning_rate: Their learning rate.
        progress: Whether the curve's training shows a progress bar; by default when stderr is a terminal.
        every_n_epochs: Measure at the end of every n-th epoch instead.
        every_n_steps: Measure after every n-th optimizer step instead, with every_n_epochs too: at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, log, name, overhead.
    """

    group = "mode_connectivity"
    description = "loss and error along paths in weight space between two solutions"
    whole = "joins two solutions, which differ in all trainable parameters"

    def __init__(
        self,
        other: str | Path | None = None,
        since: int = 1,
        fork_at: int | None = None,
        replay: bool = False,
        points: int = 21,
        curve_steps: int = 1000,
        curve_learning_rate: float = 0.01,
        progress: bool | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        counts(1, since=since, fork_at=fork_at, curve_steps=curve_steps)
        counts(2, points=points)
        positive(curve_learning_rate=curve_learning_rate)
        self.fork_at = fork_at
        self.replay = replay
        self._forking = False
        self._replayed: dict[str, Any] | None = None
        self.other = other
        self.since = since
        self.points = points
        self.curve_steps = curve_steps
        self.curve_learning_rate = curve_learning_rate
        self.progress = progress
        self._room = points
        self._anchor: dict[str, torch.Tensor] | None = None
        self._layout: ParameterLayout | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        other = None if self.other is None else str(self.other)
        names = ("since", "fork_at", "replay", "points", "curve_steps", "curve_learning_rate")
        return {"other": other} | {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("linear_barrier", "bezier_barrier")

    def logged(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """Return the training-loss barriers by the first definition."""
        barriers = np.asarray(measured.get("barrier_train_loss", np.full((len(_PATHS), 1), np.nan)))
        return {f"{path}_barrier": barriers[i, 0] for i, path in enumerate(_PATHS)}

    def forms(self) -> list[dict[str, Any]]:
        """Return the forms: as asked; 500, 250, 125 and 60 steps of the curve; 30 steps and 7 points on each path."""
        fewer = [{"curve_steps": steps} for steps in _STEPS if steps < self.curve_steps]
        least: dict[str, Any] = {"points": _POINTS} if self.points > _POINTS else {}
        least |= {"curve_steps": _LEAST_STEPS} if self.curve_steps > _LEAST_STEPS else {}
        return [{}, *fewer, least]

    def work(self) -> Work:
        """Return the expected work of one event."""
        passes = 5.0 * self.curve_steps + 2.0 * self.points
        return Work(batch_gradients=float(self.curve_steps), both=2.0 * self.points, passes=passes, vectors=7)

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        variables = []
        for data in ("train", "held_out"):
            for kind, unit in (("loss", "loss"), ("error", "fraction of wrong labels")):
                name = f"{data}_{kind}"
                where = f"{unit} on the measured {data.replace('_', '-')} examples"
                variables.append(Variable(f"curve_{name}", ("path", "t"), description=f"{where} along the path"))
                axes = ("path", "definition")
                variables.append(Variable(f"barrier_{name}", axes, description=f"barrier of the {where}"))
                stderr = f"standard error over examples of the barrier of the {where}"
                variables.append(Variable(f"barrier_{name}_stderr", axes, description=stderr))
        vector = ("parameter",)
        variables += [
            Variable("end_a", vector, "f4", description="weights at t=0: the other solution"),
            Variable("control", vector, "f4", description="bend of the Bezier curve"),
            Variable("end_b", vector, "f4", description="weights at t=1: this training at the row's step"),
            Variable("distance", description="l2 distance of the two ends"),
            Variable("path_length", ("path",), description="arc length of the path, in units of the weights"),
            Variable("path_train_loss", ("path",), description="mean training loss over the path by arc length"),
        ]
        self._layout = flat_layout(self, trainer, module)
        coordinates = [
            Coordinate("path", _PATHS, description="straight line, or quadratic Bezier curve with a trained bend"),
            Coordinate("t", np.linspace(0.0, 1.0, self.points), description="position on the path"),
            Coordinate("definition", DEFINITIONS, description="what the largest value is compared with"),
            Coordinate("parameter", self._layout.total, description="index in the flat vector"),
        ]
        return {"variables": variables, "coordinates": coordinates}

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Forget the weights of a former training that this callback was used in."""
        if trainer.global_step == 0:
            self._anchor = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the weights of epoch `since`, then measure where the cadence says so."""
        wanted = self._session is not None and self.other is None and self._anchor is None
        if wanted and trainer.current_epoch + 1 == self.since:
            named = [(name, p.detach()) for name, p in pl_module.named_parameters() if p.requires_grad]
            self._anchor = {name: p.to("cpu", torch.float32, copy=True) for name, p in named}
        if self.fork_at == trainer.current_epoch + 1 and not trainer.fast_dev_run:
            self._keep_fork(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take up the generators of the training that this one replays, and prepare the recording."""
        super().on_train_start(trainer, pl_module)
        if self._replayed is not None:
            restore_generators(trainer, self._replayed)
            self._replayed = None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure where there is no cadence; tell where the epoch to be kept never came."""
        if self.fork_at is not None and self.fork_at > trainer.current_epoch and not trainer.fast_dev_run:
            self._failures.warn(
                f"could not keep epoch {self.fork_at}: the training ended after {trainer.current_epoch}"
            )
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Make a checkpoint that others go on from: without our run's file, with the random generators."""
        if self._forking:
            for callback in trainer.callbacks:
                if isinstance(callback, LandscapeCallback):
                    checkpoint.get("callbacks", {}).pop(callback.state_key, None)
            checkpoint["landscape_fork"] = generator_states(trainer)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Remember the generators to take up, where a training is replayed."""
        if self.replay:
            self._replayed = stored_states(checkpoint)

    def _keep_fork(self, trainer: Any) -> None:
        if self._session is None:
            return
        assert self.fork_at is not None
        self._forking = True
        try:
            with self._failures.passing(f"keep epoch {self.fork_at}"):
                save_fork(trainer, fork_path(self._session.path, self.fork_at))
        finally:
            self._forking = False

    def state_dict(self) -> dict[str, Any]:
        """Keep the anchor's weights for a resumed training."""
        anchor = {} if self._anchor is None else {"anchor": self._anchor}
        return super().state_dict() | anchor

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the anchor's weights up again."""
        super().load_state_dict(state_dict)
        anchor = state_dict.get("anchor")
        self._anchor = {"": anchor} if isinstance(anchor, torch.Tensor) else anchor  # older ones hold a flat vector

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Train the curve and measure both paths."""
        processes = ALONE if self._session is None else self._session.processes
        # Only the first process reads the other's file: elsewhere it may be missing.
        found = processes.first(self._other_end(objective) if processes.rank == 0 else None)
        assert found is not None
        # On the CPU one end is the anchor itself: of a large model every copy counts.
        ends = Owned((found.to(objective.device, objective.dtype), objective.vector()))
        del found
        line = fitted(objective, ends, kind="linear")
        bezier = fitted(
            objective,
            ends,
            steps=self.curve_steps,
            learning_rate=self.curve_learning_rate,
            seed=self.seed,
            progress=self.progress,
        )
        start, end = ends
        t = np.linspace(0.0, 1.0, self._room)
        chosen = np.unique(np.linspace(0, self._room - 1, self.points).round().astype(int))
        t = t[chosen]
        row: dict[str, Any] = {
            "end_a": _stored(start),
            "control": _stored(bezier.points[1]),
            "end_b": _stored(end),
            "distance": float(arc_lengths(line, np.array([0.0, 1.0]))[0]),
        }
        profiles = {"train": [profile(curve, objective, t) for curve in (line, bezier)]}
        integrals = [path_integral(curve, each) for curve, each in zip((line, bezier), profiles["train"], strict=True)]
        row["path_length"] = [integral.length for integral in integrals]
        row["path_train_loss"] = [integral.loss for integral in integrals]
        if held_out is not None:
            profiles["held_out"] = [profile(curve, held_out, t) for curve in (line, bezier)]
        for data, measured in profiles.items():
            row |= _columns(data, measured, chosen, self._room)
        declared = self._layout or objective.layout.plain()
        return without_vectors(row, ("end_a", "control", "end_b"), objective.layout, declared)

    def _other_end(self, objective: Objective) -> torch.Tensor:
        if self.other is not None:
            return load_weights(self.other, objective.layout, objective.module)
        if self._anchor is None:
            raise MeasurementError(
                f"the weights after epoch {self.since} were not seen, so there is nothing to connect to; train for "
                "more than that, or set since= or other="
            )
        start = flat_by_name(self._anchor, objective.layout, self.since)
        self._anchor = objective.layout.named(start)  # the same numbers: they are held once
        return start


def _columns(data: str, profiles: list[PathProfile], chosen: np.ndarray, points: int) -> dict[str, Any]:
    """Return the columns of one set of examples; points of the axis that were not measured are NaN."""
    columns: dict[str, Any] = {}
    measured = [{(each.which, each.definition): each for each in barriers(profile)} for profile in profiles]
    for kind in ("loss", "error"):
        columns[f"curve_{data}_{kind}"] = curves = np.full((len(profiles), points), np.nan)
        curves[:, chosen] = np.stack([getattr(profile, kind) for profile in profiles])
        found = [[path[kind, definition] for definition in DEFINITIONS] for path in measured]
        columns[f"barrier_{data}_{kind}"] = [[each.value for each in path] for path in found]
        columns[f"barrier_{data}_{kind}_stderr"] = [[each.stderr for each in path] for path in found]
    return columns


def _stored(vector: torch.Tensor) -> np.ndarray:
    return vector.detach().cpu().float().numpy()
