"""Averages that forget: exponential moving averages, and the mean of the latest weights."""

from __future__ import annotations

from typing import Any

import torch

from landscape.averaging._mean import RunningMean
from landscape.averaging._window import RunLike, named_average, opened
from landscape.objective import Objective


def ema(
    run: RunLike,
    decay: float,
    start: int | None = None,
    stop: int | None = None,
    every: int = 1,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """Take the exponential moving average of the recorded weights, for `load_state_dict`.

    e_1 = w_1, e_i = decay · e_{i−1} + (1 − decay) · w_i over the recorded rows, in float64. The decay is one of rows: a
    moving average whose decay was meant for steps, d, has d^m where a row was recorded every m steps.

    Args:
        run: The run, or the path of its file.
        decay: What is kept of the average at each row, from 0 (the last weights) to below 1.
        start: Optimizer step from which the weights count; the first recorded one by default.
        stop: Optimizer step up to which they count; the last by default.
        every: Take every n-th recorded row.
        objective: The loss over the training examples to take batch-normalisation statistics of. Without it they are
            those of the last weights, with a warning.

    Returns:
        torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}; it must be at least 0 and below 1, for example 0.9")
    trajectory = opened(run).trajectory(start, stop, every)
    vectors = iter(trajectory)
    average = torch.from_numpy(next(vectors))
    for vector in vectors:
        average.lerp_(torch.from_numpy(vector), 1 - decay)
    return named_average(trajectory, average, objective)


def lawa(
    run: RunLike,
    k: int = 6,
    stop: int | None = None,
    every: int = 1,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """Average the latest k recorded weights (LAWA), for `load_state_dict`.

    Args:
        run: The run, or the path of its file.
        k: Number of rows; the paper's six epochs by default. Fewer where fewer were recorded.
        stop: Optimizer step of the newest row; the last one by default.
        every: Take every n-th recorded row, counted back from the newest.
        objective: The loss over the training examples to take batch-normalisation statistics of. Without it they are
            those of the newest weights, with a warning.

    Returns:
        torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes.

    Raises:
        ValueError: `k` or `every` is below 1.

    Source: Kaddour 2022, arXiv:2209.14981.
    """
    if k < 1 or every < 1:
        raise ValueError(f"k={k} and every={every}; both must be at least 1")
    trajectory = opened(run).trajectory(stop=stop)
    newest = range(len(trajectory) - 1, -1, -every)[:k]
    window = trajectory.select(newest[::-1])
    mean = RunningMean()
    for vector in window:
        mean.update(torch.from_numpy(vector))
    return named_average(window, mean.value, objective)
