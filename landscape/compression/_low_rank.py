"""Low-rank matrices with integer factors: how they are found, written, and multiplied to the same bits everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import weakref

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape.compression._entropy import Decoder, Integers, Sink
from landscape.compression._integers import nearest_integers, read_integers, write_integers
from landscape.compression._naturals import read_natural, read_naturals, write_natural, write_naturals
from landscape.compression._scales import damaged, root_mean_square
from landscape.compression._tensors import Array

Floats = npt.NDArray[np.float64]

_MOST_DIGITS = 52
_EXACT = 2.0**52  # sums of integers below this are exact in float64, in whatever order they are formed


@dataclasses.dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix Σ_i 2^-digits_i left_i rightᵀ_i, in units of a step.

    Attributes:
        left: Integers, shape (rows, rank).
        right: Integers, shape (columns, rank).
        digits: The binary digits of each direction's right factor, which has about the length 2^digits; not rising.
    """

    left: Integers
    right: Integers
    digits: Integers

    @classmethod
    def nothing(cls, shape: tuple[int, ...]) -> LowRank:
        """Return the matrix of rank 0 of a tensor's shape."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none.reshape(shape[0], 0), none.reshape(math.prod(shape[1:]), 0), none)

    def product(self) -> Floats:
        """Return the matrix, the same to the last bit on every machine.

        A BLAS forms a matrix product in an order of its own. Here it is one of integers: where all partial sums stay
        below 2^52, every order gives the exact one; else the directions are added one after another.
        """
        if not len(self.digits):
            return np.zeros((len(self.left), len(self.right)))
        most = int(self.digits.max())
        left, right = self.left.astype(np.float64), self.right.astype(np.float64)
        np.ldexp(left, (most - self.digits)[None, :], out=left)
        # Row by row, as the absolute values of the whole would be one more copy of it.
        longest = max((float(np.abs(row).sum()) for row in left), default=0.0)
        if longest * float(max(right.max(initial=0), -right.min(initial=0))) < _EXACT:
            total = left @ right.T
        else:
            total = np.zeros((len(left), len(right)))
            for direction in range(len(self.digits)):
                total += left[:, direction, None] * right[None, :, direction]
        return np.ldexp(total, -most, out=total)


@dataclasses.dataclass(frozen=True, eq=False)
class Decomposition:
    """The singular value decomposition of a matrix in units of its root mean square.

    Attributes:
        left: Left singular vectors, shape (rows, rank).
        values: Singular values, descending, shape (rank,).
        right: Right singular vectors, shape (columns, rank).
    """

    left: Floats
    values: Floats
    right: Floats

    def rounded(self, name: str, rank: int, step: float) -> LowRank:
        """Round the first directions to integers, so that both factors make an error of `step` over sqrt(12).

        The left factor, which carries the singular value s, is rounded to multiples of the step, the right one to
        multiples of the power of two nearest to step / s: times s, that makes the same error.

        Args:
            name: Of the tensor.
            rank: How many directions.
            step: In root mean squares of the matrix.

        Returns:
            The integers, without directions of which nothing is left.

        Raises:
            ValueError: An integer would pass 2^52.
        """
        values = self.values[:rank]
        with np.errstate(divide="ignore"):
            digits = np.clip(np.rint(np.log2(values / step)), 0, _MOST_DIGITS).astype(np.int64)
        left = nearest_integers(name, self.left[:, :rank] * (values / step))
        right = nearest_integers(name, np.ldexp(self.right[:, :rank], digits[None, :]))
        some = left.any(axis=0) & right.any(axis=0)
        return LowRank(left[:, some], right[:, some], digits[some])


_known: dict[int, tuple[bytes, Decomposition]] = {}


def decomposition(array: Array) -> Decomposition:
    """Decompose a tensor of two or more dimensions that is not all zero, as the matrix of dimension 0 by the rest.

    A search decomposes the same arrays at every knob: what was found is kept for as long as the array lives and has the
    same elements.

    Args:
        array: The tensor.

    Returns:
        Its decomposition.
    """
    digest = hashlib.blake2b(array.tobytes(), digest_size=16).digest()
    key = id(array)
    if key not in _known:
        weakref.finalize(array, _known.pop, key, None)
    elif _known[key][0] == digest:
        return _known[key][1]
    left, values, right = np.linalg.svd(as_matrix(array), full_matrices=False)
    found = Decomposition(left, values, right.T)
    _known[key] = digest, found
    return found


def as_matrix(array: Array) -> Floats:
    """Return a tensor that is not all zero as the matrix of dimension 0 by the rest, in its root mean squares."""
    return array.reshape(len(array), -1) / np.float64(root_mean_square(array))


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Say whether a tensor has a matrix of two or more rows and columns: dimension 0 by the rest."""
    return len(shape) >= 2 and min(shape[0], math.prod(shape[1:])) >= 2


def write_low_rank(sink: Sink, part: LowRank) -> None:
    """Write rank, digits and factors; the shape is not written.

    Directions with the same digits have one alphabet; so have both factors, unless one is more than twice as long.
    """
    write_natural(sink, len(part.digits))
    write_naturals(sink, np.concatenate((part.digits[:1], -np.diff(part.digits))))
    for digits in np.unique(part.digits)[::-1]:
        chosen = part.digits == digits
        factors = part.left[:, chosen].ravel(), part.right[:, chosen].ravel()
        for integers in [np.concatenate(factors)] if _alike(len(part.left), len(part.right)) else factors:
            write_integers(sink, integers)


def read_low_rank(source: Decoder, name: str, shape: tuple[int, ...]) -> LowRank:
    """Read what `write_low_rank` wrote.

    Args:
        source: The stream.
        name: Of the tensor.
        shape: Its shape.

    Returns:
        The low-rank matrix.

    Raises:
        MeasurementError: No message has such a stream.
    """
    rows, columns = shape[0], math.prod(shape[1:])
    rank = read_natural(source)
    if rank > min(rows, columns):
        found = f"tensor '{name}' of {rows} by {columns} elements has rank {rank}"
        raise MeasurementError(damaged(found, "no more than its smaller side"))
    steps = read_naturals(source, rank)
    digits = np.concatenate((steps[:1], -steps[1:])).astype(np.float64).cumsum()
    if not ((digits >= 0) & (digits <= _MOST_DIGITS)).all():
        raise MeasurementError(damaged(f"tensor '{name}' has factors of {digits} digits", f"0 to {_MOST_DIGITS}"))
    left, right = np.zeros((rows, rank), dtype=np.int64), np.zeros((columns, rank), dtype=np.int64)
    for group in np.unique(digits)[::-1]:
        chosen = digits == group
        width = int(chosen.sum())
        if _alike(rows, columns):
            both = read_integers(source, (rows + columns) * width)
            first, second = both[: rows * width], both[rows * width :]
        else:
            first, second = read_integers(source, rows * width), read_integers(source, columns * width)
        left[:, chosen], right[:, chosen] = first.reshape(rows, width), second.reshape(columns, width)
    return LowRank(left, right, digits.astype(np.int64))


def _alike(rows: int, columns: int) -> bool:
    return max(rows, columns) <= 2 * min(rows, columns)
