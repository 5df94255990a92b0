"""The tempered, tethered posterior around a point, in all parameters or in some of them."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Iterable, Sequence

import torch

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._fetching import fetched
from landscape._selection import joined, select, sublayout
from landscape.curvature import SymmetricOperator, hessian
from landscape.objective import Objective

_PIECE = 2**16


def pieces(*vectors: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """Cut vectors of one length alike, so that what is computed on the way to a sum needs no vectors of its own.

    At a million parameters making one costs as much as three passes over it.

    Returns:
        Views of each, all of one part of the way.
    """
    if len(vectors[0]) <= _PIECE:
        return [vectors]
    return zip(*(vector.split(_PIECE) for vector in vectors), strict=True)


def summed(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Add scalars up, and return the sum in float64."""
    return functools.reduce(operator.add, parts).double()


class LocalPosterior:
    """p(w) ∝ exp(−nβ L(w) − γ/2 ‖w − w*‖²) over the free parameters; the others stay at w*.

    Memory: w*, its free part where not all of it is, and with batches the variances.

    Attributes:
        center: w*, all parameters, shape (P,).
        anchor: The free ones of them, shape (d,).
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
        require_gradient(objective)
        self.objective, self.nbeta, self.gamma = objective, nbeta, gamma
        layout = objective.layout
        self._patterns = parameters
        self._kept = tuple(range(len(layout.names))) if parameters is None else select(layout, parameters)
        self._layout = sublayout(layout, self._kept)
        self.size = self._layout.total
        self._whole = self.size == layout.total
        self.center = objective.vector()
        parts = joined([layout.slices()[index] for index in self._kept])
        self.anchor = self.center if self._whole else torch.cat([self.center[part] for part in parts])
        self.weights = objective.batch_weights
        self.batches = not full_batch and sum(weight > 0 for weight in self.weights) > 1
        self.base, self.loss, self.noise = self._at_center()

    def with_temperature(self, nbeta: float, gamma: float) -> LocalPosterior:
        """Return the same posterior with other nβ and γ, without new evaluations."""
        other = copy.copy(self)
        other.nbeta, other.gamma = nbeta, gamma
        return other

    def start(self) -> torch.Tensor:
        """Return a copy of the free parameters at w*, shape (d,)."""
        return self.anchor.clone()

    def excess_and_force(self, free: torch.Tensor, batch: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate at a point, over one batch or (None) over all examples.

        Numbers stay on the device, here and in the methods below, so that steps need not wait for it.

        Args:
            free: The free parameters, shape (d,).
            batch: Index of the batch.

        Returns:
            Loss minus its value at w*, a float64 scalar, and the gradient of the energy
            U = nβ·(that) + γ/2 ‖w − w*‖², shape (d,).
        """
        loss, gradient = self._loss_and_gradient(free, batch)
        for force, there, home in pieces(gradient, free, self.anchor):
            force.mul_(self.nbeta).add_(there - home, alpha=self.gamma)
        return loss - (self.loss if batch is None else self.base[batch]), gradient

    def tether(self, free: torch.Tensor, moved: torch.Tensor | None = None) -> torch.Tensor:
        """Return γ/2 ‖w − w*‖², or with a second point how much more it is there, free of cancellation."""
        if moved is None:
            apart = (here - home for here, home in pieces(free, self.anchor))
            return self.gamma / 2 * summed(away @ away for away in apart)
        return (
            self.gamma
            / 2
            * summed(
                (there - here) @ ((there - home).add_(here - home))
                for here, there, home in pieces(free, moved, self.anchor)
            )
        )

    def equilibrium(self, free: torch.Tensor, force: torch.Tensor) -> torch.Tensor:
        """Return (w − w*)·∇U / d, whose mean under p is 1, whatever the loss (integrate by parts)."""
        found = summed((here - home) @ pull for here, home, pull in pieces(free, self.anchor, force))
        return found / self.size

    def curvature(self) -> SymmetricOperator:
        """Return the Hessian of L at w* in the free parameters, shape (d, d)."""
        operator = hessian(self.objective)
        return operator if self._patterns is None else operator.restrict(self._patterns)

    def tensors(self, free: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return what the model is evaluated with at a point, shape (d,), and what of it is free as its views."""
        moving = [part.detach().requires_grad_() for part in self._layout.unflatten(free)]
        if self._whole:
            return moving, moving
        tensors = self.objective.layout.unflatten(self.center)
        for index, part in zip(self._kept, moving, strict=True):
            tensors[index] = part
        return tensors, moving

    def loss_and_gradients(
        self, tensors: list[torch.Tensor], moving: list[torch.Tensor], batch: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Evaluate one batch in this process.

        Args:
            tensors: As `tensors` gives them.
            moving: Likewise.
            batch: Index of the batch.

        Returns:
            Its loss, a float64 scalar, and the gradient by tensors.

        Raises:
            MeasurementError: The loss does not depend on the free parameters.
        """
        loss = self.objective.batch_loss(batch, tensors)
        if not loss.requires_grad:
            raise self._independent()
        parts = torch.autograd.grad(loss, moving, allow_unused=True, materialize_grads=True)
        return loss.detach().double(), [part.to_dense() if part.is_sparse else part for part in parts]

    def _loss_and_gradient(self, free: torch.Tensor, batch: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        objective = self.objective
        tensors, moving = self.tensors(free)
        gradient = torch.zeros(self.size, device=objective.device, dtype=objective.dtype)
        places = self._layout.unflatten(gradient)
        found = torch.zeros(2, device=objective.device, dtype=torch.float64)  # loss, batches with a graph
        graphs = 0
        with objective.processes.summed(found, gradient):
            for index in objective.counted if batch is None else [b for b in objective.own if b == batch]:
                weight = self.weights[index] if batch is None else 1.0
                loss = objective.batch_loss(index, tensors)
                if loss.requires_grad:
                    parts = torch.autograd.grad(loss, moving, allow_unused=True, materialize_grads=True)
                    # Without an intermediate vector: at a million parameters every pass shows beside the step.
                    for place, part in zip(places, parts, strict=True):
                        place.add_(part.detach().to_dense(), alpha=weight)
                    graphs += 1
                found[0] += weight * loss.detach().double()
            found[1] = graphs
        if not graphs and (objective.processes.size == 1 or not found[1]):
            raise self._independent()
        return found[0], gradient

    def _independent(self) -> MeasurementError:
        names = ", ".join(self._layout.names)
        return MeasurementError(
            f"the loss does not depend on the chosen parameters ({names}), so they have no posterior of their own"
        )

    def _at_center(self) -> tuple[list[float], float, torch.Tensor | None]:
        base = [float("nan")] * len(self.weights)
        if not self.batches:
            loss, _ = self._loss_and_gradient(self.anchor, None)
            return base, float(loss), None
        losses, mean = [], torch.zeros_like(self.anchor)
        squares = torch.zeros_like(self.anchor)
        counted = [index for index, weight in enumerate(self.weights) if weight > 0]
        for index in counted:
            loss, gradient = self._loss_and_gradient(self.anchor, index)
            losses.append(loss)
            mean.add_(gradient, alpha=self.weights[index])
            squares.addcmul_(gradient, gradient, value=self.weights[index])
        total = 0.0
        for index, known in zip(counted, fetched(losses), strict=True):
            base[index] = float(known)
            total += self.weights[index] * base[index]
        return base, total, squares.sub_(mean.square()).clamp_(min=0)
