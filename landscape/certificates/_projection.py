"""Random subspaces that are the same on every machine: signs from raw bits, sums of integers."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from landscape._layout import ParameterLayout

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Projection:
    """w = w0 + step · c ⊙ Aθ/√k, with θ whole numbers and A of entries −1, 0 and 1.

    Without `taps` A is dense, P × d of random signs, and k = d. With `taps` every weight hears so many coordinates,
    drawn with replacement and with a random sign each, and k = taps: P · taps numbers instead of P · d. Without a
    dimension A is the identity and k = 1. c is 1/√fan_in for a matrix or a kernel and 1/√length for a vector, so that
    a step moves all layers alike.

    Aθ is a sum of integers, the same in any order and by any library; what follows is one correctly rounded operation
    each. The signs are bits of the counter-based generator Philox4x64-10, whose stream numpy keeps for good; its normal
    variates are not promised to stay.

    Args:
        layout: Names and shapes of the parameters.
        dimension: d, or None.
        seed: Key of the generator.
        taps: Coordinates that each weight hears, or None for all.

    Source: Li et al. 2018, arXiv:1804.08838; Lotfi et al. 2022, arXiv:2211.13609.

    Where we differ: they draw normal entries, or Kronecker products and FastFood transforms of them; we draw signs, and
    sparse ones (Achlioptas 2003) where a dense matrix is too large.
    """

    def __init__(self, layout: ParameterLayout, dimension: int | None, seed: int, taps: int | None):
        self.length = layout.total if dimension is None else dimension
        self._dimension, self._taps, self._total = dimension, taps, layout.total
        terms = 1 if dimension is None else dimension if taps is None else taps
        scales = np.array([_scale(shape) for shape in layout.shapes]) / math.sqrt(terms)
        self.factors: Floats = np.repeat(scales, layout.sizes)
        self._raw = np.random.Philox(key=seed)

    def weights(self, start: Floats, theta: Integers, step: float) -> Floats:
        """Return the point that whole coordinates stand for.

        Args:
            start: w0, shape (P,).
            theta: θ, shape (d,).
            step: The step.

        Returns:
            w in float64, shape (P,), the same to the last bit everywhere.
        """
        return start + self.factors * step * self._sums(theta)

    @functools.cached_property
    def signs(self) -> npt.NDArray[np.int8]:
        """The signs: shape (P, d) of a dense A, (taps, P) of a sparse one."""
        shape = (self._total, self.length) if self._taps is None else (self._taps, self._total)
        bits = self._draw(-(-math.prod(shape) // 64)).astype("<u8").view(np.uint8)
        return (2 * np.unpackbits(bits, bitorder="little")[: math.prod(shape)].astype(np.int8) - 1).reshape(shape)

    @functools.cached_property
    def heard(self) -> Integers:
        """Which coordinates each weight hears, shape (taps, P), of a sparse A."""
        _ = self.signs  # drawn first
        raw = self._draw((self._taps or 0) * self._total)
        # 32 random bits times d, over 2^32: no value is favoured by more than d/2^32.
        return (
            (((raw >> np.uint64(32)) * np.uint64(self.length)) >> np.uint64(32))
            .astype(np.int64)
            .reshape(-1, self._total)
        )

    @property
    def is_identity(self) -> bool:
        """Whether every weight is a coordinate of its own."""
        return self._dimension is None

    @property
    def is_sparse(self) -> bool:
        """Whether each weight hears only some coordinates."""
        return self._taps is not None

    def _sums(self, theta: Integers) -> Floats:
        if self.is_identity:
            return theta.astype(np.float64)
        if not self.is_sparse:
            # In float64 sums of whole numbers below 2^53 are exact in any order.
            return self.signs.astype(np.float64) @ theta.astype(np.float64)
        total = np.zeros(self._total, dtype=np.int64)
        for signs, heard in zip(self.signs, self.heard, strict=True):
            total += signs * theta[heard]
        return total.astype(np.float64)

    def _draw(self, count: int) -> npt.NDArray[np.uint64]:
        return np.asarray(self._raw.random_raw(count), dtype=np.uint64)


def _scale(shape: tuple[int, ...]) -> float:
    if not shape or 0 in shape:
        return 1.0
    return 1 / math.sqrt(math.prod(shape[1:]) if len(shape) > 1 else shape[0])
