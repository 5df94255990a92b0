"""What all averages of a recorded trajectory share: opening the run, and naming the averaged weights."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape.averaging._batchnorm import recompute_batchnorm
from landscape.objective import Objective
from landscape.record import Run, Trajectory, open_run

RunLike: TypeAlias = "Run | str | os.PathLike[str]"


def opened(run: RunLike) -> Run:
    """Return the run, opened where a path was given."""
    return run if isinstance(run, Run) else open_run(Path(run))


def named_average(
    trajectory: Trajectory, vector: np.ndarray | torch.Tensor, objective: Objective | None, mean_of_all: bool = False
) -> dict[str, Any]:
    """Name averaged weights, with batch-normalisation statistics that belong to them where they can be had.

    Args:
        trajectory: The window that was averaged.
        vector: The average, shape (P,), float64.
        objective: Recomputes the statistics over its examples.
        mean_of_all: Whether the average is the running mean that the recording kept, whose statistics are in the file.

    Returns:
        torch tensors by name, in the model's dtypes.

    Raises:
        MeasurementError: The objective is of another model.
    """
    values = torch.as_tensor(vector)
    in_file = mean_of_all and trajectory.has("swa_buffers")
    state = trajectory.state_dict(values.numpy(), "swa_buffers" if in_file else "buffers")
    if objective is not None:
        fresh = recompute_batchnorm(objective, _in_order(trajectory, values, objective))
        state |= {name: statistic.cpu().to(state[name].dtype) for name, statistic in fresh.items()}
    elif trajectory.has_batchnorm and not in_file:
        warnings.warn(
            f"the batch-normalisation statistics are those of the weights at step {trajectory.steps[-1]}, not of this "
            "average; give objective= (over training examples) to have them recomputed",
            UserWarning,
            stacklevel=3,
        )
    return state


def _in_order(trajectory: Trajectory, values: torch.Tensor, objective: Objective) -> torch.Tensor:
    """Return averaged weights in the order of an objective's parameters."""
    averaged, wanted = trajectory.layout.plain(), objective.layout.plain()
    if averaged == wanted:
        return values
    named = averaged.named(values)
    if set(zip(averaged.names, averaged.shapes, strict=True)) == set(zip(wanted.names, wanted.shapes, strict=True)):
        return torch.cat([named[name].reshape(-1) for name in wanted.names])
    other = sorted({*averaged.names} ^ {*wanted.names} or {*averaged.names})[0]
    raise MeasurementError(
        f"{trajectory.path} holds {len(values)} weights of another model than the objective's "
        f"{type(objective.module).__name__}, or of other parameters of it ({other!r} differs): give one of the "
        "same model with the same parameters unfrozen, or a window in which these train"
    )
