"""Base of all callbacks: schedule measurements, keep the training untouched, and record what fails."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from landscape._errors import MeasurementError
from landscape._selection import as_patterns
from landscape._sharded_models import require_unsharded
from landscape.callbacks._arguments import check_batches, check_path, known_arguments, one_of, seeds, whole_positive
from landscape.callbacks._averaged import average_for, averager_before
from landscape.callbacks._bases import CallbackBase
from landscape.callbacks._failing import Failures, failed_status, sentence
from landscape.callbacks._large_models import give_back
from landscape.callbacks._logging import ScalarLog
from landscape.callbacks._parts import Parts
from landscape.callbacks._recording import Recording
from landscape.callbacks._session import Measured, Session, evaluate, losses
from landscape.callbacks._trained import trainable_columns
from landscape.objective import Evaluation, Objective


class LandscapeCallback(Recording, CallbackBase):
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
        parameters: The part of the model to measure, at the cost of this part: names or patterns such as
            `["encoder.*"]`, "lora" for adapters, or "last_layer"; see `Objective`. By default all trainable parameters.
            The columns `n_parameters` and `trainable` always tell what trains.
        log: Also send the scalars to the Trainer's loggers, once a measurement and at its step, and to
            callback_metrics. The key is `landscape/<name>`, or `landscape/<group>/<name>` in a group of another name
            than the measure's. An EarlyStopping or ModelCheckpoint that monitors one checks it only after a new
            measurement, so patience counts measurements. Between measurements, and after a failed one,
            callback_metrics holds the last good value.
        name: Name of the group in the file; by default the measure's, with `_swa` where the mean is measured.
        overhead: Share of the training's own time that the measurements may take, such as "10%" or 0.1; None keeps the
            cadence. Callbacks with equal shares and one file share it. First probes and draws are given up, then events
            down to ten, then examples, then further events. At last the measure takes its smallest form. The first
            event and the last are always measured. Each row says what was lowered; docs/overhead.md has the details.
    """

    default_every_n_epochs: int | None = None
    averages: bool = False  # whether it keeps a running mean for callbacks with weights="swa"
    whole: str = ""  # why it takes no part of a model, in words that follow the class's name

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
        parameters: str | Iterable[str] | None = None,
        overhead: str | float | None = None,
        **unknown: Any,
    ):
        super().__init__(overhead)
        known_arguments(type(self), unknown)
        whole_positive(
            every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, examples=examples, batch_size=batch_size
        )
        seeds(seed=seed, noise_seed=noise_seed)
        check_path(path)
        check_batches(batches)
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
        # `log` itself is the LightningModule's, which the Trainer attaches to every callback
        self._logged = ScalarLog(type(self).__name__) if log else None
        self.name = name
        self.seed = seed
        part = self._checked_part(parameters)
        self.measured = Measured(examples, batch_size, mode, noise_seed, seed, part)
        self.batches = None if batches is None else list(batches)
        self._learning_rate = math.nan

    def _checked_part(self, parameters: str | Iterable[str] | None) -> tuple[str, ...] | None:
        part = as_patterns(parameters)
        if part is not None and (self.whole or self.weights == "swa"):
            why = self.whole or "with weights='swa' measures a mean of all trainable parameters"
            raise ValueError(
                f"{type(self).__name__} {why}, so it takes no parameters={list(part)}; leave parameters= out here, and "
                "give it to callbacks that measure the present weights"
            )
        return part

    # ------------------------------------------------------------------ what subclasses say

    def settings(self) -> dict[str, Any]:
        """Return the measure's own settings, recorded as attributes of the group."""
        return {}

    @abc.abstractmethod
    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Take the measure and return a row; called within the objective's isolation.

        A row of several measures is best taken with `parts`, so that each fails alone. Then the row holds `status` and
        `reason` where one failed.
        """

    def logged(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """Return the logged scalars by name out of a measured row; NaN for what it lacks is not logged."""
        return {name: measured.get(name, math.nan) for name in self.scalar_names()}

    def parts(self, objective: Objective) -> Parts:
        """Return an empty row for `measure`, whose parts fail alone."""
        processes = objective.processes if self._session is None else self._session.processes
        return Parts(processes, self.on_error == "raise", type(objective.module).__name__)

    # ------------------------------------------------------------------ when

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Tell what will be measured; keep the batch aside where the training's data can be read only once."""
        if self._session is None:
            return
        if not self._session.scheduler.begun:
            with self._failures.passing("plan the measurements"):
                self._session.scheduler.begin(trainer, pl_module)
        if self._session.data.waiting:
            with self._failures.passing("keep a batch aside"):
                self._session.data.offer(trainer, batch, batch_idx)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the learning rate: when a row is written, a scheduler may have moved on to the next step's."""
        optimizers = trainer.optimizers
        if optimizers and optimizer is optimizers[0]:
            self._learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure where the number of optimizer steps says so."""
        if self._pending:  # the first batch has given lazy modules their shapes
            self._start(trainer, pl_module, {})
        if self._session is not None:
            self._session.beat()
            self._session.scheduler.tick(self)
        # Accumulated gradients leave it as it was after most batches; several optimizers move it by more than one.
        if not self.every_n_steps:
            return
        before, self._seen_step = self._seen_step, trainer.global_step
        if self._seen_step // self.every_n_steps > before // self.every_n_steps:
            self._event(trainer, pl_module, batch_idx)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure where the number of epochs says so."""
        if self._session is not None:
            self._session.data.end_epoch()
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._event(trainer, pl_module, trainer.fit_loop.batch_idx, epoch_over=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure once where there is no cadence, or where the overhead left out what would have been the last."""
        owed = self._session is not None and self._session.scheduler.owes(self)
        if owed or (not self.every_n_epochs and not self.every_n_steps):
            self._event(trainer, pl_module, trainer.fit_loop.batch_idx, after=True)

    # ------------------------------------------------------------------ one event

    def _event(
        self, trainer: Any, module: Any, batch_index: int, after: bool = False, epoch_over: bool = False
    ) -> None:
        step, session = trainer.global_step, self._session
        if trainer.fast_dev_run or session is None or step == self._last_step or not self._begun(trainer):
            return
        with session.scheduler.event(self, trainer, module, epoch_over=epoch_over, last=after) as effort:
            if effort is None:
                return
            self._last_step = step
            measured = self._record(session, trainer, module, batch_index, after)
        if self._logged is not None and measured:
            with self._failures.passing(f"log step {step}"):
                self._logged.send(trainer, self.logged(measured), step)

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
                require_unsharded(module)  # a hook of the user's may shard it while it trains
                self._follow_run(session, trainer, module)
                measured = self._measure(session, trainer, module, row)
            status |= {name: measured.pop(name) for name in status if name in measured}
        except Exception as error:
            if self.on_error == "raise":
                raise
            measured = {}  # where another process failed
            status = failed_status(error, sentence(error, type(module).__name__))
        if status["status"]:
            self._failures.warn(f"could not measure at step {row['step']}: {status['reason']}")
        seconds = {"wall_seconds": time.perf_counter() - started}
        row |= session.scheduler.columns(self)
        with self._failures.passing(f"record step {row['step']}"), session.processes.together():
            session.append(self._group, row | measured | seconds | status)
        return measured

    def _measure(self, session: Session, trainer: Any, module: Any, row: dict[str, Any]) -> dict[str, Any]:
        where = (trainer, module, *self.measured_data())
        objective, held_out = session.shared(*where)
        row["measured_examples"] = objective.n_examples
        self._described &= where[2] == self._described_data
        if not self._described:  # the group was declared before the data were known
            with self._failures.passing("describe the measured data"):
                session.describe_group(self._group, session.describe(*where))
                self._described, self._described_data = True, where[2]
        objective, held_out = self._placed(trainer, objective, held_out)
        with objective.session():
            train, held = self._evaluated(session, objective, held_out, where)
            row |= losses(train, held)
            give_back(objective)
            try:
                return self.take(objective, held_out, train, trainer)
            finally:
                give_back(objective)

    def _placed(
        self, trainer: Any, objective: Objective, held_out: Objective | None
    ) -> tuple[Objective, Objective | None]:
        """Return the objectives at the weights that are measured."""
        if self.weights == "iterate":
            return objective, held_out
        average = average_for(self, trainer, objective.layout)
        return objective.at(*average), held_out and held_out.at(*average)

    def _evaluated(
        self, session: Session, objective: Objective, held_out: Objective | None, where: tuple[Any, ...]
    ) -> tuple[Evaluation, Evaluation]:
        """Return loss and error at the weights that are measured, of the present ones once for all callbacks."""
        return session.evaluations(*where) if objective.at_module else evaluate(objective, held_out)

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

    def _settings(self) -> dict[str, Any]:
        common: dict[str, Any] = {"every_n_epochs": self.every_n_epochs, "every_n_steps": self.every_n_steps}
        common["weights"] = self.weights
        return common | vars(self.measured) | self.settings()
