"""Integers in the stream: single ones for headers, and arrays as adaptive high parts with uniform low bits.

An array needs its alphabet sent: the shift s that separates the low bits, and the least and the number of the
high parts q >> s. The shift is chosen for the shortest ideal length, so a short array with a wide range, of
which hardly any value comes twice, does not pay for learning an alphabet that it never fills, and an outlier
does not blow it up.
"""

from __future__ import annotations

import numpy as np

from landscape._errors import MeasurementError
from landscape.compression._entropy import Decoder, Integers, Sink, kt_bits

LARGEST_INTEGER = 2**52  # float64 has all integers up to here, so rounding w / step is still rounding to the nearest
MAX_ALPHABET = 2**14  # a small part of constriction's 2^24 units of probability, of which each symbol takes one

_SHIFT_WIDTH = 6
_LENGTH_WIDTH = 6


def write_natural(sink: Sink, value: int) -> None:
    """Write an integer in [0, 2^63): how many binary digits it has, in 6 bits, and those after the leading one."""
    length = value.bit_length()
    sink.uniform(length, _LENGTH_WIDTH)
    if length > 1:
        sink.uniform(value - (1 << (length - 1)), length - 1)


def read_natural(source: Decoder) -> int:
    """Read what `write_natural` wrote."""
    length = int(source.uniform(1, _LENGTH_WIDTH)[0])
    if length < 2:
        return length
    return (1 << (length - 1)) + int(source.uniform(1, length - 1)[0])


def write_integers(sink: Sink, integers: Integers) -> None:
    """Write an array of at least one integer, each of magnitude at most 2^52; its length is not written."""
    shift, lowest, size = _alphabet(integers)
    sink.uniform(shift, _SHIFT_WIDTH)
    write_natural(sink, 2 * lowest if lowest >= 0 else -2 * lowest - 1)
    write_natural(sink, size - 1)
    sink.adaptive((integers >> shift) - lowest, size)
    if shift:
        sink.uniform(integers & ((1 << shift) - 1), shift)


def read_integers(source: Decoder, count: int) -> Integers:
    """Read an array that `write_integers` wrote.

    Args:
        source: The stream.
        count: How many integers the array has.

    Returns:
        The integers, shape (count,).

    Raises:
        MeasurementError: No message has such a stream.
    """
    shift = int(source.uniform(1, _SHIFT_WIDTH)[0])
    folded = read_natural(source)
    lowest = -(folded + 1) // 2 if folded % 2 else folded // 2
    size = read_natural(source) + 1
    if size > MAX_ALPHABET or max(abs(lowest), abs(lowest + size)) << shift > 2 * LARGEST_INTEGER:
        raise MeasurementError(
            f"the compressed stream is damaged: it announces {size} symbols of {shift} low bits from {lowest} on, "
            f"expected at most {MAX_ALPHABET} symbols and integers within ±2^52"
        )
    integers = (source.adaptive(count, size) + lowest) << shift
    return integers | source.uniform(count, shift) if shift else integers


def _alphabet(integers: Integers) -> tuple[int, int, int]:
    """Return the shift with the shortest ideal length, the least high part, and the number of high parts."""
    least, greatest = int(integers.min()), int(integers.max())
    shift = 0
    while (greatest >> shift) - (least >> shift) >= MAX_ALPHABET:
        shift += 1
    counts = np.bincount((integers >> shift) - (least >> shift))
    choices = []
    while True:
        choices.append((kt_bits(counts) + shift * len(integers), shift))
        if len(counts) <= 2:  # a range across zero never folds into one part: -1 >> s is -1
            break
        # One more low bit: neighbours (2k, 2k + 1) of the absolute grid fall together.
        odd_start, odd_stop = (least >> shift) & 1, 1 - ((greatest >> shift) & 1)
        counts = np.pad(counts, (odd_start, odd_stop)).reshape(-1, 2).sum(axis=1)
        shift += 1
    best = min(choices)[1]
    return best, least >> best, (greatest >> best) - (least >> best) + 1
