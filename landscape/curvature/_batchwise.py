"""A curvature matrix as a sum over batches, with as many of their graphs kept as a memory budget allows."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch

from landscape._errors import MeasurementError
from landscape._graph import Root, batches_well, saved_bytes
from landscape._selection import sublayout
from landscape._twice import CheapSecondDerivatives
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import Reader
from landscape.curvature._readings import Readings
from landscape.objective import Objective

MEMORY_BUDGET = 4 * 2**30
CHUNK_SIZE = 8


class Term(abc.ABC):
    """The curvature of one batch, on a graph that serves any number of products.

    Attributes:
        roots: The tensors that hold the graph.
    """

    roots: Sequence[Root]

    @abc.abstractmethod
    def apply(
        self, parts: Sequence[torch.Tensor | None], wanted: Sequence[int], batched: bool
    ) -> Sequence[torch.Tensor | None]:
        """Multiply.

        Args:
            parts: The vector cut into tensors of the parameters' shapes, None for zero; `batched` ones have a leading
                dimension of columns.
            wanted: Indices of the tensors whose rows are wanted.
            batched: Whether there are many columns.

        Returns:
            A tensor of each wanted shape, None for zero.
        """


@dataclasses.dataclass(frozen=True)
class Built:
    """One pass over a batch.

    Attributes:
        loss: Its share of the loss, a scalar without graph.
        differentiable: Whether the loss depends on the parameters.
        term: Its curvature; None where there is none.
    """

    loss: torch.Tensor
    differentiable: bool
    term: Term | None


class BatchSum(SymmetricOperator):
    """Σ_b of the curvature of batch b at fixed parameters; subclasses say what that is.

    Batches whose graph does not fit into the budget are differentiated anew for every product, and so are those that
    are foreseen not to fit. All columns of a block share that pass. Of a sharded objective each process takes its own
    batches, and the products are summed; the attributes are then those of this process.

    Attributes:
        memory_budget: Bytes that kept graphs may take.
        kept_bytes: Bytes that they take.
        n_kept: Number of batches whose graph is kept.
        n_rebuilt: Number of batches that are differentiated for every product.
        chunk_size: Columns multiplied together.
        together: Whether columns are multiplied together at all.
    """

    def __init__(
        self,
        objective: Objective,
        vector: torch.Tensor | None = None,
        memory_budget: int = MEMORY_BUDGET,
        chunk_size: int = CHUNK_SIZE,
    ):
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; at least one column must be multiplied at a time")
        super().__init__(objective.n_parameters, objective.dtype, objective.device, objective.layout)
        self._objective = objective
        self.memory_budget = memory_budget
        self.chunk_size = chunk_size
        self.kept_bytes = 0
        self.together = False
        self.clusters = objective.clusters
        self.groups_alone = self.clusters is not None and objective.processes.size == 1
        self._kept: list[tuple[int, Term]] = []
        self._rebuilt: list[int] = []
        with objective.session():
            # A private copy: the operator stays at this point while training goes on.
            point = objective.vector() if vector is None else torch.as_tensor(vector).detach().clone()
            point = point.to(self.device, self.dtype)
            self._parameters = [part.detach().requires_grad_(True) for part in objective.layout.unflatten(point)]
            self._buffers = {name: buffer.clone() for name, buffer in objective.buffers().items()}
            found = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, batches that depend on the point
            with objective.processes.summed(found):
                self._first_pass(found)
        loss, differentiable = found.tolist()
        objective.require_graph(differentiable > 0)
        if not math.isfinite(loss):
            raise MeasurementError(
                f"the loss on the measured examples is {loss}, so it has no curvature; "
                "look at the weights, the learning rate and the data"
            )

    @property
    def n_kept(self) -> int:
        """Number of batches whose graph is kept."""
        return len(self._kept)

    @property
    def n_rebuilt(self) -> int:
        """Number of batches that are differentiated for every product."""
        return len(self._rebuilt)

    @property
    def strategy(self) -> str:
        """How products are taken."""
        graphs = "retained graphs" if not self._rebuilt else "graphs rebuilt at every product"
        if self._rebuilt and self._kept:
            graphs = f"retained graphs of {self.n_kept} batches, {self.n_rebuilt} rebuilt at every product"
        return graphs + (f", {self.chunk_size} columns together" if self.together and self.chunk_size > 1 else "")

    @abc.abstractmethod
    def _build(self, index: int) -> Built:
        """Evaluate and differentiate one batch."""

    def _loss(self, index: int) -> torch.Tensor:
        weight = self._objective.batch_weights[index]
        with CheapSecondDerivatives():
            return weight * self._objective.batch_loss(index, self._parameters, self._buffers)

    def _evaluate(self, index: int) -> torch.Tensor:
        """Take the loss of a batch whose graph is not kept."""
        return self._loss(index)

    def _first_pass(self, found: torch.Tensor) -> None:
        """Evaluate every batch, and keep the graphs that fit; add up the loss, and how many batches have a graph."""
        dearest = 0.0  # bytes an example
        for index in self._objective.counted:
            examples = self._objective.batch_sizes[index]
            if self.kept_bytes + dearest * examples > self.memory_budget:
                loss = self._evaluate(index)
                found[0] += loss.detach()
                found[1] += loss.requires_grad
                self._rebuilt.append(index)
                continue
            built = self._build(index)
            found[0] += built.loss
            found[1] += built.differentiable
            if built.term is None:
                continue
            size = saved_bytes(built.term.roots, self._parameters)
            if not dearest:
                self.together = batches_well(built.term.roots, size, self.device.type)
            dearest = max(dearest, size / max(examples, 1))
            if self.kept_bytes + size <= self.memory_budget:
                self.kept_bytes += size
                self._kept.append((index, built.term))
            else:
                self._rebuilt.append(index)

    def _terms(self, group: int | None = None) -> Iterator[tuple[int, Term]]:
        """Yield number and curvature of each batch, or of those of one group."""

        def wanted(index: int) -> bool:
            return group is None or (self.clusters is not None and self.clusters.group[index] == group)

        yield from ((index, term) for index, term in self._kept if wanted(index))
        rebuilt = list(filter(wanted, self._rebuilt))
        if rebuilt:
            with self._objective.session():
                for index in rebuilt:
                    term = self._build(index).term
                    if term is not None:
                        yield index, term

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._submatvec(vector, tuple(range(len(self._parameters))))

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self._submatmat(block, tuple(range(len(self._parameters))))

    def _submatvec(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        return self._sum(vector, kept, Readings(None, None))

    def _submatmat(self, block: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        return self._sum(block, kept, Readings(None, None))

    def _of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        return self._sub_of_group(vector, tuple(range(len(self._parameters))), group)

    def _sub_of_group(self, vector: torch.Tensor, kept: tuple[int, ...], group: int) -> torch.Tensor:
        assert self.clusters is not None
        return self._sum(vector, kept, Readings(None, None), group).div_(float(self.clusters.weights[group]))

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._sub_by_batch(block, tuple(range(len(self._parameters))), read, shape)

    def _sub_by_batch(
        self, block: torch.Tensor, kept: tuple[int, ...], read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        readings = Readings(self.clusters, read, block.new_empty((0, *shape)))
        return self._sum(block, kept, readings), readings.found

    def _sum(
        self, block: torch.Tensor, kept: tuple[int, ...], readings: Readings, group: int | None = None
    ) -> torch.Tensor:
        """Multiply by the sub-block of some tensors, batch by batch, or by that of one group."""
        rows = block if block.ndim == 1 else block.T.contiguous()
        total = torch.zeros_like(rows)
        parts = self._parts(rows, kept) if rows.ndim == 1 else []
        with self._objective.processes.summed(total, *readings.shared):
            for index, term in self._terms(group):
                readings.next(index, total)
                if rows.ndim == 1:
                    self._add(total, term.apply(parts, kept, batched=False), kept)
                    continue
                # Within a batch, so that a rebuilt graph serves all columns.
                for start in range(0, len(rows), self.chunk_size):
                    chunk = slice(start, start + self.chunk_size)
                    total[chunk] += self._chunk(term, rows[chunk], kept)
            readings.end(total)
        return total if block.ndim == 1 else total.T

    def _chunk(self, term: Term, rows: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        if self.together and len(rows) > 1:
            try:
                return self._joined(term.apply(self._parts(rows, kept), kept, batched=True), kept, len(rows))
            except RuntimeError:
                # An operation that cannot be batched; whatever else it was happens again below.
                self.together = False
        columns = [self._joined(term.apply(self._parts(row, kept), kept, batched=False), kept) for row in rows]
        return torch.stack(columns)

    def _parts(self, vector: torch.Tensor, kept: tuple[int, ...]) -> list[torch.Tensor | None]:
        """Cut a vector, or the rows of a block, into tensors; None for those outside."""
        assert self.layout is not None
        own = sublayout(self.layout, kept)
        parts: list[torch.Tensor | None] = [None] * len(self._parameters)
        for index, part, shape in zip(kept, own.slices(), own.shapes, strict=True):
            parts[index] = vector[..., part].reshape((*vector.shape[:-1], *shape))
        return parts

    def _add(self, total: torch.Tensor, products: Sequence[torch.Tensor | None], kept: tuple[int, ...]) -> None:
        """Add a product to a flat vector, tensor by tensor: without a second flat vector."""
        assert self.layout is not None
        for part, product in zip(sublayout(self.layout, kept).slices(), products, strict=True):
            if product is not None:
                total[part].add_(product.detach().to_dense().reshape(-1))

    def _joined(
        self, products: Sequence[torch.Tensor | None], kept: tuple[int, ...], rows: int | None = None
    ) -> torch.Tensor:
        lead = () if rows is None else (rows,)
        flat = [
            self._parameters[index].new_zeros(*lead, self._parameters[index].numel())
            if product is None
            else product.detach().to_dense().reshape(*lead, -1)  # embeddings may give sparse ones
            for index, product in zip(kept, products, strict=True)
        ]
        return torch.cat(flat, dim=-1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(P={self.shape[0]}, dtype={self.dtype}, strategy={self.strategy!r}, "
            f"n_matvecs={self.n_matvecs})"
        )
