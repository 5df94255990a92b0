"""The locks on files: HDF5's own, shared by readers and exclusive for a writer, and one for a training."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has no flock, and HDF5 there does without it
    fcntl = None  # type: ignore[assignment]

# File systems without flock: HDF5 goes on without a lock there (its "best effort"), and so do we.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], shared: bool) -> Iterator[io.FileIO]:
    """Open a file for reading and writing, unbuffered, under the lock that readers and writers of HDF5 respect.

    Args:
        path: The file.
        shared: Take a shared lock, which keeps other writers out, not readers.

    Yields:
        The open file.

    Raises:
        OSError: The file cannot be opened; a BlockingIOError where somebody holds a lock that excludes this one.
    """
    with io.FileIO(os.fspath(path), "r+") as file:
        if fcntl is not None and os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() not in ("0", "FALSE"):
            try:
                fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
        yield file


def lock_for_process(descriptor: int) -> bool | None:
    """Lock a file for this process, which forked children do not inherit, until it is closed here.

    Args:
        descriptor: The open file. No other descriptor of it may be closed in this process meanwhile.

    Returns:
        True; False where another process has it; None where the file system gives no lock.
    """
    if fcntl is None:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True
