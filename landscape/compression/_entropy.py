"""The entropy coder: one range-coder stream, written by `Encoder`, read by `Decoder`, and measured by `Meter`.

The three speak the same three words. `uniform` codes integers that take `width` bits each. `adaptive` codes
symbols of an alphabet of `size` by the Krichevsky-Trofimov estimator

    P(x_{n+1} = a | x_1 .. x_n) = (n_a + 1/2) / (n + size/2),

which needs no table in the stream: both sides count what has gone by. `static` codes symbols with probabilities in
proportion to weights that both sides know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import constriction
import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape.compression._blocks import blocks, interleaved, lags
from landscape.compression._lengths import PIECE, frequencies, kt_bits, static_bits

Integers = npt.NDArray[np.int64]

_CHUNK = 16  # bits of one uniform symbol; constriction's models have 24 bits of precision


class Sink(Protocol):
    """What a family writes its stream to: an `Encoder`, or a `Meter` where only the length is wanted."""

    def uniform(self, values: npt.ArrayLike, width: int) -> None:
        """Write integers in [0, 2^width), at `width` bits each."""

    def adaptive(self, symbols: Integers, size: int) -> None:
        """Write symbols in [0, size) by the Krichevsky-Trofimov estimator."""

    def static(self, symbols: Integers, weights: Integers, first: int = 0) -> None:
        """Write symbols a with probabilities in proportion to weights[a - first], which the reader knows."""


class Encoder:
    """Writes a stream that is prefix-free: no other message of the same layout has a stream beginning with it."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def uniform(self, values: npt.ArrayLike, width: int) -> None:
        """Write integers in [0, 2^width), at `width` bits each."""
        values = np.atleast_1d(np.asarray(values, dtype=np.int64))
        for low, bits in _chunks(width):
            self._coder.encode(((values >> low) & ((1 << bits) - 1)).astype(np.int32), _uniform_model(bits))

    def adaptive(self, symbols: Integers, size: int) -> None:
        """Write symbols in [0, size) by the Krichevsky-Trofimov estimator, its counts renewed block by block."""
        if size < 2:
            return
        symbols = symbols[interleaved(len(symbols), size)]
        narrow = symbols.astype(np.int32)
        if size == 2:
            # The probabilities of all blocks are known here, and go to the coder in one call.
            starts = np.arange(len(symbols))
            for start, stop in blocks(len(symbols), size) if lags(len(symbols), size) else ():
                starts[start:stop] = start
            seen = (symbols.cumsum() - symbols)[starts]
            self._coder.encode(narrow, constriction.stream.model.Bernoulli(perfect=False), _share(seen, starts))
            return
        weights = np.ones(size)
        for start, stop in blocks(len(symbols), size):
            self._coder.encode(narrow[start:stop], _model(weights))
            _count(weights, symbols[start:stop])

    def static(self, symbols: Integers, weights: Integers, first: int = 0) -> None:
        """Write symbols a with probabilities in proportion to weights[a - first], whose sum is below 2^53."""
        model = _model(weights.astype(np.float64))
        # The coder takes 32 bits: converted piece by piece, without another array of the whole.
        wide = np.empty(min(len(symbols), PIECE), dtype=np.int64)
        for start in range(0, len(symbols), PIECE):
            piece = symbols[start : start + PIECE]
            self._coder.encode(np.subtract(piece, first, out=wide[: len(piece)]).astype(np.int32), model)

    def payload(self) -> bytes:
        """Return the shortest byte string that decodes to what was written, whatever bytes come after it.

        The range coder ends at an interval of 64-bit numbers; the string is the shortest one of which every
        continuation lies inside. (The coder's own flush rounds up to whole words, up to three bytes more.)
        """
        if self._coder.is_empty():
            return b""
        words = self._coder.get_compressed()
        position, (lower, span) = self._coder.pos()
        # `lower` is what follows the first `position` words. The flush chose a point at or above it, and may
        # have carried into those words: so the interval is placed relative to the point.
        stream = words.astype(">u4").tobytes().ljust(4 * position + 8, b"\0")
        before, point = stream[:-8], int.from_bytes(stream[-8:], "big")
        first = point - (point - lower) % 2**64
        for spare in range(64, -1, -8):
            head = -(-first >> spare)
            if (head + 1) << spare <= first + span:
                break
        carry, tail = divmod(head, 1 << (64 - spare))
        if carry:
            before = (int.from_bytes(before, "big") + carry).to_bytes(len(before), "big")
        return before + tail.to_bytes(8 - spare // 8, "big")


class Decoder:
    """Reads what an `Encoder` wrote, in the same order; a MeasurementError tells of a stream that no message has."""

    def __init__(self, payload: bytes) -> None:
        padded = payload.ljust(-(-len(payload) // 4) * 4, b"\0")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))

    def uniform(self, count: int, width: int) -> Integers:
        """Read `count` integers of `width` bits each."""
        values = np.zeros(count, dtype=np.int64)
        for low, bits in _chunks(width):
            values |= self._decode(_uniform_model(bits), count) << low
        return values

    def adaptive(self, count: int, size: int) -> Integers:
        """Read `count` symbols in [0, size)."""
        symbols = np.zeros(count, dtype=np.int64)
        if size < 2:
            return symbols
        weights = np.ones(size)
        for start, stop in blocks(count, size):
            if size == 2:
                share = float(_share(weights[1] // 2, start))
                model = constriction.stream.model.Bernoulli(share, perfect=False)
            else:
                model = _model(weights)
            block = self._decode(model, stop - start)
            symbols[start:stop] = block
            _count(weights, block)
        ordered = np.empty_like(symbols)
        ordered[interleaved(count, size)] = symbols
        return ordered

    def static(self, count: int, weights: Integers) -> Integers:
        """Read `count` symbols of these weights."""
        return self._decode(_model(weights.astype(np.float64)), count)

    def _decode(self, model: Any, count: int) -> Integers:
        try:
            return self._coder.decode(model, count).astype(np.int64)
        except AssertionError as error:  # what constriction raises for a point outside of every symbol's interval
            raise MeasurementError(
                "the compressed stream is damaged: no weights encode to these bytes; expected the payload of a "
                "Code as `encode` returned it, with the layout of the same network"
            ) from error


class Witness(Decoder):
    """A decoder that writes again what it reads: with the whole message read, its payload must be the one given.

    So nothing is computed anew that an encoder chose by comparing lengths, which another machine may round otherwise.
    """

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self._encoder = Encoder()

    def uniform(self, count: int, width: int) -> Integers:
        """Read integers and write them."""
        values = super().uniform(count, width)
        self._encoder.uniform(values, width)
        return values

    def adaptive(self, count: int, size: int) -> Integers:
        """Read symbols and write them."""
        symbols = super().adaptive(count, size)
        self._encoder.adaptive(symbols, size)
        return symbols

    def static(self, count: int, weights: Integers) -> Integers:
        """Read symbols and write them."""
        symbols = super().static(count, weights)
        self._encoder.static(symbols, weights)
        return symbols

    def payload(self) -> bytes:
        """Return the payload of what was read so far."""
        return self._encoder.payload()


class Meter:
    """Adds up the ideal length of what is written, without coding: log-gamma functions of the counts.

    Attributes:
        bits: The length so far, in bits.
    """

    def __init__(self) -> None:
        self.bits = 0.0

    def uniform(self, values: npt.ArrayLike, width: int) -> None:
        """Add `width` bits for each value."""
        self.bits += np.size(values) * width

    def adaptive(self, symbols: Integers, size: int) -> None:
        """Add the Krichevsky-Trofimov length of the symbols."""
        self.bits += kt_bits(frequencies(symbols, size))

    def static(self, symbols: Integers, weights: Integers, first: int = 0) -> None:
        """Add the cross-entropy of the symbols under the weights."""
        self.bits += static_bits(frequencies(symbols, len(weights), first), weights)


def _model(weights: npt.NDArray[np.float64]) -> Any:
    # The weights are integers (of the adaptive model odd ones, 2 n_a + 1): their float64 sum is exact, so that
    # both sides build one model. constriction gives a weight of zero the least probability that it has.
    return constriction.stream.model.Categorical(weights, perfect=False)


def _share(ones: Any, count: Any) -> Any:
    """Return the estimator's probability of a one after so many of so many symbols."""
    return (2 * ones + 1) / (2 * count + 2)


def _uniform_model(bits: int) -> Any:
    return constriction.stream.model.Uniform(1 << bits)


def _count(weights: npt.NDArray[np.float64], block: Integers) -> None:
    if len(block) == 1:
        weights[block[0]] += 2
    else:
        weights += 2 * np.bincount(block, minlength=len(weights))


def _chunks(width: int) -> Iterator[tuple[int, int]]:
    for low in range(0, width, _CHUNK):
        yield low, min(_CHUNK, width - low)
