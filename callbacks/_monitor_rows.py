"""Rows of `SharpnessMonitor` out of the measures of one optimizer step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape.callbacks._monitor_schema import monitor_columns
from landscape.curvature import SymmetricOperator, Tracked, track
from landscape.objective import Objective
from landscape.sharpness import (
    critical_sharpness,
    directional_sharpness,
    gradient_noise_scale,
    preconditioned_sharpness,
)
from landscape.sharpness._descent import Decay


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        update: Weights after it less those before, shape (P,); None where those before were not kept.
        learning_rate: Its learning rate; NaN where it was 0.
        optimizers: What made it.
    """

    update: torch.Tensor | None
    learning_rate: float
    optimizers: Sequence[Any]

    @property
    def known(self) -> torch.Tensor:
        """The update.

        Raises:
            MeasurementError: It is not known.
        """
        if math.isnan(self.learning_rate):
            raise MeasurementError("the learning rate is 0, so no step is taken and nothing can be measured along it")
        if self.update is None:
            raise MeasurementError(
                "the weights before the last step were not kept: the training ended within an epoch, other parameters "
                "began to train, or a batch took more optimizer steps than any before it; the other numbers are at "
                "the present weights"
            )
        return self.update


def directional_row(
    objective: Objective, step: Step, operator: SymmetricOperator, decay: Decay
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the curvature along the update; return the row, and what a search for eigenvalues may take in of it."""
    found = directional_sharpness(objective, step.known, step.learning_rate, operator, weight_decay=decay)
    row = {
        "directional_sharpness": found.value,
        "directional_sharpness_stderr_sample": found.stderr_sample,
        "critical_sharpness_quadratic": found.critical,
        "critical_sharpness_quadratic_stderr_sample": found.critical_stderr_sample,
        "update_slope": found.slope,
        "update_slope_stderr_sample": found.slope_stderr_sample,
        "update_norm": float(torch.linalg.vector_norm(step.known)),
    }
    return row, {"known": (step.known, found.product), "known_forms": found.forms}


def critical_row(
    objective: Objective, step: Step, last: float | None, slope: Sequence[float], decay: Decay
) -> tuple[dict[str, Any], float | None]:
    """Take the critical sharpness.

    Args:
        objective: The loss at the weights before the step.
        step: The step.
        last: Critical learning rate of the last event.
        slope: Δᵀg, where it was measured.
        decay: Coupled weight decay.

    Returns:
        The row, and the critical learning rate that the next event begins from.
    """
    known = slope[0] if slope else None
    found = critical_sharpness(objective, step.known, step.learning_rate, last, known, weight_decay=decay)
    row = {
        "critical_sharpness": found.value,
        "critical_sharpness_lower": found.lower,
        "critical_sharpness_upper": found.upper,
        "critical_sharpness_stderr_sample": found.stderr_sample,
        "n_evaluations": found.n_evaluations,
    }
    if math.isinf(found.value):
        return row, last  # an update that climbs says nothing about where the next one turns
    return row, None if math.isnan(found.value) else found.critical_rate


def top_row(
    name: str,
    objective: Objective,
    operator: SymmetricOperator,
    previous: Tracked | None,
    optimizers: Sequence[Any] | None,
    **settings: Any,
) -> tuple[dict[str, Any], Tracked]:
    """Follow a largest eigenvalue, of H or, with optimizers, in their coordinates.

    Args:
        name: What it is called in the file.
        objective: The loss at the weights before the step.
        operator: Its Hessian.
        previous: The last event.
        optimizers: The optimizers whose preconditioner counts.
        **settings: tol, max_matvecs, seed, and the update with its product as `known` and `known_forms`.

    Returns:
        The row, and what the next event begins from.
    """
    if optimizers is None:
        # Two pairs: at the edge of stability a second eigenvalue comes up next to the first, and one would miss it.
        found = track(operator, previous, k=min(2, operator.shape[0]), **settings)
    else:
        found = preconditioned_sharpness(objective, optimizers, previous, operator, **settings).tracked
    pairs = found.pairs
    numbers = (pairs.values[0], pairs.residuals[0], np.int8(pairs.converged_each[0]), pairs.stderr_sample[0])
    return dict(zip(monitor_columns(name), numbers, strict=True)), found


def noise_row(objective: Objective, groups: int) -> dict[str, Any]:
    """Take the gradient noise scale, over the batches or, where they are too few, over groups of examples."""
    enough = sum(weight > 0 for weight in objective.batch_weights) >= groups
    found = gradient_noise_scale(objective, None if enough else max(1, objective.n_examples // groups))
    return {
        "gradient_noise_scale": found.value,
        "gradient_noise_scale_stderr": found.stderr,
        "gradient_noise": found.noise,
        "gradient_signal": found.signal,
    }
