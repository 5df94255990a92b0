"""Arrays of integers in the stream: high parts as symbols of an alphabet, with uniform low bits.

An array needs its alphabet sent: the shift s that separates the low bits, and the least and the number of the
high parts q >> s. The shift is chosen for the shortest ideal length, so a short array with a wide range, of
which hardly any value comes twice, does not pay for learning an alphabet that it never fills, and an outlier
does not blow it up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._lengths import frequencies
from landscape.compression._naturals import read_natural, write_natural
from landscape.compression._symbols import LONG, MAX_ALPHABET, Choice, choose, read_symbols, write_symbols

LARGEST_INTEGER = 2**52  # float64 has all integers up to here, so rounding w / step is still rounding to the nearest

_SHIFT_WIDTH = 6
_ZERO = np.zeros(1, dtype=np.int64)


def nearest_integers(name: str, scaled: npt.NDArray[np.float64]) -> Integers:
    """Round what a tensor is in units of its steps to the nearest integers.

    Args:
        name: Of the tensor.
        scaled: The tensor in steps.

    Returns:
        The integers.

    Raises:
        ValueError: One would pass 2^52.
    """
    largest = max(scaled.max(initial=0.0), -scaled.min(initial=0.0))
    if not largest <= LARGEST_INTEGER:
        raise ValueError(
            f"tensor '{name}' spans {largest:.3g} steps, more than the 2^52 that float64 rounds exactly; take a "
            "coarser knob"
        )
    return np.rint(scaled).astype(np.int64)


def write_integers(sink: Sink, integers: Integers) -> None:
    """Write an array of at least one integer, each of magnitude at most 2^52; its length is not written."""
    least, greatest = int(integers.min()), int(integers.max())
    shift, counts, choice = _alphabet(integers, least, greatest)
    lowest = least >> shift
    sink.uniform(shift, _SHIFT_WIDTH)
    write_natural(sink, 2 * lowest if lowest >= 0 else -2 * lowest - 1)
    write_natural(sink, len(counts) - 1)
    write_symbols(sink, integers, counts, first=lowest << shift, shift=shift, choice=choice)


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
    return read_symbols(source, count, size, shift=shift) + (lowest << shift)


def _alphabet(integers: Integers, least: int, greatest: int) -> tuple[int, Integers, Choice]:
    """Return the shift with the shortest ideal length, the counts of the high parts, and how these are coded.

    Of long arrays the length is estimated by the entropy and two bits and a half for each part, and chosen only then.
    """
    shift = 0
    while (greatest >> shift) - (least >> shift) >= MAX_ALPHABET:
        shift += 1
    size = (greatest >> shift) - (least >> shift) + 1
    counts = frequencies(integers >> shift if shift else integers, size, least >> shift)
    total = int(counts.sum())
    quick = total >= LONG

    def measured(counts: Integers) -> tuple[float, Choice | None]:
        if quick:
            return _entropy_bits(counts) + 2.5 * len(counts), None
        choice = choose(counts)
        return choice.bits, choice

    length, choice = measured(counts)
    best = length + shift * total, shift, counts, choice
    while len(counts) > 2:  # a range across zero never folds into one part: -1 >> s is -1
        # One more low bit: neighbours (2k, 2k + 1) of the absolute grid fall together.
        odd_start, odd_stop = (least >> shift) & 1, 1 - ((greatest >> shift) & 1)
        counts = np.concatenate((_ZERO[:odd_start], counts, _ZERO[:odd_stop])).reshape(-1, 2).sum(axis=1)
        shift += 1
        # This bound rises with the shift: of two neighbours, the low bit tells at most one bit.
        if _entropy_bits(counts) + shift * total >= best[0]:
            break
        length, choice = measured(counts)
        if length + shift * total < best[0]:
            best = length + shift * total, shift, counts, choice
    _, shift, counts, choice = best
    return shift, counts, choice or choose(counts)


def _entropy_bits(counts: Integers) -> float:
    """Return what no model of the counts is shorter than."""
    seen = counts[counts > 0]
    return float(seen.sum() * np.log2(seen.sum()) - seen @ np.log2(seen))
