"""Stochastic weight averaging after the fact, from a recorded trajectory."""

from __future__ import annotations

from typing import Any

import torch

from landscape.averaging._mean import RunningMean
from landscape.averaging._window import RunLike, named_average, opened
from landscape.objective import Objective


def swa(
    run: RunLike,
    start: int | None = None,
    stop: int | None = None,
    every: int = 1,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """Average the recorded weights of a run from one step to another, w_SWA = (1/n) Σ w_i, for `load_state_dict`.

    The mean is taken in float64, row by row. Running statistics of batch normalisations are recomputed over the
    examples of `objective`; without one they are those that were recomputed for the average during the training, where
    the window is the recorded average's, and else those of the last weights, with a warning.

    Args:
        run: The run, or the path of its file.
        start: Optimizer step from which the weights count; the first recorded one by default.
        stop: Optimizer step up to which they count; the last by default.
        every: Take every n-th recorded row.
        objective: The loss over the training examples to take batch-normalisation statistics of.

    Returns:
        torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes.

    Raises:
        FileError: The file cannot be read, or holds no weights between these steps.

    Source: Izmailov et al. 2018, arXiv:1803.05407.
    """  # noqa: DOC502 - the reader raises it
    trajectory = opened(run).trajectory(start, stop, every)
    mean = RunningMean()
    for vector in trajectory:
        mean.update(torch.from_numpy(vector))
    return named_average(trajectory, mean.value, objective, mean_of_all=trajectory.whole)
