"""The face of a symmetric matrix that is known by its products: `@`, counted and checked, and other forms of it."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout


class Products(abc.ABC):
    """What a symmetric (P, P) matrix is when all that is known of it are its products."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device, layout: ParameterLayout | None = None):
        self.shape = (size, size)
        self.dtype = dtype
        self.device = device
        self.layout = layout
        self.n_matvecs = 0

    @abc.abstractmethod
    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        """Multiply one vector of shape (P,) that has the operator's type and device."""

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        """Multiply the columns of a block (P, k), k > 0; subclasses may do so all together."""
        return torch.stack([self._matvec(column) for column in block.unbind(dim=1)], dim=1)

    def __matmul__(self, other: Any) -> Any:
        """Multiply a vector (P,) or the columns of a block (P, k), torch or numpy.

        Returns:
            The product, of the input's shape and type.

        Raises:
            ValueError: The first dimension is not P.
            MeasurementError: The product is not finite.
        """
        given = torch.as_tensor(other)
        if given.ndim not in (1, 2) or given.shape[0] != self.shape[0]:
            raise ValueError(
                f"an operator of shape {self.shape} cannot multiply an array of shape {tuple(given.shape)}"
            )
        block = given.detach().to(self.device, self.dtype)
        product = self._product(block) if block.numel() else block
        if isinstance(other, torch.Tensor):
            return product.to(other.device, other.dtype if other.is_floating_point() else self.dtype)
        return product.cpu().numpy().astype(np.result_type(np.asarray(other).dtype, np.float32), copy=False)

    def _product(self, block: torch.Tensor) -> torch.Tensor:
        self.n_matvecs += 1 if block.ndim == 1 else block.shape[1]
        product = self._matvec(block) if block.ndim == 1 else self._matmat(block)
        # A sum is one pass over the memory, and finite only where all is; it alone may overflow.
        if not torch.isfinite(product.sum()) and not torch.isfinite(product).all():
            raise MeasurementError(
                "a curvature product is not finite: the loss or its derivatives are NaN or infinite at these weights "
                "on the measured examples; look at the loss, the learning rate and the data"
            )
        return product

    def dense(self) -> torch.Tensor:
        """Build the whole matrix from P products, symmetrised, shape (P, P): for tests and small models."""
        identity = torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        matrix = self @ identity
        return (matrix + matrix.T) / 2

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """Return the operator for scipy's solvers, taking and giving float64 arrays."""

        def matvec(vector: np.ndarray) -> np.ndarray:
            return self @ np.asarray(vector, dtype=np.float64).reshape(-1)

        def matmat(block: np.ndarray) -> np.ndarray:
            return self @ np.asarray(block, dtype=np.float64)

        return scipy.sparse.linalg.LinearOperator(
            shape=self.shape, matvec=matvec, rmatvec=matvec, matmat=matmat, rmatmat=matmat, dtype=np.float64
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(P={self.shape[0]}, dtype={self.dtype}, n_matvecs={self.n_matvecs})"
