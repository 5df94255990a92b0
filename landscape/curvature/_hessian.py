"""Hessian-vector products by reverse-over-reverse differentiation on retained graphs."""

from __future__ import annotations

import torch

from landscape._errors import MeasurementError
from landscape.curvature._operator import SymmetricOperator
from landscape.objective import Objective


class HessianOperator(SymmetricOperator):
    """The Hessian of an objective's mean loss at fixed parameters; make it with `hessian`."""

    def __init__(self, objective: Objective, vector: torch.Tensor | None = None):
        super().__init__(objective.n_parameters, objective.dtype, objective.device)
        self._objective = objective
        self._gradients: list[list[tuple[int, torch.Tensor]]] = []
        differentiable = False
        with objective.session():
            loss = torch.zeros((), device=self.device, dtype=torch.float64)
            # A private copy: the operator stays at this point while training goes on.
            point = objective.vector() if vector is None else torch.as_tensor(vector).detach().clone()
            point = point.to(self.device, self.dtype)
            self._parameters = [part.detach().requires_grad_(True) for part in objective.layout.unflatten(point)]
            for index, weight in enumerate(objective.weights):
                if weight == 0:
                    continue
                batch_loss = weight * objective.batch_loss(index, self._parameters)
                loss += batch_loss.detach().double()
                differentiable |= batch_loss.requires_grad
                self._gradients.append(self._differentiate(batch_loss))
        objective.require_graph(differentiable)
        if not torch.isfinite(loss):
            raise MeasurementError(
                f"the loss on the measured examples is {float(loss)}, so it has no curvature; "
                "look at the weights, the learning rate and the data"
            )

    def _differentiate(self, loss: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        """Gradient of a batch with its graph: (tensor index, gradient) where it still depends on the parameters."""
        if not loss.requires_grad:
            return []  # the loss of this batch does not depend on any trainable parameter
        gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        with_graph = [(i, g) for i, g in enumerate(gradients) if g is not None and g.requires_grad]
        if _is_cut_off([gradient for _, gradient in with_graph]):
            raise MeasurementError(
                f"{type(self._objective.module).__name__} uses an operation that allows one differentiation only, so "
                "it cannot be differentiated twice. Replace the operation by one with a second derivative"
            )
        return with_graph

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        parts = self._objective.layout.unflatten(vector)
        total = torch.zeros_like(vector)
        for gradients in self._gradients:
            if not gradients:
                continue  # linear in the parameters: no curvature
            products = torch.autograd.grad(
                [gradient for _, gradient in gradients],
                self._parameters,
                grad_outputs=[parts[i] for i, _ in gradients],
                retain_graph=True,
                allow_unused=True,
            )
            for target, product in zip(self._objective.layout.unflatten(total), products, strict=True):
                if product is not None:
                    target += product
        return total


def _is_cut_off(gradients: list[torch.Tensor]) -> bool:
    """Whether a graph holds the stub of a missing second derivative.

    Torch raises when such a stub is run. But it leads nowhere, so a product with unused parameters allowed passes it by
    and leaves its curvature out.

    Returns:
        Whether there is one.
    """
    seen = set()
    stack = [gradient.grad_fn for gradient in gradients]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().rpartition("::")[2] in ("Error", "DelayedError", "NotImplemented"):
            return True
        stack.extend(following for following, _ in node.next_functions)
    return False


def hessian(objective: Objective, vector: torch.Tensor | None = None) -> HessianOperator:
    """Make the Hessian of the mean loss, H = ∇²L(w), as a symmetric linear operator.

    The first differentiation is done once and its graph is kept for every batch, so that a product costs about one
    and a half gradients instead of the two and a half of a product from scratch.

    Memory: the activations and first-derivative graph of all measured examples while the operator lives, and one copy
    of the parameters.

    Args:
        objective: The loss over the measured examples.
        vector: Flat parameters, shape (P,), to take the Hessian at; by default a copy of the model's present ones. The
            operator stays at this point while training goes on.

    Returns:
        The operator, shape (P, P): `H @ v`, `H @ V`, `H.to_scipy()`.

    Raises:
        MeasurementError: The loss is not finite, or the model cannot be differentiated twice.
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
    try:
        return HessianOperator(objective, vector)
    except RuntimeError as error:
        if "derivative for" in str(error) or "double backward" in str(error) or "does not require grad" in str(error):
            raise MeasurementError(
                f"{type(objective.module).__name__} cannot be differentiated twice: {error}. Replace the operation by "
                "one with a second derivative"
            ) from error
        raise
