"""The Fisher information of a predictive distribution in the outputs of a model, exact or from drawn labels.

The loss is a sum of terms −a_r log p(y_r | z_r), one for each target r, where a_r holds whatever the loss weighs and
divides by: batch shares, class weights, unignored targets, factors. Its Fisher information is Σ_r a_r Cov(∇ log p).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from landscape._errors import MeasurementError
from landscape._loss_classes import class_axis
from landscape.curvature._gauss_newton import LossHessian, Metric
from landscape.curvature._split import Split
from landscape.losses import LossCall


class _Classes:
    """Of a categorical distribution by its logits: a (diag p − ppᵀ), or a mean of a ssᵀ with s = e_y − p."""

    def __init__(self, share: torch.Tensor, probability: torch.Tensor, frequency: torch.Tensor | None, axis: int):
        self._share, self._probability, self._frequency = share.unsqueeze(axis), probability, frequency
        self._axis = axis - probability.ndim  # from the end: columns may come first

    def __call__(self, tangents: torch.Tensor, batched: bool) -> torch.Tensor:
        p, f = self._probability, self._frequency
        mean = (p * tangents).sum(dim=self._axis, keepdim=True)
        if f is None:
            return self._share * p * (tangents - mean)
        drawn = (f * tangents).sum(dim=self._axis, keepdim=True)
        return self._share * (f * (tangents - mean) - p * (drawn - mean))


class _Elements:
    """A diagonal matrix on the outputs."""

    def __init__(self, diagonal: torch.Tensor):
        self._diagonal = diagonal

    def __call__(self, tangents: torch.Tensor, batched: bool) -> torch.Tensor:
        return self._diagonal * tangents


def information(parts: Split, draws: int | None, generator: np.random.Generator) -> Metric:
    """Make the Fisher information of a known loss in its input.

    Args:
        parts: The loss of a batch, cut at `parts.source`.
        draws: Labels to draw for every target from the model's own predictive distribution; None for their exact mean.
        generator: Draws them.

    Returns:
        The matrix on the loss function's input.

    Raises:
        MeasurementError: The loss is no negative log-likelihood that is known here.
    """
    if parts.call is not None and parts.call.class_axis is not None:
        return _classes(parts.loss, parts.call, draws, generator)
    if parts.call is not None and parts.call.classifies:
        return _binary(parts.loss, parts.call, draws, generator)
    if parts.call is not None and parts.call.function is F.mse_loss:
        return _squares(parts.loss, parts.call, draws, generator)
    raise MeasurementError(
        f"the predictive distribution behind {parts.name} is not known, so labels cannot be drawn from it; known are "
        "cross_entropy, nll_loss, binary_cross_entropy (with logits or not) and mse_loss. Use ggn(objective), or "
        "fisher(objective, kind='empirical'), which needs no distribution"
    )


def _factor(loss: torch.Tensor, call: LossCall) -> torch.Tensor:
    """Return the number by which the result of a call is multiplied on its way to the loss."""
    (factor,) = torch.autograd.grad(loss, call.result, create_graph=True)
    if factor.requires_grad:
        raise MeasurementError(
            f"the loss is not a multiple of what {call.name} returns, so it is no negative log-likelihood; use "
            "ggn(objective), or fisher(objective, kind='empirical')"
        )
    return factor.detach()


def _classes(loss: torch.Tensor, call: LossCall, draws: int | None, generator: np.random.Generator) -> Metric:
    scores, given, axis = call.input.detach(), call.arguments, class_axis(call.input)
    count = scores.shape[axis]
    target, weight = given["target"], given["weight"]
    weight = scores.new_ones(count) if weight is None else weight
    smoothing = float(given.get("label_smoothing", 0.0))
    if target.is_floating_point():
        spread = target * (1 - smoothing) + smoothing / count
        mass = torch.tensordot(spread.movedim(axis, -1), weight, dims=1)
    else:
        kept = call.kept
        own = weight[torch.where(kept, target, 0)] * kept
        mass = (1 - smoothing) * own + smoothing / count * weight.sum() * kept
    share = mass * _factor(loss, call) / _divisor(call)
    if call.function is F.cross_entropy:
        probability = scores.softmax(dim=axis)
        frequency = None if draws is None else _drawn_classes(probability, axis, draws, generator)
        return _Classes(share, probability, frequency, axis)
    if not torch.allclose(scores.logsumexp(dim=axis), scores.new_zeros(()), atol=1e-4):
        raise MeasurementError(
            "the input of nll_loss does not hold logarithms of probabilities that sum to 1, so it is no predictive "
            "distribution; apply log_softmax, or use cross_entropy"
        )
    probability = scores.exp()  # the score in the log-probabilities is e_y itself
    frequency = probability if draws is None else _drawn_classes(probability, axis, draws, generator)
    return _Elements(share.unsqueeze(axis) * frequency)


def _divisor(call: LossCall) -> float:
    """Return the number that a call divides its sum by."""
    return float(call.divisor or 0.0) if call.reduction == "mean" else 1.0


def _drawn_classes(probability: torch.Tensor, axis: int, draws: int, generator: np.random.Generator) -> torch.Tensor:
    """Frequencies of the classes among the labels drawn for each target."""
    steps = probability.movedim(axis, -1).double().cumsum(dim=-1)
    frequency = torch.zeros_like(steps)
    last = steps.shape[-1] - 1
    for _ in range(draws):
        uniform = torch.from_numpy(generator.random((*steps.shape[:-1], 1))).to(steps.device)
        label = torch.searchsorted(steps.contiguous(), uniform * steps[..., -1:], right=True).clamp(max=last)
        frequency.scatter_add_(-1, label, torch.full_like(steps[..., :1], 1 / draws))
    return frequency.movedim(-1, axis).to(probability.dtype)


def _binary(loss: torch.Tensor, call: LossCall, draws: int | None, generator: np.random.Generator) -> Metric:
    scores, given = call.input.detach(), call.arguments
    share = _factor(loss, call) / _divisor(call)
    if given["weight"] is not None:
        share = share * given["weight"]
    if call.function is F.binary_cross_entropy_with_logits:
        probability = scores.sigmoid()
        slope = torch.ones_like(scores)  # of the score y − p in the logits
        if given["pos_weight"] is not None:
            share = share * (given["pos_weight"] * given["target"] + 1 - given["target"])
    else:
        eps = torch.finfo(scores.dtype).eps
        probability = scores.clamp(eps, 1 - eps)
        slope = 1 / (probability * (1 - probability))
    spread = probability * (1 - probability)
    if draws is not None:
        uniform = torch.from_numpy(generator.random((draws, *scores.shape))).to(scores.device)
        labels = (uniform < probability).to(scores.dtype)
        spread = ((labels - probability) ** 2).mean(dim=0)
    return _Elements(share * slope**2 * spread)


def _squares(loss: torch.Tensor, call: LossCall, draws: int | None, generator: np.random.Generator) -> Metric:
    # (z − y)² is −log of a normal density with variance ½, whose score 2(y − z) has variance 2.
    ones = torch.ones_like(call.input)
    _factor(loss, call)
    diagonal = LossHessian(loss, call.input)(ones, batched=False).detach()
    if draws is None:
        return _Elements(diagonal)
    squares = torch.zeros_like(ones)
    for _ in range(draws):
        noise = generator.standard_normal(math.prod(ones.shape)).reshape(tuple(ones.shape))
        squares += torch.from_numpy(noise).to(ones) ** 2
    return _Elements(diagonal * squares / draws)
