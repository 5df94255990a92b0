"""Mean and variance of weights given one after another."""

from __future__ import annotations

import torch

from landscape.averaging._mean import RunningMean


class RunningMoments:
    """Mean and variance of flat vectors, entry by entry, in float64.

    With d = w_n − m_{n−1}: m_n = m_{n−1} + d/n, and the squares about the mean grow by d·(w_n − m_n) (Welford 1962).
    The difference of mean square and squared mean loses all digits where weights move little beside their size.

    Memory: two float64 vectors.

    Example:
        >>> import torch
        >>> moments = RunningMoments()
        >>> for value in (1.0, 2.0, 6.0):
        ...     moments.update(torch.tensor([value]))
        >>> moments.count, moments.mean, moments.variance()
        (3, tensor([3.], dtype=torch.float64), tensor([4.6667], dtype=torch.float64))
    """

    def __init__(self) -> None:
        self._mean = RunningMean()
        self._squares = torch.zeros(0, dtype=torch.float64)

    @property
    def count(self) -> int:
        """Number of vectors taken in."""
        return self._mean.count

    @property
    def mean(self) -> torch.Tensor:
        """A copy of the mean, shape (P,), float64."""
        return self._mean.value

    def variance(self, correction: int = 0) -> torch.Tensor:
        """Return the variance, shape (P,), float64.

        Args:
            correction: What is taken from the count in the denominator: 0 for the vectors' own variance, as SWAG has
                it, 1 for an unbiased estimate.

        Returns:
            The variance.

        Raises:
            ValueError: There are not more vectors than that.
        """
        if self.count <= correction:
            raise ValueError(f"a variance with correction {correction} needs more than {self.count} vectors")
        return self._squares / (self.count - correction)

    def update(self, vector: torch.Tensor) -> None:
        """Take one more vector in.

        Args:
            vector: Flat weights, shape (P,), of any floating-point type.
        """
        new = torch.as_tensor(vector).detach().to(torch.float64)
        before = self._mean.value if self.count else torch.zeros_like(new)
        self._mean.update(new)
        if self.count == 1:
            self._squares = torch.zeros_like(new)
        else:
            self._squares += (new - before) * (new - self._mean.value)
