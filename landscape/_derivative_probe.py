"""Difference quotients of a loss and of its gradient near the weights, beside what torch says they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from landscape import _batches
from landscape._differences import Comparison, Ladder, compare
from landscape._errors import words_of
from landscape._graph import as_outputs, is_cut_off, kinks, nodes
from landscape._surroundings import Surroundings, dot, shift
from landscape._twice import CheapSecondDerivatives

if TYPE_CHECKING:
    from landscape.objective import Objective

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
_Product = Callable[[Sequence[torch.Tensor]], Iterable[torch.Tensor]]
EXAMPLES = 16  # of a batch that are looked at, where it can be cut
# Of larger models a quarter of the examples: activations in float64 are to stay below the vectors. They are
# differentiated by so many parameters at a time.
_LARGE = 10**7
_LOSS_SHARE = 1 / 3  # of a loss in the cost of a gradient


ONCE_ONLY = "an operation allows one differentiation only"


def is_once_only(error: Exception) -> bool:
    """Whether an error says that an operation has no second derivative."""
    words = ("derivative for", "double backward", "does not require grad", "by an inplace operation", ONCE_ONLY)
    text = words_of(error)
    return any(word in text for word in words)


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
        fewer = examples and (examples if objective.n_parameters <= _LARGE else examples // 4)
        size = min(objective.batch_sizes[index], fewer or objective.batch_sizes[index])
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
        self._around = Surroundings(objective)
        loss, parts = self._graph(self._around.moved(0))
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
        loss, parts = self._graph(self._around.moved(0))
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
        around, point = self._around, self._around.moved(seed)
        value, parts = self._loss_and_gradient(point)
        gradient = list(parts)
        drawn, factor = 2 * seed + 1, self._gradient_factor(gradient, 2 * seed + 1)
        directions: dict[str, Callable[[], Iterable[torch.Tensor]]] = {
            "a random direction": lambda: around.noise(drawn)
        }
        if factor:
            directions["the gradient"] = lambda: (part * factor for part in gradient)
        found = {}
        for along, direction in directions.items():

            def quotient(step: float, direction: Callable[[], Iterable[torch.Tensor]] = direction) -> torch.Tensor:
                shift(point, direction(), step)
                ahead = self._loss(point)
                shift(point, direction(), -2 * step)
                behind = self._loss(point)
                shift(point, direction(), step)
                return (ahead - behind) / (2 * step)

            found[along] = compare(quotient, dot(gradient, direction()), _LOSSES[self._fine], max(abs(value), 1.0))
        return found

    def curvature(self) -> dict[str, Comparison]:
        """Compare products with the Hessian at a point near the weights with one-sided differences of gradients.

        They are compared in units of the weights, where gradients have the unit of the loss. The first direction is a
        random one plus the gradient. A second one is tried where the first contradicts.

        Returns:
            The comparisons by direction.
        """
        around, point = self._around, self._around.moved(0)
        value, gradient, multiply = self._twice(point)
        found: dict[str, Comparison] = {}
        if self._kinked and not self._fine:
            return found  # coarse steps would cross kinks
        factors = [self._gradient_factor(gradient, 2 * seed + 1) for seed in range(2)]
        before = around.seen(gradient)
        magnitude = max(abs(value), 1.0, float(torch.linalg.vector_norm(before)))
        for seed, along in enumerate(("a random direction plus the gradient", "another one")):
            if seed:
                gradient = list(self._loss_and_gradient(point)[1])
            direction = []
            for noise in around.noise(2 * seed + 1):
                direction.append(noise.add_(gradient.pop(0).detach(), alpha=factors[seed]))
            product = around.seen(multiply(direction))

            def quotient(step: float, direction: list[torch.Tensor] = direction) -> torch.Tensor:
                shift(point, direction, step)
                moved = around.seen(self._loss_and_gradient(point)[1])
                shift(point, direction, -step)
                return (moved - before) / step

            found[along] = compare(quotient, product, _GRADIENTS[self._fine], magnitude)
            if found[along].agrees is not False:
                break
        return found

    # ------------------------------------------------------------------ evaluations

    def _graph(self, point: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        parts = [tensor.detach().requires_grad_() for tensor in point]
        return self._objective.batch_loss(0, parts), parts

    def _loss(self, point: Sequence[torch.Tensor]) -> torch.Tensor:
        self._cost += _LOSS_SHARE
        with self._objective.without_graph():
            inner = self._objective.differentiates == "parameters"
            parts = [tensor.detach().requires_grad_(inner) for tensor in point]
            return self._objective.batch_loss(0, parts).detach().double()

    def _loss_and_gradient(self, point: Sequence[torch.Tensor]) -> tuple[float, Iterator[torch.Tensor]]:
        self._cost += 1
        loss, parts = self._graph(point)
        return float(loss.detach()), _in_groups([loss], parts)

    def _twice(self, point: Sequence[torch.Tensor]) -> tuple[float, list[torch.Tensor], _Product]:
        """Return loss, gradient, and products with the Hessian as `hessian` takes them."""
        self._cost += 1.5
        with CheapSecondDerivatives():
            loss, parts = self._graph(point)
        gradients = list(torch.autograd.grad(loss, parts, create_graph=True, allow_unused=True, materialize_grads=True))
        rooted = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
        outputs = as_outputs(gradients[index] for index in rooted)
        if is_cut_off(outputs):
            raise RuntimeError(ONCE_ONLY)

        def multiply(direction: Sequence[torch.Tensor]) -> Iterable[torch.Tensor]:
            self._cost += 1.5
            if not outputs:
                return [torch.zeros_like(part) for part in parts]  # a loss linear in the parameters
            return _in_groups(outputs, parts, [direction[index] for index in rooted])

        return float(loss.detach()), gradients, multiply

    def _gradient_factor(self, gradient: Sequence[torch.Tensor], index: int) -> float:
        """Return what scales the gradient to the length of the noise with this number; 0 where it has no direction."""
        length = math.sqrt(float(dot(*(([part.detach() for part in gradient],) * 2))))
        scaled = length > 0 and math.isfinite(length)
        return math.sqrt(self._around.squared_length(index)) / length if scaled else 0.0


def _in_groups(
    outputs: Sequence[Any], parts: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor] | None = None
) -> Iterator[torch.Tensor]:
    """Differentiate by a model's parameters, and yield the derivatives one by one.

    Large models are differentiated by some tensors at a time, so that their derivatives never stand together.

    Yields:
        The derivatives.
    """
    groups: list[list[torch.Tensor]] = [[]]
    for part in parts:
        if sum(other.numel() for other in groups[-1]) + part.numel() > _LARGE and groups[-1]:
            groups.append([])
        groups[-1].append(part)
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    for group in groups:
        found = list(torch.autograd.grad(outputs, group, cotangents, **options))
        while found:
            yield found.pop(0).to_dense()


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
