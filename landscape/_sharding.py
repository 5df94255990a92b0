"""Give each process its share of an objective's batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.distributed as dist

from landscape import _distributed
from landscape._errors import MeasurementError

if TYPE_CHECKING:
    from landscape.objective import Objective


def shard(objective: Objective, group: dist.ProcessGroup | _distributed.Processes | None) -> Objective:
    """Return an objective that all processes of a group evaluate together; `Objective.shard` says more.

    Args:
        objective: The objective, equal in all processes.
        group: A torch.distributed group; None for all processes.

    Returns:
        A copy that evaluates its own batches and sums over the processes.

    Raises:
        MeasurementError: Data or weights differ between the processes, or the model communicates by itself.
    """
    other = objective._copied()
    processes = group if isinstance(group, _distributed.Processes) else _distributed.join(group, objective.device)
    other.processes, other.own = processes, processes.share(objective.batch_sizes)
    if processes.size == 1:
        return other
    if objective.communicates:
        raise MeasurementError(
            f"{type(objective.module).__name__} exchanges tensors between processes when it is evaluated (a gather in "
            "its step, or synchronised batch normalisation), so all must evaluate the same batches; measure without "
            "shard()"
        )
    weights = _distributed.checksum(objective.vector())
    _distributed.require_equal(processes, batches=objective.fingerprint, weights=weights)
    other._shared_buffers = processes.first_tensors(dict(objective.module.named_buffers()))
    return other
