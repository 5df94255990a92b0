"""Products with JᵀMJ, where J is the Jacobian of the model's outputs and M a symmetric matrix on them."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Protocol

import torch

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._graph import is_cut_off
from landscape.curvature._batchwise import CHUNK_SIZE, MEMORY_BUDGET, BatchSum, Built, Term
from landscape.curvature._split import Split, require_composite, split
from landscape.objective import Objective


class Metric(Protocol):
    """A symmetric matrix on the outputs of a batch."""

    def __call__(self, tangents: torch.Tensor, batched: bool) -> torch.Tensor:
        """Multiply outputs, or `batched` ones with a leading dimension of columns."""


class LossHessian:
    """The Hessian of a loss in the model's outputs, by differentiating the small graph of the loss twice."""

    def __init__(self, loss: torch.Tensor, outputs: torch.Tensor):
        self._outputs = outputs
        (self._slope,) = torch.autograd.grad(loss, outputs, create_graph=True)

    def __call__(self, tangents: torch.Tensor, batched: bool) -> torch.Tensor:
        """Multiply."""
        if not self._slope.requires_grad:
            return torch.zeros_like(tangents)  # a loss linear in the outputs
        (product,) = torch.autograd.grad(
            self._slope,
            self._outputs,
            grad_outputs=tangents,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )
        return torch.zeros_like(tangents) if product is None else product


class _Sandwich(Term):
    """JᵀMJ of one batch.

    A backward pass from the outputs with cotangent u gives g(u) = Jᵀu; as g is linear in u, one more backward pass,
    from g with cotangent v to u, gives Jv. Both passes run on kept graphs, so a product costs four matrix products a
    layer where a gradient costs three.
    """

    def __init__(self, outputs: torch.Tensor, parameters: list[torch.Tensor], metric: Metric):
        self._outputs = outputs
        self._parameters = parameters
        self._metric = metric
        self._cotangent = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, parameters, self._cotangent, create_graph=True, allow_unused=True)
        self._pulled = [(i, g) for i, g in enumerate(pulled) if g is not None and g.requires_grad]
        self.roots = [outputs, *(g for _, g in self._pulled)]

    def apply(
        self, parts: Sequence[torch.Tensor | None], wanted: Sequence[int], batched: bool
    ) -> Sequence[torch.Tensor | None]:
        pairs = [(pulled, parts[i]) for i, pulled in self._pulled if parts[i] is not None]
        if not pairs:
            return [None] * len(wanted)
        (tangents,) = torch.autograd.grad(
            [pulled for pulled, _ in pairs],
            self._cotangent,
            grad_outputs=[part for _, part in pairs],
            retain_graph=True,
            is_grads_batched=batched,
        )
        return torch.autograd.grad(
            self._outputs,
            [self._parameters[i] for i in wanted],
            grad_outputs=self._metric(tangents, batched),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )


class OutputOperator(BatchSum):
    """Σ_b J_bᵀ M_b J_b; subclasses say where the model ends, and what M is."""

    outputs: str = ""

    def __init__(self, objective: Objective, vector: torch.Tensor | None, memory_budget: int, chunk_size: int):
        require_gradient(objective)
        super().__init__(objective, vector, memory_budget, chunk_size)
        # A process without a batch has seen no loss function.
        self.outputs = next(filter(None, objective.processes.gather(self.outputs)), "")

    @abc.abstractmethod
    def _cut_at(self, parts: Split) -> torch.Tensor:
        """Choose the tensor that counts as the model's outputs."""

    @abc.abstractmethod
    def _metric(self, index: int, parts: Split) -> Metric:
        """Make the matrix on the outputs of a batch."""

    def _split(self, index: int) -> Split | None:
        parts = split(self._objective, lambda: self._loss(index))
        if parts is not None:
            require_composite(self._objective, parts, self._cut_at(parts), self._parameters)
            self.outputs = parts.name
        return parts

    def _build(self, index: int) -> Built:
        parts = self._split(index)
        if parts is None:
            return Built(self._loss(index).detach(), False, None)
        term = _Sandwich(self._cut_at(parts), self._parameters, self._metric(index, parts))
        if is_cut_off(term.roots[1:]):
            raise MeasurementError(
                f"{type(self._objective.module).__name__} uses an operation that allows one differentiation only, so "
                "the product of its Jacobian with a vector cannot be taken. Replace the operation by one with a second "
                "derivative"
            )
        return Built(parts.loss.detach(), True, term)


class GaussNewtonOperator(OutputOperator):
    """The generalised Gauss-Newton matrix of an objective at fixed parameters; make it with `ggn`.

    Attributes:
        outputs: Name of the loss function whose input counts as the model's outputs.
    """

    def _cut_at(self, parts: Split) -> torch.Tensor:
        return parts.outputs

    def _metric(self, index: int, parts: Split) -> Metric:
        return LossHessian(parts.loss, parts.outputs)


@of_objective
def ggn(
    objective: Objective,
    vector: torch.Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
    chunk_size: int = CHUNK_SIZE,
) -> GaussNewtonOperator:
    """Make the generalised Gauss-Newton matrix of the mean loss as a symmetric linear operator.

    G = Σ_b J_bᵀ (∇²_z ℓ_b) J_b, where z are the model's outputs and J their Jacobian: the Hessian with the model
    linearised, positive semidefinite where the loss is convex in z. The outputs are found by watching the call of the
    loss function, so unmodified LightningModules can be measured: z is the input of `cross_entropy`, `mse_loss` and so
    on, what `log_softmax` is applied to before `nll_loss`, what `sigmoid` is applied to before `binary_cross_entropy`,
    and the scores inside `linear_cross_entropy`. Where no known loss function is called, z is what the model of
    `Objective(model, loss_fn, batches)` returns. Whatever divides or weighs the loss does so here.

    Memory: the activations and first-derivative graph of all kept batches (at most `memory_budget`), and one copy of
    the parameters and buffers.

    Args:
        objective: The loss over the measured examples.
        vector: Flat parameters, shape (P,), to take it at; by default a copy of the model's present ones.
        memory_budget: Bytes that kept graphs may take; other batches are differentiated at every product.
        chunk_size: Columns of a block that are multiplied together where the model is so small that this pays.

    Returns:
        The operator, shape (P, P).

    Raises:
        MeasurementError: The step calls several loss functions or none that is known, the loss depends on the
            parameters also by another way (a penalty), it is not finite, or the model cannot be differentiated twice.

    Source: Schraudolph 2002, doi:10.1162/08997660260028683; Martens 2020, arXiv:1412.1193.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> ggn(Objective(model, torch.nn.MSELoss(), [(x, y)])).dense()
        tensor([[1., 0.],
                [0., 4.]])
    """
    return GaussNewtonOperator(objective, vector, memory_budget, chunk_size)
