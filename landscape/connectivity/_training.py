"""Train the bend of a curve so that the loss along it is low."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from tqdm import tqdm

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape.averaging._batchnorm import batch_statistics
from landscape.connectivity._curves import Curve, Owned, n_bends
from landscape.connectivity._profile import buffers_at
from landscape.objective import Objective

STEPS = 1000
LEARNING_RATE = 0.01
_FUSED = ("cpu", "cuda")  # devices that have a fused Adam


@of_objective
def fit_curve(
    objective: Objective,
    start: torch.Tensor,
    end: torch.Tensor,
    kind: str = "bezier",
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    batchnorm: str = "recompute",
    end_buffers: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]] = ({}, {}),
    progress: bool | None = None,
    bends: int | None = None,
) -> Curve:
    """Minimise E_{t ~ U(0,1)} L(γ(t)) over the bends of a curve whose ends stay where they are.

    Each step draws one t and takes one of the objective's batches (all in random order, then again), weighted as in the
    mean over all examples. The bends start equally spaced on the straight line and move by Adam, with a learning rate
    that falls to zero along a half cosine. Parameters are substituted functionally: the model is not changed, and may
    be any.

    With batchnorm="recompute" batch normalisations use each batch's own statistics, which is what recomputed statistics
    at every t come to; dropout is off. With "interpolate" they use the ends' buffers, interpolated; with "keep" the
    model's own.

    Memory: four flat vectors for each bend, and one more in each step; copies of the ends; the graph of one batch and
    its gradient. (`fitted` does without the copies.)

    Args:
        objective: The loss over the training examples.
        start: Flat parameters at t = 0, shape (P,).
        end: Flat parameters at t = 1, shape (P,).
        kind: "bezier", "chain" (polygonal), or "linear", which needs no training.
        steps: Steps of Adam, one batch each.
        learning_rate: First learning rate of Adam.
        seed: Seed of t and of the order of the batches.
        batchnorm: "recompute", "interpolate" or "keep", also the default when the curve is measured.
        end_buffers: Buffers of start and end by name; by default the model's own at both.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.
        bends: Control points between the ends: one less than the degree of a Bézier curve, the corners of a chain. By
            default 1, and 0 for a line.

    Returns:
        The curve, which carries the objective.

    Raises:
        MeasurementError: The loss on the curve is not finite, or a batch of one example meets a batch normalisation.
        ValueError: An argument is out of range, or an end does not fit the model.

    Source: Garipov et al. 2018, arXiv:1802.10026, who train by SGD with weight decay as part of the loss. There
    is none here, as in every other measure of the loss.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; training a curve takes at least one step")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate is {learning_rate}; it must be a positive finite number")
    ends = Owned((_point(objective, start), _point(objective, end)))
    return fitted(objective, ends, kind, steps, learning_rate, seed, batchnorm, end_buffers, progress, bends)


def fitted(
    objective: Objective,
    ends: Owned,
    kind: str = "bezier",
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    batchnorm: str = "recompute",
    end_buffers: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]] = ({}, {}),
    progress: bool | None = None,
    bends: int | None = None,
) -> Curve:
    """Do what `fit_curve` does with ends that are taken over, in the objective's type and on its device.

    Args:
        objective: As there, and so are the others.
        ends: Flat parameters at t = 0 and t = 1, which become the curve's own.
        kind: As there.
        steps: As there.
        learning_rate: As there.
        seed: As there.
        batchnorm: As there.
        end_buffers: As there.
        progress: As there.
        bends: As there.

    Returns:
        The curve, which carries the objective.
    """
    line = Curve("linear", ends, objective.layout)
    fractions = np.linspace(0.0, 1.0, n_bends(kind, bends) + 2)[1:-1]
    points = Owned((ends[0], *(line.point(fraction) for fraction in fractions), ends[1]))
    # Its inner points are the tensors that are trained, so every step sees the curve as it is then.
    curve = Curve(kind, points, objective.layout, end_buffers, batchnorm, objective)
    inner = curve.points[1:-1]
    if inner:
        require_gradient(objective)
        with objective.session(), normalisation(objective, batchnorm):
            _descend(curve, objective, inner, steps, learning_rate, seed, progress)
    return curve


def curve_loss(
    curve: Curve, objective: Objective, index: int, t: float, scale: float = 1.0
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the loss of one batch at γ(t), without graph, and its gradient with respect to each bend, shape (P,).

    The gradients are multiplied by `scale`.
    """
    total = torch.zeros((), dtype=objective.dtype, device=objective.device)
    # Its pages are taken up when the numbers come, and the graph is gone by then.
    gradient = torch.empty(objective.n_parameters, dtype=objective.dtype, device=objective.device)
    with objective.processes.summed(total, gradient):
        found: tuple[torch.Tensor, ...] = ()
        if index in objective.own:  # whoever has the batch; the others hear of it
            parameters = [part.requires_grad_(True) for part in objective.layout.unflatten(curve.point(t))]
            loss = objective.batch_loss(index, parameters, buffers_at(curve, t, curve.batchnorm))
            total += loss.detach()
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            del loss, parameters
        gradient.zero_()
        if found:
            objective.add(gradient, found)
        del found
    # γ is linear in its control points, so the chain rule is one factor a bend.
    *others, last = (coefficient * scale for coefficient in curve.coefficients(t)[1:-1])
    return total, [*(factor * gradient for factor in others), gradient.mul_(last)]


def _descend(
    curve: Curve,
    objective: Objective,
    bends: tuple[torch.Tensor, ...],
    steps: int,
    learning_rate: float,
    seed: int,
    progress: bool | None,
) -> None:
    generator = np.random.default_rng(seed)
    # The fused form holds no vector beside the two moments, the others two more.
    fused = objective.device.type in _FUSED or None
    adam = torch.optim.Adam(list(bends), lr=learning_rate, fused=fused)
    indices = batch_order(objective, generator)
    count = sum(weight > 0 for weight in objective.batch_weights)
    hidden = None if progress is None else not progress
    for step in tqdm(range(steps), desc=f"training the {curve.kind} curve", unit="step", disable=hidden, leave=False):
        adam.param_groups[0]["lr"] = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        t, index = float(generator.random()), next(indices)
        loss, gradients = curve_loss(curve, objective, index, t, objective.batch_weights[index] * count)
        if not torch.isfinite(loss):
            raise MeasurementError(
                f"the loss at t = {t:.3f} of the {curve.kind} curve is {float(loss)} after {step} training steps; "
                "look at the weights of both ends, or lower learning_rate"
            )
        for bend, gradient in zip(bends, gradients, strict=True):
            bend.grad = gradient
        del gradient, gradients
        adam.step()
        for bend in bends:
            bend.grad = None


def batch_order(objective: Objective, generator: np.random.Generator) -> Iterator[int]:
    """Give indices of the batches that count, in random order, over and over."""
    counted = [index for index, weight in enumerate(objective.batch_weights) if weight > 0]
    while True:
        yield from generator.permutation(counted).tolist()


def normalisation(objective: Objective, batchnorm: str) -> contextlib.AbstractContextManager[None]:
    """Batch statistics while training, unless the ends' are kept; an objective of mode "train" has its own flags."""
    if batchnorm == "recompute" and objective.mode == "eval":
        return batch_statistics(objective.module)
    return contextlib.nullcontext()


def _point(objective: Objective, vector: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(vector).detach().to(objective.device, objective.dtype, copy=True)
