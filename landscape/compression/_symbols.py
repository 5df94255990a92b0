"""Symbols of an alphabet in the stream, by the shorter of two models: adaptive, or static with its counts coded before.

The adaptive model pays half a logarithm of the length for each symbol of the alphabet, whatever the counts. The
static one sends the square roots of the counts, r = round(sqrt(n_a / 3)), and codes symbol a with probability
r_a^2 / Σ r^2. A count's root has the standard error 1/2 at any size, so that roots need be no finer: rounding them
costs less than a bit for each symbol of the alphabet. Neighbouring symbols of weights have like counts: what is sent
is the difference from a constant or from a straight continuation of the roots before. All symbols then go through
the coder in one call, in whatever order they stand.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._lengths import kt_bits, static_bits
from landscape.compression._naturals import naturals_bits, read_naturals, unzigzag, write_naturals, zigzag

MAX_ALPHABET = 2**14  # a small part of constriction's 2^24 units of probability, of which each symbol takes one

# From so many symbols on the static model, which one vectorised call codes, is taken unless it is that much longer.
LONG = 2**16
_HAIR = 64.0

_COUNTS_PER_SQUARE = 3  # where the loss by rounding, h^2/6 nats a symbol, and the gain, log2 h bits, balance


@dataclasses.dataclass(frozen=True)
class Choice:
    """How symbols are to be coded.

    Attributes:
        static: By the static model, else by the adaptive one.
        order: How the static model's roots are predicted: as the last one (0), or on a straight line (1).
        bits: The ideal length, with the bit that tells the model.
    """

    static: bool
    order: int
    bits: float


def choose(counts: Integers) -> Choice:
    """Return the shorter code of symbols with these counts."""
    if len(counts) < 2 or not counts.any():
        return Choice(static=False, order=0, bits=0.0)
    roots = _roots(counts)
    differences = [zigzag(roots - _continued(roots, order)) for order in (0, 1)]
    order = int(np.log2(differences[1] + 1).sum() < np.log2(differences[0] + 1).sum())
    ideal = 1 + naturals_bits(differences[order]) + static_bits(counts, roots * roots)
    adaptive = kt_bits(counts)
    static = ideal <= adaptive + (_HAIR if counts.sum() >= LONG else 0.0)
    return Choice(static, order, 1 + (ideal if static else adaptive))


def write_symbols(
    sink: Sink, symbols: Integers, counts: Integers, *, first: int = 0, shift: int = 0, choice: Choice | None = None
) -> None:
    """Write symbols, of which the model sees all but the last `shift` binary digits; the digits are equally likely.

    Number, first symbol, size of the alphabet and shift are not written.

    Args:
        sink: Where to.
        symbols: The symbols, in [first, first + (len(counts) << shift)).
        counts: How often each of (symbols - first) >> shift occurs.
        first: The first symbol.
        shift: The number of digits without a model.
        choice: What `choose` says of the counts, where the caller knows it.
    """
    size = len(counts)
    choice = choice or choose(counts)
    if size > 1 and len(symbols):
        sink.uniform(int(choice.static), 1)
        if choice.static:
            roots = _roots(counts)
            sink.uniform(choice.order, 1)
            write_naturals(sink, zigzag(roots - _continued(roots, choice.order)))
            if size << shift <= MAX_ALPHABET:
                sink.static(symbols, np.repeat(roots * roots, 1 << shift), first)
                return
            sink.static((symbols - first) >> shift, roots * roots)
        else:
            sink.adaptive((symbols - first) >> shift, size)
    if shift:
        sink.uniform((symbols - first) & ((1 << shift) - 1), shift)


def read_symbols(source: Decoder, count: int, size: int, *, shift: int = 0) -> Integers:
    """Read `count` symbols in [0, size << shift) that `write_symbols` wrote.

    Args:
        source: The stream.
        count: How many symbols.
        size: The size of the alphabet.
        shift: The number of digits without a model.

    Returns:
        The symbols, shape (count,).

    Raises:
        MeasurementError: No message has such a stream.
    """
    high = np.zeros(count, dtype=np.int64)
    if size > 1 and count:
        if source.uniform(1, 1)[0]:
            weights = _read_weights(source, size)
            if size << shift <= MAX_ALPHABET:
                return source.static(count, np.repeat(weights, 1 << shift))
            high = source.static(count, weights)
        else:
            high = source.adaptive(count, size)
    return (high << shift) | source.uniform(count, shift) if shift else high


def _read_weights(source: Decoder, size: int) -> Integers:
    order = int(source.uniform(1, 1)[0])
    roots = unzigzag(read_naturals(source, size))
    for _ in range(order + 1):  # what a damaged stream makes of it may wrap around, and is looked at afterwards
        roots = roots.cumsum()
    if roots.min() < 0 or not 0 < float((roots.astype(np.float64) ** 2).sum()) < 2**53 / MAX_ALPHABET:
        raise MeasurementError(
            "the compressed stream is damaged: it announces counts of symbols that are negative, all zero or beyond "
            "any tensor, expected those of a code; give the payload of a Code as `encode` returned it"
        )
    return roots * roots


def _roots(counts: npt.NDArray[np.integer]) -> Integers:
    roots = np.rint(np.sqrt(counts / _COUNTS_PER_SQUARE)).astype(np.int64)
    return np.maximum(roots, counts > 0)


def _continued(roots: Integers, order: int) -> Integers:
    """Return what each root would be after those before it: like the last one (order 0), or on a straight line (1)."""
    before = np.concatenate(([0], roots[:-1]))
    return before if order == 0 else 2 * before - np.concatenate(([0, 0], roots[:-2]))[: len(roots)]
