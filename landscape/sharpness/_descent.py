"""What measures along an optimizer's update share: checks of the step, and the weight decay that it descends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._selection import select
from landscape.objective import Objective

Decay: TypeAlias = float | Mapping[str, float]
"""Coupled weight decay λ: one number for all parameters, or one by name, module or pattern; the rest gets none."""


def check_step(objective: Objective, update: torch.Tensor, learning_rate: float) -> torch.Tensor:
    """Return the update in the objective's type, after refusing steps that mean nothing.

    Args:
        objective: The loss that is measured along the update.
        update: Weights after the step less those before it, shape (P,).
        learning_rate: The step's learning rate.

    Returns:
        The update.

    Raises:
        MeasurementError: The update is zero or not finite.
        ValueError: It has another length, or the learning rate is not positive and finite.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}; it must be the positive rate that the step was taken with")
    if update.shape != (objective.n_parameters,):
        raise ValueError(
            f"the update has the shape {tuple(update.shape)}; one number for each of the {objective.n_parameters} "
            "parameters is needed: the flat weights after the step less those before it"
        )
    update = update.detach().to(objective.device, objective.dtype)
    length = float(torch.linalg.vector_norm(update))
    if not math.isfinite(length):
        raise MeasurementError("the update is not finite; look for a learning rate that is too large")
    if length == 0:
        raise MeasurementError(
            "the step did not move the weights, so nothing can be measured along it; gradient scalers skip a step "
            "whose gradients overflow, and a learning rate of zero moves nothing"
        )
    return update


def decay_term(
    decay: Decay, layout: ParameterLayout, weights: torch.Tensor, update: torch.Tensor
) -> Callable[[float], float]:
    """Return the rise of ½ Σ λ_i w_i² along the update, c Σ λ_i w_i Δ_i + ½ c² Σ λ_i Δ_i², as a function of c."""
    first, second = decay_slope(decay, layout, weights, update), decay_slope(decay, layout, update, update)
    return lambda c: c * first + 0.5 * c**2 * second


def decay_slope(decay: Decay, layout: ParameterLayout, one: torch.Tensor, other: torch.Tensor) -> float:
    """Return Σ λ_i a_i b_i for two vectors of shape (P,); 0 without decay, at no cost."""
    if not isinstance(decay, Mapping):
        return float(decay) * float(torch.dot(one, other)) if decay else 0.0
    slices, total = layout.slices(), 0.0
    for name, value in decay.items():
        for part in (slices[index] for index in select(layout, name) if value):
            total += value * float(torch.dot(one[part], other[part]))
    return total
