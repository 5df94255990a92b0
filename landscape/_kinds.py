"""What the type of an object tells a walk through objects: whether to pass it by, its items, its slots.

A measurement meets the same types hundreds of times, so the answers are kept.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import torch

from landscape._private import MACHINE_CLASSES

# Longer containers (file lists of a dataset) are kept as they are, without a look at every item.
LONGEST_WALK = 10_000
_ATOMS: tuple[Any, ...] = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    type,
    types.BuiltinFunctionType,
    types.ModuleType,
    torch.dtype,
    torch.device,
    torch.Size,
    np.dtype,
    np.generic,
)
# Queues, threads and workers go on while a measurement runs: putting their state back would lose or repeat their work.
_MACHINERY = frozenset(
    {"_thread", "asyncio", "concurrent", "ctypes", "_io", "logging", "multiprocessing", "queue", "socket", "subprocess"}
    | {"threading", "weakref"}
    | {"aim", "clearml", "comet_ml", "mlflow", "neptune", "tensorboard", "wandb"}
)
# Containers whose items are put back by the methods of their builtin kind: subclasses may refuse or watch changes.
_CONTAINERS: tuple[Any, ...] = (OrderedDict, dict, list, set, deque, tuple)


@functools.lru_cache(maxsize=1024)
def is_passed_by(kind: Any) -> bool:
    """Whether objects of a type have no state to put back, or work that goes on while a measurement runs."""
    if issubclass(kind, _ATOMS):
        return True
    bases = kind.__mro__
    return any(base.__module__.partition(".")[0] in _MACHINERY or base.__name__ in MACHINE_CLASSES for base in bases)


@functools.lru_cache(maxsize=1024)
def container_kind(kind: Any) -> Any:
    """Return the builtin kind of a type of containers; None for other types."""
    return next((base for base in kind.__mro__ if base in _CONTAINERS), None)


@functools.lru_cache(maxsize=1024)
def slots_of(kind: Any) -> tuple[types.MemberDescriptorType, ...]:
    """Return the slots that Python classes declare; the members of C classes are read-only for the most part."""
    declared = [vars(base).values() for base in kind.__mro__ if "__slots__" in vars(base)]
    return tuple(slot for members in declared for slot in members if isinstance(slot, types.MemberDescriptorType))
