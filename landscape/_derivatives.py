"""Check that the gradient torch computes is the loss's, and that Hessian products are the gradient's.

A stop-gradient, a straight-through estimator, a gradient hook or an operation with a wrong backward pass makes torch
return numbers that are no derivative of the loss. Differences of the loss and of gradients show it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from landscape import _batches
from landscape._differences import Comparison, Ladder, compare, largest_error
from landscape._errors import LandscapeError, SurrogateError
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
_EXAMPLES = 16  # of a batch that are looked at, where it can be cut
_LOSS_SHARE = 1 / 3  # of a loss in the cost of a gradient


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether one derivative is right, with the evidence.

    Attributes:
        ok: False where differences contradict the derivative; True also where they could not tell.
        error: Relative error of the derivative, the largest over the directions; NaN where it could not be told.
        directions: The directions that were tried.
        steps: The steps of the differences, relative to the weights.
        dtype: Floating-point type of the check.
        n_gradients: Cost, in gradients over all measured examples.
        sentence: The verdict in words.
    """

    ok: bool
    error: float
    directions: tuple[str, ...]
    steps: tuple[float, ...]
    dtype: str
    n_gradients: float
    sentence: str


class Derivatives:
    """The verdicts on an objective's derivatives, each taken when it is first asked for.

    All objectives that are made from one another (`at`, `to`, `shard`, `restrict`, `split`) share one of these.
    """

    def __init__(self) -> None:
        self._found: dict[str, Verdict] = {}

    def gradient(self, objective: Objective) -> Verdict:
        """Compare the gradient with differences of the loss, along a random direction and along the gradient.

        Args:
            objective: Whose gradient; a few examples of one batch are looked at.

        Returns:
            The verdict.
        """
        return self._once("gradient", _gradient, objective)

    def product(self, objective: Objective) -> Verdict:
        """Compare a product with the Hessian with differences of gradients, along a random direction plus the gradient.

        Memory: the graph of those examples differentiated twice, and eight flat vectors, in float64 where it can be.

        Args:
            objective: Whose Hessian; a few examples of one batch are looked at.

        Returns:
            The verdict.
        """
        return self._once("product", _product, objective)

    def describe(self) -> dict[str, Any]:
        """Return the verdicts that were taken, as plain values."""
        return {name: dataclasses.asdict(verdict) for name, verdict in self._found.items()}

    def _once(self, name: str, probe: Callable[[Objective], Verdict], objective: Objective) -> Verdict:
        if name not in self._found:
            # Unlike devices may round to unlike verdicts, and all processes must decide alike.
            self._found[name] = objective.processes.first(probe(objective))
        return self._found[name]


ONCE_ONLY = "an operation allows one differentiation only"


def is_once_only(error: Exception) -> bool:
    """Whether an error says that an operation has no second derivative."""
    words = ("derivative for", "double backward", "does not require grad", ONCE_ONLY)
    return any(word in str(error) for word in words)


def require_gradient(objective: Objective) -> None:
    """Refuse to use a gradient that is not the loss's.

    Args:
        objective: Whose gradient is about to be used.

    Raises:
        SurrogateError: It is not the derivative of the loss.
    """
    verdict = objective.derivatives.gradient(objective)
    if not verdict.ok:
        raise SurrogateError(verdict.sentence)


# ---------------------------------------------------------------------- the two probes


def _gradient(objective: Objective) -> Verdict:
    def probe(place: _Place) -> Verdict:
        if place.stray:
            return place.verdict(False, {}, _STRAY.format(name=_name(objective), stray=place.stray))
        first = place.slopes(seed=0)
        # A second point and direction must contradict too before a gradient is called wrong.
        contradicted = any(c.agrees is False for c in first.values())
        if contradicted and any(c.agrees is False for c in place.slopes(seed=1).values()):
            along, wrong = next((along, c) for along, c in first.items() if c.agrees is False)
            sentence = _SURROGATE.format(
                name=_name(objective), along=along, claimed=wrong.claimed, measured=wrong.measured
            )
            return place.verdict(False, first, sentence)
        return place.verdict(True, first, "differences of the loss agree with the gradient")

    return _first_verdict(objective, probe)


def _product(objective: Objective) -> Verdict:
    def probe(place: _Place) -> Verdict:
        try:
            found = place.curvature()
        except (RuntimeError, NotImplementedError) as error:
            if not is_once_only(error):
                raise
            return place.verdict(False, {}, f"{_name(objective)} cannot be differentiated twice: {error}")
        if found and all(comparison.agrees is False for comparison in found.values()):
            error = max(comparison.error for comparison in found.values())
            return place.verdict(False, found, _WRONG_PRODUCT.format(name=_name(objective), error=error))
        return place.verdict(True, found, "differences of gradients agree with the Hessian product")

    gradient = objective.derivatives.gradient(objective)
    return gradient if not gradient.ok else _first_verdict(objective, probe)


