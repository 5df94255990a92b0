"""Natural numbers in the stream: single ones for headers, and arrays in which small ones are likely."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from landscape._errors import MeasurementError
from landscape.compression._entropy import Decoder, Integers, Sink

_LENGTH_WIDTH = 6
_LAST_WIDTH = 6
_LONGEST = 52  # binary digits of an array's elements: float64 tells the length of these


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


def write_naturals(sink: Sink, values: Integers) -> None:
    """Write an array of integers in [0, 2^52); its length is not written.

    The last digits, as many as most elements have beside two, are written as they are (one bit tells of none, six
    more of how many). What remains of each goes by Elias's gamma code: the number of its digits in unary, then the
    digits after the leading one. But the j-th unary digits of all elements are coded together, adaptively, so that
    an array costs about its entropy, and a short one hardly more than Elias's code.
    """
    if not len(values):
        return
    last = _last_digits(values)
    sink.uniform(int(last > 0), 1)
    if last:
        sink.uniform(last, _LAST_WIDTH)
        sink.uniform(values & ((1 << last) - 1), last)
    values = values >> last
    lengths = _lengths(values)
    reaching = lengths
    for length in range(int(lengths.max()) + 1):
        longer = reaching > length
        sink.adaptive(longer.astype(np.int64), 2)
        reaching = reaching[longer]
    for length in range(2, int(lengths.max()) + 1):
        sink.uniform(values[lengths == length] - (1 << (length - 1)), length - 1)


def read_naturals(source: Decoder, count: int) -> Integers:
    """Read `count` integers that `write_naturals` wrote.

    Args:
        source: The stream.
        count: How many.

    Returns:
        The integers, shape (count,).

    Raises:
        MeasurementError: No message has such a stream.
    """
    if not count:
        return np.zeros(0, dtype=np.int64)
    last = int(source.uniform(1, _LAST_WIDTH)[0]) if source.uniform(1, 1)[0] else 0
    digits = source.uniform(count, last) if last else 0
    lengths = np.zeros(count, dtype=np.int64)
    longer = np.arange(count)
    while len(longer):
        longer = longer[source.adaptive(len(longer), 2) == 1]
        lengths[longer] += 1
        if len(longer) and lengths[longer[0]] + last > _LONGEST:
            raise MeasurementError(
                f"the compressed stream is damaged: it announces integers of more than {_LONGEST} binary digits, "
                "expected what a code has; give the payload of a Code as `encode` returned it"
            )
    values = (lengths > 0).astype(np.int64)
    for length in range(2, int(lengths.max()) + 1):
        chosen = lengths == length
        values[chosen] = (1 << (length - 1)) + source.uniform(int(chosen.sum()), length - 1)
    return (values << last) | digits


def naturals_bits(values: Integers) -> float:
    """Return the ideal length of `write_naturals` in closed form, in bits."""
    if not len(values):
        return 0.0
    last = _last_digits(values)
    histogram = np.bincount(_lengths(values >> last))
    # Of the elements with at least j digits, those with more and those with just j, by the estimator for two symbols.
    longer = histogram[::-1].cumsum()[::-1]
    more, just = np.append(longer[1:], 0), histogram
    nats = gammaln(longer + 1.0) - gammaln(more + 0.5) - gammaln(just + 0.5) + math.log(math.pi)
    digits = (histogram[2:] * np.arange(1, len(histogram) - 1)).sum()
    header = 1 + (_LAST_WIDTH if last else 0)
    return float(header + last * len(values) + nats.sum() / math.log(2) + digits)


def _last_digits(values: Integers) -> int:
    return max(0, int(np.partition(values, len(values) // 2)[len(values) // 2]).bit_length() - 2)


def zigzag(values: Integers) -> Integers:
    """Fold 0, -1, 1, -2, ... to 0, 1, 2, 3, ..."""
    return (2 * values) ^ (values >> 63)


def unzigzag(values: Integers) -> Integers:
    """Undo `zigzag`."""
    return (values >> 1) ^ -(values & 1)


def _lengths(values: Integers) -> Integers:
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
