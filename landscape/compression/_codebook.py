"""The family "codebook": every tensor's elements share a few values, found by k-means."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._integers import LARGEST_INTEGER
from landscape.compression._naturals import (
    read_natural,
    read_naturals,
    unzigzag,
    write_natural,
    write_naturals,
    zigzag,
)
from landscape.compression._per_tensor import PerTensor
from landscape.compression._scales import (
    DType,
    cast,
    damaged,
    in_type,
    read_kind,
    read_scale,
    root_mean_square,
    write_kind,
    write_scale,
)
from landscape.compression._symbols import MAX_ALPHABET, read_symbols, write_symbols
from landscape.compression._tensors import Array

Floats = npt.NDArray[np.float64]

_MOST_LEVELS = 512
_DIGITS = 4  # binary digits that a level has beyond log2 of their number: 1/16 of their distance
_MOST_POINTS = 4096  # beyond this many different values, k-means sees a histogram of about as many bins


@dataclasses.dataclass(frozen=True, eq=False)
class CodebookTensor:
    """A tensor of few values.

    Attributes:
        levels: The values in units, ascending integers; none where every element is zero.
        unit: The unit, a number of the type `dtype`; 0 where every element is zero.
        symbols: Which level each element has, flat.
        shape: The tensor's shape.
        dtype: float32 or float64.
    """

    levels: Integers
    unit: float
    symbols: Integers
    shape: tuple[int, ...]
    dtype: DType

    def restore(self) -> Array:
        """Return each element's level times unit, rounded once, to `dtype`."""
        if not self.unit:
            return np.zeros(self.shape, dtype=self.dtype)
        with np.errstate(over="ignore"):
            values = cast(self.levels * np.float64(self.unit), self.dtype)
        return values[self.symbols].reshape(self.shape)


class Codebook(PerTensor[CodebookTensor]):
    """Values shared by the elements of each tensor; the knob is how many, at most, a tensor has.

    One value stands for all weights zero. From two on, scikit-learn's k-means finds them: on the elements themselves
    or, beyond 4096 different ones, on the means of a histogram's bins with their counts. It starts from values
    spaced by the cube root of the density, which is optimal for many values, so that nothing is random.

    The stream has, for each tensor: the type and whether all is zero (2 bits); the unit, about the root mean square
    over 2^ceil(4 + log2 knob) (31 or 63 bits); the number of values and these in units, by their distances; which
    value each element has, the nearest, by the shorter of an adaptive and a static model.

    Source: Han, Mao and Dally 2016, "Deep compression: compressing deep neural networks with pruning, trained
    quantization and Huffman coding".
    """

    name = "codebook"
    knob_is = "values of a tensor"

    def ladder(self, layout: ParameterLayout) -> Floats:
        """Return 1 to 8, 10, 12, 14, 16, 20, ... up to 512, but no more than the largest tensor has elements."""
        levels = [1, 2, 3, *(quarter * 2**octave for octave in range(8) for quarter in (4, 5, 6, 7))]
        enough = min(max(max(layout.sizes, default=1), 2), _MOST_LEVELS)
        return np.array([level for level in levels if level < enough] + [enough], dtype=np.float64)

    def require(self, knob: float) -> None:
        """Refuse what is no number of values with a ValueError."""  # noqa: DOC501 - said
        if not (1 <= knob <= MAX_ALPHABET and knob == math.floor(knob)):
            raise ValueError(f"the knob ({self.knob_is}) is {knob}, expected a whole number from 1 to {MAX_ALPHABET}")

    def quantise_tensor(self, name: str, array: Array, knob: float) -> CodebookTensor:
        """Find a tensor's values, and the nearest for each element."""
        scale, count = root_mean_square(array), int(knob)
        if count == 1 or scale == 0:
            return _zero(array.shape, array.dtype)
        digits = math.ceil(math.log2(count)) + _DIGITS
        unit = in_type(math.ldexp(scale, -digits), array.dtype)
        # First by the scale, which leaves numbers near 1 whatever the unit.
        in_units = scale / unit
        levels = np.unique(np.rint(_centres(array, scale, count) * in_units)).astype(np.int64)
        values = array.ravel() / np.float64(scale)
        values *= in_units
        symbols = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
        used = np.bincount(symbols, minlength=len(levels)) > 0
        levels, symbols = levels[used], (used.cumsum() - 1)[symbols]
        if not levels.any():
            return _zero(array.shape, array.dtype)
        return CodebookTensor(levels, unit, symbols, array.shape, array.dtype)

    def write_tensor(self, part: CodebookTensor, sink: Sink) -> None:
        """Write the values, and which one each element has."""
        write_kind(sink, part.dtype, part.unit == 0)
        if part.unit:
            write_scale(sink, part.unit, part.dtype)
            write_natural(sink, len(part.levels) - 1)
            write_naturals(sink, np.concatenate((zigzag(part.levels[:1]), np.diff(part.levels) - 1)))
            write_symbols(sink, part.symbols, np.bincount(part.symbols, minlength=len(part.levels)))

    def read_tensor(self, source: Decoder, name: str, shape: tuple[int, ...]) -> CodebookTensor:
        """Read what `write_tensor` wrote."""  # noqa: DOC201, DOC501 - as the base says
        (dtype, zero), size = read_kind(source), math.prod(shape)
        if zero:
            return _zero(shape, dtype)
        unit, count = read_scale(source, name, dtype), read_natural(source) + 1
        if count > min(size, MAX_ALPHABET):
            found = f"tensor '{name}' of {size} elements has {count} values"
            raise MeasurementError(damaged(found, f"at most one for each element, and at most {MAX_ALPHABET}"))
        codes = read_naturals(source, count)
        # In float64, which tells when a damaged stream's integers grow beyond all that there are.
        levels = np.concatenate((unzigzag(codes[:1]), codes[1:] + 1)).astype(np.float64).cumsum()
        if np.abs(levels).max() > LARGEST_INTEGER:
            raise MeasurementError(damaged(f"tensor '{name}' has values up to {levels[-1]:.3g} units", "at most 2^52"))
        return CodebookTensor(levels.astype(np.int64), unit, read_symbols(source, size, count), shape, dtype)


