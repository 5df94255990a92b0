"""Steps of nine bits, and whole tensors on a grid of such a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._integers import LARGEST_INTEGER, read_integers, write_integers

_WIDTH = 9
_LEAST = -36  # exponent of the smallest step
_PER_OCTAVE = 8


def step_at(index: int) -> float:
    """Return the step of an index: (1 + j/8) · 2^k, exact in binary, from 2^−36 to under 2^28."""
    octave, eighth = divmod(index, _PER_OCTAVE)
    return math.ldexp(_PER_OCTAVE + eighth, octave + _LEAST - 3)


def nearest_step(value: float) -> int:
    """Return the index of the largest step not above a positive value, within the ladder."""
    if not value > 0:
        return 0
    mantissa, exponent = math.frexp(value)  # mantissa in [1/2, 1)
    index = _PER_OCTAVE * (exponent - 1 - _LEAST) + int(2 * _PER_OCTAVE * mantissa) - _PER_OCTAVE
    return min(max(index, 0), (1 << _WIDTH) - 1)


def write_step(sink: Sink, index: int) -> None:
    """Write the index of a step, at nine bits."""
    sink.uniform(index, _WIDTH)


def read_step(source: Decoder) -> int:
    """Read the index of a step."""
    return int(source.uniform(1, _WIDTH)[0])


class GridTensor:
    """A tensor as whole multiples of a step of nine bits.

    Attributes:
        step: Index of the step.
        integers: The multiples, flat.
    """

    def __init__(self, step: int, integers: Integers):
        self.step = step
        self.integers = integers

    @classmethod
    def of(cls, values: npt.NDArray[Any], fineness: int) -> GridTensor:
        """Round to a step of 2^−fineness root mean squares, and refuse what is not finite."""  # noqa: DOC501
        if not np.isfinite(values).all():
            raise MeasurementError(
                "a buffer or frozen parameter holds NaN or infinite values, for which there is no code; where the "
                "constructor makes them (a mask of −infinity), give architecture=, else mend the network"
            )
        flat = values.astype(np.float64).ravel()
        step = nearest_step(math.sqrt(float(np.mean(flat**2))) * 2.0**-fineness if flat.size else 0.0)
        integers = np.clip(np.rint(flat / step_at(step)), -LARGEST_INTEGER, LARGEST_INTEGER)
        return cls(step, integers.astype(np.int64))

    def restore(self) -> npt.NDArray[np.float64]:
        """Return the multiples of the step, flat."""
        return self.integers.astype(np.float64) * step_at(self.step)

    def write(self, sink: Sink) -> None:
        """Write step and integers; the length is known to the reader."""
        if self.integers.size:
            write_step(sink, self.step)
            write_integers(sink, self.integers)

    @classmethod
    def read(cls, source: Decoder, size: int) -> GridTensor:
        """Read a tensor of so many elements."""
        if not size:
            return cls(0, np.zeros(0, dtype=np.int64))
        return cls(read_step(source), read_integers(source, size))
