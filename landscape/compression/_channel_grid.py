"""The family "uniform-channel": a uniform grid whose step follows each output channel's own scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression._channels import Fold, Neurons, Scales, fold_of, mantissa_bits, row_scales
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._integers import nearest_integers, read_integers, write_integers
from landscape.compression._scales import (
    DType,
    cast,
    coarse,
    damaged,
    geometric_ladder,
    positive_knob,
    read_coarse,
    read_kind,
    write_coarse,
    write_kind,
)
from landscape.compression._symbols import read_symbols, write_symbols
from landscape.compression._tensors import Array

_FINEST = -16  # log2 of the finest knob

# Weights of "no channel is zero" and "some are": usual layers, without one, pay next to nothing for the others.
_ZERO_CHANNELS = np.array([255, 1])


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGrid:
    """A tensor on grids of one relative step.

    Attributes:
        integers: Which multiple of its step each element is, flat.
        knob: The step in units of each channel's root mean square; 0 where every integer is 0.
        codes: The channels' coded root mean squares, 0 for a channel of zeros.
        neurons: The scales of the neurons on the other side, which the tensor was measured in; None where there are
            none.
        offered: Whether there were such neurons, so that one bit tells whether they were taken.
        shape: The tensor's shape.
        dtype: float32 or float64.
    """

    integers: Integers
    knob: float
    codes: Integers
    neurons: Neurons | None
    offered: bool
    shape: tuple[int, ...]
    dtype: DType

    def restore(self) -> Array:
        """Return integer times knob times scales, from products in a fixed order, rounded to `dtype`."""
        if not self.knob:
            return np.zeros(self.shape, dtype=self.dtype)
        rows = Scales.of(self.codes, mantissa_bits(self.knob), self.dtype)
        fold = fold_of(self.shape, self.neurons)
        values = self.integers.reshape(fold.sizes) * (self.knob * rows.mantissas)[:, None, None]
        exponents = rows.exponents[:, None, None]
        if self.neurons is not None:
            values, exponents = fold.rescaled(values, exponents, self.neurons.scales, back=True)
        with np.errstate(over="ignore"):
            return cast(np.ldexp(values, exponents), self.dtype).reshape(self.shape)


class UniformChannel:
    """A uniform grid for each output channel; the knob is the step in units of the channel's root mean square.

    The channels are the entries of dimension 0 of tensors of two or more dimensions (for a transposed convolution,
    whose dimension 0 is that of the inputs, those); a vector is one channel. What a rectifier's neuron is scaled by
    on one side may be taken back on the other without a change of the function. So that the bits do not change
    either, a tensor with an input for each channel of the matrix or kernel before it is measured in units of these
    channels' scales, inverted, and a vector with an element for each (its bias) in units of them. Decoded scales of
    hidden neurons thereby cancel in the function, so that they may be coarse. The invariance needs the tensors in
    the order of the network, nothing between two layers that does not commute with a positive factor, and a knob at
    which the layer before keeps a weight. Where the order is another, the units are only a detour.

    The stream has, for each tensor: the type and whether all is zero (2 bits); the knob, rounded to eight binary
    digits (15 bits); whether the scales before are taken, where there are any (1 bit); whether a channel is all zero
    (1/177 bit where none is, else 8 bits and a flag for each channel); the scale of every other channel, to
    3 - log2(knob) digits after the leading one, at a fixed width, whatever its value; the integers of all channels
    with their alphabet.
    """

    name = "uniform-channel"

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs, coarse to fine: from where every weight rounds to zero, down to 2^-16."""
        return geometric_ladder(layout, _FINEST)

    def quantise(self, arrays: Mapping[str, Array], knob: float) -> list[ChannelGrid]:
        """Round each channel to the grid of step `knob` times its root mean square.

        Args:
            arrays: The tensors by name, in the network's order.
            knob: The relative step, positive.

        Returns:
            The tensors on their grids.

        Raises:
            ValueError: The knob is not a positive number, or so fine that integers pass 2^52.
        """
        knob = coarse(positive_knob(knob, "step over root mean square"))
        parts: list[ChannelGrid] = []
        exact: Neurons | None = None  # the scales before they are rounded, so that integers know no rounding
        coded: Neurons | None = None
        for name, array in arrays.items():
            part, scales = _round(name, array, knob, exact, coded)
            parts.append(part)
            if array.ndim >= 2:
                coded = _neurons(part)
                exact = None if coded is None else Neurons(_centred(scales, part), array.ndim)
        return parts

    def restore(self, parts: Sequence[ChannelGrid]) -> list[Array]:
        """Return the quantised tensors."""
        return [part.restore() for part in parts]

    def write(self, parts: Sequence[ChannelGrid], sink: Sink) -> None:
        """Write the tensors to a stream."""
        for part in parts:
            write_kind(sink, part.dtype, part.knob == 0)
            if part.knob:
                write_coarse(sink, part.knob)
                if part.offered:
                    sink.uniform(int(part.neurons is not None), 1)
                _write_codes(sink, part.codes, Scales.width(mantissa_bits(part.knob), part.dtype))
                write_integers(sink, part.integers)

    def read(self, layout: ParameterLayout, source: Decoder) -> list[ChannelGrid]:
        """Read the tensors of a layout from a stream.

        Args:
            layout: Names and shapes.
            source: The stream.

        Returns:
            The tensors on their grids.

        Raises:
            MeasurementError: No message has such a stream.
        """
        parts: list[ChannelGrid] = []
        before: Neurons | None = None
        for name, shape, size in zip(layout.names, layout.shapes, layout.sizes, strict=True):
            dtype, zero = read_kind(source)
            if not zero and not size:
                raise MeasurementError(damaged(f"tensor '{name}' has no elements, of which one is not zero", "none"))
            part = _zero(shape, dtype) if zero else _read(source, name, shape, size, dtype, before)
            parts.append(part)
            if len(shape) >= 2:
                before = _neurons(part)
        return parts


