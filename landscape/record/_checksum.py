"""A number for each row that changes when any of its bytes does."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from landscape.record import _bfloat16
from landscape.record._recovery import complete_steps, event_variables
from landscape.record._rows import is_missing
from landscape.record._schema import EVENT

CHECKSUM = "checksum"
UNKNOWN = -1  # in rows that were written without one
_BLOCK = 2**16  # numbers of a missing value that are made at once
_PIECE = 2**22  # bytes of small rows that are read at once


def checksum(row: Mapping[str, np.ndarray], names: Iterable[str]) -> int:
    """Return the CRC-32 of a row: of names and values of its variables, in the alphabetical order of the names.

    A value counts as its bytes in little-endian, row-major order, in the type that readers see (float32 for a
    bfloat16). CRC-32 finds every change of up to 32 bits in a row, and others but for one in 4·10⁹. It is no protection
    against somebody who changes the file on purpose.

    Args:
        row: The values by name; `checksum` itself does not count.
        names: Those that the file has a variable for.

    Returns:
        A number from 0 to 2³² - 1.
    """
    found = 0
    for name in sorted(set(names) - {CHECKSUM}):
        values = row[name]
        found = zlib.crc32(name.encode(), found)
        if is_missing(values):
            block = np.full(min(values.size, _BLOCK), values.reshape(-1)[0], dtype=values.dtype)
            for start in range(0, values.size, _BLOCK):
                found = zlib.crc32(_bytes(block[: values.size - start]), found)
        else:
            found = zlib.crc32(_bytes(values), found)
    return found


def damaged_steps(group: Any) -> list[int]:
    """Return the steps of the complete rows whose checksum is not that of their values.

    Rows without a checksum, as of older versions, are passed over. One variable of one row is in memory at a time, or a
    block of small rows.

    Args:
        group: The open HDF5 group.

    Returns:
        The steps.
    """
    if CHECKSUM not in group:
        return []
    steps = complete_steps(group)
    names = [EVENT, *(name for name in event_variables(group) if name != CHECKSUM)]
    width = sum(math.prod(group[name].shape[1:]) * group[name].dtype.itemsize for name in names)
    at_once = max(1, _PIECE // max(1, width))
    damaged = []
    for start in range(0, len(steps), at_once):
        block = slice(start, min(start + at_once, len(steps)), 1)
        stored = group[CHECKSUM][block.start : block.stop]
        if at_once == 1:
            found = [checksum(_OneByOne(group, block), names)]
        else:
            read = {name: _values(group[name], block) for name in names}
            found = [checksum({name: read[name][row : row + 1] for name in names}, names) for row in range(len(stored))]
        damaged += [int(steps[start + row]) for row, known in enumerate(stored) if known not in (UNKNOWN, found[row])]
    return damaged


class _OneByOne(Mapping[str, np.ndarray]):
    """The values of a row, each read when it is asked for."""

    def __init__(self, group: Any, row: slice):
        self._group, self._row = group, row

    def __getitem__(self, name: str) -> np.ndarray:
        return _values(self._group[name], self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)


def _values(data: Any, rows: slice) -> np.ndarray:
    found = _bfloat16.read_rows(data, rows) if _bfloat16.is_bfloat16(data) else data[rows]
    return np.asarray(found)


def _bytes(values: np.ndarray) -> Any:
    ordered = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8)
