"""The right to write a run file: one training has it, and another one that wants it is told."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tempfile
import time
import uuid
import weakref
from pathlib import Path

from landscape._errors import FileError, OtherWriterError
from landscape.record._life import RUNNING, text_of
from landscape.record._locks import lock_for_process
from landscape.record._opening import reading

# A holder that has given no sign of life for so many seconds is taken for dead where no lock tells.
_SILENCE, _PAUSE = 60.0, 0.5
_NO_DOMAIN = "0" * 16


class Lease:
    """Holds a path for one writer, from `take` to `release` or to the end of the process, however it ends.

    On one machine the operating system's lock on a small file in the folder for temporary files decides; it ends with
    the process. Two machines that share a file system do not share that folder. So every writer also leaves its mark
    and signs of life in the run file. Where the mark is that of another machine, `take` waits until a sign of life
    comes or has been missing for 60 s. A holder that gives none for so long, as in a long measurement, may lose the
    path to another machine. It finds that out by the mark, before it writes its next row.

    Attributes:
        path: The run file.
        mark: What the run file bears while this writer holds it, 32 characters.
    """

    _held: weakref.WeakValueDictionary[Path, Lease] = weakref.WeakValueDictionary()

    def __init__(self, path: Path, lock: io.FileIO | None):
        self.path = path
        self.mark = (_NO_DOMAIN if lock is None else _domain()) + uuid.uuid4().hex[:16]
        self._process = os.getpid()
        self._end = weakref.finalize(self, _give_up, _lock_path(path), lock, self._process)

    @classmethod
    def take(cls, path: Path, succeeds: bool = False) -> Lease:
        """Hold a path for this writer.

        Args:
            path: The run file, resolved; it need not exist.
            succeeds: Take it from an earlier writer of this process too, which finds that out at its next row.

        Returns:
            The lease.

        Raises:
            OtherWriterError: Another training writes the file.
        """
        other = cls._held.get(path)
        own = other is not None and other.held
        if other is not None and own:
            if not succeeds:
                raise OtherWriterError(_held(path))
            other.release()
        lock = _locked(path)
        lease = cls(path, lock)
        if not own:
            try:
                _wait_for_silence(path, trusted="" if lock is None else _domain())
            except OtherWriterError:
                lease.release()
                raise
        cls._held[path] = lease
        return lease

    @property
    def held(self) -> bool:
        """Whether this process still holds the path; a forked child does not."""
        return self._end.alive and self._process == os.getpid()

    def release(self) -> None:
        """Let another writer have the path; may be called many times."""
        self._end()


def _locked(path: Path) -> io.FileIO | None:
    """Return the locked file that stands for a path on this machine; None where there are no locks.

    Raises:
        OtherWriterError: Another process of this machine has locked it.
    """
    place = _lock_path(path)
    while place is not None:
        try:
            file = io.FileIO(os.open(place, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        except OSError:
            return None
        locked = lock_for_process(file.fileno())
        if locked and _is_at(file, place):
            return file
        file.close()
        if locked is None:
            return None
        if not locked:
            raise OtherWriterError(_held(path))
        # Locked, but the holder before has just removed it: make a new one.
    return None


def _wait_for_silence(path: Path, trusted: str) -> None:
    """Return when no other machine writes a file.

    Args:
        path: The run file.
        trusted: The machine whose lock would have been seen; "" for none.

    Raises:
        OtherWriterError: Its writer gave a sign of life.
    """
    before = _signs(path)
    if before is None or before[0] != RUNNING or (trusted and before[1].startswith(trusted)):
        return
    end = time.monotonic() + _left(path)
    while time.monotonic() < end:
        time.sleep(_PAUSE)
        if _signs(path) != before:
            raise OtherWriterError(_held(path))


def _signs(path: Path) -> tuple[str, ...] | None:
    """Return state, mark and last sign of life out of a run file; None where there is no such file."""
    try:
        with reading(path) as file:
            return tuple(text_of(file.attrs.get(name)) for name in ("state", "writer", "last_sign_of_life"))
    except FileError:
        return None


def _left(path: Path) -> float:
    """Return the seconds that a writer may still stay silent; both times are of the clock of the file system."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with fresh.open("xb") as now:
            age = os.fstat(now.fileno()).st_mtime - path.stat().st_mtime
    except OSError:
        return _SILENCE
    finally:
        fresh.unlink(missing_ok=True)
    return min(_SILENCE, _SILENCE - age)


def _give_up(place: Path | None, lock: io.FileIO | None, process: int) -> None:
    # A forked child has the open file too, and must leave the parent's lock alone.
    if place is None or lock is None or process != os.getpid():
        return
    with contextlib.suppress(OSError):  # Windows removes no open file
        if _is_at(lock, place):
            place.unlink(missing_ok=True)  # while it is locked: nobody else can hold it yet
    lock.close()


def _is_at(file: io.FileIO, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(place))
    except OSError:
        return False


def _lock_path(path: Path) -> Path | None:
    folder = _lock_folder()
    return None if folder is None else folder / hashlib.sha256(str(path).encode(errors="replace")).hexdigest()[:32]


def _lock_folder() -> Path | None:
    """Return this user's own folder for locks on this machine; None where there is none that others cannot write."""
    if not hasattr(os, "getuid"):
        return None
    folder = Path(tempfile.gettempdir()) / f"landscape-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return folder
    return None


@functools.cache
def _boot() -> str:
    known = Path("/proc/sys/kernel/random/boot_id")
    return known.read_text(encoding="ascii") if known.exists() else str(uuid.getnode())


def _domain() -> str:
    """Return a name of the folder with the locks, on this start of this machine, that tells nothing else about it."""
    folder = _lock_folder()
    if folder is None:
        return _NO_DOMAIN
    found = folder.stat()
    return hashlib.sha256(f"{_boot()} {found.st_dev} {found.st_ino}".encode()).hexdigest()[:16]


def _held(path: Path) -> str:
    return f"{path} is being written by another training; a run file has one writer."
