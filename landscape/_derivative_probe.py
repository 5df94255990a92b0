"""Difference quotients of a loss and of its gradient near the weights, beside what torch says they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from landscape import _batches
from landscape._differences import Comparison, Ladder, compare
from landscape._graph import is_cut_off, kinks, nodes
from landscape._twice import CheapSecondDerivatives

if TYPE_CHECKING:
    from landscape.objective import Objective

# The point is moved off ties, exact zeros and minima by this share of each tensor's root mean square.
_MOVED = 1e-2
_DOUBLE, _SINGLE = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps
# Central differences of losses. The fine steps cross next to no kinks; the coarse ones rise above float32 rounding.
_LOSSES = {
    True: Ladder((1e-7, 1e-6, 1e-5), 1e-4, 1e-3, _DOUBLE),
    False: Ladder((1e-3, 3e-3, 1e-2), 1e-2, 5e-2, _SINGLE),
}
# One-sided differences of gradients. A kink adds 1/step to them, so the steps begin as fine as rounding allows.
_GRADIENTS = {
    True: Ladder((1e-8, 1e-7, 1e-6), 1e-4, 1e-3, _DOUBLE),
    False: Ladder((1e-3, 3e-3, 1e-2), 2e-2, 1e-1, _SINGLE),
}
_Product = Callable[[torch.Tensor], torch.Tensor]
EXAMPLES = 16  # of a batch that are looked at, where it can be cut
_LOSS_SHARE = 1 / 3  # of a loss in the cost of a gradient


ONCE_ONLY = "an operation allows one differentiation only"


def is_once_only(error: Exception) -> bool:
    """Whether an error says that an operation has no second derivative."""
    words = ("derivative for", "double backward", "does not require grad", "by an inplace operation", ONCE_ONLY)
    return any(word in str(error) for word in words)


@contextlib.contextmanager
def opened(objective: Objective, dtype: torch.dtype, examples: int | None) -> Iterator[Place]:
    """Prepare the smallest batch whose loss has a gradient, or some examples of it.

    Args:
        objective: The loss over all batches.
        dtype: Floating-point type of the check.
        examples: Examples to look at; None for all of the batch.

    Yields:
        The place.

    Raises:
        ValueError: No batch has a gradient.
    """
    counted = [index for index, weight in enumerate(objective.batch_weights) if weight > 0]
    for index in sorted(counted, key=lambda index: objective.batch_sizes[index]):
        size = min(objective.batch_sizes[index], examples or objective.batch_sizes[index])
        piece = next(iter(_batches.split(objective.batches[index], size, objective._reading, index)))
        alone = objective._over(_batches.DrawnBatches([piece], [size]), dtype)
        with alone.session(), alone.same_kernels(), torch.enable_grad():
            place = Place(alone, alone.n_examples / objective.n_examples)
            if place.differentiable:
                yield place
                return
    raise ValueError("no batch has a gradient")


class Place:
    """One batch in the type of the check, with difference quotients of its loss and gradient near the weights.

    Args:
        objective: The loss of this batch alone.
        share: Its share of all measured examples.

    Attributes:
        differentiable: Whether the loss has a gradient.
        dtype: The floating-point type.
        unregistered: Shape of an `nn.Parameter` that the loss depends on and that requires gradients, but is not
            registered in the module; None where there is none.
        stray: Name of a trainable parameter that the loss uses though another tensor was put in its place, else "".
    """

    def __init__(self, objective: Objective, share: float):
        self._objective = objective
        self._share = share
        self.dtype = objective.dtype
        self._cost = 3 * _LOSS_SHARE  # the objective of the batch was evaluated three times
        self._scale = _scale(objective)
        self._weights = objective.vector()
        loss, parts = self._graph(self._moved(0))
        self.differentiable = loss.requires_grad
        self.stray = _stray(objective, loss)
        self.unregistered = self._unregistered(loss, parts)
        # A cast on the way means that not all is computed in the type of the parameters.
        cast = any(node.name().startswith("ToCopy") for node in nodes([loss]))
        self._fine = objective.dtype == torch.float64 and not cast
        self._kinked = bool(kinks([loss]))

    def _unregistered(self, loss: torch.Tensor, parts: list[torch.Tensor]) -> tuple[int, ...] | None:
        """Return the shape of a parameter that lasts and is not registered, None without one."""
        own = list(self._objective.module.parameters())
        before = [leaf for leaf in _leaves(loss, [*parts, *own]) if isinstance(leaf, nn.Parameter)]
        if not before:
            return None
        # Inputs that the step differentiates by are made anew at every evaluation.
        self._cost += _LOSS_SHARE
        loss, parts = self._graph(self._moved(0))
        after = {id(leaf) for leaf in _leaves(loss, [*parts, *own])}
        return next((tuple(leaf.shape) for leaf in before if id(leaf) in after), None)

    @property
    def n_gradients(self) -> float:
        """What was evaluated so far, in gradients over all measured examples."""
        return self._cost * self._share

    def slopes(self, seed: int) -> dict[str, Comparison]:
        """Compare the gradient at a point near the weights with central differences of the loss.

        Args:
            seed: Seed of the point and the random direction.

        Returns:
            The comparisons by direction.
        """
        point = self._moved(seed)
        value, gradient = self._loss_and_gradient(point)
        found = {}
        for along, direction in self._directions(gradient, seed).items():

            def quotient(step: float, direction: torch.Tensor = direction) -> torch.Tensor:
                ahead, behind = (self._loss(point + side * step * direction) for side in (1, -1))
                return (ahead - behind) / (2 * step)

            claimed = gradient.double() @ direction.double()
            found[along] = compare(quotient, claimed, _LOSSES[self._fine], max(abs(value), 1.0))
        return found

    def curvature(self) -> dict[str, Comparison]:
        """Compare products with the Hessian at a point near the weights with one-sided differences of gradients.

        They are compared in units of the weights, where gradients have the unit of the loss. The first direction is a
        random one plus the gradient. A second one is tried where the first contradicts.

        Returns:
            The comparisons by direction.
        """
        point = self._moved(0)
        value, gradient, multiply = self._twice(point)
        found: dict[str, Comparison] = {}
        if self._kinked and not self._fine:
            return found  # coarse steps would cross kinks
        magnitude = max(abs(value), 1.0, float(torch.linalg.vector_norm(self._scale * gradient)))
        for seed, along in enumerate(("a random direction plus the gradient", "another one")):
            direction = torch.stack([*self._directions(gradient, seed).values()]).sum(0)

            def quotient(step: float, direction: torch.Tensor = direction) -> torch.Tensor:
                moved = self._loss_and_gradient(point + step * direction)[1]
                return self._scale * (moved - gradient) / step

            product = self._scale * multiply(direction)
            found[along] = compare(quotient, product, _GRADIENTS[self._fine], magnitude)
            if found[along].agrees is not False:
                break
        return found

    # ------------------------------------------------------------------ evaluations

    def _graph(self, vector: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        parts = [part.detach().requires_grad_() for part in self._objective.layout.unflatten(vector)]
        return self._objective.batch_loss(0, parts), parts

    def _loss(self, vector: torch.Tensor) -> torch.Tensor:
        self._cost += _LOSS_SHARE
        return self._graph(vector)[0].detach().double()

    def _loss_and_gradient(self, vector: torch.Tensor) -> tuple[float, torch.Tensor]:
        self._cost += 1
        loss, parts = self._graph(vector)
        gradient = torch.autograd.grad(loss, parts, allow_unused=True, materialize_grads=True)
        return float(loss.detach()), self._objective.flatten(gradient)

    def _twice(self, vector: torch.Tensor) -> tuple[float, torch.Tensor, _Product]:
        """Return loss, gradient, and products with the Hessian as `hessian` takes them."""
        self._cost += 1.5
        layout, flatten = self._objective.layout, self._objective.flatten
        with CheapSecondDerivatives():
            loss, parts = self._graph(vector)
        gradients = torch.autograd.grad(loss, parts, create_graph=True, allow_unused=True, materialize_grads=True)
        rooted = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
        outputs = [gradients[index] for index in rooted]
        if is_cut_off(outputs):
            raise RuntimeError(ONCE_ONLY)

        def multiply(direction: torch.Tensor) -> torch.Tensor:
            self._cost += 1.5
            if not outputs:
                return torch.zeros_like(direction)  # a loss linear in the parameters
            pieces = layout.unflatten(direction)
            cotangents = [pieces[index] for index in rooted]
            options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
            return flatten(torch.autograd.grad(outputs, parts, cotangents, **options))

        return float(loss.detach()), flatten(gradients), multiply

    # ------------------------------------------------------------------ points and directions

    def _moved(self, seed: int) -> torch.Tensor:
        """Return a point a little off the weights, where no tie, exact zero or minimum is left."""
        noise = self._noise(2 * seed)
        return self._weights + _MOVED * noise

    def _directions(self, gradient: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        drawn = self._noise(2 * seed + 1)
        length = float(torch.linalg.vector_norm(gradient))
        found = {"a random direction": drawn}
        if length > 0 and math.isfinite(length):
            found["the gradient"] = gradient * (float(torch.linalg.vector_norm(drawn)) / length)
        return found

    def _noise(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index)
        noise = torch.randn(len(self._weights), generator=generator, dtype=torch.float32)
        return noise.to(self._weights) * self._scale


def _leaves(loss: torch.Tensor, known: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the leaves of a graph that require gradients, without those that are known."""
    others = {id(tensor) for tensor in known}
    found = (getattr(node, "variable", None) for node in nodes([loss]))
    return [leaf for leaf in found if leaf is not None and id(leaf) not in others]


def _stray(objective: Objective, loss: torch.Tensor) -> str:
    """Name a measured parameter of the module's own that a loss at other weights leads to; "" where there is none."""
    reached = {id(getattr(node, "variable", None)) for node in nodes([loss])}
    measured, own = set(objective.layout.names), objective.module.named_parameters()
    return next((name for name, parameter in own if name in measured and id(parameter) in reached), "")


def _scale(objective: Objective) -> torch.Tensor:
    """Return the root mean square of each weight's tensor; 0 for padding rows, whose gradient torch leaves out."""
    weights = objective.vector()
    overall = float(weights.double().square().mean().sqrt()) or 1.0
    scale = torch.empty_like(weights)
    for part in objective.layout.slices():
        own = float(weights[part].double().square().mean().sqrt()) if weights[part].numel() else 0.0
        scale[part] = own or overall
    named = dict(zip(objective.layout.names, objective.layout.unflatten(scale), strict=True))
    places = {id(parameter): name for name, parameter in objective.module.named_parameters()}
    for module in objective.module.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
            name = places.get(id(module.weight), "")
            if name in named:
                named[name][module.padding_idx] = 0.0
    return scale
