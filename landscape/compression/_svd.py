"""The family "svd": matrices as truncated singular value decompositions with rounded factors."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Sink
from landscape.compression._grid import GridTensor, read_grid, round_to_grid, write_grid
from landscape.compression._low_rank import LowRank, decomposition, is_matrix, read_low_rank, write_low_rank
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

_FINEST = -12  # log2 of the finest knob


@dataclasses.dataclass(frozen=True, eq=False)
class SVDTensor:
    """A tensor of two or more dimensions as a matrix of low rank.

    Attributes:
        low_rank: The matrix, dimension 0 by the rest, in steps.
        step: The step, a number of the type `dtype`; 0 where the rank is 0.
        shape: The tensor's shape.
        dtype: float32 or float64.
    """

    low_rank: LowRank
    step: float
    shape: tuple[int, ...]
    dtype: DType

    def restore(self) -> Array:
        """Return the product of the factors times step, rounded to `dtype`."""
        if not self.step:
            return np.zeros(self.shape, dtype=self.dtype)
        with np.errstate(over="ignore"):
            return cast(self.low_rank.product() * self.step, self.dtype).reshape(self.shape)


class TruncatedSVD(PerTensor[SVDTensor | GridTensor]):
    """Singular directions above the noise, with rounded factors; the knob is the step in root mean squares.

    One step Δ stands for the rank too. Both factors of a direction are rounded so that each element makes the error
    of the step, Δ²/12, in the matrix; a direction of a matrix with m rows and n columns is kept if its energy s²
    exceeds the noise (m + n) Δ²/12 that this brings (reverse water-filling). Kernels are matrices of dimension 0 by
    the rest. What is no matrix, or has one row or column, is on the uniform grid of the same relative step. The
    ladder ends at 2^-12.

    The stream has, for each matrix: the type and whether all is zero (2 bits); the step (31 or 63 bits); rank,
    digits and integers of the factors. The product of the factors is the same to the last bit on every machine
    (`LowRank`).
    """

    name = "svd"
    knob_is = "step over root mean square"

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs, coarse to fine: from where everything rounds to zero, down to 2^-12."""
        return geometric_ladder(layout, _FINEST)

    def quantise_tensor(self, name: str, array: Array, knob: float) -> SVDTensor | GridTensor:
        """Keep a matrix's directions above the noise of a step of `knob` root mean squares."""
        scale = root_mean_square(array)
        if not is_matrix(array.shape):
            return round_to_grid(name, array, knob * scale)
        if scale == 0:
            return SVDTensor(LowRank.nothing(array.shape), 0.0, array.shape, array.dtype)
        parts = decomposition(array)
        step = in_type(knob * scale, array.dtype)
        noise = (len(parts.left) + len(parts.right)) * (step / scale) ** 2 / 12
        low_rank = parts.rounded(name, int((parts.values**2 > noise).sum()), step / scale)
        return SVDTensor(low_rank, step if len(low_rank.digits) else 0.0, array.shape, array.dtype)

    def write_tensor(self, part: SVDTensor | GridTensor, sink: Sink) -> None:
        """Write a matrix of low rank, or what is on its grid."""
        if isinstance(part, GridTensor):
            write_grid(sink, part)
            return
        write_kind(sink, part.dtype, part.step == 0)
        if part.step:
            write_scale(sink, part.step, part.dtype)
            write_low_rank(sink, part.low_rank)

    def read_tensor(self, source: Decoder, name: str, shape: tuple[int, ...]) -> SVDTensor | GridTensor:
        """Read what `write_tensor` wrote."""
        if not is_matrix(shape):
            return read_grid(source, name, shape)
        dtype, zero = read_kind(source)
        if zero:
            return SVDTensor(LowRank.nothing(shape), 0.0, shape, dtype)
        step = read_scale(source, name, dtype)
        return SVDTensor(read_low_rank(source, name, shape), step, shape, dtype)
