"""A running mean of weights that a training can carry along, and save with its checkpoint."""

from __future__ import annotations

from typing import Any

import torch

PIECE = 1 << 20  # numbers that are worked on at a time, so that no further vector is needed


class RunningMean:
    """The mean of flat vectors given one after another, kept in float64.

    m_n = m_{n−1} + (w_n − m_{n−1}) / n, which loses no digits however many vectors come (Welford 1962).

    Memory: one float64 vector, also while vectors are taken in.

    Example:
        >>> import torch
        >>> mean = RunningMean()
        >>> for value in (1.0, 2.0, 6.0):
        ...     mean.update(torch.tensor([value]))
        >>> mean.count, mean.value
        (3, tensor([3.], dtype=torch.float64))
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """Number of vectors in the mean."""
        return self._count

    @property
    def value(self) -> torch.Tensor:
        """A copy of the mean, shape (P,), float64.

        Raises:
            ValueError: Nothing has been averaged yet.
        """
        if self._mean is None:
            raise ValueError("no vector has been averaged yet, so there is no mean; call update first")
        return self._mean.clone()

    def update(self, vector: torch.Tensor) -> None:
        """Take one more vector into the mean.

        Args:
            vector: Flat weights, shape (P,); a tensor of any floating-point type on any device, or a numpy array.

        Raises:
            ValueError: It is not flat, or has another length than those before.
        """
        new = self._checked(vector)
        if self._mean is None:
            self._mean = torch.zeros(len(new), dtype=torch.float64, device=new.device)
        self._count += 1
        for mean, piece in zip(self._mean.split(PIECE), new.split(PIECE), strict=True):
            mean += (piece.to(mean) - mean) / self._count

    def with_vector(self, vector: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the mean that `update` would give, without taking the vector in.

        Memory: one vector of the type that is asked for.

        Args:
            vector: Flat weights, shape (P,), as in `update`.
            dtype: Floating-point type of the result.

        Returns:
            The mean, shape (P,), on the vector's device.
        """
        new = self._checked(vector)
        mean = torch.empty(len(new), dtype=dtype, device=new.device)
        before = mean.new_zeros(()).expand(len(new)) if self._mean is None else self._mean
        for out, old, piece in zip(mean.split(PIECE), before.split(PIECE), new.split(PIECE), strict=True):
            own = old.to(new.device, torch.float64)
            out.copy_(own + (piece.to(own) - own) / (self._count + 1))
        return mean

    def _checked(self, vector: torch.Tensor) -> torch.Tensor:
        new = torch.as_tensor(vector).detach()
        if new.ndim != 1 or (self._mean is not None and new.shape != self._mean.shape):
            expected = "a flat vector" if self._mean is None else f"shape {tuple(self._mean.shape)}, as before"
            raise ValueError(f"the vector to average has shape {tuple(new.shape)}; expected {expected}")
        return new

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return count and mean as plain tensors, for a checkpoint."""
        mean = torch.zeros(0, dtype=torch.float64) if self._mean is None else self._mean.clone()
        return {"count": torch.tensor(self._count), "mean": mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._count = int(state["count"])
        self._mean = torch.as_tensor(state["mean"]).to(torch.float64).clone() if self._count else None

    def __repr__(self) -> str:
        size = 0 if self._mean is None else len(self._mean)
        return f"RunningMean(count={self._count}, P={size})"
