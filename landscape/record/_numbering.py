"""Numbered names beside a path: `landscape.1.h5`, `landscape.2.h5`, ..., and the right to write one of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from landscape._errors import OtherWriterError
from landscape.record._lease import Lease


def keep_former(path: Path) -> None:
    """Rename a file that stands where a new run is to be written, so that no measurement is ever overwritten."""
    if path.exists():
        path.rename(next(name for name in _numbered(path) if not name.exists()))


def claim(path: Path, replaces: bool = False) -> Lease:
    """Hold a path, or the first numbered name beside it that is free.

    Args:
        path: The wanted path, resolved.
        replaces: Whether the path itself may exist; numbered names never do.

    Returns:
        The lease, whose `path` is the one to write.
    """
    candidates = itertools.chain([path], _numbered(path))
    while True:
        candidate = next(candidates)
        with contextlib.suppress(OtherWriterError):
            lease = Lease.take(candidate)
            if not candidate.exists() or (replaces and candidate == path):
                return lease
            lease.release()


def _numbered(path: Path) -> Iterator[Path]:
    return (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
