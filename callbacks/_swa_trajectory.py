"""Record the trajectory of the weights and their running average, and measure the average beside the iterate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from landscape.averaging import RunningMean, recompute_batchnorm
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._session import Session
from landscape.callbacks._state import ModuleState
from landscape.objective import Objective
from landscape.record import Coordinate, Variable, open_run


class SWATrajectory(LandscapeCallback):
    """Snapshots of the weights from `start` on, and stochastic weight averaging that never touches the training.

    Group `swa_trajectory`. Each event stores the weights (float32, or float64 for a float64 module) and all other
    state, adds them to the running mean, and measures loss and error of the mean: batch-normalisation statistics
    recomputed over the measured examples, each example counting once, dropout off. Afterwards
    `open_run(path).state_dict(step, average="swa")` gives the averaged module back, and any other window can be
    averaged from the snapshots.

    Stored: P numbers an event. In memory: the mean, twice P float64 numbers while an event is taken.

    Args:
        start: Where to begin: an epoch (an integer, from 0), or a fraction of max_epochs, or of max_steps where
            the epochs have no end (a float below 1).
        every_n_epochs: Take a snapshot at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Take a snapshot after every n-th optimizer step; with every_n_epochs too, at both.
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
        self.start = start
        self._mean = RunningMean()
        self._state: ModuleState | None = None
        self._fresh: dict[str, torch.Tensor] = {}

    @property
    def average(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | None:
        """The running mean as a flat vector, with the batch-normalisation statistics that belong to it."""
        return (self._mean.value, self._fresh) if self._mean.count else None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        return {"start": self.start}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("swa_train_loss", "swa_train_error", "swa_held_out_loss", "swa_held_out_error")

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        state = ModuleState(module)
        weights = "f8" if state.weight_dtype == torch.float64 else "f4"
        return {
            "variables": [
                Variable("weights", ("parameter",), weights, description="trainable parameters, flat; see /parameters"),
                Variable("buffers", ("buffer",), description="buffers, flat; names and shapes in the attributes"),
                Variable("swa_buffers", ("buffer",), description="the same with batch-norm statistics of the mean"),
                Variable("n_averaged", (), "i8", description="snapshots in the mean"),
                Variable("distance", description="l2 distance of the iterate from the mean"),
                Variable("swa_train_loss", description="loss of the mean on the measured training examples"),
                Variable("swa_train_error", description="fraction of wrong labels of the mean on them"),
                Variable("swa_held_out_loss", description="loss of the mean on the measured held-out examples"),
                Variable("swa_held_out_error", description="fraction of wrong labels of the mean on them"),
            ],
            "attributes": state.attributes(),
            "coordinates": [
                Coordinate("parameter", state.layout.total, description="index in the flat vector"),
                Coordinate("buffer", state.buffer_layout.total, description="index in the flat buffers"),
            ],
        }

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Store what does not change, and take the mean of a resumed run up again from its file."""
        self._state = ModuleState(module)
        self._mean = RunningMean()
        self._fresh = {}
        if session.recorder is not None:
            session.recorder.write_static(
                self._group, "constants", self._state.constants(), ("constant",), description="frozen parameters, flat"
            )
            contents = open_run(session.path).dataset(self._group)
            good = contents["status"].values == "ok"
            for row in contents["weights"].values[good]:
                self._mean.update(torch.from_numpy(row))
            if good.any():
                self._fresh = self._state.statistics(contents["swa_buffers"].values[good][-1])
        # Only the first process reads the file, and all of them measure the mean.
        self._mean, self._fresh = session.processes.first((self._mean, self._fresh))

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
        stored = weights.to("cpu", state.weight_dtype)
        running = copy.deepcopy(self._mean)
        running.update(stored)
        mean = running.value.to(weights)
        fresh = recompute_batchnorm(objective, mean)
        train = objective.evaluate(mean, fresh)
        held = held_out.evaluate(mean, fresh) if held_out is not None else None
        self._mean, self._fresh = running, fresh  # only now: weights of a failed row are not averaged
        return {
            "weights": stored.numpy(),
            "buffers": state.buffers(),
            "swa_buffers": state.buffers(fresh),
            "n_averaged": running.count,
            "distance": float(torch.linalg.vector_norm(weights.double() - mean.double())),
            "swa_train_loss": train.loss,
            "swa_train_error": train.error,
            "swa_held_out_loss": held.loss if held else np.nan,
            "swa_held_out_error": held.error if held else np.nan,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave the module out of pickles and copies."""
        return super().__getstate__() | {"_state": None}
