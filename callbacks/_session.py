"""What the callbacks of one Trainer share: the run file, the measurement batches, and the objectives over them."""

from __future__ import annotations

import dataclasses
import math
import uuid
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from landscape._batches import DrawnBatches
from landscape._derivatives import share_verdicts
from landscape._distributed import ALONE, Processes
from landscape._errors import FileError, OtherWriterError
from landscape._fetching import fetched
from landscape.callbacks import _data
from landscape.callbacks._failing import sentence
from landscape.callbacks._measured_data import PASSED, AwaitedError, Measured, MeasuredData
from landscape.callbacks._notes import tell
from landscape.callbacks._provenance import provenance
from landscape.callbacks._scheduler import Scheduler
from landscape.callbacks._trained import require_registered, trainable_layout
from landscape.isolation import isolated
from landscape.objective import Evaluation, Objective
from landscape.record import GroupSchema, Recorder
from landscape.record._life import FINISHED
from landscape.record._numbering import claim, keep_former

_UNKNOWN = Evaluation(math.nan, math.nan)


class Session:
    """One run file and what is measured for it; opened when training starts, lives as long as its Trainer."""

    def __init__(self, path: Path, run_id: str | None = None):
        self.asked = path.resolve()
        self._run_id = run_id or uuid.uuid4().hex
        self.recorder: Recorder | None = None
        self._told = False
        self._last_step = -1
        self.groups: dict[str, int] = {}
        self.data = MeasuredData()
        self.scheduler = Scheduler()
        self._objectives: dict[Any, tuple[Objective, Objective | None]] = {}
        self._evaluations: dict[Any, tuple[list[float], Evaluation, Evaluation]] = {}

    @property
    def processes(self) -> Processes:
        """The processes that measure together."""
        return self.data.processes

    # ------------------------------------------------------------------ the file

    @property
    def path(self) -> Path:
        """The run file: the asked one, or another where somebody else writes that."""
        return self.asked if self.recorder is None else self.recorder.path

    @property
    def run_id(self) -> str:
        """Identifier of the run in that file."""
        return self._run_id if self.recorder is None else self.recorder.run_id

    @property
    def moves(self) -> int:
        """How often the recording went on in a new file."""
        return 0 if self.recorder is None else self.recorder.moves

    def beat(self) -> None:
        """Give a sign of life where it is time for one (rank 0)."""
        if self.recorder is not None:
            self.recorder.beat()

    def began_as(self, run_id: str) -> bool:
        """Return whether this is the recording of a run, which may have gone on under another identifier."""
        return run_id in (self._run_id, self.run_id)

    def open(self, trainer: Any, module: Any, resumed: bool, former: Mapping[str, Any] | None = None) -> None:
        """Open the run file on rank 0: the one of this run when resuming, a new one otherwise.

        A file of another run at the same path is kept under a numbered name. Where another training writes the path, a
        numbered file is written instead, and a warning says so.

        Args:
            trainer: The Trainer.
            module: The module.
            resumed: Whether the file of the resumed run is there.
            former: What `find_former` found about it.

        Raises:
            FileError: The path cannot be written, or the file is not that of the resumed run.
        """
        if not trainer.is_global_zero:
            return
        # A Trainer that fits again goes on where it was, unless it went back to an earlier checkpoint.
        if self.recorder is not None and trainer.global_step >= self._last_step:
            return
        if resumed and self.path.exists():
            try:
                self.recorder = Recorder.resume(self.path, self.run_id, trainer.global_step)
                self._last_step = trainer.global_step
                return
            except OtherWriterError as error:
                continued = {"run_id": self.run_id, "file": self.path.name, "step": trainer.global_step}
                self.recorder = self._begin(trainer, module, why=str(error), continues=continued)
                return
        if not former or resumed:
            self.recorder = self._begin(trainer, module)
            return
        step, name = trainer.global_step, former["named"]
        continued = {"run_id": former["run_id"], "file": Path(name).name, "step": step}
        self.recorder = self._begin(trainer, module, continues=continued)
        tell(trainer, f"The run file {name} is not in this folder; rows from step {step} on are in {self.path}.")

    def _begin(self, trainer: Any, module: Any, why: str = "", **more: Any) -> Recorder:
        """Begin a new file: at the path, whose former file is renamed, or at a numbered one where another trains."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lease = claim(self.path, replaces=True)
            elsewhere = lease.path != self.path
            if not elsewhere:
                keep_former(self.path)
        except OSError as error:
            raise FileError(
                f"cannot write the run file {self.path}: {error.strerror or error}; choose another path="
            ) from None
        # Lazy parameters that no batch has reached have no shape: the file then tells why nothing was measured.
        lazy = any(is_lazy(parameter) for parameter in module.parameters())
        layout = None if lazy else trainable_layout(module)
        run_id = uuid.uuid4().hex if elsewhere else self.run_id
        recorder = Recorder.create(lease.path, provenance(trainer, module) | more, layout, run_id, lease)
        if elsewhere:
            why = why or f"{self.path} is being written by another training; a run file has one writer."
            warnings.warn(f"landscape: {why} This training is recorded in {lease.path}.", stacklevel=2)
        return recorder

    def claim(self, name: str, owner: object) -> str:
        """Give a callback a group of its own: `name`, or `name_2` where another callback has it."""
        candidate, number = name, 1
        while self.groups.get(candidate, id(owner)) != id(owner):
            number += 1
            candidate = f"{name}_{number}"
        self.groups[candidate] = id(owner)
        return candidate

    def declare(self, schema: GroupSchema) -> None:
        """Add a group to the file (rank 0)."""
        if self.recorder is None:
            return
        recorded = self.recorder.group_attributes(schema.name)
        unknown = "held_out" not in schema.attributes
        if unknown or (_has_passed(recorded) and _has_passed(schema.attributes)):
            # What is measured is described once it is known; a resumed training may receive other batches first.
            kept = {name: recorded[name] for name in ("measured", "held_out") if name in recorded}
            schema = dataclasses.replace(schema, attributes={**schema.attributes, **kept})
        self.recorder.declare(schema)

    def describe_group(self, group: str, described: dict[str, Any]) -> None:
        """Record what is measured, once it is known (rank 0): it was not when the group was declared.

        Data that other rows of the group were measured on are kept under `former`: a list of their fingerprints, each
        with the last step that it holds for.
        """
        if self.recorder is None:
            return
        before = self.recorder.group_attributes(group).get("measured", {})
        if before.get("fingerprint", now := described["measured"].get("fingerprint")) != now:
            former = {"fingerprint": before["fingerprint"], "last_step": self._last_step}
            measured = described["measured"] | {"former": [*before.get("former", []), former]}
            described = described | {"measured": measured}
        self.recorder.describe_group(group, described)

    def append(self, group: str, row: dict[str, Any]) -> None:
        """Write a row (rank 0)."""
        self._last_step = max(self._last_step, row["step"])
        if self.recorder is not None:
            self.recorder.append(group, row)

    def fail(self, group: str, description: str, row: dict[str, Any]) -> None:
        """Write a failed row, into a group of the common columns alone where it could not be declared (rank 0)."""
        if self.recorder is not None and not self.recorder.has(group):
            self.declare(GroupSchema(group, description, ()))
        self.append(group, row)

    def close(self, state: str = FINISHED, reason: str = "") -> None:
        """Let go of the module, write what still waits because somebody held the file, and how the run ended.

        May be called many times: the first state stands, and the first failure is raised.

        Raises:
            FileError: Rows could not be written; the sentence says how many.
        """
        self._objectives.clear()
        self._evaluations.clear()
        self.data.release()
        self.scheduler.release()
        if self.recorder is not None:
            told, self._told = self._told, True
            try:
                self.recorder.ends(state, reason)
                self.recorder.close()
                self._told = False
            except Exception:
                if not told:
                    raise

    # ------------------------------------------------------------------ what is measured

    def objectives(
        self, trainer: Any, module: Any, measured: Measured, batches: Any = None
    ) -> tuple[Objective, Objective | None]:
        """Return the objectives over training and held-out examples, drawn at the first call and held for the run.

        The second is None where there are no validation data, or none that the training step takes. Where other
        parameters train than before, the objectives are made anew, over the same batches.
        """
        key = (measured, id(batches))
        if key in self._objectives and not self._objectives[key][0].current():
            del self._objectives[key]
        if key not in self._objectives:
            validation = _data.first_loader(_data.validation_loaders(trainer, module))
            require_registered(trainer, module)
            read = self.data.to_read(trainer, validation, measured.data, batches)
            with isolated(module, _data.stateful_parts(read)):
                train, held = self.data.batches(trainer, validation, measured.data, batches)
                objective = Objective.from_lightning(
                    module,
                    train,
                    mode=measured.mode,
                    noise_seed=measured.noise_seed,
                    parameters=measured.parameters,
                )
                for other, _ in self._objectives.values():
                    share_verdicts(objective, other)
                self._objectives[key] = (objective, self._held_out(objective, held))
        return self._objectives[key]

    def shared(
        self, trainer: Any, module: Any, measured: Measured, batches: Any = None
    ) -> tuple[Objective, Objective | None]:
        """Return the objectives at this moment, their batches shared among the processes of the training.

        A model that communicates by itself is measured whole by each.
        """
        objective, held_out = self.objectives(trainer, module, measured, batches)
        if self.processes.size == 1 or objective.communicates:
            return objective, held_out
        return objective.shard(self.processes), held_out and held_out.shard(self.processes)

    def _held_out(self, objective: Objective, held: DrawnBatches | None) -> Objective | None:
        if held is None:
            return None
        try:
            return objective.restrict(held)
        except Exception as error:
            self.data.without_held_out = (
                f"validation data cannot be measured: {sentence(error, type(objective.module).__name__)}"
            )
            return None

    def describe(self, trainer: Any, module: Any, measured: Measured, batches: Any = None) -> dict[str, Any]:
        """Return the provenance of what is measured: model, loss, data, and whether there are held-out examples."""
        try:
            objective, held_out = self.objectives(trainer, module, measured, batches)
        except AwaitedError:
            return {"measured": {"source": PASSED}}
        train, held = self.data.sources(measured.data, batches)
        described: dict[str, Any] = {"measured": objective.describe() | {"source": train}}
        described["derivatives"] = derivatives(objective)
        if held_out is not None:
            return described | {"held_out": held_out.describe() | {"source": held}}
        return described | {"held_out": self.data.without_held_out}

    def evaluations(
        self, trainer: Any, module: Any, measured: Measured, batches: Any = None
    ) -> tuple[Evaluation, Evaluation]:
        """Return loss and error on training and held-out examples at the present weights, evaluated once for all."""
        key = (measured, id(batches))
        # Not the step: Lightning's own weight averaging exchanges the weights within one.
        sums = _sums(module)
        before, train, held = self._evaluations.get(key, ([], _UNKNOWN, _UNKNOWN))
        if self.processes.first(sums != before):  # buffers, and so their sums, are each process's own
            train, held = evaluate(*self.shared(trainer, module, measured, batches))
            self._evaluations[key] = (sums, train, held)
        return train, held


def derivatives(objective: Objective) -> dict[str, Any]:
    """Compare gradient and Hessian products with differences, once for the run, and return the verdicts."""
    if objective.derivatives.gradient(objective).ok:
        objective.derivatives.product(objective)
    return objective.derivatives.describe()


def evaluate(objective: Objective, held_out: Objective | None) -> tuple[Evaluation, Evaluation]:
    """Return loss and error on training and held-out examples; NaN where nothing is held out."""
    return objective.evaluate(), held_out.evaluate() if held_out is not None else _UNKNOWN


def losses(train: Evaluation, held: Evaluation) -> dict[str, float]:
    """Return the columns of a row that every group has."""
    return {
        "train_loss": train.loss,
        "train_error": train.error,
        "held_out_loss": held.loss,
        "held_out_error": held.error,
        "train_loss_stderr_sample": train.loss_stderr_sample,
        "train_error_stderr_sample": train.error_stderr_sample,
        "held_out_loss_stderr_sample": held.loss_stderr_sample,
        "held_out_error_stderr_sample": held.error_stderr_sample,
    }


def _has_passed(attributes: Mapping[str, Any]) -> bool:
    measured = attributes.get("measured")
    return isinstance(measured, dict) and measured.get("source") == PASSED


def _sums(module: torch.nn.Module) -> list[float]:
    """Tell states of a module apart at the cost of reading it twice."""
    # Sums alone do not: gradients of a cross-entropy by its last layer add up to zero over the classes.
    tensors = [t.detach() for t in (*module.parameters(), *module.buffers())]
    numbers = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    found = [t.sum(dtype=torch.float64) for t in numbers]
    found += [torch.linalg.vector_norm(t, dtype=torch.float64) for t in numbers if t.is_floating_point()]
    return fetched([number.to(found[0].device) for number in found]).tolist()


_SESSIONS: weakref.WeakKeyDictionary[Any, dict[Path, Session]] = weakref.WeakKeyDictionary()


def session_of(trainer: Any, path: Path, run_id: str | None = None, processes: Processes = ALONE) -> Session:
    """Return the session that the callbacks of a trainer with this path share; `run_id` is that of a resumed run."""
    sessions = _SESSIONS.setdefault(trainer, {})
    session = sessions.get(path.resolve())
    if session is None or (run_id is not None and not session.began_as(run_id)):
        session = sessions[path.resolve()] = Session(path, run_id)
    session.data.processes = processes
    return session
