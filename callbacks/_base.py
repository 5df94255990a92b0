"""The base of all callbacks: when to measure, how to keep the training untouched, what to do when it fails."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from landscape._distributed import Processes
from landscape._errors import MeasurementError
from landscape.callbacks._arguments import one_of, positive
from landscape.callbacks._averaged import average_for, averager_before
from landscape.callbacks._bases import CallbackBase
from landscape.callbacks._failing import Failures, sentence
from landscape.callbacks._processes import processes_of
from landscape.callbacks._provenance import plain
from landscape.callbacks._resuming import Resumable, find_former, run_path
from landscape.callbacks._session import Measured, Session, evaluate, losses, session_of, trainable_columns
from landscape.objective import Evaluation, Objective
from landscape.record import GroupSchema


class LandscapeCallback(Resumable, CallbackBase):
    """Measures at a cadence and records one row an event; subclasses say what.

    In data-parallel training the processes share the measurement batches and all get the same numbers, which rank 0
    writes; a measurement that fails in one fails in all. Batches are not cut: give `batch_size` where there are fewer
    batches than processes.

    Args:
        every_n_epochs: Measure at the end of every n-th epoch.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both. With neither, the
            class's own cadence holds: `default_every_n_epochs`, or once, when the fit ends, where that is None.
        examples: Number of training examples measured, drawn once with `seed` from those that the loader's sampler
            yields; None for all. A loader with a batch sampler of its own gives whole batches. Of an iterable dataset
            the first examples are measured. Where it cannot be copied, they are kept aside as the training receives
            them: events before that fail, and the set is complete after the first epoch at the latest. As many
            validation examples, where there are any, give the held-out loss and error.
        batch_size: Examples a measurement batch; by default that of the training loader. Refused where batches cannot
            be cut anew.
        path: The run file; by default `landscape.h5` in the Trainer's log_dir. All callbacks of a Trainer that name no
            path share one file.
        on_error: "warn" records a failed measurement as failed, warns once and lets the training go on; "raise" raises.
        mode: "eval" or "train": the mode that the module is measured in.
        weights: "iterate" measures the present weights; "swa" the running mean of the SWATrajectory among the Trainer's
            callbacks (which must stand before this one), from its start on, with recomputed batch-normalisation
            statistics.
        noise_seed: Fixes the noise of modules that draw random numbers in their loss; see `Objective`.
        seed: Seed of the examples and of the measure's own draws.
        batches: Measurement batches as training_step receives them, instead of drawn ones.
        log: Also send the scalars to the Trainer's loggers and callback_metrics, as `landscape/<name>`, where
            EarlyStopping and ModelCheckpoint find them; NaN where nothing could be measured.
        name: Name of the group in the file; by default the measure's, with `_swa` where the mean is measured.
    """

    group: str = ""
    default_every_n_epochs: int | None = None
    description: str = ""
    averages: bool = False  # whether it keeps a running mean for callbacks with weights="swa"

    def __init__(
        self,
        *,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        examples: int | None = 1024,
        batch_size: int | None = None,
        path: str | Path | None = None,
        on_error: str = "warn",
        mode: str = "eval",
        weights: str = "iterate",
        noise_seed: int | None = None,
        seed: int = 0,
        batches: Iterable[Any] | None = None,
        log: bool = False,
        name: str | None = None,
    ):
        super().__init__()
        positive(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, examples=examples, batch_size=batch_size)
        one_of(("warn", "raise"), on_error=on_error)
        one_of(("eval", "train"), mode=mode)
        one_of(("iterate", "swa"), weights=weights)
        without = every_n_epochs is None and every_n_steps is None
        self.every_n_epochs = self.default_every_n_epochs if without else every_n_epochs
        self.every_n_steps = every_n_steps
        self.path = path
        self.on_error = on_error
        self._failures = Failures(type(self).__name__, raising=on_error == "raise")
        self.weights = weights
        self._logging = log  # `log` itself is the LightningModule's, which the Trainer attaches to every callback
        self.name = name
        self.seed = seed
        self.measured = Measured(examples, batch_size, mode, noise_seed, seed)
        self.batches = None if batches is None else list(batches)
        self._group = ""
        self._described = False
        self._session: Session | None = None
        self._last_step = -1
        self._logged: dict[str, float] = {}
        self._seen_step = 0
        self._learning_rate = math.nan
        self.former_run = {}

    # ------------------------------------------------------------------ what subclasses say

    def settings(self) -> dict[str, Any]:
        """Return the measure's own settings, recorded as attributes of the group."""
        return {}

    @abc.abstractmethod
    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return `variables`, `coordinates` and further `attributes` of the group, before anything is measured."""

    @abc.abstractmethod
    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Take the measure and return a row; called within the objective's isolation."""

    @abc.abstractmethod
    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the scalars that `log=True` sends to the loggers."""

    def logged(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """Return the logged scalars by name out of a measured row."""
        return {name: measured.get(name, float("nan")) for name in self.scalar_names()}

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Prepare, once the file is open and the group declared."""

    # ------------------------------------------------------------------ when

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open or resume the run file and declare the group."""
        self._session = None
        self._logged = {}
        self._seen_step = trainer.global_step
        self._failures.renew()
        if trainer.fast_dev_run:
            return
        with self._failures.passing("prepare the recording"):
            processes = processes_of(trainer)
            with processes.together():
                session = self._open(trainer, pl_module, processes)
            self._session = session  # in all processes, or in none

    def _open(self, trainer: Any, module: Any, processes: Processes) -> Session:
        former = find_former(self, trainer)
        path = run_path(self, trainer, former)
        session = session_of(trainer, path, former.get("run_id"), processes)
        session.open(trainer, module, resumed=bool(former))
        default = self.group if self.weights == "iterate" else f"{self.group}_{self.weights}"
        self._group = session.claim(self.name or default, self)
        declared = self.schema(trainer, module)
        own = {"callback": type(self).__name__, "weights": self.weights, "settings": plain(self._settings())}
        known = self._provenance(session, trainer, module)
        self._described = "held_out" in known
        own |= declared.pop("attributes", {}) | known
        session.declare(GroupSchema(self._group, self.description, attributes=own, **declared))
        self.on_training_start(session, trainer, module)
        self.former_run = {"path": str(session.path), "run_id": session.run_id}
        self._last_step = trainer.global_step if former else -1
        return session

    def _provenance(self, session: Session, trainer: Any, module: Any) -> dict[str, Any]:
        """Describe the measured data; where that fails, every row will say why."""
        try:
            return session.describe(trainer, module, self.measured, self.batches)
        except Exception:
            if self.on_error == "raise":
                raise
            return {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep the batch aside where the training's data can be read only once."""
        if self._session is not None:
            with self._failures.passing("keep a batch aside"):
                self._session.data.offer(trainer, batch, batch_idx)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the learning rate: when a row is written, a scheduler may have moved on to the next step's."""
        if trainer.optimizers and optimizer is trainer.optimizers[0]:
            self._learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure where the number of optimizer steps says so."""
        # Accumulated gradients leave it as it was after most batches; several optimizers move it by more than one.
        before, self._seen_step = self._seen_step, trainer.global_step
        if self.every_n_steps and self._seen_step // self.every_n_steps > before // self.every_n_steps:
            self._event(trainer, pl_module, batch_idx)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure where the number of epochs says so."""
        if self._session is not None:
            self._session.data.end_epoch()
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._event(trainer, pl_module, trainer.fit_loop.batch_idx)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure once where there is no cadence."""
        if not self.every_n_epochs and not self.every_n_steps:
            self._event(trainer, pl_module, trainer.fit_loop.batch_idx, may_log=False)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write what is buffered; the training is ending with an error of its own."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write what is buffered."""
        if stage == "fit":
            self._close()

    # ------------------------------------------------------------------ one event

    def _event(self, trainer: Any, module: Any, batch_index: int, may_log: bool = True) -> None:
        step, session = trainer.global_step, self._session
        if trainer.fast_dev_run or step == self._last_step:
            return
        if session is not None and self._begun(trainer):
            self._last_step = step
            measured = self._record(session, trainer, module, batch_index, after=not may_log)
            # A failed measurement is logged as NaN: a monitored metric that vanished would stop the training.
            self._logged = self.logged(measured) if measured else {}
        if self._logging and may_log:
            self._log(module)

    def _record(self, session: Session, trainer: Any, module: Any, batch_index: int, after: bool) -> dict[str, Any]:
        started = time.perf_counter()
        row: dict[str, Any] = {
            "step": trainer.global_step,
            # After the last epoch Lightning counts on, to an epoch that will not be.
            "epoch": max(0, trainer.current_epoch - after),
            "batch_index": batch_index,
            "learning_rate": self._learning_rate,
        } | trainable_columns(module)
        measured: dict[str, Any] = {}
        status: dict[str, Any] = {"status": 0, "reason": ""}
        try:
            with session.processes.together():
                measured = self._measure(session, trainer, module, row)
        except Exception as error:
            if self.on_error == "raise":
                raise
            measured = {}  # where another process failed
            status = {"status": 1, "reason": sentence(error)}
            self._failures.warn(f"could not measure at step {row['step']}: {sentence(error)}")
        seconds = {"wall_seconds": time.perf_counter() - started}
        with self._failures.passing(f"record step {row['step']}"), session.processes.together():
            session.append(self._group, row | status | measured | seconds)
        return measured

    def _measure(self, session: Session, trainer: Any, module: Any, row: dict[str, Any]) -> dict[str, Any]:
        where = (trainer, module, self.measured, self.batches)
        objective, held_out = session.shared(*where)
        if not self._described:  # the group was declared before the data were known
            with self._failures.passing("describe the measured data"):
                session.describe_group(self._group, session.describe(*where))
                self._described = True
        if self.weights == "iterate":
            train, held = session.evaluations(*where)
        else:
            average = average_for(self, trainer, objective.layout)
            objective = objective.at(*average)
            held_out = held_out and held_out.at(*average)
            train, held = evaluate(objective, held_out)
        row |= losses(train, held)
        return self.take(objective, held_out, train, trainer)

    def take(
        self, objective: Objective, held_out: Objective | None, train: Evaluation, trainer: Any = None
    ) -> dict[str, Any]:
        """Take the measure at the objective's weights, whose loss `train` must be finite."""  # noqa: DOC201, DOC501
        if not math.isfinite(train.loss):
            raise MeasurementError(
                f"the loss on the measured training examples is {train.loss}, so there is no landscape around these "
                "weights; look for a learning rate that is too large"
            )
        with objective.session():
            return dict(self.measure(objective, held_out, trainer))

    def _begun(self, trainer: Any) -> bool:
        """Whether there is something to measure yet: the running mean begins at its own time."""
        averager = averager_before(self, trainer) if self.weights == "swa" else None
        return averager is None or averager.average is not None

    @property
    def average(self) -> tuple[Any, dict[str, Any]] | None:
        """The running mean that this callback keeps, with its buffers; None for those that keep none."""
        return None

    def _log(self, module: Any) -> None:
        values = {name: float(self._logged.get(name, math.nan)) for name in self.scalar_names()}
        module.log_dict({f"landscape/{name}": value for name, value in values.items()})

    def _settings(self) -> dict[str, Any]:
        common: dict[str, Any] = {"every_n_epochs": self.every_n_epochs, "every_n_steps": self.every_n_steps}
        common["weights"] = self.weights
        return common | vars(self.measured) | self.settings()

    def _close(self) -> None:
        if self._session is not None:
            with self._failures.ending("write the last rows"):
                self._session.close()
