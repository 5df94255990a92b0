"""The permutation of one group that fits best, from similarities of its units."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from landscape._errors import MeasurementError
from landscape.connectivity.alignment._spec import Permutation


class Similarity:
    """Similarities of the units of a group in one network to those in another, summed over wherever they show.

    Args:
        size: Number n of units.
        families: Entries d a unit of each family of inner permutations.
    """

    def __init__(self, size: int, families: dict[str, int]):
        self.units = np.zeros((size, size))
        self.inner = {name: np.zeros((size, d, size, d)) for name, d in families.items()}

    def add(self, ours: np.ndarray, theirs: np.ndarray, repeat: int, inner: str | None) -> None:
        """Add inner products of what belongs to the units.

        Args:
            ours: Rows of the network that stays, shape (units × repeat, anything).
            theirs: Rows of the other, the same shape.
            repeat: Rows a unit.
            inner: The family that reorders the rows within a unit, or None.
        """
        n = len(self.units)
        if inner is None:
            self.units += ours.reshape(n, -1) @ theirs.reshape(n, -1).T
        else:
            self.inner[inner] += (ours @ theirs.T).reshape(n, repeat, n, repeat)

    def add_products(self, products: np.ndarray, repeat: int, inner: str | None) -> None:
        """Add inner products of single rows, shape (units × repeat, units × repeat)."""
        n = len(self.units)
        blocks = products.reshape(n, repeat, n, repeat)
        if inner is None:
            self.units += np.einsum("arbr->ab", blocks)
        else:
            self.inner[inner] += blocks

    def best(self) -> Permutation:
        """Return the permutation of largest total similarity.

        Units are assigned with scipy's linear_sum_assignment; what a pair of units is worth includes the best
        assignment of the entries within, so the whole is the best of all nested permutations.

        Returns:
            The permutation.

        Raises:
            MeasurementError: A similarity is not finite.
        """
        if not all(np.isfinite(part).all() for part in (self.units, *self.inner.values())):
            raise MeasurementError(
                "weights or activations to be matched are not finite; look at the two networks for NaN or infinity"
            )
        n = len(self.units)
        worth = self.units.copy()
        within: dict[str, np.ndarray] = {}
        for name, blocks in self.inner.items():
            within[name] = np.empty((n, n, blocks.shape[1]), dtype=np.int64)
            for i in range(n):
                for j in range(n):
                    within[name][i, j] = _assign(blocks[i, :, j, :])
                    worth[i, j] += blocks[i, np.arange(blocks.shape[1]), j, within[name][i, j]].sum()
        chosen = _assign(worth)
        return Permutation(chosen, {name: pairs[np.arange(n), chosen] for name, pairs in within.items()})


def _assign(worth: np.ndarray) -> np.ndarray:
    columns: np.ndarray = linear_sum_assignment(worth, maximize=True)[1]
    return columns
