"""Evaluate held batches for the first time: check that the loss is a function, and find what it divides by."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from landscape import _batches
from landscape._additivity import Experiment, disturbed
from landscape._errors import MeasurementError, words_of
from landscape._examples import Reading, readings
from landscape._loss_functions import reduction_of
from landscape._step import SkippedBatch
from landscape._trials import Look, agree, require_function, tolerance
from landscape._weighing import Weighed, Weighting, weigh
from landscape.losses import LossCounter, LossWatcher

if TYPE_CHECKING:
    from landscape._batch_losses import BatchLosses

_OTHER_SEED = 7919


class FirstLook:
    """The first evaluations of held batches.

    Args:
        losses: What evaluates them; its batches are in the measuring type, and its weights are not known yet.
        held: The batches as they were given.

    Raises:
        MeasurementError: The batches hold no examples.
    """

    def __init__(self, losses: BatchLosses, held: Sequence[Any]):
        self._losses, self._held = losses, held
        self._readings = readings(losses.batches, getattr(held, "items", None))
        if not sum(self._readings[0].counts):
            raise MeasurementError("the measurement batches hold no examples; give at least one batch of examples")
        step = losses._step
        step.pairs = step.pairs and not self._readings[0].lists_examples

    def weigh(self, batch_weight: Callable[[Any], Any] | None, known: Weighting | None) -> Weighed:
        """Find the weight of each batch in the mean.

        Args:
            batch_weight: What the user says that the loss of a batch divides by.
            known: What the same loss was found to divide by on other batches.

        Returns:
            The weights, with the evidence.

        Raises:
            SkippedBatch: The step skips every batch.
            MeasurementError: The loss is not a function of the parameters, or nothing in the batches counts.
        """
        losses = self._losses
        index = self._require_function()
        parameters = losses.present()
        looks = [self._look(batch, number, parameters) for number, batch in enumerate(losses.batches)]
        counts = self._readings[0].counts
        largest = counts.index(max(counts))
        if any(call.reduction == "sum" for call in looks[largest].calls):
            factors = self._factors(losses.batches[largest], largest, parameters)
            looks[largest] = dataclasses.replace(looks[largest], factors=factors)
        given = None
        if batch_weight is not None:
            name = getattr(batch_weight, "__name__", "batch_weight")
            given = [_number(batch_weight(_batches.fresh(b)), name, b) for b in losses.batches]

        def experiment(reading: Reading, precise: bool) -> Experiment:
            dtype, batches = losses.dtype, losses.batches
            if precise and dtype != torch.float64:
                dtype = torch.float64
                batches = [_batches.cast(batch, losses.device, dtype) for batch in batches]
            cast = functools.partial(_batches.cast, device=losses.device, dtype=dtype)
            return Experiment(batches, reading, self._held, looks, self._evaluator(dtype), cast)

        with losses.quiet():
            noisy = losses.noise_seed is not None and self._is_random(index)
            tol = tolerance(losses.dtype, losses.device)
            return weigh(self._readings, looks, experiment, tol, noisy, given, known)

    def _require_function(self) -> int:
        """Evaluate one batch twice, without gradients and with them; find out whether the step itself differentiates.

        Returns:
            The number of the batch: the first that the step does not skip.

        Raises:
            SkippedBatch: The step skips every batch.
            RuntimeError: The model itself failed.
        """
        losses = self._losses
        last = len(losses.batches) - 1
        number = 0
        while True:
            try:
                without = self._value(number, gradients=False)
            except SkippedBatch:
                if number == last:
                    raise
                number += 1
                continue
            except RuntimeError as error:
                if losses.differentiates == "parameters" or "does not require grad" not in words_of(error):
                    raise
                # Gradients by its inputs need gradients to be enabled. If that is not enough, the step differentiates
                # by its parameters.
                losses.differentiates = "parameters" if losses.differentiates else "inputs"
                return self._require_function()
            first = self._value(number, gradients=True)
            if not agree(without, first):
                second = self._value(number, gradients=True)
                require_function((first, second))
                losses.differentiates = losses.differentiates or "inputs"  # it looks whether gradients are enabled
            return number

    def _value(self, number: int, gradients: bool) -> torch.Tensor:
        losses = self._losses
        with torch.set_grad_enabled(gradients or bool(losses.differentiates)):
            return losses.step_loss(losses.batches[number], number, losses.present()).detach()

    def _look(self, batch: Any, number: int, parameters: Sequence[torch.Tensor]) -> Look:
        """Evaluate a batch and watch the loss functions that are called, in the given loss function and elsewhere."""
        inside = LossCounter()
        with LossCounter() as observer, self._losses.without_graph():
            try:
                loss = float(self._losses.step_loss(batch, number, parameters, observer=inside).detach())
            except SkippedBatch:
                return Look(None)
        return Look(loss, tuple(observer.calls), observer.classifies, len(observer.calls) != len(inside.calls))

    def _factors(self, batch: Any, number: int, parameters: Sequence[torch.Tensor]) -> tuple[float, ...]:
        """Differentiate the loss by each sum that a loss function returned in it, without a graph of the model."""
        probes: list[torch.Tensor] = []

        def before(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
            def probed(**given: Any) -> Any:
                result = function(**given)
                if reduction_of(given) != "sum":
                    return result
                probes.append(torch.zeros((), dtype=result.dtype, device=result.device, requires_grad=True))
                return result + probes[-1]

            return probed, arguments

        with LossWatcher(read=None, before=before), torch.enable_grad():
            loss = self._losses.step_loss(batch, number, parameters)
        if not probes or not loss.requires_grad:
            return ()
        found = torch.autograd.grad(loss, probes, allow_unused=True, materialize_grads=True)
        return tuple(float(factor) for factor in found)

    def _evaluator(self, dtype: torch.dtype) -> Callable[[Any, int, int], Look]:
        """Return what evaluates pieces of batches at the present point (number 0) and at disturbed ones."""
        kept: dict[int, list[torch.Tensor]] = {}
        losses = self._losses

        def evaluate(batch: Any, number: int, point: int) -> Look:
            with losses.in_type(dtype):
                if point not in kept:
                    kept.clear()  # one vector at a time
                    kept[point] = losses.present(disturbed(losses.start(), losses.layout, point) if point else None)
                return self._look(batch, number, kept[point])

        return evaluate

    def _is_random(self, number: int) -> bool:
        """Whether the loss changes with the seed of its noise."""
        losses, seed = self._losses, self._losses.noise_seed
        first = self._value(number, gradients=False)
        try:
            losses.noise_seed = int(seed or 0) + _OTHER_SEED
            return not agree(first, self._value(number, gradients=False))
        finally:
            losses.noise_seed = seed


def _number(weight: Any, source: str, batch: Any) -> float:
    """Return what a user says a batch's loss divides by, as a number.

    Raises:
        MeasurementError: It is negative, not finite, or no number.
    """
    try:
        value = float(weight)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise MeasurementError(
            f"{source} gave {weight!r} for a batch of {_batches.n_examples(batch)} examples; expected what the loss of "
            "the batch divides by, a number of 0 or more"
        )
    return value
