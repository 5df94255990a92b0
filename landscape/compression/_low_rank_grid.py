"""The family "low-rank-grid": a matrix of low rank, and what it leaves over on a uniform grid."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._grid import GridTensor, read_grid, round_to_grid, write_grid
from landscape.compression._integers import nearest_integers, read_integers, write_integers
from landscape.compression._low_rank import (
    Decomposition,
    LowRank,
    as_matrix,
    decomposition,
    is_matrix,
    read_low_rank,
    write_low_rank,
)
from landscape.compression._per_tensor import PerTensor
from landscape.compression._scales import (
    DType,
    cast,
    geometric_ladder,
    in_type,
    read_kind,
    read_scale,
    root_mean_square,
    write_kind,
    write_scale,
)
from landscape.compression._tensors import Array

_FINEST = -16  # log2 of the finest knob
_MOST_COARSENING = 20


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankGridTensor:
    """A tensor of two or more dimensions as a matrix of low rank and a rest.

    Attributes:
        low_rank: The matrix of low rank, in units of 2^coarsening steps.
        coarsening: How many times its step is twice that of the grid.
        integers: Which multiple of the step the rest is, flat.
        step: The step, a number of the type `dtype`; 0 where everything is zero.
        shape: The tensor's shape.
        dtype: float32 or float64.
    """

    low_rank: LowRank
    coarsening: int
    integers: Integers
    step: float
    shape: tuple[int, ...]
    dtype: DType

    def restore(self) -> Array:
        """Return low rank plus rest, times step, rounded to `dtype`."""
        if not self.step:
            return np.zeros(self.shape, dtype=self.dtype)
        total: npt.NDArray[np.float64] = np.ldexp(self.low_rank.product(), self.coarsening).ravel() + self.integers
        with np.errstate(over="ignore"):
            return cast(total * self.step, self.dtype).reshape(self.shape)


class LowRankGrid(PerTensor[LowRankGridTensor | GridTensor]):
    """Low rank plus grid; the knob is the grid's step in the tensor's root mean squares.

    The grid's step Δ decides about rank and factors too. What r directions leave over has the variance σ², of
    which an element costs ½ log2(σ²/D) bits at the noise D = Δ²/12 (below D it is left out, and counts with its part
    of the noise). The directions cost ½ log2 of their coefficients' variance over the larger of σ² and D: their
    factors need be no finer, since the grid corrects them. The rank is the one with the least sum. At a coarse step
    this is the family "svd", for a matrix without outstanding directions the uniform grid. What is no matrix is on
    the grid.

    The stream has, for each matrix: the type and whether all is zero (2 bits); the step (31 or 63 bits); rank, digits
    and integers of the factors, with their coarsening (5 bits); the integers of the rest, with their alphabet. The
    product of the factors is the same to the last bit on every machine (`LowRank`).
    """

    name = "low-rank-grid"
    knob_is = "step over root mean square"

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs, coarse to fine: from where everything rounds to zero, down to 2^-16."""
        return geometric_ladder(layout, _FINEST)

    def quantise_tensor(self, name: str, array: Array, knob: float) -> LowRankGridTensor | GridTensor:
        """Find a matrix's rank for a step of `knob` root mean squares, and round factors and rest."""
        scale = root_mean_square(array)
        if not is_matrix(array.shape):
            return round_to_grid(name, array, knob * scale)
        if scale == 0:
            return _zero(array.shape, array.dtype)
        parts = decomposition(array)
        step = in_type(knob * scale, array.dtype)
        relative = step / scale
        rank, coarsening = _rank(parts, relative)
        low_rank = parts.rounded(name, rank, math.ldexp(relative, coarsening))
        rest = as_matrix(array) / relative - np.ldexp(low_rank.product(), coarsening)
        integers = nearest_integers(name, rest.ravel())
        if not (integers.any() or len(low_rank.digits)):
            return _zero(array.shape, array.dtype)
        return LowRankGridTensor(low_rank, coarsening, integers, step, array.shape, array.dtype)

    def write_tensor(self, part: LowRankGridTensor | GridTensor, sink: Sink) -> None:
        """Write low rank and rest, or what is on its grid."""
        if isinstance(part, GridTensor):
            write_grid(sink, part)
            return
        write_kind(sink, part.dtype, part.step == 0)
        if part.step:
            write_scale(sink, part.step, part.dtype)
            write_low_rank(sink, part.low_rank)
            if len(part.low_rank.digits):
                sink.uniform(part.coarsening, 5)
            write_integers(sink, part.integers)

    def read_tensor(self, source: Decoder, name: str, shape: tuple[int, ...]) -> LowRankGridTensor | GridTensor:
        """Read what `write_tensor` wrote."""
        if not is_matrix(shape):
            return read_grid(source, name, shape)
        dtype, zero = read_kind(source)
        if zero:
            return _zero(shape, dtype)
        step = read_scale(source, name, dtype)
        low_rank = read_low_rank(source, name, shape)
        coarsening = int(source.uniform(1, 5)[0]) if len(low_rank.digits) else 0
        return LowRankGridTensor(low_rank, coarsening, read_integers(source, math.prod(shape)), step, shape, dtype)


def _rank(parts: Decomposition, step: float) -> tuple[int, int]:
    """Return the rank with the least bits and noise, and how many times the factors' step is twice the grid's."""
    rows, columns = len(parts.left), len(parts.right)
    noise = step**2 / 12
    energies = parts.values**2
    ranks = np.arange(len(energies) + 1)
    left_over = np.append(energies[::-1].cumsum()[::-1], 0.0) / (rows * columns)
    coarse = np.clip(np.ceil(np.log2(np.maximum(left_over / noise, 1.0)) / 2), 0, _MOST_COARSENING)
    level = noise * 4.0**coarse
    bits = np.zeros(len(ranks))
    for length in (rows, columns):
        for rank in ranks[1:]:
            bits[rank] += length * 0.5 * np.log2(np.maximum(energies[:rank] / (length * level[rank]), 1.0)).sum()
    share = (left_over + ranks * (rows + columns) * level / (rows * columns)) / noise
    bits += rows * columns * np.where(share < 1, share, 1 + np.log(np.maximum(share, 1.0))) / (2 * math.log(2))
    best = int(bits.argmin())
    return best, int(coarse[best])


def _zero(shape: tuple[int, ...], dtype: DType) -> LowRankGridTensor:
    return LowRankGridTensor(LowRank.nothing(shape), 0, np.zeros(math.prod(shape), dtype=np.int64), 0.0, shape, dtype)
