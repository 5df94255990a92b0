"""Record the trajectory of the weights and their running average, and measure the average beside the iterate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.averaging import OnlinePCA
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
from landscape.callbacks._effort import Work
from landscape.callbacks._failing import sentence
from landscape.callbacks._resuming import find_former
from landscape.callbacks._running_average import MEAN_SCALARS, RunningAverage, mean_variables
from landscape.callbacks._session import Session
from landscape.callbacks._state import ModuleState
from landscape.callbacks._trajectory_layouts import ROUNDED, TrajectoryLayouts, vector_variables
from landscape.objective import Objective
from landscape.record import GroupSchema, Variable, open_run
from landscape.record._layouts import States
from landscape.record._weights import kept_rows


class SWATrajectory(LandscapeCallback):
    """Snapshots of the weights from `start` on, and stochastic weight averaging that never touches the training.

    Group `swa_trajectory`. Each event stores the weights (float32, or float64 for a float64 module) and all other
    state, adds them to the running mean, and measures loss and error of the mean: batch-normalisation statistics
    recomputed over the measured examples, each example counting once, dropout off. Afterwards
    `open_run(path).state_dict(step, average="swa")` gives the averaged module back, and any other window can be
    averaged from the snapshots.

    Which parameters train is looked up at every event. Where that changes (layers are unfrozen or frozen, pruning
    renames tensors), the rows hold what trains then, and the mean begins anew. Frozen parameters are stored once, and
    again only where they have changed. Weights are stored too where their loss cannot be measured: the row is then a
    failed one that says why, and `run.state_dict(step)` reads its weights. Principal components are those of the
    parameters that train at the beginning, and end where others train.

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
            batches, log, name, overhead.
    """

    group = "swa_trajectory"
    default_every_n_epochs = 1
    description = (
        "weights along the training, and their running mean (stochastic weight averaging) measured beside them"
    )
    averages = True
    whole = "keeps the weights of the whole model, from which others are made"

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
        one_of((None, *ROUNDED), dtype=dtype)
        at_least(1, keep=keep)
        at_least(0, components=components)
        self.start = start
        self.dtype, self.keep, self.components, self.evaluate = dtype, keep, components, evaluate
        self.averages = evaluate
        self._average = RunningAverage()
        self._pca = OnlinePCA(components) if components else None
        self._resumed: dict[str, Any] = {}
        self._followed: dict[str, Any] = {}
        self._events = 0
        self._layouts: TrajectoryLayouts | None = None
        self._taken: tuple[ParameterLayout, torch.Tensor] | None = None

    @property
    def average(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | None:
        """The running mean as a flat vector, with its batch-normalisation statistics; None while these are unknown."""
        known = self._average.mean.count and self._average.fresh is not None
        return (self._average.mean.value, self._average.fresh or {}) if known else None

    @property
    def average_layout(self) -> ParameterLayout | None:
        """Names and shapes of the parameters in the running mean."""
        return self._average.layout

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        return {name: getattr(self, name) for name in ("start", "dtype", "keep", "components", "evaluate")}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return tuple(name for name, _ in MEAN_SCALARS) if self.evaluate else ()

    def lean(self) -> dict[str, Any] | None:
        """Return the changes that record the weights alone, and take them into the mean without its loss."""
        return {"evaluate": False} if self.averages else None

    def work(self) -> Work:
        """Return the expected work of one event: the mean's loss, and its batch-normalisation statistics."""
        return Work(both=1.0, passes=8.0, vectors=6) if self.evaluate else Work(passes=6.0, vectors=4)

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        state = ModuleState(module)
        variables, axes = vector_variables(state, self.dtype, self.evaluate)
        variables += [
            Variable(
                "kept", (), "i1", description="1: the weights are stored at this step; 0: left out, as keep= says"
            ),
            Variable("layout", (), "i8", description="1: vectors stand in this row; n: in the group <this>_layout_n"),
        ]
        if self.evaluate:
            variables += mean_variables()
        if self.components:
            variables += components_variables()
            axes += components_axes(self.components)
        schema = {"variables": variables, "attributes": state.attributes(), "coordinates": axes}
        former = self._former_schema(trainer)
        return schema if former is None else _in_form_of(former, schema)

    def _former_schema(self, trainer: Any) -> GroupSchema | None:
        """Return the group as the file of a resumed run has it: other parameters may train now."""
        if trainer is None or not (former := find_former(self, trainer)):
            return None
        path = former["path"]
        run = open_run(path) if trainer.is_global_zero and path is not None else None
        if run is None or self._group not in run.groups:
            return None
        return run._source.read([self._group], lambda _: [], slice(0))[self._group].schema

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Store what does not change, and take the mean of a resumed run up again from its file."""
        self._layouts = TrajectoryLayouts(self._group, self.dtype, self.evaluate)
        self._average, self._events = RunningAverage(), 0
        resumed, self._resumed = self._resumed, {}
        state = ModuleState(module)
        self._layouts.begin(session, state)
        self._followed = session.processes.first(self._layouts.first)
        if self.components:
            self._pca = OnlinePCA(self.components)
            size = sum(map(math.prod, self._followed["parameter_shapes"]))
            session.declare(components_schema(self._group, self.components, size))
            if resumed:
                self._pca.load_state_dict(resumed)
        if session.recorder is not None:
            self._take_up(state, session)
        # Only the first process reads the file, and all of them measure the mean.
        self._average, self._events = session.processes.first((self._average, self._events))

    def _take_up(self, state: ModuleState, session: Session) -> None:
        """Count the events of a resumed run, and take up the mean of its last parameters."""
        states = States(open_run(session.path)._source, group=self._group)
        rows = states.contents.rows
        self._events = int((rows["kept"] >= 0).sum())
        kept = kept_rows(states)
        if self.evaluate:
            self._average.take_up(state, states, kept[rows["status"][kept] == 0])

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
        """Measure the mean, the weights of this event among them where they are kept."""
        return {} if self._taken is None else self._average.row(objective, held_out, *self._taken)

    def _measure(self, session: Session, trainer: Any, module: Any, row: dict[str, Any]) -> dict[str, Any]:
        assert self._layouts is not None
        state = self._layouts.state(module)
        stored, problem = self._snapshot(state)
        kept = self._events % self.keep == 0
        measured: dict[str, Any] = {"kept": int(kept)}
        vectors = {"weights": stored.float().numpy() if self.dtype == "bfloat16" else stored.numpy()}
        vectors["buffers"] = state.buffers()
        if self.evaluate:
            self._taken = (state.layout, stored) if kept and problem is None else None
            try:
                with session.processes.together():
                    measured |= super()._measure(session, trainer, module, row)
                vectors |= {"swa_buffers": state.buffers(self._average.fresh or {})} if kept else {}
            except Exception as error:
                if self.on_error == "raise" or problem is not None:
                    raise
                measured |= {"status": 1, "reason": sentence(error)}
                self._failures.warn(
                    f"could not measure the loss at step {row['step']}, and recorded the weights alone: "
                    f"{sentence(error)}"
                )
        if problem is not None:
            raise MeasurementError(problem)
        if kept and self.averages and not self.evaluate:
            measured["n_averaged"] = self._average.add(state, stored)
        if kept:
            number, own = self._layouts.row(session, state, vectors, row["step"])
            measured |= {"layout": number} | own
        return self._follow(state, stored) | measured

    def _provenance(self, session: Session, trainer: Any, module: Any) -> dict[str, Any]:
        return super()._provenance(session, trainer, module) if self.evaluate else {}

    def _snapshot(self, state: ModuleState) -> tuple[torch.Tensor, str | None]:
        """Return the weights as they read from the file, and why they cannot be recorded, if that is so."""
        exact = state.vector().cpu()
        stored = exact.to(ROUNDED[self.dtype]) if self.dtype else exact
        problem = None
        if not torch.isfinite(stored).all():
            what = f"do not fit into {self.dtype}" if torch.isfinite(exact).all() else "are not finite"
            problem = f"the weights {what}, so they are not recorded; look at the learning rate, or at dtype="
        return (exact if self._events % self.keep else stored), problem

    def _follow(self, state: ModuleState, stored: torch.Tensor) -> dict[str, Any]:
        """Count the event and take its weights into the components."""
        self._events += 1
        if self._pca is None:
            return {}
        if list(state.layout.names) != self._followed["parameter_names"]:
            return {"reason": "other parameters train than at the beginning, whose principal components end here"}
        return event_row(self._pca.update(stored.to(self._state_dtype(stored))))

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
        return super().__getstate__() | {"_layouts": None, "_taken": None}


def _in_form_of(former: GroupSchema, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the vectors, sizes and tensors of a group that a file has."""
    variables = [former.all_variables.get(variable.name, variable) for variable in schema["variables"]]
    axes = [former.dimensions.get(axis.name, axis) for axis in schema["coordinates"]]
    attributes = {name: former.attributes.get(name, value) for name, value in schema["attributes"].items()}
    return {"variables": variables, "attributes": attributes, "coordinates": axes}
