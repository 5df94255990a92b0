"""Directional sharpness: the curvature that the last update met."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import torch

from landscape._derivatives import require_gradient
from landscape._given import of_objective
from landscape._results import Estimate, aside
from landscape._sampling_error import of_contributions
from landscape.curvature import SymmetricOperator, hessian
from landscape.objective import Objective
from landscape.sharpness._descent import Decay, check_step, decay_slope
from landscape.sharpness._finite import require_finite


@dataclasses.dataclass(frozen=True)
class DirectionalSharpness(Estimate):
    """The curvature along an update; nothing is sampled, so `stderr` is 0.

    Attributes:
        value: ΔᵀHΔ/ΔᵀΔ, between the smallest and the largest eigenvalue of H.
        stderr: 0.
        n: 1.
        seed: None.
        dof: Infinite.
        spread: None.
        critical: −ΔᵀHΔ/(η Δᵀg), the critical sharpness of the quadratic model of the loss. It is negative where the
            curvature is negative, or where the update climbs.
        slope: Δᵀg, the change of the loss to first order.
        product: HΔ, shape (P,), without weight decay.
        stderr_sample: Standard error over examples of `value`, Δ held fixed, from ΔᵀH_gΔ of the groups of batches.
        slope_stderr_sample: That of `slope`, from Δᵀg_g; NaN where the gradient was given.
        critical_stderr_sample: That of `critical`, a ratio, to first order; NaN likewise.
        forms: ΔᵀH_gΔ of the groups of batches g, shape (groups,), float64; None where they are not known.
    """

    critical: float
    slope: float
    product: torch.Tensor
    slope_stderr_sample: float = dataclasses.field(default=math.nan, kw_only=True, compare=False)
    critical_stderr_sample: float = dataclasses.field(default=math.nan, kw_only=True, compare=False)
    forms: np.ndarray | None = aside()


@of_objective
def directional_sharpness(
    objective: Objective,
    update: torch.Tensor,
    learning_rate: float = 1.0,
    operator: SymmetricOperator | None = None,
    gradient: torch.Tensor | None = None,
    weight_decay: Decay = 0.0,
) -> DirectionalSharpness:
    """Measure ΔᵀHΔ/ΔᵀΔ and −ΔᵀHΔ/(η Δᵀg) by one product with the Hessian and one gradient.

    The first is the curvature of the loss along the update Δ. The second is 2/η' for the learning rate η' at which the
    quadratic model g·Δ + ½ΔᵀHΔ is back at zero: `critical_sharpness` where the loss is quadratic along the update.

    Memory: three vectors of the parameters' length beside the update, and what the operator holds.

    Args:
        objective: The loss over the measured examples, at the weights before the step.
        update: Δ, the weights after the step less those before it, shape (P,).
        learning_rate: η of that step. With 1 the second number is in units of this update.
        operator: The curvature H over all parameters at these weights; by default the objective's Hessian.
        gradient: The gradient g at these weights, shape (P,), where it is known.
        weight_decay: Coupled weight decay λ that the optimizer adds to the gradient, one number, or numbers by the
            names of parameters. Then H is H + diag λ and g is g + λw. Leave decoupled decay out.

    Returns:
        Both numbers, the slope Δᵀg, and the product HΔ.

    Raises:
        MeasurementError: The gradient or the product is not finite, or the update is zero or not finite.
        ValueError: The update has another length, or the learning rate is not positive.

    Source: Kalra et al. 2026, arXiv:2601.16979; Pan & Li 2023, arXiv:2306.00204 (the second-order term along a step).
    """
    update = check_step(objective, update, learning_rate)
    require_gradient(objective)
    with objective.session():
        slopes = None
        if gradient is None:
            gradient, slopes = objective.gradient_by_group(functools.partial(torch.dot, update), ())
        gradient = gradient.to(update)
        require_finite(gradient.sum(), "gradient")
        length = torch.linalg.vector_norm(update)
        unit = update / length
        curved = hessian(objective) if operator is None else operator
        product, forms = curved.by_batch(unit, functools.partial(torch.dot, unit), ())
        weights, layout = (objective.vector() if weight_decay else unit), objective.layout
        curvature = float(torch.dot(unit, product)) + decay_slope(weight_decay, layout, unit, unit)
        slope = float(torch.dot(update, gradient)) + decay_slope(weight_decay, layout, weights, update)
    critical = -curvature * float(length) ** 2 / (learning_rate * slope) if slope else float("nan")
    own, along = (None if each is None else each.double().cpu().numpy() for each in (forms, slopes))
    # d(a/b) = (da − (a/b) db)/b, with a the curvature and b the slope.
    ratio = None
    if own is not None and along is not None and slope and curved.clusters is not None:
        ratio = -(float(length) ** 2) / learning_rate * (own - curvature / slope * along) / slope
    return DirectionalSharpness(
        curvature,
        0.0,
        1,
        None,
        critical,
        slope,
        product * length,
        stderr_sample=float(of_contributions(curved.clusters, own)),
        slope_stderr_sample=float(of_contributions(objective.clusters, along)),
        critical_stderr_sample=float(of_contributions(curved.clusters, ratio)),
        forms=None if own is None else own * float(length) ** 2,
    )
