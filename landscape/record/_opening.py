"""Opening a run file: on a live file, a finished one or a damaged one; every failure is one sentence."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape._errors import FileError
from landscape.record._schema import SCHEMA_VERSION
from landscape.record._texts import attribute
from landscape.record._validation import measure_groups, validate

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PATIENCE, _PAUSE = 2.0, 0.02
# What h5py raises on a damaged file, and what the structure's reader meets where an attribute or a scale is lost.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# A file is sparse where a tenth of it, or less, is stored. Compressing file systems store more of measured numbers.
_SPARSE, _LARGE = 10, 1024**3
# Files that are valid, by device, inode, length and times. A file that was changed so lately that a further change
# might not move its times is validated anew.
_KNOWN: dict[tuple[int, ...], None] = {}
_MOST_KNOWN, _SETTLED = 256, 2.0


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
            _validate(file)
            yield file
        except _DAMAGE as error:
            raise FileError(_damaged(path, error)) from None


def group_names(file: Any) -> list[str]:
    """Return the names of the groups that have rows."""
    return measure_groups(file)


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
    """Find the causes that have a plain name before HDF5 gives them an obscure one, or waits for a pipe.

    Raises:
        FileError: The file is missing, unreadable, no regular file or no HDF5.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileError(f"There is no file {path}; check the path (a run writes landscape.h5).") from None
    except IsADirectoryError:
        raise FileError(_folder(path)) from None
    except OSError as error:
        if path.is_socket():
            raise FileError(_no_file(path, "a socket")) from None
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:  # a NUL in the path
        raise FileError(f"{str(path)!r} is no path: {error}.") from None
    try:
        about = os.fstat(file)
        if stat.S_ISDIR(about.st_mode):
            raise FileError(_folder(path))
        if not stat.S_ISREG(about.st_mode):
            raise FileError(_no_file(path, _KINDS.get(stat.S_IFMT(about.st_mode), "something else")))
        start = os.read(file, len(_SIGNATURE))
    finally:
        os.close(file)
    if start != _SIGNATURE:
        size = about.st_size
        found = "it is empty" if size == 0 else f"its {size} bytes do not start with the HDF5 signature"
        raise FileError(f"{path} is not an HDF5 file: {found}.")
    held = getattr(about, "st_blocks", 0) * 512
    if about.st_size > _LARGE and 0 < held < about.st_size / _SPARSE:
        raise FileError(
            f"{path} is refused: it claims {about.st_size} bytes and stores {held} of them, and no run file has such "
            "holes; get it anew from where it comes from."
        )


def _folder(path: Path) -> str:
    return f"{path} is a folder; give the path of the run's HDF5 file inside it."


def _no_file(path: Path, kind: str) -> str:
    return f"{path} is {kind}, no file; give the path of the run's HDF5 file."


def _validate(file: Any) -> None:
    """Validate the structure of a file, once for each state of it."""
    about = os.fstat(file.id.get_vfd_handle())
    state = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if state in _KNOWN:
        return
    validate(file, about.st_size)
    if abs(time.time() - max(about.st_mtime, about.st_ctime)) > _SETTLED:
        _KNOWN[state] = None
        while len(_KNOWN) > _MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]


def _check(path: Path, file: Any) -> None:
    version = attribute(file, "schema_version")
    try:
        version = int(version) if np.ndim(version) == 0 else int("")
    except (TypeError, ValueError, OverflowError):
        raise FileError(
            f"{path} is an HDF5 file, but no landscape run: it has no attribute schema_version with a number."
        ) from None
    if version > SCHEMA_VERSION:
        raise FileError(
            f"{path} has schema version {version}, and this version of the toolkit reads up to "
            f"{SCHEMA_VERSION}; install a newer landscape-geometry to read it."
        )


def _damaged(path: Path, error: Exception) -> str:
    lines = str(error.args[0] if error.args else error).splitlines()
    reason = lines[0] if lines else type(error).__name__
    return f"{path} is damaged and cannot be read ({reason}); restore it from a copy."
