"""A number for each row that changes when any of its bytes does."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from landscape.record._rows import is_missing

CHECKSUM = "checksum"
UNKNOWN = -1  # in rows that were written without one
_BLOCK = 2**16  # numbers of a missing value that are made at once


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


def _bytes(values: np.ndarray) -> Any:
    ordered = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8)