_SURROGATE = (
    "the gradient of {name} is not the derivative of its loss: along {along} it says {claimed:.4g}, differences of the "
    "loss say {measured:.4g}. Look for a detach(), a straight-through estimator, a gradient hook, a gradient reversal "
    "or a backward pass of your own. Measures by losses alone (average_case, random_radius, pac_bayes, bits, linear "
    "paths) stay right; for this one measure a loss without it, by a method landscape_loss(self, batch) or by "
    "Objective(model, loss_fn, batches)"
)
_STRAY = (
    "the loss of {name} also uses its parameter {stray} through a reference that no other weights can be put in, such "
    "as a closure; so its gradient lacks a term. Reach the parameter through the module (self.layer.weight)"
)
_WRONG_PRODUCT = (
    "differentiating the loss of {name} twice does not give the derivative of its gradient (relative error "
    "{error:.2g}): an operation has a wrong second derivative"
)
_NOT_CHECKED = "not checked: {error}"
_UNTOLD = "not told: the differences are too noisy, or cross kinks"


def _first_verdict(objective: Objective, probe: Callable[[_Place], Verdict]) -> Verdict:
    """Take a verdict in float64, or where the model does not run in it in the objective's own type."""
    failed: Exception | None = None
    for dtype in dict.fromkeys((torch.float64, objective.dtype)):
        for examples in (_EXAMPLES, None):  # the whole batch where its loss needs it
            try:
                with _opened(objective, dtype, examples) as place:
                    return probe(place)
            except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, LandscapeError) as error:
                failed = error
    return Verdict(True, math.nan, (), (), "", 0.0, _NOT_CHECKED.format(error=failed))


@contextlib.contextmanager
def _opened(objective: Objective, dtype: torch.dtype, examples: int | None) -> Iterator[_Place]:
    """Prepare the smallest batch whose loss has a gradient, or some examples of it."""
    counted = [index for index, weight in enumerate(objective.batch_weights) if weight > 0]
    for index in sorted(counted, key=lambda index: objective.batch_sizes[index]):
        size = objective.batch_sizes[index]
        examples = min(size, examples or size)
        piece = next(iter(_batches.split(objective.batches[index], examples, objective._reading, index)))
        alone = objective._over(_batches.DrawnBatches([piece], [examples]), dtype)
        with alone.session(), alone.same_kernels(), torch.enable_grad():
            place = _Place(alone, alone.n_examples / objective.n_examples)
            if place.differentiable:
                yield place
                return
    raise ValueError("no batch has a gradient")


class _Place:
    """One batch in the type of the check, with difference quotients of its loss and gradient near the weights.

    Args:
        objective: The loss of this batch alone.
        share: Its share of all measured examples.

    Attributes:
        differentiable: Whether the loss has a gradient.
        stray: Name of a trainable parameter that the loss uses though another tensor was put in its place, else "".
    """

    def __init__(self, objective: Objective, share: float):
        self._objective = objective
        self._share = share
        self._cost = 3 * _LOSS_SHARE  # the objective of the batch was evaluated three times
        self._scale = _scale(objective)
        self._weights = objective.vector()
        loss, _ = self._graph(self._moved(0))
        self.differentiable = loss.requires_grad
        self.stray = _stray(objective.module, loss)
        # A cast on the way means that not all is computed in the type of the parameters.
        cast = any(node.name().startswith("ToCopy") for node in nodes([loss]))
        self._fine = objective.dtype == torch.float64 and not cast
        self._kinked = bool(kinks([loss]))

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

    def verdict(self, ok: bool, found: dict[str, Comparison], sentence: str) -> Verdict:
        """Sum up comparisons, and what they cost."""
        comparisons = list(found.values())
        steps = max((c.steps for c in comparisons), key=len, default=())
        error = largest_error(comparisons)
        if ok and math.isnan(error) and not sentence.startswith("not checked"):
            sentence = _UNTOLD
        dtype = str(self._objective.dtype).removeprefix("torch.")
        return Verdict(ok, error, tuple(found), steps, dtype, self._cost * self._share, sentence)

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


def _stray(module: nn.Module, loss: torch.Tensor) -> str:
    """Name a parameter of the module's own that a loss at other weights leads to; "" where there is none."""
    reached = {id(getattr(node, "variable", None)) for node in nodes([loss])}
    own = module.named_parameters(remove_duplicate=False)
    return next((name for name, parameter in own if id(parameter) in reached), "")


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


def _name(objective: Objective) -> str:
    return type(objective.module).__name__
