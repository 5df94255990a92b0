"""The processes of a data-parallel training, which measure together."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from landscape._distributed import ALONE, Processes, ProcessGroup

# The group of all processes, and the one made of them for measuring; a later training in this process uses it again.
_GROUPS: dict[str, Any] = {"world": None, "own": None}


def strategy_model(trainer: Any) -> tuple[nn.Module, ...]:
    """Return what the strategy wraps around the trained module: FSDP's first version wraps it from outside."""
    model = getattr(getattr(trainer, "strategy", None), "model", None)
    return (model,) if isinstance(model, nn.Module) else ()


def processes_of(trainer: Any) -> Processes:
    """Return the processes that hold a replica of the trained model each; this one alone under any other strategy.

    They meet in a group of their own: whatever goes wrong there, no message of a measurement is taken for one of the
    training. All processes must call this.
    """
    replica = getattr(getattr(trainer, "strategy", None), "model", None)
    if not isinstance(replica, DistributedDataParallel) or replica.process_group.size() != dist.get_world_size():
        return ALONE
    if replica.process_group.size() == 1:
        return ALONE
    if _GROUPS["world"] is not dist.group.WORLD:
        _GROUPS.update(world=dist.group.WORLD, own=dist.new_group())
    return ProcessGroup(_GROUPS["own"], trainer.strategy.root_device)
