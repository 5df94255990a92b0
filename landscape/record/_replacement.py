"""Changes of the structure: made on a copy beside the file, which then takes its place in one step."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from landscape._errors import FileError
from landscape.record._locks import locked
from landscape.record._opening import unwritable
from landscape.record._ordered import ALIGNMENT, OrderedFile


@contextlib.contextmanager
def creating(path: Path) -> Iterator[Any]:
    """Write a new file, which appears under its name when it is whole.

    Yields:
        The open h5py.File, under a temporary name.

    Raises:
        FileError: The folder cannot be written, or the disk is full.
    """
    temporary = _beside(path)
    try:
        with changing(temporary, "w") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(unwritable(path, error)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """Change a copy of a file and put it in the file's place.

    A kill at any moment leaves either the old file or the new one. A reader that holds the old one goes on
    reading it undisturbed, and sees the new one when it opens the path again.

    Yields:
        The copy as an open h5py.File.

    Raises:
        FileError: Another program is writing the file, the folder cannot be written, or the disk is full.
    """
    temporary = _beside(path)
    try:
        with locked(path, shared=True):
            shutil.copyfile(path, temporary)
            shutil.copymode(path, temporary)
            with changing(temporary, "r+") as file:
                yield file
        os.replace(temporary, path)  # outside the lock: Windows does not replace a file that is open
    except BlockingIOError:
        raise FileError(held_by_writer(path)) from None
    except OSError as error:
        raise FileError(unwritable(path, error)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def copied(path: Path, out: Path) -> Iterator[Path]:
    """Copy a file to a temporary one in the folder of `out`, which is removed if it is still there on leaving.

    Args:
        path: The file; the caller keeps writers out.
        out: What the copy is to become.

    Yields:
        The path of the copy.

    Raises:
        FileError: The folder cannot be written, or the disk is full.
    """
    temporary = _beside(out)
    try:
        shutil.copyfile(path, temporary)
        yield temporary
    except OSError as error:
        raise FileError(unwritable(out, error)) from None
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[str]:
    """Return the names of the temporary files beside a file that writers of it make."""
    return sorted(glob.glob(f".{glob.escape(path.name)}.*.tmp", root_dir=path.parent))


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that a killed writer of this file left beside it."""
    for name in leftovers(path):
        (path.parent / name).unlink(missing_ok=True)


def held_by_writer(path: Path) -> str:
    """Return the sentence for a file that another program writes."""
    return f"{path} is being written by another program; a run file has one writer: stop the other one."


@contextlib.contextmanager
def changing(temporary: Path, mode: str) -> Iterator[Any]:
    """Create ("w") or change ("r+") a file that has no readers and no other writer, in one go.

    Yields:
        The open h5py.File.
    """
    # HDF5 cannot close a file when the disk is full; what it writes is held back, and fails at the commit.
    with io.FileIO(temporary, "x+" if mode == "w" else "r+") as raw:
        ordered = OrderedFile(raw)
        with h5py.File(ordered, mode, **ALIGNMENT) as file:
            yield file
        ordered.commit()
        os.fsync(raw.fileno())


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
