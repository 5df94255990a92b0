"""Opening a run file: on a live file, a finished one or a damaged one; every failure is one sentence."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from landscape._errors import FileError
from landscape.record._schema import SCHEMA_VERSION
from landscape.record._structure import EVENT

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PATIENCE, _PAUSE = 2.0, 0.02
# What h5py raises on a damaged file, and what the structure's reader meets where an attribute or a scale is lost.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@contextlib.contextmanager
def reading(path: Path, patience: float = _PATIENCE) -> Iterator[Any]:
    """Open a run file for reading and check that it is one; a writer that holds it just now is waited for.

    Args:
        path: The file.
        patience: Seconds to wait for a writer.

    Yields:
        The open h5py.File.

    Raises:
        FileError: The file is missing, no HDF5, damaged, no run, of a newer schema, or held by a writer.
    """
    file = _open(path, patience)
    with file:
        try:
            _check(path, file)
            yield file
        except _DAMAGE as error:
            raise FileError(_damaged(path, error)) from None


def group_names(file: Any) -> list[str]:
    """Return the names of the groups that have rows."""
    return [name for name in file if isinstance(file[name], h5py.Group) and EVENT in file[name]]


def unknown_group(path: Path | str, name: str, names: list[str]) -> str:
    """Return the sentence for a group that the run does not have."""
    known = f"it has {', '.join(names)}" if names else "it has none yet"
    return f"{path} has no group {name!r}; {known}."


def unwritable(path: Path, error: OSError) -> str:
    """Return the sentence for a file that the system does not let us write."""
    return f"{path} cannot be written: {error.strerror or error}."


def _open(path: Path, patience: float) -> Any:
    deadline = time.monotonic() + patience
    while True:
        try:
            _look(path)
            return h5py.File(path, "r")
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FileError(
                    f"{path} is held by a program that writes it; wait until it has finished, and open the file again."
                ) from None
            time.sleep(_PAUSE)
        except OSError as error:
            raise FileError(_damaged(path, error)) from None


def _look(path: Path) -> None:
    """Find the causes that have a plain name before HDF5 gives them an obscure one.

    Raises:
        FileError: The file is missing, unreadable or no HDF5.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
    except FileNotFoundError:
        raise FileError(f"There is no file {path}; check the path (a run writes landscape.h5).") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder; give the path of the run's HDF5 file inside it.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from None
    if start != _SIGNATURE:
        size = os.path.getsize(path)
        found = "it is empty" if size == 0 else f"its {size} bytes do not start with the HDF5 signature"
        raise FileError(f"{path} is not an HDF5 file: {found}.")


def _check(path: Path, file: Any) -> None:
    version = file.attrs.get("schema_version")
    try:
        version = int(version)
    except (TypeError, ValueError):
        raise FileError(
            f"{path} is an HDF5 file, but no landscape run: it has no attribute schema_version with a number."
        ) from None
    if version > SCHEMA_VERSION:
        raise FileError(
            f"{path} has schema version {version}, and this version of the toolkit reads up to "
            f"{SCHEMA_VERSION}; install a newer landscape-geometry to read it."
        )


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error.args[0] if error.args else error).splitlines()[0]
    return f"{path} is damaged and cannot be read ({reason}); restore it from a copy."
