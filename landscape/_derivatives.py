"""Check that the gradient torch computes is the loss's, and that Hessian products are the gradient's.

A stop-gradient, a straight-through estimator, a gradient hook or an operation with a wrong backward pass makes torch
return numbers that are no derivative of the loss. Differences of the loss and of gradients show it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from landscape._derivative_probe import EXAMPLES, Place, is_once_only, opened
from landscape._differences import Comparison, largest_error
from landscape._errors import LandscapeError, SurrogateError, words_of

if TYPE_CHECKING:
    from landscape.objective import Objective


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

        Memory: the graph of those examples differentiated twice, and four flat vectors, in float64 where the model
        allows. Long vectors are compared through their products with random signs (`Surroundings.seen`).

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
    def probe(place: Place) -> Verdict:
        if place.stray:
            return _verdict(place, False, {}, _STRAY.format(name=_name(objective), stray=place.stray))
        if place.unregistered is not None:
            shape = place.unregistered
            return _verdict(place, False, {}, _UNREGISTERED.format(name=_name(objective), shape=shape))
        first = place.slopes(seed=0)
        # A second point and direction must contradict too before a gradient is called wrong.
        contradicted = any(c.agrees is False for c in first.values())
        if contradicted and any(c.agrees is False for c in place.slopes(seed=1).values()):
            along, wrong = next((along, c) for along, c in first.items() if c.agrees is False)
            sentence = _SURROGATE.format(
                name=_name(objective), along=along, claimed=wrong.claimed, measured=wrong.measured
            )
            return _verdict(place, False, first, sentence)
        return _verdict(place, True, first, "differences of the loss agree with the gradient")

    return _first_verdict(objective, probe)


def _product(objective: Objective) -> Verdict:
    def probe(place: Place) -> Verdict:
        try:
            found = place.curvature()
        except (RuntimeError, NotImplementedError) as error:
            if not is_once_only(error):
                raise
            return _verdict(place, False, {}, f"{_name(objective)} cannot be differentiated twice: {words_of(error)}")
        if found and all(comparison.agrees is False for comparison in found.values()):
            largest = largest_error(list(found.values()))
            return _verdict(place, False, found, _WRONG_PRODUCT.format(name=_name(objective), error=largest))
        return _verdict(place, True, found, "differences of gradients agree with the Hessian product")

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
_UNREGISTERED = (
    "the loss of {name} depends on a tensor of shape {shape} that requires gradients but is no registered parameter "
    "(it is held in a list, a dict or a variable), so gradient and curvature lack it. Register it, for example in an "
    "nn.ParameterList, or call requires_grad_(False) on it if it is not trained"
)
_WRONG_PRODUCT = (
    "differentiating the loss of {name} twice does not give the derivative of its gradient (relative error "
    "{error:.2g}): an operation has a wrong second derivative"
)
_NOT_CHECKED = "not checked: {error}"
_UNTOLD = "not told: the differences are too noisy, or cross kinks"


def _first_verdict(objective: Objective, probe: Callable[[Place], Verdict]) -> Verdict:
    """Take a verdict in float64, or where the model does not run in it in the objective's own type."""
    failed: Exception | None = None
    for dtype in dict.fromkeys((torch.float64, objective.dtype)):
        for examples in (EXAMPLES, None):  # the whole batch where its loss needs it
            try:
                with opened(objective, dtype, examples) as place:
                    return probe(place)
            except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, LandscapeError) as error:
                failed = error
    return Verdict(True, math.nan, (), (), "", 0.0, _NOT_CHECKED.format(error=words_of(failed or Exception())))


def _name(objective: Objective) -> str:
    return type(objective.module).__name__


def _verdict(place: Place, ok: bool, found: dict[str, Comparison], sentence: str) -> Verdict:
    """Sum up comparisons by direction, and what they cost."""
    error = largest_error(list(found.values()))
    steps = max((comparison.steps for comparison in found.values()), key=len, default=())
    if ok and math.isnan(error):
        sentence = _UNTOLD
    dtype = str(place.dtype).removeprefix("torch.")
    return Verdict(ok, error, tuple(found), steps, dtype, place.n_gradients, sentence)


def share_verdicts(objective: Objective, other: Objective) -> None:
    """Let an objective take up the verdicts of another one, where it is the same loss over other batches.

    Args:
        objective: The objective.
        other: One whose derivatives may have been checked.
    """
    same = objective.module is other.module and objective.layout == other.layout
    kinds = [(each.mode, each.dtype, each.device, each.noise_seed) for each in (objective, other)]
    if same and kinds[0] == kinds[1]:
        objective._derivatives = other.derivatives
