"""In which order and in what blocks the adaptive model takes symbols."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

# The counts are brought up to date after each block, and a block is a fraction of what has gone by. A short
# sequence is thus coded symbol by symbol; at a million symbols some 130 vectorised calls do. Counts that lag by
# a fraction f raise what the model pays for learning, half a logarithm of the length for each symbol of the
# alphabet, by f/2 of it.
_BLOCK_FRACTION = 1 / 16
_LONG_BLOCK_FRACTION = 1 / 4
_LONG_BLOCKS_FROM = 2**12
# Two symbols are encoded in one call with counts that never lag; so it is the decoder alone that blocks are for.
_BINARY_BLOCKS_FROM = 2**10


def blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut so many symbols of an alphabet into blocks, within which the counts stay as they are.

    Args:
        count: How many symbols.
        size: The size of the alphabet.

    Yields:
        Start and stop of each.
    """
    start = 0
    while start < count:
        fraction = _BLOCK_FRACTION if start < _LONG_BLOCKS_FROM else _LONG_BLOCK_FRACTION
        length = 1 if size == 2 and start < _BINARY_BLOCKS_FROM else max(1, int(start * fraction))
        stop = min(count, start + length)
        yield start, stop
        start = stop


def lags(count: int, size: int) -> bool:
    """Say whether so many symbols have blocks of more than one."""
    return count > _BINARY_BLOCKS_FROM if size == 2 else count * _BLOCK_FRACTION > 2


def interleaved(count: int, size: int) -> npt.NDArray[np.int64] | slice:
    """Return the order in which the adaptive model takes symbols: with a stride, so that every block sees the whole.

    The ideal length knows no order, but lagging counts do: channels that are zero one after another, and then are not,
    would cost 12 % more than it.
    """
    if not lags(count, size):
        return slice(None)
    stride = int(count * 0.618034)
    while math.gcd(stride, count) > 1:
        stride += 1
    return np.arange(count) * stride % count
