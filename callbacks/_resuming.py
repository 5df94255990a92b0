"""Which run file a training goes on in: its own new one, or that of the run it resumes."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

from landscape._errors import FileError
from landscape.callbacks._provenance import plain
from landscape.record import open_run

_FILE_NAME = "landscape.h5"
_WITHIN_A_FIT = ("log", "log_dict", "_fixed_key")


class Resumable(abc.ABC):
    """What a callback leaves in a checkpoint, so that a resumed training goes on in the file of its run.

    Attributes:
        former_run: Path and run_id of the run, once it is known, and the path that was asked for.
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
        self.former_run = {key: state_dict[key] for key in ("path", "asked", "run_id") if key in state_dict}

    @abc.abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Return all settings that tell it from another callback of its class."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what leads to the Trainer: the open session, and the module's methods that Lightning attaches."""
        return {key: value for key, value in vars(self).items() if key not in _WITHIN_A_FIT} | {"_session": None}


def find_former(callback: Resumable, trainer: Any) -> dict[str, Any]:
    """Return path and run_id of the run that this training resumes, or nothing where it starts afresh.

    A callback that was added after the checkpoint joins the file of the others.

    Args:
        callback: The callback.
        trainer: Its Trainer, which has loaded the checkpoint.

    Returns:
        `run_id`; `path`, None where the run's file is not found; and `named`, the path in the checkpoint.
    """
    if trainer.global_step == 0:
        return {}
    for other in (callback, *trainer.callbacks):
        former: dict[str, Any] = getattr(other, "former_run", {})
        if former and (callback.path is None or _asked(former, callback.path, trainer)):
            return {"run_id": former["run_id"], "path": _found(former, trainer), "named": former["path"]}
    return {}


def run_path(callback: Resumable, trainer: Any, former: dict[str, Any]) -> Path:
    """Return the path of the run file: that of the resumed run, the given one, or one in the Trainer's log_dir."""
    default = Path(trainer.log_dir or trainer.default_root_dir) / _FILE_NAME  # log_dir must be asked on every rank
    if path := former.get("path") or callback.path:
        return Path(path)
    # A file that was lost is made again where it was, in the folder of this training.
    lost = Path(trainer.default_root_dir, former.get("named", ""))
    return lost if former and not Path(former["named"]).is_absolute() and not lost.exists() else default


def portable(path: Path, root: Path) -> str:
    """Return a path as a checkpoint keeps it: relative to the Trainer's folder, or whole where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _asked(former: dict[str, Any], path: str | Path, trainer: Any) -> bool:
    """Return whether a run was to be recorded at a path, though it may stand beside it under a number."""
    wanted = Path(path).resolve()
    names = {former["path"], former.get("asked", former["path"])}
    return any(wanted in [place.resolve() for place in _places(name, trainer)] for name in names)


def _found(former: dict[str, Any], trainer: Any) -> Path | None:
    """Return the file of a run: where it was, or where its folder is now; None where it is in neither."""
    return next((path for path in _places(former["path"], trainer) if _run_id(path) == former["run_id"]), None)


def _places(name: str, trainer: Any) -> list[Path]:
    """Return where a path in a checkpoint may lead: from the Trainer's folder, and from those around the checkpoint."""
    if Path(name).is_absolute():
        return [Path(name)]
    loaded = getattr(trainer, "ckpt_path", None)
    around = Path(loaded).resolve().parents if isinstance(loaded, (str, Path)) else ()
    return [Path(trainer.default_root_dir).resolve() / name, *(folder / name for folder in around)]


def _run_id(path: Path) -> str:
    try:
        return str(open_run(path).attributes.get("run_id")) if path.exists() else ""
    except FileError:
        return ""
