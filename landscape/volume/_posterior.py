"""The tempered, tethered posterior around a point, in all parameters or in some of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape._errors import MeasurementError
from landscape.curvature import SymmetricOperator, hessian
from landscape.curvature._selection import joined, select, sublayout
from landscape.objective import Objective


class LocalPosterior:
    """p(w) ∝ exp(−nβ L(w) − γ/2 ‖w − w*‖²) over the free parameters; the others stay at w*.

    Memory: w*, and where only some parameters are free a whole vector a gradient beside it.

    Attributes:
        center: w*, all parameters, shape (P,).
        size: Number d of free parameters.
        base: The loss at w* of every batch with a weight, NaN for the others.
        loss: L(w*).
        noise: Variance of the gradients of single batches around their mean at w*, one a free parameter; None where
            gradients are taken over all examples.
        batches: Whether gradients are taken of one batch, drawn with the probability of its weight in L.
    """

    def __init__(
        self,
        objective: Objective,
        nbeta: float,
        gamma: float,
        parameters: str | Sequence[str] | None = None,
        full_batch: bool = False,
    ):
        self.objective, self.nbeta, self.gamma = objective, nbeta, gamma
        layout = objective.layout
        self._patterns = parameters
        self._kept = tuple(range(len(layout.names))) if parameters is None else select(layout, parameters)
        self._parts = joined([layout.slices()[index] for index in self._kept])
        self._sizes = list(sublayout(layout, self._kept).sizes)
        self.size = sum(self._sizes)
        self._whole = self.size == layout.total
        self.center = objective.vector()
        self._free = self.center if self._whole else torch.cat([self.center[part] for part in self._parts])
        self.weights = objective.weights
        self.batches = not full_batch and sum(weight > 0 for weight in self.weights) > 1
        self.base, self.loss, self.noise = self._at_center()

    def with_temperature(self, nbeta: float, gamma: float) -> LocalPosterior:
        """Return the same posterior with other nβ and γ, without new evaluations."""
        other = LocalPosterior.__new__(LocalPosterior)
        other.__dict__.update(self.__dict__ | {"nbeta": nbeta, "gamma": gamma})
        return other

    def start(self) -> torch.Tensor:
        """Return a copy of the free parameters at w*, shape (d,)."""
        return self._free.clone()

    def excess_and_force(self, free: torch.Tensor, batch: int | None) -> tuple[float, torch.Tensor]:
        """Evaluate at a point, over one batch or (None) over all examples.

        Args:
            free: The free parameters, shape (d,).
            batch: Index of the batch.

        Returns:
            Loss minus its value at w*, and the gradient of the energy U = nβ·(that) + γ/2 ‖w − w*‖², shape (d,).
        """
        loss, gradient = self._loss_and_gradient(free, batch)
        gradient.mul_(self.nbeta).add_(free - self._free, alpha=self.gamma)
        return loss - (self.loss if batch is None else self.base[batch]), gradient

    def tether(self, free: torch.Tensor, moved: torch.Tensor | None = None) -> float:
        """Return γ/2 ‖w − w*‖², or with a second point how much more it is there, free of cancellation."""
        away = free - self._free
        if moved is None:
            return self.gamma / 2 * float(away @ away)
        return self.gamma / 2 * float((moved - free) @ (moved - self._free).add_(away))

    def equilibrium(self, free: torch.Tensor, force: torch.Tensor) -> float:
        """Return (w − w*)·∇U / d, whose mean under p is 1, whatever the loss (integrate by parts)."""
        return float((free - self._free) @ force) / self.size

    def curvature(self) -> SymmetricOperator:
        """Return the Hessian of L at w* in the free parameters, shape (d, d)."""
        operator = hessian(self.objective)
        return operator if self._patterns is None else operator.restrict(self._patterns)

    def _loss_and_gradient(self, free: torch.Tensor, batch: int | None) -> tuple[float, torch.Tensor]:
        objective = self.objective
        point = free if self._whole else self._embedded(free)
        parameters = objective._tensors.parameters(point)
        moving = [parameters[index].requires_grad_(True) for index in self._kept]
        gradient = torch.zeros(self.size, device=objective.device, dtype=objective.dtype)
        found = torch.zeros(2, device=objective.device, dtype=torch.float64)  # loss, batches with a graph
        with objective.processes.summed(found, gradient):
            for index in objective.counted if batch is None else [b for b in objective.own if b == batch]:
                weight = self.weights[index] if batch is None else 1.0
                loss = objective.batch_loss(index, parameters)
                if loss.requires_grad:
                    parts = torch.autograd.grad(loss, moving, allow_unused=True, materialize_grads=True)
                    # Without an intermediate vector: at a million parameters every pass shows beside the step.
                    for place, part in zip(gradient.split(self._sizes), parts, strict=True):
                        place.add_(part.detach().to_dense().reshape(-1), alpha=weight)
                    found[1] += 1
                found[0] += weight * loss.detach().double()
        value, graphs = found.tolist()
        if not graphs:
            names = ", ".join(objective.layout.names[index] for index in self._kept)
            raise MeasurementError(
                f"the loss does not depend on the chosen parameters ({names}), so they have no posterior of their own"
            )
        return value, gradient

    def _embedded(self, free: torch.Tensor) -> torch.Tensor:
        point, start = self.center.clone(), 0
        for part in self._parts:
            stop = start + part.stop - part.start
            point[part] = free[start:stop]
            start = stop
        return point

    def _at_center(self) -> tuple[list[float], float, torch.Tensor | None]:
        base = [float("nan")] * len(self.weights)
        if not self.batches:
            loss, _ = self._loss_and_gradient(self._free, None)
            return base, loss, None
        total, mean = 0.0, torch.zeros_like(self._free)
        squares = torch.zeros_like(self._free)
        for index, weight in enumerate(self.weights):
            if weight > 0:
                base[index], gradient = self._loss_and_gradient(self._free, index)
                total += weight * base[index]
                mean.add_(gradient, alpha=weight)
                squares.addcmul_(gradient, gradient, value=weight)
        return base, total, squares.sub_(mean.square()).clamp_(min=0)