def _read(
    source: Decoder, name: str, shape: tuple[int, ...], size: int, dtype: DType, before: Neurons | None
) -> ChannelGrid:
    knob = read_coarse(source)
    offered = fold_of(shape, before).linked
    neurons = before if offered and source.uniform(1, 1)[0] else None
    codes = _read_codes(source, fold_of(shape, neurons).sizes[0], Scales.width(mantissa_bits(knob), dtype))
    if not codes.any():
        raise MeasurementError(damaged(f"tensor '{name}' announces weights, and all its scales are zero", "one above"))
    return ChannelGrid(read_integers(source, size), knob, codes, neurons, offered, shape, dtype)


def _write_codes(sink: Sink, codes: Integers, width: int) -> None:
    """Write the scales of the channels that are not zero: an embedding may have few of these among many."""
    live = (codes > 0).astype(np.int64)
    some_zero = not live.all()
    sink.static(np.array([int(some_zero)]), _ZERO_CHANNELS)
    if some_zero:
        write_symbols(sink, live, np.bincount(live, minlength=2))
        codes = codes[live == 1]
    sink.uniform(codes, width)


def _read_codes(source: Decoder, count: int, width: int) -> Integers:
    """Read what `_write_codes` wrote, for so many channels."""
    live = np.ones(count, dtype=np.int64)
    if source.static(1, _ZERO_CHANNELS)[0]:
        live = read_symbols(source, count, 2)
    codes = np.zeros(count, dtype=np.int64)
    codes[live == 1] = source.uniform(int(live.sum()), width)
    return codes


def _round(
    name: str, array: Array, knob: float, exact: Neurons | None, coded: Neurons | None
) -> tuple[ChannelGrid, Scales]:
    """Return the tensor on its grids, with the exact scales of its channels."""
    offered = fold_of(array.shape, exact).linked
    for neurons in (exact, None) if offered else (None,):
        fold = fold_of(array.shape, neurons)
        values, scales = _measured(array, fold, neurons)
        codes = scales.coded(mantissa_bits(knob), array.dtype)
        if codes is not None:  # out of range, where the scales before reach far: they are not taken
            break
    assert codes is not None
    integers = nearest_integers(name, values.ravel() / knob)
    if not integers.any():
        return _zero(array.shape, array.dtype), scales
    taken = None if neurons is None else coded
    return ChannelGrid(integers, knob, codes, taken, offered, array.shape, array.dtype), scales


def _measured(array: Array, fold: Fold, neurons: Neurons | None) -> tuple[npt.NDArray[np.float64], Scales]:
    """Return the elements in units of their channels' root mean squares, and these."""
    values = array.astype(np.float64).reshape(fold.sizes)
    if neurons is None:
        return row_scales(values, 0)
    # The largest element of each channel first: what is left then has no exponent that could overflow.
    mantissas, exponents = np.frexp(values)
    mantissas, exponents = fold.rescaled(mantissas, exponents, neurons.scales, back=False)
    top = np.where(mantissas != 0, exponents, np.iinfo(np.int32).min // 2).max(axis=(1, 2), initial=-(2**30))
    top = np.where(top == -(2**30), 0, top)
    return row_scales(np.ldexp(mantissas, exponents - top[:, None, None]), top)


def _zero(shape: tuple[int, ...], dtype: DType) -> ChannelGrid:
    none = np.zeros(0, dtype=np.int64)
    return ChannelGrid(np.zeros(math.prod(shape), dtype=np.int64), 0.0, none, None, False, shape, dtype)


def _neurons(part: ChannelGrid) -> Neurons | None:
    """Return the decoded scales that the next tensors may be measured in."""
    if not part.knob:
        return None
    scales = Scales.of(part.codes, mantissa_bits(part.knob), part.dtype)
    return Neurons(_centred(scales, part), len(part.shape))


def _centred(scales: Scales, part: ChannelGrid) -> Scales:
    """Divide scales by the power of two in their middle, which the codes tell to both sides."""
    live = part.codes > 0
    middle = int(Scales.of(part.codes, mantissa_bits(part.knob), part.dtype).exponents[live].sum()) // int(live.sum())
    return Scales(np.where(live, scales.mantissas, 1.0), np.where(live, scales.exponents - middle, 0))
