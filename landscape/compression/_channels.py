"""Scales of channels, as mantissas and exponents, and which of a tensor's elements belong to which neuron."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from landscape.compression._entropy import Integers
from landscape.compression._scales import DType

Floats = npt.NDArray[np.float64]

# Powers of two in the code of a scale: the type's own and as many again, for scales in units of other scales.
_EXPONENT_WIDTH = {np.dtype(np.float32): 9, np.dtype(np.float64): 12}
_FEWEST, _MOST = 2, 20


def mantissa_bits(knob: float) -> int:
    """Return how many digits after the leading one a scale has: its error is at most 1/16 of the step."""
    return min(max(3 - (math.frexp(knob)[1] - 1), _FEWEST), _MOST)


@dataclasses.dataclass(frozen=True, eq=False)
class Scales:
    """Positive numbers, mantissa · 2^exponent, with mantissas in [1, 2); zeros have mantissa 0.

    Attributes:
        mantissas: The mantissas.
        exponents: The exponents.
    """

    mantissas: Floats
    exponents: Integers

    @classmethod
    def of(cls, codes: Integers, digits: int, dtype: DType) -> Scales:
        """Decode what `coded` made."""
        offset = 1 << (_EXPONENT_WIDTH[dtype] - 1)
        mantissas = 1 + (codes & ((1 << digits) - 1)) / (1 << digits)
        return cls(np.where(codes > 0, mantissas, 0.0), (codes >> digits) - offset)

    def coded(self, digits: int, dtype: DType) -> Integers | None:
        """Round to a number of digits after the leading one, in integers of fixed width; 0 stands for zero.

        Args:
            digits: The number of digits.
            dtype: The type of the tensor.

        Returns:
            The integers; None where an exponent is out of range.
        """
        offset = 1 << (_EXPONENT_WIDTH[dtype] - 1)
        units = np.rint(np.ldexp(self.mantissas, digits)).astype(np.int64)  # 2^digits .. 2^(digits + 1)
        codes = ((self.exponents + offset - 1) << digits) + units
        zero = self.mantissas == 0
        inside = (codes > 0) & (codes >> digits < 2 * offset)
        return np.where(zero, 0, codes) if (inside | zero).all() else None

    @staticmethod
    def width(digits: int, dtype: DType) -> int:
        """Return how many bits a coded scale takes."""
        return _EXPONENT_WIDTH[dtype] + digits


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
    """The scales of a layer's outputs, for the tensors after it.

    Attributes:
        scales: One for each output.
        dimensions: How many dimensions the layer's own tensor has.
    """

    scales: Scales
    dimensions: int


@dataclasses.dataclass(frozen=True)
class Fold:
    """A tensor seen as (channels, neurons on the other side, the rest).

    Attributes:
        sizes: The three sizes.
        linked: Whether the second size is that of the neurons.
        power: How an element goes with its neuron's scale: 1 for a bias, -1 for a weight that takes its output.
    """

    sizes: tuple[int, int, int]
    linked: bool = False
    power: int = -1

    def rescaled(
        self, mantissas: Floats, exponents: Integers, scales: Scales, *, back: bool
    ) -> tuple[Floats, Integers]:
        """Express elements in units of the neurons' scales, or bring them back."""
        factors, shifts = scales.mantissas[None, :, None], scales.exponents[None, :, None]
        if (self.power > 0) == back:
            return mantissas * factors, exponents + shifts
        return mantissas / factors, exponents - shifts


def fold_of(shape: tuple[int, ...], before: Neurons | None) -> Fold:
    """Return how a tensor is seen after a layer with these neurons.

    Args:
        shape: Of the tensor.
        before: The neurons; None where there are none.

    Returns:
        The three sizes. Inputs that are a multiple of a convolution's channels are its flattened output.
    """
    neurons = 0 if before is None else len(before.scales.mantissas)
    if len(shape) < 2:
        size = math.prod(shape)
        return Fold((1, size, 1), linked=0 < neurons == size and len(shape) == 1, power=1)
    rest = math.prod(shape[2:])
    if neurons and before is not None:
        if shape[1] == neurons:
            return Fold((shape[0], neurons, rest), linked=True)
        if len(shape) == 2 and before.dimensions > 2 and shape[1] and shape[1] % neurons == 0:
            return Fold((shape[0], neurons, shape[1] // neurons), linked=True)
    return Fold((shape[0], shape[1] * rest, 1))


def row_scales(values: Floats, exponents: npt.ArrayLike) -> tuple[Floats, Scales]:
    """Divide each row by its root mean square.

    Args:
        values: The rows, shape (rows, ..., ...).
        exponents: Powers of two that the rows lack, shape (rows,) or ().

    Returns:
        The rows in units of their root mean squares, zeros where that is zero; and the root mean squares.
    """
    count = max(math.prod(values.shape[1:]), 1)
    largest = np.abs(values).max(axis=(1, 2), initial=0.0)
    live = largest > 0
    # In units of the largest element, so that neither squares nor their sum leave the range of float64.
    unit = values / np.where(live, largest, 1.0)[:, None, None]
    roots = np.sqrt(np.square(unit).sum(axis=(1, 2)) / count)
    mantissas, powers = np.frexp(largest)
    product, more = np.frexp(mantissas * roots)
    scales = Scales(2 * product, np.where(live, powers + more - 1 + np.asarray(exponents), 0).astype(np.int64))
    return unit / np.where(live, roots, 1.0)[:, None, None], scales
