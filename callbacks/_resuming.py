"""Which run file a training goes on in: its own new one, or that of the run it resumes."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

from landscape.callbacks._provenance import plain

_FILE_NAME = "landscape.h5"
_WITHIN_A_FIT = ("log", "log_dict", "_fixed_key")


class Resumable(abc.ABC):
    """What a callback leaves in a checkpoint, so that a resumed training goes on in the file of its run.

    Attributes:
        former_run: Path and run_id of the run, once it is known.
    """

    name: str | None
    path: str | Path | None
    former_run: dict[str, Any]

    _fixed_key: str = ""

    @property
    def state_key(self) -> str:
        """Distinct for two callbacks of one class with different settings, as Lightning asks at every hook."""
        return self._fixed_key or self._key()

    def _fix_key(self, fixed: bool) -> None:
        """Keep the key as it is now, as during a training: making it takes longer than a hook that does nothing."""
        self._fixed_key = self._key() if fixed else ""

    def _key(self) -> str:
        settings = {"name": self.name, **plain(self._settings())}
        return f"{type(self).__qualname__}{settings}"

    def state_dict(self) -> dict[str, Any]:
        """Say which file the run is recorded in."""
        return dict(self.former_run)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the file of the run that is being resumed."""
        self.former_run = {key: state_dict[key] for key in ("path", "run_id") if key in state_dict}

    @abc.abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Return all settings that tell it from another callback of its class."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what leads to the Trainer: the open session, and the module's methods that Lightning attaches."""
        return {key: value for key, value in vars(self).items() if key not in _WITHIN_A_FIT} | {"_session": None}


def find_former(callback: Resumable, trainer: Any) -> dict[str, Any]:
    """Return path and run_id of the run that this training resumes, or nothing where it starts afresh.

    A callback that was added after the checkpoint joins the file of the others.
    """
    if trainer.global_step == 0:
        return {}
    for other in (callback, *trainer.callbacks):
        former: dict[str, Any] = getattr(other, "former_run", {})
        if former and (callback.path is None or _same(callback.path, former["path"])):
            return former
    return {}


def run_path(callback: Resumable, trainer: Any, former: dict[str, Any]) -> Path:
    """Return the path of the run file: the given one, that of the resumed run, or one in the Trainer's log_dir."""
    default = Path(trainer.log_dir or trainer.default_root_dir) / _FILE_NAME  # log_dir must be asked on every rank
    return Path(callback.path or former.get("path", default))


def _same(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()
