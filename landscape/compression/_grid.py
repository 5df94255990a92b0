"""The family "uniform-tensor": every tensor on its own uniform grid, integers times one step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._integers import LARGEST_INTEGER, read_integers, write_integers
from landscape.compression._tensors import Array

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

# Sixteen knobs an octave: one more step is 1/16 bit a weight, about 2 % of a network's bits.
_PER_OCTAVE = 16
_FINEST = -16  # log2 of the finest knob: below float32's own resolution of the larger weights


@dataclasses.dataclass(frozen=True, eq=False)
class GridTensor:
    """A tensor on a uniform grid.

    Attributes:
        integers: Which multiple of the step each element is, flat.
        step: The step, a number of the type `dtype`; 0 where every integer is 0.
        shape: The tensor's shape.
        dtype: float32 or float64.
    """

    integers: Integers
    step: float
    shape: tuple[int, ...]
    dtype: np.dtype[np.floating[Any]]

    def restore(self) -> Array:
        """Return integer times step, rounded once, to `dtype`."""
        return (self.integers * np.float64(self.step)).astype(self.dtype).reshape(self.shape)


class UniformTensor:
    """A uniform grid for each tensor; the knob is the step in units of the tensor's root mean square.

    The stream has, for each tensor in the layout's order: the type and whether all is zero (2 bits); the
    step, without its sign (31 or 63 bits); the integers with their alphabet. Since the step follows the
    tensor's scale, the bits do not change when a layer is rescaled.
    """

    name = "uniform-tensor"

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs, coarse to fine: from where every weight rounds to zero, down to 2^-16."""
        # The largest element is at most sqrt(n) root mean squares, and half a step rounds to zero.
        coarsest = math.ceil(_PER_OCTAVE * math.log2(2 * math.sqrt(max(layout.sizes, default=1) or 1))) + 1
        return 2.0 ** (np.arange(coarsest, _FINEST * _PER_OCTAVE - 1, -1) / _PER_OCTAVE)

    def quantise(self, arrays: Mapping[str, Array], knob: float) -> list[GridTensor]:
        """Round each tensor to the grid of step `knob` times its root mean square.

        Args:
            arrays: The tensors by name.
            knob: The relative step, positive.

        Returns:
            The tensors on their grids.

        Raises:
            ValueError: The knob is not a positive number, or so fine that integers pass 2^52.
        """
        if not (math.isfinite(knob) and knob > 0):
            raise ValueError(f"the knob (step over root mean square) is {knob}, expected a positive finite number")
        return [_round(name, array, knob * _root_mean_square(array)) for name, array in arrays.items()]

    def quantise_at(
        self, arrays: Mapping[str, Array], steps: Mapping[str, float] | Sequence[float]
    ) -> list[GridTensor]:
        """Round each tensor to the grid of its own absolute step, itself rounded to the tensor's type.

        Args:
            arrays: The tensors by name.
            steps: A positive step for each tensor, by name or in order.

        Returns:
            The tensors on their grids.

        Raises:
            ValueError: The steps are not one a tensor, or not positive, or so fine that integers pass 2^52.
        """
        named = steps if isinstance(steps, Mapping) else dict(zip(arrays, steps, strict=False))
        if len(steps) != len(arrays) or set(named) != set(arrays):
            raise ValueError(
                f"found steps for {list(steps)}, expected one step for each of {len(arrays)} tensors: {list(arrays)}"
            )
        for name, step in named.items():
            if not (math.isfinite(step) and step > 0):
                raise ValueError(f"the step of tensor '{name}' is {step}, expected a positive finite number")
        return [_round(name, array, float(named[name])) for name, array in arrays.items()]

    def restore(self, parts: Sequence[GridTensor]) -> list[Array]:
        """Return the quantised tensors."""
        return [part.restore() for part in parts]

    def write(self, parts: Sequence[GridTensor], sink: Sink) -> None:
        """Write the tensors to a stream."""
        for part in parts:
            sink.uniform(2 * _DTYPES.index(part.dtype) + (part.step == 0), 2)
            if part.step:
                sink.uniform(_float_to_int(part.step, part.dtype), 8 * part.dtype.itemsize - 1)
                write_integers(sink, part.integers)

    def read(self, layout: ParameterLayout, source: Decoder) -> list[GridTensor]:
        """Read the tensors of a layout from a stream.

        Args:
            layout: Names and shapes.
            source: The stream.

        Returns:
            The tensors on their grids.

        Raises:
            MeasurementError: No message has such a stream.
        """
        parts = []
        for name, shape, size in zip(layout.names, layout.shapes, layout.sizes, strict=True):
            kind = int(source.uniform(1, 2)[0])
            dtype, step, integers = _DTYPES[kind // 2], 0.0, np.zeros(size, dtype=np.int64)
            if kind % 2 == 0:
                step = _int_to_float(int(source.uniform(1, 8 * dtype.itemsize - 1)[0]), dtype)
                integers = read_integers(source, size) if size else integers
                largest = int(np.abs(integers).max(initial=0))
                if not (0 < largest * step <= float(np.finfo(dtype).max)):
                    raise MeasurementError(
                        f"the compressed stream is damaged: tensor '{name}' has step {step} and integers up to "
                        f"{largest}, expected finite weights that are not all zero"
                    )
            parts.append(GridTensor(integers, step, shape, dtype))
        return parts


def _round(name: str, array: Array, step: float) -> GridTensor:
    limits = np.finfo(array.dtype)
    step = float(array.dtype.type(min(max(step, float(limits.smallest_subnormal)), float(limits.max))))
    scaled = array.ravel().astype(np.float64)
    with np.errstate(over="ignore"):  # told below, with the sentence that it deserves
        scaled /= step
    largest = max(scaled.max(initial=0.0), -scaled.min(initial=0.0))
    if largest > LARGEST_INTEGER:
        raise ValueError(
            f"tensor '{name}' spans {largest:.3g} steps of {step:.3g}, more than the 2^52 that float64 rounds "
            "exactly; take a coarser step"
        )
    # Rounding the largest floats up would leave the type's range.
    ceiling = min(float(limits.max) // step, float(LARGEST_INTEGER))
    integers = np.clip(np.rint(scaled, out=scaled), -ceiling, ceiling, out=scaled).astype(np.int64)
    return GridTensor(integers, step if integers.any() else 0.0, array.shape, array.dtype)


def _root_mean_square(array: Array) -> float:
    scale = float(np.abs(array).max(initial=0))
    if scale == 0:
        return 0.0
    # In units of the largest element, so that neither squares nor their sum leave the range of float64.
    unit = array.ravel().astype(np.float64) / scale
    return scale * math.sqrt(float(unit @ unit) / unit.size)


def _float_to_int(value: float, dtype: np.dtype[np.floating[Any]]) -> int:
    return int(np.array(value, dtype).view(f"u{dtype.itemsize}"))


def _int_to_float(value: int, dtype: np.dtype[np.floating[Any]]) -> float:
    return float(np.array(value, f"u{dtype.itemsize}").view(dtype))
