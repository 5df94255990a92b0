"""The family "pruned": small weights become zero, which ones is coded, and the others keep a fine grid."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._integers import nearest_integers, read_integers, write_integers
from landscape.compression._per_tensor import PerTensor
from landscape.compression._scales import (
    DType,
    cast,
    damaged,
    geometric_ladder,
    in_type,
    read_kind,
    read_scale,
    root_mean_square,
    write_kind,
    write_scale,
)
from landscape.compression._symbols import read_symbols, write_symbols
from landscape.compression._tensors import Array

_FINEST = -14  # log2 of the finest knob
_STEPS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class PrunedTensor:
    """A tensor of which few elements are left.

    Attributes:
        kept: 1 for each element that is left and 0 for each that is zero, flat.
        values: The elements that are left, in steps: from 2 on, or up to -2.
        step: The step, a number of the type `dtype`; 0 where every element is zero.
        shape: The tensor's shape.
        dtype: float32 or float64.
    """

    kept: Integers
    values: Integers
    step: float
    shape: tuple[int, ...]
    dtype: DType

    def restore(self) -> Array:
        """Return integer times step, rounded once, to `dtype`."""
        flat = np.zeros(len(self.kept), dtype=self.dtype)
        with np.errstate(over="ignore"):
            flat[self.kept == 1] = cast(self.values * np.float64(self.step), self.dtype)
        return flat.reshape(self.shape)


class Pruned(PerTensor[PrunedTensor]):
    """Magnitude pruning; the knob is the threshold in units of the tensor's root mean square.

    What is left is rounded to a grid of half the threshold, so that pruning makes most of the error. The
    stream has, for each tensor: the type and whether all is zero (2 bits); the step (31 or 63 bits); a flag for each
    element, by the shorter of an adaptive and a static model; the integers of those that are left, with the gap
    around zero closed and their alphabet.
    """

    name = "pruned"
    knob_is = "threshold over root mean square"

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs, coarse to fine: from where every weight is pruned, down to 2^-14."""
        return geometric_ladder(layout, _FINEST, coarsest=1.0)

    def quantise_tensor(self, name: str, array: Array, knob: float) -> PrunedTensor:
        """Prune a tensor at `knob` times its root mean square."""
        step = in_type(knob * root_mean_square(array) / _STEPS, array.dtype)
        with np.errstate(over="ignore"):
            scaled = array.ravel().astype(np.float64) / step
        integers, kept = nearest_integers(name, scaled), np.abs(scaled) >= _STEPS
        if not kept.any():
            return _zero(array.shape, array.dtype)
        return PrunedTensor(kept.astype(np.int64), integers[kept], step, array.shape, array.dtype)

    def write_tensor(self, part: PrunedTensor, sink: Sink) -> None:
        """Write which elements are left, and these."""
        write_kind(sink, part.dtype, part.step == 0)
        if part.step:
            write_scale(sink, part.step, part.dtype)
            write_symbols(sink, part.kept, np.bincount(part.kept, minlength=2))
            write_integers(sink, np.where(part.values > 0, part.values - _STEPS, part.values + _STEPS - 1))

    def read_tensor(self, source: Decoder, name: str, shape: tuple[int, ...]) -> PrunedTensor:
        """Read what `write_tensor` wrote."""  # noqa: DOC201, DOC501 - as the base says
        dtype, zero = read_kind(source)
        if zero:
            return _zero(shape, dtype)
        step, kept = read_scale(source, name, dtype), read_symbols(source, math.prod(shape), 2)
        if not kept.any():
            raise MeasurementError(damaged(f"tensor '{name}' announces weights and keeps none", "at least one"))
        values = read_integers(source, int(kept.sum()))
        values = np.where(values >= 0, values + _STEPS, values - _STEPS + 1)
        return PrunedTensor(kept, values, step, shape, dtype)


def _zero(shape: tuple[int, ...], dtype: DType) -> PrunedTensor:
    none = np.zeros(0, dtype=np.int64)
    return PrunedTensor(np.zeros(math.prod(shape), dtype=np.int64), none, 0.0, shape, dtype)
