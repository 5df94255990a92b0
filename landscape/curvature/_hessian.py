"""Hessian-vector products by the strategy that the model allows."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch

from landscape._derivative_probe import ONCE_ONLY, is_once_only
from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError, SurrogateError, words_of
from landscape._given import of_objective
from landscape._graph import as_outputs, is_cut_off
from landscape.curvature._batchwise import CHUNK_SIZE, MEMORY_BUDGET, BatchSum, Built, Term
from landscape.curvature._differences import DifferencedHessian
from landscape.curvature._linearized import LinearizedHessian
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import Reader
from landscape.objective import Objective

STRATEGIES = ("auto", "retained", "rebuilt", "linearized", "compiled", "differences")


class _DoubleBackward(Term):
    """The gradient of a batch with its graph: a product is one more backward pass."""

    def __init__(self, parameters: list[torch.Tensor], gradients: list[tuple[int, torch.Tensor]]):
        self._parameters = parameters
        self.roots = as_outputs(gradient for _, gradient in gradients)
        self._gradients = list(zip((index for index, _ in gradients), self.roots, strict=True))

    def apply(
        self, parts: Sequence[torch.Tensor | None], wanted: Sequence[int], batched: bool
    ) -> Sequence[torch.Tensor | None]:
        pairs = [(gradient, parts[i]) for i, gradient in self._gradients if parts[i] is not None]
        if not pairs:
            return [None] * len(wanted)
        return torch.autograd.grad(
            [gradient for gradient, _ in pairs],
            [self._parameters[i] for i in wanted],
            grad_outputs=[part for _, part in pairs],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )


class _GraphHessian(BatchSum):
    """Reverse-over-reverse differentiation on retained or rebuilt graphs."""

    def _build(self, index: int) -> Built:
        loss = self._loss(index)
        value = loss.detach()
        if not loss.requires_grad:
            return Built(value, False, None)
        gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        with_graph = [(i, g) for i, g in enumerate(gradients) if g is not None and g.requires_grad]
        if is_cut_off(gradient for _, gradient in with_graph):
            raise RuntimeError(ONCE_ONLY)
        term = _DoubleBackward(self._parameters, with_graph) if with_graph else None
        return Built(value, True, term)  # without a graph the loss is linear in the parameters: no curvature


class HessianOperator(SymmetricOperator):
    """The Hessian of an objective's mean loss at fixed parameters; make it with `hessian`."""

    def __init__(
        self,
        objective: Objective,
        vector: torch.Tensor | None = None,
        strategy: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
        chunk_size: int = CHUNK_SIZE,
    ):
        super().__init__(objective.n_parameters, objective.dtype, objective.device, objective.layout)
        self._engine = _engine(objective, vector, strategy, memory_budget, chunk_size)
        self.clusters, self.groups_alone = self._engine.clusters, self._engine.groups_alone

    @property
    def strategy(self) -> str:
        """How products are taken, in words."""
        return self._engine.strategy

    @property
    def kept_bytes(self) -> int:
        """Bytes of the graphs that are kept."""
        return getattr(self._engine, "kept_bytes", 0)

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._engine._matvec(vector)

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self._engine._matmat(block)

    def _submatvec(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        return self._engine._submatvec(vector, kept)

    def _submatmat(self, block: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        return self._engine._submatmat(block, kept)

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._engine._by_batch(block, read, shape)

    def _sub_by_batch(
        self, block: torch.Tensor, kept: tuple[int, ...], read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._engine._sub_by_batch(block, kept, read, shape)

    def _of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        return self._engine._of_group(vector, group)

    def _sub_of_group(self, vector: torch.Tensor, kept: tuple[int, ...], group: int) -> torch.Tensor:
        return self._engine._sub_of_group(vector, kept, group)

    def __repr__(self) -> str:
        return (
            f"HessianOperator(P={self.shape[0]}, dtype={self.dtype}, strategy={self.strategy!r}, "
            f"n_matvecs={self.n_matvecs})"
        )


def _engine(
    objective: Objective, vector: torch.Tensor | None, strategy: str, memory_budget: int, chunk_size: int
) -> _GraphHessian | LinearizedHessian | DifferencedHessian:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is {strategy!r}; it must be one of {', '.join(STRATEGIES)}")
    require_gradient(objective)
    product = objective.derivatives.product(objective) if strategy != "differences" else None
    if product is not None and not product.ok:
        missing = math.isnan(product.error)
        if strategy == "auto":
            return DifferencedHessian(
                objective, vector, "no second derivative" if missing else "wrong second derivative"
            )
        if strategy in ("retained", "rebuilt") or not missing:
            raise SurrogateError(
                f"{product.sentence}. Replace the operation by one with a right second derivative, or use "
                "strategy='differences'"
            )
    if strategy in ("linearized", "compiled"):
        return LinearizedHessian(objective, vector, compiled=strategy == "compiled")
    if strategy == "differences":
        return DifferencedHessian(objective, vector)
    budget = {"retained": sys.maxsize, "rebuilt": 0}.get(strategy, memory_budget)
    try:
        return _GraphHessian(objective, vector, budget, chunk_size)
    except RuntimeError as error:
        if not is_once_only(error):
            raise
        if strategy == "auto":
            return DifferencedHessian(objective, vector)
        raise MeasurementError(
            f"{type(objective.module).__name__} cannot be differentiated twice: {words_of(error)}. Replace the "
            "operation by one with a second derivative, or use strategy='differences'"
        ) from error


@of_objective
def hessian(
    objective: Objective,
    vector: torch.Tensor | None = None,
    strategy: str = "auto",
    memory_budget: int = MEMORY_BUDGET,
    chunk_size: int = CHUNK_SIZE,
) -> HessianOperator:
    """Make the Hessian of the mean loss, H = ∇²L(w), as a symmetric linear operator.

    The first differentiation is done once and its graph is kept for as many batches as `memory_budget` allows, so that
    a product costs one and a half to two gradients instead of the two and a half to three of a product from scratch.

    Before the first product of an objective, one product and the gradient are compared with differences (`derivatives`
    of the objective), for about eight gradients over sixteen examples.

    Memory: the activations and first-derivative graph of all kept batches while the operator lives (at most
    `memory_budget`, and for a moment those of one batch more), and one copy of the parameters and buffers.

    Args:
        objective: The loss over the measured examples.
        vector: Flat parameters, shape (P,), to take the Hessian at; by default a copy of the model's present ones. The
            operator stays at this point while training goes on.
        strategy: "auto" keeps the graphs that fit and differentiates the other batches at every product; where the
            model has no second derivative, or a wrong one, it takes differences. "retained" keeps all graphs,
            "rebuilt" none. "linearized" traces the derivative once (for many products on convolutions), "compiled" also
            compiles that (which takes minutes). "differences": central differences of gradients in float64, which are
            wrong, with a warning, where the first derivative jumps (ReLU).
        memory_budget: Bytes that the kept graphs may take.
        chunk_size: Columns of a block that are multiplied together where the model is so small that this pays.

    Returns:
        The operator, shape (P, P): `H @ v`, `H @ V`, `H.restrict("encoder")`, `H.to_scipy()`; `H.strategy` says how
        products are taken.

    Raises:
        MeasurementError: The loss is not finite, or the model does not allow the strategy.
        SurrogateError: The gradient is not that of the loss, or products by the chosen strategy are not the gradient's.
        ValueError: The strategy is unknown.
        RuntimeError: The model itself failed.

    Source: Pearlmutter 1994, doi:10.1162/neco.1994.6.1.147 (products); we take all batches with their own weight,
    where PyHessian 0.1 keeps the graph of one batch only and assumes a mean over examples.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> H = hessian(Objective(model, torch.nn.MSELoss(), [(x, y)]))
        >>> H.dense()
        tensor([[1., 0.],
                [0., 4.]])
    """
    return HessianOperator(objective, vector, strategy, memory_budget, chunk_size)
