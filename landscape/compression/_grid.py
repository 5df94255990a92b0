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
from landscape.compression._per_tensor import PerTensor
from landscape.compression._scales import (
    damaged,
    geometric_ladder,
    in_type,
    read_kind,
    read_scale,
    root_mean_square,
    write_kind,
    write_scale,
)
from landscape.compression._tensors import Array

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


class UniformTensor(PerTensor[GridTensor]):
    """A uniform grid for each tensor; the knob is the step in units of the tensor's root mean square.

    The stream has, for each tensor in the layout's order: the type and whether all is zero (2 bits); the
    step, without its sign (31 or 63 bits); the integers with their alphabet. Since the step follows the
    tensor's scale, the bits do not change when a layer is rescaled.
    """

    name = "uniform-tensor"
    knob_is = "step over root mean square"

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs, coarse to fine: from where every weight rounds to zero, down to 2^-16."""
        return geometric_ladder(layout, _FINEST)  # half a step rounds to zero

    def quantise_tensor(self, name: str, array: Array, knob: float) -> GridTensor:
        """Round a tensor to the grid of step `knob` times its root mean square."""
        return round_to_grid(name, array, knob * root_mean_square(array))

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
        return [round_to_grid(name, array, float(named[name])) for name, array in arrays.items()]

    def write_tensor(self, part: GridTensor, sink: Sink) -> None:
        """Write a tensor on its grid."""
        write_grid(sink, part)

    def read_tensor(self, source: Decoder, name: str, shape: tuple[int, ...]) -> GridTensor:
        """Read what `write_tensor` wrote."""
        return read_grid(source, name, shape)


def write_grid(sink: Sink, part: GridTensor) -> None:
    """Write one tensor on its grid; the shape is not written."""
    write_kind(sink, part.dtype, part.step == 0)
    if part.step:
        write_scale(sink, part.step, part.dtype)
        write_integers(sink, part.integers)


def read_grid(source: Decoder, name: str, shape: tuple[int, ...]) -> GridTensor:
    """Read one tensor that `write_grid` wrote.

    Args:
        source: The stream.
        name: Of the tensor.
        shape: Its shape.

    Returns:
        The tensor on its grid.

    Raises:
        MeasurementError: No message has such a stream.
    """
    dtype, zero = read_kind(source)
    size = math.prod(shape)
    if zero:
        return GridTensor(np.zeros(size, dtype=np.int64), 0.0, shape, dtype)
    step = read_scale(source, name, dtype)
    integers = read_integers(source, size) if size else np.zeros(0, dtype=np.int64)
    largest = int(np.abs(integers).max(initial=0))
    if not 0 < largest * step <= float(np.finfo(dtype).max):
        found = f"tensor '{name}' has step {step} and integers up to {largest}"
        raise MeasurementError(damaged(found, "finite weights that are not all zero"))
    return GridTensor(integers, step, shape, dtype)


def round_to_grid(name: str, array: Array, step: float) -> GridTensor:
    """Round a tensor to the grid of a step, itself rounded to the tensor's type.

    Args:
        name: Of the tensor.
        array: The tensor.
        step: The absolute step.

    Returns:
        The tensor on its grid.

    Raises:
        ValueError: The step is so fine that integers pass 2^52.
    """
    limits = np.finfo(array.dtype)
    step = in_type(step, array.dtype)
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
