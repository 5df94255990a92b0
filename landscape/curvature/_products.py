"""A symmetric matrix that is known by its products: `@`, counted and checked, and readings for groups of batches."""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._sampling_error import Clusters

# A linear function of a product: of a vector (P,), or of a block's products as rows (k, P).
Reader = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def checked_later() -> Iterator[None]:
    """Multiply without asking whether products are finite, which would let the host wait for the device at each.

    Whoever multiplies within fetches a number of every product that is finite only where the product is, such as a
    form vᵀHv, and gives it to `require_finite_products`.

    Yields:
        Nothing.
    """
    before, Products.checking = Products.checking, False
    try:
        yield
    finally:
        Products.checking = before


def require_finite_products(*numbers: float) -> None:
    """Refuse products that are not finite, by numbers that were made of them.

    Raises:
        MeasurementError: A number is not finite.
    """
    if not all(map(math.isfinite, numbers)):
        raise MeasurementError(
            "a curvature product is not finite: the loss or its derivatives are NaN or infinite at these weights "
            "on the measured examples; look at the loss, the learning rate and the data"
        )


class Products(abc.ABC):
    """A symmetric (P, P) matrix that is known by its products.

    Attributes:
        clusters: Groups of batches whose products add up to the matrix's; None where they cannot be told apart.
    """

    clusters: Clusters | None = None

    # Whether a product with one group of batches costs that group's share of a whole one; see `of_group`.
    groups_alone = False
    # Whether products are looked at one by one; see `checked_later`.
    checking = True

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device, layout: ParameterLayout | None = None):
        self.shape = (size, size)
        self.dtype = dtype
        self.device = device
        self.layout = layout
        self.n_matvecs = 0
        self._paid = 0.0  # what is left of the last product counted for `of_group`

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

    def by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Multiply once, and read a linear function off the part that each group of batches has in the product.

        The parts are added up as they come and never kept: the function is applied to the running sum after each
        group, and differences of its values are what the groups contribute.

        Args:
            block: A vector (P,) or the columns of a block (P, k), in the operator's type and on its device.
            read: A linear function of the product. It gets the product of a vector, shape (P,), or the products of the
                columns as rows, shape (k, P), and returns a tensor of its own, no view of them.
            shape: Shape of what it returns.

        Returns:
            The product, and what was read of each group, shape (groups, ...): these add up to `read` of the product.
            None instead where the operator does not know its groups (`clusters`).
        """
        return self._checked(block, lambda: self._by_batch(block, read, shape))

    def with_forms(self, block: torch.Tensor) -> tuple[torch.Tensor, np.ndarray | None]:
        """Multiply the columns v of a block, and return vᵀH_g v for the groups of batches too.

        Args:
            block: The columns, shape (P, k), in the operator's type and on its device.

        Returns:
            The products, shape (P, k), and the forms, shape (groups, k); None where the groups are not known.
        """
        if not block.numel():
            return block, None
        rows = block.T
        products, forms = self.by_batch(block, lambda images: torch.linalg.vecdot(images, rows), block.shape[1:])
        return products, None if forms is None else forms.double().cpu().numpy()

    def of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        """Multiply by the matrix of one group of batches alone, H_g v/p_g, the mean over its examples.

        It counts as that group's share of a product; the sum of such shares is rounded up.

        Args:
            vector: The vector, shape (P,), in the operator's type and on its device.
            group: Index of the group in `clusters`, of an operator with `groups_alone`.

        Returns:
            The product, shape (P,).
        """
        self._count_share(group)
        return self._finite(self._of_group(vector, group))

    def _of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} cannot multiply by one group of batches alone")

    def _count_share(self, group: int) -> None:
        assert self.clusters is not None
        share = float(self.clusters.shares[group])
        if self._paid < share - 1e-9:
            self.n_matvecs += 1
            self._paid += 1.0
        self._paid -= share

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return (self._matvec(block) if block.ndim == 1 else self._matmat(block)), None

    def _product(self, block: torch.Tensor) -> torch.Tensor:
        return self._checked(block, lambda: (self._matvec(block) if block.ndim == 1 else self._matmat(block), None))[0]

    def _checked(
        self, block: torch.Tensor, multiply: Callable[[], tuple[torch.Tensor, torch.Tensor | None]]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Count the products, take them, and refuse what is not finite."""
        self.n_matvecs += 1 if block.ndim == 1 else block.shape[1]
        product, readings = multiply()
        return self._finite(product), readings

    @staticmethod
    def _finite(product: torch.Tensor) -> torch.Tensor:
        # A sum is one pass over the memory, and finite only where all is; it alone may overflow.
        if Products.checking and not torch.isfinite(product.sum()) and not torch.isfinite(product).all():
            require_finite_products(math.nan)
        return product

    def dense(self) -> torch.Tensor:
        """Build the whole matrix from P products, symmetrised, shape (P, P): for tests and small models."""
        return self.whole()[0]

    def whole(self, by_batch: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Build the whole matrix as `dense` does, and what each group of batches contributes to it.

        Memory: as many matrices of P² numbers as there are groups, and one.

        Args:
            by_batch: Whether the groups' matrices are wanted.

        Returns:
            The matrix, shape (P, P), symmetrised; the groups' shares, shape (groups, P, P), or None.
        """
        identity = torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        if by_batch and self.clusters is not None:
            matrix, parts = self.by_batch(identity, lambda rows: rows.clone(), tuple(self.shape))
        else:
            matrix, parts = self @ identity, None
        return (matrix + matrix.T) / 2, parts

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
