"""Open the run file when a training starts, declare a callback's group in it, and close it when the training ends."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

from torch.nn.parameter import is_lazy

from landscape._distributed import Processes
from landscape._sharded_models import require_unsharded
from landscape.callbacks._failing import Failures, failed_status, sentence
from landscape.callbacks._logging import ScalarLog
from landscape.callbacks._processes import processes_of, strategy_model
from landscape.callbacks._provenance import plain
from landscape.callbacks._resuming import Resumable, find_former, portable, run_path
from landscape.callbacks._scheduled import Scheduled
from landscape.callbacks._scheduler import Scheduler
from landscape.callbacks._session import Measured, Session, session_of
from landscape.record import GroupSchema
from landscape.record._life import FAILED, FINISHED, INTERRUPTED


class Recording(Scheduled, Resumable):
    """The part of a callback that prepares its recording.

    Attributes:
        group: Name of its group in the file where the user gives none.
        description: One line for the reader of the file.
    """

    group: str = ""
    description: str = ""
    on_error: str
    _failures: Failures
    _logged: ScalarLog | None
    _last_step: int
    _seen_step: int

    def __init__(self, overhead: str | float | None = None) -> None:
        super().__init__(overhead)
        self.former_run: dict[str, Any] = {}
        self._group = ""
        self._session: Session | None = None
        self._last_step = -1
        self._seen_step = 0
        self._moves = 0
        self._root = Path()
        self._pending = False
        self._described = False
        self._described_data: Measured | None = None

    @abc.abstractmethod
    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return `variables`, `coordinates` and further `attributes` of the group, before anything is measured."""

    @abc.abstractmethod
    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the scalars that `log=True` sends to the loggers."""

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Prepare, once the file is open and the group declared."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open or resume the run file and declare the group; lazy modules have no shapes before the first batch."""
        self._session = None
        self._fix_key(True)
        self._seen_step = trainer.global_step
        self._failures.renew()
        self._pending = not trainer.fast_dev_run
        former = find_former(self, trainer)
        self._last_step = trainer.global_step if former else -1
        if self._pending and not any(is_lazy(p) for p in pl_module.parameters()):
            self._start(trainer, pl_module, former)

    def _start(self, trainer: Any, module: Any, former: dict[str, Any]) -> None:
        self._pending = False
        self._group = self._wanted_group()
        began = Scheduler.now()
        with self._failures.passing("prepare the recording"):
            processes = processes_of(trainer)
            with processes.together():
                session = self._open(trainer, module, former, processes)
            if self._declared(session, trainer, module):
                self._session = session  # in all processes, or in none
                session.scheduler.join(self, trainer, Scheduler.now() - began)  # type: ignore[arg-type]
        if self._logged is not None:
            prefix = "" if self._group == self.group else f"{self._group}/"
            with self._failures.passing("keep missing values from callbacks that monitor its scalars"):
                self._logged.begin(trainer, self.scalar_names(), prefix)

    def _wanted_group(self) -> str:
        return self.name or (self.group if self.weights == "iterate" else f"{self.group}_{self.weights}")

    def _open(self, trainer: Any, module: Any, former: dict[str, Any], processes: Processes) -> Session:
        path = run_path(self, trainer, former)
        session = session_of(trainer, path, former.get("run_id"), processes)
        session.open(trainer, module, resumed=former.get("path") is not None, former=former)
        self._group = session.claim(self._group, self)
        return session

    def _declared(self, session: Session, trainer: Any, module: Any) -> bool:
        """Declare the group; where that fails, leave a failed row that says why, and return False."""
        try:
            with session.processes.together():
                self._declare(session, trainer, module)
        except Exception as error:
            if self.on_error == "raise":
                raise
            why = sentence(error, type(module).__name__)
            self._failures.warn(f"could not prepare the recording: {why.rstrip('.')}. The training goes on")
            row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **failed_status(error, why)}
            session.fail(self._group, self.description, row)
            return False
        return True

    def _declare(self, session: Session, trainer: Any, module: Any) -> None:
        require_unsharded(module, *strategy_model(trainer))
        declared = self.schema(trainer, module)
        own = {"callback": type(self).__name__, "weights": self.weights, "settings": plain(self._settings())}
        # How many examples fit the overhead is known at the first event.
        known = self._provenance(session, trainer, module) if self.share is None else {}
        self._described, self._described_data = "held_out" in known, self.measured
        own |= declared.pop("attributes", {}) | known | {"overhead": self.share}
        session.declare(GroupSchema(self._group, self.description, attributes=own, **declared))
        self.on_training_start(session, trainer, module)
        self._moves = session.processes.first(session.moves)
        self._root = Path(trainer.default_root_dir).resolve()
        self._note_run(session)

    def state_dict(self) -> dict[str, Any]:
        """Say which file the run is recorded in now."""
        if self._session is not None and self._session.recorder is not None:
            self._note_run(self._session)
        return super().state_dict()

    def _note_run(self, session: Session) -> None:
        places = {"path": portable(session.path, self._root), "asked": portable(session.asked, self._root)}
        self.former_run = places | {"run_id": session.run_id}

    def _follow_run(self, session: Session, trainer: Any, module: Any) -> None:
        """Prepare again where the recording goes on in a new file, as somebody else took the former one."""
        moves = session.processes.first(session.moves)
        if self._moves != moves:
            self._moves = moves
            self.on_training_start(session, trainer, module)

    def _provenance(self, session: Session, trainer: Any, module: Any) -> dict[str, Any]:
        """Describe the measured data; where that fails, every row will say why."""
        try:
            return session.describe(trainer, module, self.measured, self.batches)
        except Exception:
            if self.on_error == "raise":
                raise
            return {}

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write what is buffered, and why the training ends."""
        ended = isinstance(exception, (KeyboardInterrupt, SystemExit))  # Lightning's SIGTERM too
        self._close(INTERRUPTED if ended else FAILED, sentence(exception))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write what is buffered."""
        if stage == "fit":
            self._fix_key(False)
            if self._session is not None:
                self._session.scheduler.finish(trainer)
            self._close()

    def _close(self, state: str = FINISHED, reason: str = "") -> None:
        if self._logged is not None:
            self._logged.end()
        if self._session is not None:
            with self._failures.ending("write the last rows"):
                self._session.close(state, reason)
