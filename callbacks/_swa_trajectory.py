"""Record the trajectory of the weights and their running average, and measure the average beside the iterate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape.averaging import OnlinePCA, RunningMean, recompute_batchnorm
from landscape.averaging._components import GROUP_SUFFIX
from landscape.callbacks._arguments import at_least, one_of
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._components_rows import (
    components_axes,
    components_row,
    components_schema,
    components_variables,
    event_row,
)
from landscape.callbacks._session import Session
from landscape.callbacks._state import ModuleState
from landscape.objective import Objective
from landscape.record import Coordinate, Run, Variable, open_run


class SWATrajectory(LandscapeCallback):
    """Snapshots of the weights from `start` on, and stochastic weight averaging that never touches the training.

    Group `swa_trajectory`. Each event stores the weights (float32, or float64 for a float64 module) and all other
    state, adds them to the running mean, and measures loss and error of the mean: batch-normalisation statistics
    recomputed over the measured examples, each example counting once, dropout off. Afterwards
    `open_run(path).state_dict(step, average="swa")` gives the averaged module back, and any other window can be
    averaged from the snapshots.

    Stored: P numbers a kept event. In memory: the mean, twice P float64 numbers while an event is taken; with
    `components`, as many vectors more.

    Args:
        start: Where to begin: an epoch (an integer, from 0), or a fraction of max_epochs, or of max_steps where
            the epochs have no end (a float below 1).
        every_n_epochs: Take a snapshot at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Take a snapshot after every n-th optimizer step; with every_n_epochs too, at both.
        dtype: "float16" or "bfloat16" store rounded weights in half the space, and the mean is then that of the
            rounded ones; by default nothing is lost.
        keep: Store and average the weights of every n-th event only; the others go into the components. 1 keeps all.
        components: Number of principal components of the trajectory to keep along, in which every event has its
            coordinates (`landscape.averaging.recorded_components`); the components themselves are written when the fit
            ends, to the group `swa_trajectory_components`.
        evaluate: False records the weights alone: no loss of the iterate, no mean (so no callback with weights="swa"),
            no measurement batches. It then costs little more than writing the file.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, noise_seed, seed,
            batches, log, name.
    """

    group = "swa_trajectory"
    default_every_n_epochs = 1
    description = (
        "weights along the training, and their running mean (stochastic weight averaging) measured beside them"
    )
    averages = True

    def __init__(
        self,
        start: int | float = 0,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        dtype: str | None = None,
        keep: int = 1,
        components: int = 0,
        evaluate: bool = True,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        if self.weights != "iterate":
            raise ValueError("SWATrajectory makes the average itself, so its weights cannot be 'swa'")
        if start < 0 or (isinstance(start, float) and start >= 1):
            raise ValueError(
                f"start is {start}; it must be an epoch (an integer from 0 on) or a fraction of the epochs (a float "
                "from 0.0 to below 1.0)"
            )
        one_of((None, *_ROUNDED), dtype=dtype)
        at_least(1, keep=keep)
        at_least(0, components=components)
        self.start = start
        self.dtype, self.keep, self.components, self.evaluate = dtype, keep, components, evaluate
        self.averages = evaluate
        self._mean = RunningMean()
        self._pca = OnlinePCA(components) if components else None
        self._resumed: dict[str, Any] = {}
        self._events = 0
        self._state: ModuleState | None = None
        self._fresh: dict[str, torch.Tensor] = {}

    @property
    def average(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | None:
        """The running mean as a flat vector, with the batch-normalisation statistics that belong to it."""
        return (self._mean.value, self._fresh) if self._mean.count else None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        return {name: getattr(self, name) for name in ("start", "dtype", "keep", "components", "evaluate")}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return tuple(name for name, _ in _MEAN_SCALARS) if self.evaluate else ()

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        state = ModuleState(module)
        exact = "f8" if state.weight_dtype == torch.float64 else "f4"
        dtype = {"float16": "f2", "bfloat16": "f4", None: exact}[self.dtype]
        about = "trainable parameters, flat; see /parameters"
        storage = self.dtype if self.dtype == "bfloat16" else None
        variables = [
            Variable("weights", ("parameter",), dtype, description=about, storage=storage),
            Variable("buffers", ("buffer",), description="buffers, flat; names and shapes in the attributes"),
            Variable("kept", (), "i1", description="1: the weights are stored in this row; 0: left out, as keep= says"),
        ]
        if self.evaluate:
            variables += [
                Variable("swa_buffers", ("buffer",), description="the same with batch-norm statistics of the mean"),
                Variable("n_averaged", (), "i8", description="snapshots in the mean"),
                Variable("distance", description="l2 distance of the iterate from the mean"),
            ]
            variables += [Variable(name, description=text) for name, text in _MEAN_SCALARS]
        axes = [
            Coordinate("parameter", state.layout.total, description="index in the flat vector"),
            Coordinate("buffer", state.buffer_layout.total, description="index in the flat buffers"),
        ]
        if self.components:
            variables += components_variables()
            axes += components_axes(self.components)
        return {"variables": variables, "attributes": state.attributes(), "coordinates": axes}

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Store what does not change, and take the mean of a resumed run up again from its file."""
        self._state = ModuleState(module)
        self._mean, self._fresh, self._events = RunningMean(), {}, 0
        resumed, self._resumed = self._resumed, {}
        if self.components:
            self._pca = OnlinePCA(self.components)
            session.declare(components_schema(self._group, self.components, self._state.layout.total))
            if resumed:
                self._pca.load_state_dict(resumed)
        if session.recorder is not None:
            session.recorder.write_static(
                self._group, "constants", self._state.constants(), ("constant",), description="frozen parameters, flat"
            )
            self._take_up(open_run(session.path))
        # Only the first process reads the file, and all of them measure the mean.
        self._mean, self._fresh, self._events = session.processes.first((self._mean, self._fresh, self._events))

    def _take_up(self, run: Run) -> None:
        """Count the events of a resumed run, and take their mean."""
        assert self._state is not None
        self._events = int(
            (run._source.read([self._group], lambda _: ["status"])[self._group].rows["status"] == 0).sum()
        )
        if not self._events or not self.evaluate:
            return
        contents = run.dataset(self._group)
        good = (contents["status"].values == "ok") & (contents["kept"].values == 1)
        for row in contents["weights"].values[good]:
            self._mean.update(torch.from_numpy(row))
        if good.any():
            self._fresh = self._state.statistics(contents["swa_buffers"].values[good][-1])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the principal components, once the last event is in."""
        super().on_train_end(trainer, pl_module)
        if self._session is not None and self._pca is not None and self._pca.count:
            with self._failures.passing("record the principal components"):
                row = components_row(self._pca) | {"step": trainer.global_step, "epoch": trainer.current_epoch - 1}
                self._session.append(self._group + GROUP_SUFFIX, row)

    def _begun(self, trainer: Any) -> bool:
        if isinstance(self.start, int):
            return bool(trainer.current_epoch >= self.start)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            return bool(trainer.current_epoch + 1 > self.start * trainer.max_epochs)
        return bool(trainer.global_step >= self.start * trainer.max_steps)  # no end by epochs; -1 where there is none

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Take a snapshot, and measure the mean with it."""
        state = self._state or ModuleState(objective.module)
        weights = objective.vector()
        row, stored = self._snapshot(state, weights)
        if row["kept"]:
            running = copy.deepcopy(self._mean)
            running.update(stored)
            mean = running.value.to(weights)
            fresh = recompute_batchnorm(objective, mean)
            train = objective.evaluate(mean, fresh)
            held = held_out.evaluate(mean, fresh) if held_out is not None else None
            row |= {
                "swa_buffers": state.buffers(fresh),
                "n_averaged": running.count,
                "distance": float(torch.linalg.vector_norm(weights.double() - mean.double())),
                "swa_train_loss": train.loss,
                "swa_train_error": train.error,
                "swa_held_out_loss": held.loss if held else np.nan,
                "swa_held_out_error": held.error if held else np.nan,
            }
            self._mean, self._fresh = running, fresh  # only now: weights of a failed row are not averaged
        return row | self._follow(stored)

    def _measure(self, session: Session, trainer: Any, module: Any, row: dict[str, Any]) -> dict[str, Any]:
        if self.evaluate:
            return super()._measure(session, trainer, module, row)
        state = self._state or ModuleState(module)
        taken, stored = self._snapshot(state, state.vector())
        return taken | self._follow(stored)

    def _provenance(self, session: Session, trainer: Any, module: Any) -> dict[str, Any]:
        return super()._provenance(session, trainer, module) if self.evaluate else {}

    def _snapshot(self, state: ModuleState, weights: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
        """Return what every row holds, and the weights as they read from the file."""
        exact = weights.to("cpu", state.weight_dtype)
        stored = exact.to(_ROUNDED[self.dtype]) if self.dtype else exact
        if not torch.isfinite(stored).all():
            what = f"do not fit into {self.dtype}" if torch.isfinite(exact).all() else "are not finite"
            raise MeasurementError(
                f"the weights {what}, so they are not recorded; look at the learning rate, or at dtype="
            )
        if self._events % self.keep:
            return {"kept": 0}, exact
        stored = stored.float() if self.dtype == "bfloat16" else stored
        return {"kept": 1, "weights": stored.numpy(), "buffers": state.buffers()}, stored

    def _follow(self, stored: torch.Tensor) -> dict[str, Any]:
        """Count the event and take its weights into the components."""
        self._events += 1
        return {} if self._pca is None else event_row(self._pca.update(stored.to(self._state_dtype(stored))))

    @staticmethod
    def _state_dtype(stored: torch.Tensor) -> torch.dtype:
        return torch.promote_types(stored.dtype, torch.float32)

    def state_dict(self) -> dict[str, Any]:
        """Keep the components for a resumed training; the mean is taken up again from the file."""
        own = {} if self._pca is None or not self._pca.count else {"components": self._pca.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the components up again."""
        super().load_state_dict(state_dict)
        self._resumed = dict(state_dict.get("components", {}))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the module out of pickles and copies."""
        return super().__getstate__() | {"_state": None}


_ROUNDED = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_MEAN_SCALARS = (
    ("swa_train_loss", "loss of the mean on the measured training examples"),
    ("swa_train_error", "fraction of wrong labels of the mean on them"),
    ("swa_held_out_loss", "loss of the mean on the measured held-out examples"),
    ("swa_held_out_error", "fraction of wrong labels of the mean on them"),
)
