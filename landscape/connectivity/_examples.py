"""Measure what each example adds to a loss and an error rate, for standard errors over examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landscape.losses import LossCall, LossWatcher
from landscape.objective import Objective

# Of each call, sums over every example's targets, as `LossCall.per_example` gives them; empty where they are unknown.
ExampleWatcher = LossWatcher[np.ndarray]


def watch_examples() -> ExampleWatcher:
    """Make a watcher that collects sums over each example's targets from every loss called within."""
    return LossWatcher(_sums)


def _sums(call: LossCall) -> np.ndarray:
    sums = call.per_example()
    return np.zeros((0, 4)) if sums is None else sums.cpu().numpy()


def influence(objective: Objective, watcher: ExampleWatcher, loss: float, error: float) -> np.ndarray | None:
    """Return what each example adds to the loss and to the error rate, about their means.

    The loss is a ratio of sums, L = Σ u_i / Σ m_i, u_i the summed loss of example i's targets and m_i what the mean
    divides by. To first order it moves with example i by (u_i − L m_i) / mean(m); the standard error of L is the
    standard deviation of these over √n. Linear combinations of losses at several points have that of the combination.

    Args:
        objective: The objective that was evaluated once.
        watcher: What `watch_examples` saw meanwhile.
        loss: Its loss.
        error: Its error rate.

    Returns:
        Shape (2, examples): for loss and error; NaN for an error that does not exist. None where the examples' shares
        are not known: a loss function that is none of torch's, several in one step, or further terms beside it.
    """
    # Each process saw the batches of its own.
    seen = objective.processes.gather(_paired(objective.counted, watcher.calls))
    calls = [call for _, call in sorted((part for own in seen for part in own), key=lambda part: part[0])]
    if [len(call) for call in calls] != list(objective.batch_sizes):
        return None
    summed, divisor, wrong, counted = np.concatenate(calls).T
    if not divisor.sum() > 0 or not np.isclose(summed.sum() / divisor.sum(), loss, rtol=1e-3, atol=1e-6):
        return None
    of_loss = (summed - loss * divisor) / divisor.mean()
    of_error = (wrong - error * counted) / counted.mean() if counted.any() else np.full(len(summed), np.nan)
    return np.stack([of_loss, of_error])


def _paired(batches: Sequence[int], calls: Sequence[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """Return each batch with the call of its loss; nothing where there is not one call a batch."""
    return list(zip(batches, calls, strict=True)) if len(batches) == len(calls) else []
