"""Join two trained models by a path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from landscape.connectivity._curves import Curve
from landscape.connectivity._ends import check_same_architecture, end_buffers, end_vector
from landscape.connectivity._training import LEARNING_RATE, STEPS, fit_curve
from landscape.objective import Objective


def connect(
    model_a: nn.Module,
    model_b: nn.Module,
    loss_fn: Callable[..., Any],
    batches: Iterable[Any],
    kind: str = "bezier",
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    batchnorm: str = "recompute",
    dtype: torch.dtype | None = None,
    progress: bool | None = None,
    bends: int | None = None,
) -> Curve:
    """Train a curve of low loss between two models of one architecture; `fit_curve` says how.

    Neither model is changed. Measure the path with `curve.evaluate()`, on other examples with
    `curve.evaluate(batches)`, and its height with `barrier`.

    Args:
        model_a: The model at t = 0. Any module whose parameters can be substituted: no special layers are needed.
        model_b: The model at t = 1.
        loss_fn: The loss, `loss_fn(model(input), target)`, as in `Objective`.
        batches: Iterable of (input, target) training batches.
        kind: "bezier", "chain" (polygonal), or "linear", which needs no training.
        steps: Steps of Adam, one batch each.
        learning_rate: First learning rate of Adam.
        seed: Seed of the training.
        batchnorm: "recompute" the statistics of batch normalisations at every point, "interpolate" those of both
            models linearly, or "keep" those of model_a.
        dtype: Floating-point type to measure in, as in `Objective`.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.
        bends: Control points between the models: one less than the degree of a Bézier curve, the corners of a chain. By
            default 1, and 0 for a line.

    Returns:
        The curve.

    Raises:
        MeasurementError: The loss cannot be measured, or is not finite on the curve.
        ValueError: The models differ in architecture or in frozen parameters, or an argument is out of range.

    Source: Garipov et al. 2018, arXiv:1802.10026; Draxler et al. 2018, arXiv:1803.00885.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> x, y = torch.randn(8, 2), torch.randint(2, (8,))
        >>> curve = connect(one, other, torch.nn.CrossEntropyLoss(), [(x, y)], steps=5)
        >>> curve, len(curve.evaluate().loss)
        (Curve(kind='bezier', P=6, batchnorm='recompute'), 21)
    """  # noqa: DOC502 - the functions behind raise them
    check_same_architecture(model_a, model_b)
    objective = Objective(model_a, loss_fn, batches, dtype=dtype)
    return fit_curve(
        objective,
        end_vector(objective, model_a),
        end_vector(objective, model_b),
        kind,
        steps,
        learning_rate,
        seed,
        batchnorm,
        (end_buffers(model_a), end_buffers(model_b)),
        progress,
        bends,
    )


def linear_path(
    model_a: nn.Module,
    model_b: nn.Module,
    loss_fn: Callable[..., Any],
    batches: Iterable[Any],
    batchnorm: str = "recompute",
    dtype: torch.dtype | None = None,
) -> Curve:
    """Join two models of one architecture by the straight line γ(t) = (1−t) a + t b.

    Args:
        model_a: The model at t = 0; not changed.
        model_b: The model at t = 1; not changed.
        loss_fn: The loss, `loss_fn(model(input), target)`, as in `Objective`.
        batches: Iterable of (input, target) training batches.
        batchnorm: "recompute" the statistics of batch normalisations at every point, "interpolate" those of both
            models linearly, or "keep" those of model_a.
        dtype: Floating-point type to measure in, as in `Objective`.

    Returns:
        The path: `linear_path(...).evaluate()` has `.t`, `.loss` and `.error`.

    Raises:
        MeasurementError: The loss cannot be measured.
        ValueError: The models differ in architecture or in frozen parameters.

    Source: Frankle et al. 2020, arXiv:1912.05671.
    """  # noqa: DOC502 - the functions behind raise them
    return connect(model_a, model_b, loss_fn, batches, "linear", batchnorm=batchnorm, dtype=dtype)
