"""Which run file a training goes on in: its own new one, or that of the run it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.callbacks._base import LandscapeCallback

_FILE_NAME = "landscape.h5"


def find_former(callback: LandscapeCallback, trainer: Any) -> dict[str, Any]:
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


def run_path(callback: LandscapeCallback, trainer: Any, former: dict[str, Any]) -> Path:
    """Return the path of the run file: the given one, that of the resumed run, or one in the Trainer's log_dir."""
    default = Path(trainer.log_dir or trainer.default_root_dir) / _FILE_NAME  # log_dir must be asked on every rank
    return Path(callback.path or former.get("path", default))


def _same(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()
