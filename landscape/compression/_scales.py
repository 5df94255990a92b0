"""What every family's tensors begin with in the stream: their type, whether all is zero, and positive scales."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Sink
from landscape.compression._tensors import Array

DType = np.dtype[np.floating[Any]]

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

_LIMITS = np.finfo(np.float32)
_LARGEST_COARSE = 0x7F7F  # the largest finite number of eight binary digits

# Sixteen knobs an octave: one more step is 1/16 bit a weight, about 2 % of a network's bits.
_PER_OCTAVE = 16


def geometric_ladder(layout: ParameterLayout, finest: int, coarsest: float = 2.0) -> npt.NDArray[np.float64]:
    """Return sixteen knobs an octave, in root mean squares, coarse to fine.

    Args:
        layout: Names and shapes: the largest element of a tensor is at most sqrt(n) root mean squares.
        finest: log2 of the finest knob.
        coarsest: The coarsest knob in units of that largest element, or the next knob above it.

    Returns:
        The knobs.
    """
    largest = coarsest * math.sqrt(max(layout.sizes, default=1) or 1)
    first = math.ceil(_PER_OCTAVE * math.log2(largest)) + 1
    return 2.0 ** (np.arange(first, finest * _PER_OCTAVE - 1, -1) / _PER_OCTAVE)


def positive_knob(knob: float, what: str) -> float:
    """Return the knob.

    Args:
        knob: The knob.
        what: What it is, in words.

    Returns:
        The knob.

    Raises:
        ValueError: It is not a positive finite number.
    """
    if not (math.isfinite(knob) and knob > 0):
        raise ValueError(f"the knob ({what}) is {knob}, expected a positive finite number")
    return knob


def root_mean_square(array: Array) -> float:
    """Return the root of the mean square of an array; 0 for an empty one."""
    scale = float(np.abs(array).max(initial=0))
    if scale == 0:
        return 0.0
    # In units of the largest element, so that neither squares nor their sum leave the range of float64.
    unit = array.ravel().astype(np.float64) / scale
    return scale * math.sqrt(float(unit @ unit) / unit.size)


def in_type(value: float, dtype: DType) -> float:
    """Round a positive number to one of the type that is neither 0 nor infinite."""
    limits = np.finfo(dtype)
    return float(dtype.type(min(max(value, float(limits.smallest_subnormal)), float(limits.max))))


def cast(values: npt.NDArray[np.float64], dtype: DType) -> Array:
    """Round numbers to the type; those that rounding has carried out of its range become its largest."""
    largest = float(np.finfo(dtype).max)
    return np.clip(values, -largest, largest).astype(dtype)


def write_kind(sink: Sink, dtype: DType, zero: bool) -> None:
    """Write the type and whether every element is zero, in 2 bits."""
    sink.uniform(2 * _DTYPES.index(dtype) + zero, 2)


def read_kind(source: Decoder) -> tuple[DType, bool]:
    """Read what `write_kind` wrote."""
    kind = int(source.uniform(1, 2)[0])
    return _DTYPES[kind // 2], bool(kind % 2)


def write_scale(sink: Sink, value: float, dtype: DType) -> None:
    """Write a positive number of the type exactly, without its sign: 31 or 63 bits."""
    sink.uniform(int(np.array(value, dtype).view(f"u{dtype.itemsize}")), 8 * dtype.itemsize - 1)


def read_scale(source: Decoder, name: str, dtype: DType) -> float:
    """Read what `write_scale` wrote.

    Args:
        source: The stream.
        name: Of the tensor.
        dtype: The type.

    Returns:
        The number.

    Raises:
        MeasurementError: It is not positive and finite.
    """
    code = int(source.uniform(1, 8 * dtype.itemsize - 1)[0])
    value = float(np.array(code, f"u{dtype.itemsize}").view(dtype))
    if not (math.isfinite(value) and value > 0):
        raise MeasurementError(damaged(f"tensor '{name}' has the scale {value}", "a positive finite number"))
    return value


def coarse(value: float) -> float:
    """Round a positive number to eight binary digits within float32's range (a bfloat16)."""
    bits = int(np.float32(min(max(value, float(_LIMITS.tiny)), float(_LIMITS.max))).view(np.uint32))
    return _from_coarse(min((bits + 2**15) >> 16, _LARGEST_COARSE))


def write_coarse(sink: Sink, value: float) -> None:
    """Write a number that `coarse` returned, in 15 bits."""
    sink.uniform(int(np.float32(value).view(np.uint32)) >> 16, 15)


def read_coarse(source: Decoder) -> float:
    """Read what `write_coarse` wrote.

    Args:
        source: The stream.

    Returns:
        The number.

    Raises:
        MeasurementError: It is not positive and finite.
    """
    code = int(source.uniform(1, 15)[0])
    if not 0 < code <= _LARGEST_COARSE:
        raise MeasurementError(damaged(f"a knob is {_from_coarse(code)}", "a positive finite number"))
    return _from_coarse(code)


def _from_coarse(code: int) -> float:
    return float(np.uint32(code << 16).view(np.float32))


def damaged(found: str, expected: str) -> str:
    """Return the sentence that tells of a stream that no message has."""
    return f"the compressed stream is damaged: {found}, expected {expected}"