def _centres(array: Array, scale: float, count: int) -> Floats:
    """Return the means of at most so many clusters of the elements, in units of the scale."""
    from sklearn.cluster import KMeans  # takes a second, which other families need not
    from sklearn.exceptions import ConvergenceWarning

    points, weights = _points(array, scale)
    if len(points) <= count:
        return points
    kmeans = KMeans(count, init=_first(points, weights, count)[:, None], n_init=1, max_iter=100, random_state=0)
    with warnings.catch_warnings():
        # Fewer different clusters than asked for are as good.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit(points[:, None], sample_weight=weights).cluster_centers_.ravel()


def _points(array: Array, scale: float) -> tuple[Floats, Floats]:
    """Return the different values with their counts; of too many, the means of bins of equal width or equal count."""
    different, counts = np.unique(array, return_counts=True)  # sorted in its own type: half of float64's memory
    points = different / np.float64(scale)
    if len(points) <= _MOST_POINTS:
        return points, counts.astype(np.float64)
    width = (points[-1] - points[0]) / (_MOST_POINTS // 2)
    bins = np.floor((points - points[0]) / width) + np.floor(counts.cumsum() / (array.size / (_MOST_POINTS // 2)))
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    weights = np.add.reduceat(counts, starts).astype(np.float64)
    return np.add.reduceat(points * counts, starts) / weights, weights


def _first(points: Floats, weights: Floats, count: int) -> Floats:
    """Return values whose spacing goes with the cube root of the density (Panter and Dite 1951)."""
    density, edges = np.histogram(points, bins=max(64, 4 * count), weights=weights)
    share = np.cbrt(density).cumsum()
    targets = (np.arange(count) + 0.5) / count * share[-1]
    return np.interp(targets, np.concatenate(([0.0], share)), edges)


def _zero(shape: tuple[int, ...], dtype: DType) -> CodebookTensor:
    none = np.zeros(0, dtype=np.int64)
    return CodebookTensor(none, 0.0, np.zeros(math.prod(shape), dtype=np.int64), shape, dtype)
