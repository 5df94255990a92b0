"""How much memory one call may fill with what a file claims to hold."""

from __future__ import annotations

import os
from pathlib import Path

from landscape._errors import FileError

MEMORY_LIMIT = 512 * 1024**2
"""Bytes that one call reads at most unless it is asked for more."""

# Numbers that were never written cost the file nothing, so fewer of them are made up.
_UNBACKED = 4


class Budget:
    """The bytes that one call may still read.

    Args:
        path: The file, for the sentence.
        limit: Bytes at most; None for no limit.
    """

    def __init__(self, path: Path | str = "the file", limit: int | None = MEMORY_LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._taken = 0

    def take(self, size: int, stored: int | None = None) -> None:
        """Count an array before it is read.

        Args:
            size: Bytes that it takes in memory.
            stored: Bytes that the file stores of it, where that may be less.

        Raises:
            FileError: It would be more than the limit.
        """
        made_up = 0 if stored is None else max(0, size - stored)
        self._taken += size + (_UNBACKED - 1) * made_up
        if self._limit is not None and self._taken > self._limit:
            raise FileError(
                f"{self._path} claims {_amount(self._taken)} for one call, more than the limit of "
                f"{_amount(self._limit)}. If you trust the file, give memory_limit={self._taken} (bytes) or None to "
                "open_run; or read single rows with Run.weights and Run.trajectory."
            )

    def most(self, size: int) -> int:
        """Return how many things of a size may be read at once, at least one."""
        return 2**62 if self._limit is None else max(1, self._limit // (_UNBACKED * max(1, size)))


def check_limit(limit: int | None) -> int | None:
    """Return a memory limit that a user gave.

    Raises:
        ValueError: It is no positive number of bytes.
        TypeError: It is no whole number.
    """
    if limit is None:
        return None
    if isinstance(limit, bool) or not hasattr(limit, "__index__"):
        raise TypeError(f"memory_limit is {limit!r}; expected a whole number of bytes, or None for no limit")
    if limit < 1:
        raise ValueError(f"memory_limit is {limit}; expected a positive number of bytes, or None for no limit")
    return int(limit)


def limit_for_weights(path: str | Path) -> int:
    """Return the limit for a file whose weights are asked for: what it stores, if that is more than the default."""
    try:
        return max(MEMORY_LIMIT, 2 * os.path.getsize(path))
    except OSError:
        return MEMORY_LIMIT


def _amount(size: int) -> str:
    return f"{size / 1024**2:,.0f} MB" if size < 10 * 1024**3 else f"{size / 1024**3:,.0f} GB"
