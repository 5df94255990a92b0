"""Read a linear function off the product of each group of batches while the products are added up."""

from __future__ import annotations

import numpy as np
import torch

from landscape._sampling_error import Clusters
from landscape.curvature._products import Reader


class Readings:
    """What a linear function gives for each group's part of a sum, read off the running sum.

    Batches of one group should come one after another: each change of group costs one call of the function. No part is
    kept, so no further vector of the parameters' length is needed.

    Args:
        clusters: The groups; None where nothing is read.
        read: The function.
        like: An empty tensor of the readings' type, shape (0, ...), the rest being the shape of one reading.

    Attributes:
        found: What was read of each group, shape (groups, ...); None where nothing is read.
    """

    def __init__(self, clusters: Clusters | None, read: Reader | None, like: torch.Tensor | None = None):
        self.found: torch.Tensor | None = None
        self._groups: np.ndarray | None = None
        if clusters is not None and read is not None and like is not None:
            self.found = like.new_zeros((clusters.count, *like.shape[1:]))
            self._groups, self._read = clusters.group, read
            self._before = like.new_zeros(like.shape[1:])
        self._group = -1

    @property
    def shared(self) -> list[torch.Tensor]:
        """What processes must sum beside the product itself."""
        return [] if self.found is None else [self.found]

    def next(self, index: int, total: torch.Tensor) -> None:
        """Take note that batch `index` is about to be added to the sum."""
        if self._groups is not None and self._groups[index] != self._group:
            self.end(total)
            self._group = int(self._groups[index])

    def end(self, total: torch.Tensor) -> None:
        """Credit the present group with what was added since it began."""
        if self.found is not None and self._group >= 0:
            now = self._read(total)
            self.found[self._group] += now - self._before
            self._before = now

    def scale(self, factor: float) -> None:
        """Multiply what was read, where the product is multiplied afterwards."""
        if self.found is not None:
            self.found *= factor
