"""Measure what a loss, a gradient and a Hessian product cost on one batch, and passes over the weights."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

import torch

from landscape._batches import DrawnBatches
from landscape._derivatives import require_gradient
from landscape._errors import LandscapeError
from landscape._graph import saved_bytes
from landscape.callbacks._effort import Prices
from landscape.callbacks._large_models import fitting, graphs_budget, unasked_budget
from landscape.compression._entropy import Meter
from landscape.compression._families import family_of, quantised
from landscape.compression._tensors import float_arrays
from landscape.curvature import hessian
from landscape.objective import Objective

_PACKED = 2**28  # bytes that the graph of one batch of all examples may take
_SAME = 1e-4  # relative difference of losses that rounding explains
_PRODUCT = 2.5  # gradients, where products cannot be taken
_CODED = 2**18  # weights of a large model that are coded to know the price
_FAMILY, _KNOB = "uniform-tensor", 0.1


def prices_of(
    objective: Objective,
    held_out: Objective | None = None,
    products: bool = True,
    now: Callable[[], float] = time.perf_counter,
    codes: bool = False,
) -> Prices:
    """Time the loss, the gradient and two Hessian products of the largest batch, the sum of two vectors, and a code.

    Each is taken twice, and the second time counts. On a batch of b examples that is about 12 gradients over b
    examples. Of large models some of the weights are coded.

    Memory: the graph of the batch, and six flat vectors.

    Args:
        objective: The loss over the measured batches.
        held_out: The same over held-out ones, whose number of examples is used.
        products: Whether Hessian products will be needed. Where not, or where there are none, one counts as two and a
            half gradients.
        now: Returns seconds.
        codes: Whether codes of the weights will be needed; where not, they are free.

    Returns:
        The prices. Gradients cost nothing where the model has none.
    """
    sizes = objective.batch_sizes
    counted = [index for index, weight in enumerate(objective.batch_weights) if weight > 0]
    largest = max(counted, key=lambda index: (sizes[index], -index))
    alone = objective.restrict(DrawnBatches([objective.batches[largest]], [sizes[largest]]))
    with alone.session():
        evaluation = _second(alone.evaluate, alone.device, now)
        gradient = product = math.nan
        vector = alone.vector()
        coding = _coding(alone, vector, now) if codes else 0.0
        passing = _second(lambda: vector.add(vector), alone.device, now)
        with contextlib.suppress(LandscapeError, RuntimeError):
            require_gradient(alone)
            gradient = _second(alone.gradient, alone.device, now)
            if products:
                vector.fill_(1.0)
                budget = unasked_budget(alone)
                operator = hessian(fitting(alone, budget), memory_budget=graphs_budget(alone, budget))
                product = _second(lambda: operator @ vector, alone.device, now)
    gradient = 0.0 if math.isnan(gradient) else gradient
    return Prices(
        product=_PRODUCT * gradient if math.isnan(product) else product,
        gradient=gradient,
        evaluation=evaluation,
        examples=sizes[largest],
        held_out=0.0 if held_out is None else held_out.n_examples / objective.n_examples,
        passing=passing,
        coding=coding,
    )


def packable(objective: Objective, pack: Callable[[], Objective]) -> bool:
    """Return whether all examples may be measured as one batch: the loss is the same, and its graph is small.

    Small networks spend most of a product in the interpreter, once for each batch.

    Args:
        objective: The loss over some batches.
        pack: Returns the loss over the same examples in one batch.

    Returns:
        False where the loss is no mean over anything, in train mode, above a quarter of a gigabyte, and where the two
        losses differ.
    """
    if objective.weighting == "batches" or objective.mode != "eval" or len(objective.batches) < 2:
        return False
    with objective.session():
        parameters = [part.requires_grad_() for part in objective.layout.unflatten(objective.vector())]
        saved = saved_bytes([objective.batch_loss(0, parameters)], parameters)
    if saved * objective.n_examples > _PACKED * max(objective.batch_sizes[0], 1):
        return False
    packed = pack()
    one, other = float(objective.loss()), float(packed.loss())
    return packed.n_examples == objective.n_examples and abs(one - other) <= _SAME * max(abs(one), abs(other))


def settle(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given, so that a clock tells whose time it is."""
    if device.type != "cpu" and torch.accelerator.is_available():
        with contextlib.suppress(RuntimeError, NotImplementedError, AttributeError):  # back ends that cannot wait
            torch.accelerator.synchronize()


def _coding(objective: Objective, weights: torch.Tensor, now: Callable[[], float]) -> float:
    """Return the seconds that all weights take to be quantised, restored and measured; 0 where they cannot be."""
    some = weights[:_CODED]
    tensors = objective.layout.named(weights) if len(some) == len(weights) else {"": some}
    codec = family_of(_FAMILY)

    def code() -> None:
        meter = Meter()
        for _, parts in quantised(codec, float_arrays(tensors), _KNOB):
            codec.restore(parts)
            codec.write(parts, meter)

    with contextlib.suppress(LandscapeError, ValueError):
        return _second(code, objective.device, now) * len(weights) / len(some)
    return 0.0


def _second(work: Callable[[], object], device: torch.device, now: Callable[[], float]) -> float:
    """Return the seconds that something takes at the second time."""
    seconds = 0.0
    for _ in range(2):
        settle(device)
        began = now()
        work()
        settle(device)
        seconds = now() - began
    return seconds
