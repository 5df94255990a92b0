"""Count the memory that torch's operations hold at once, in vectors of a model's parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class Live(TorchDispatchMode):
    """The bytes of all storages that operations within made and that are still alive, and their peak.

    Attributes:
        peak: The most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._given: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operation, and note the storages of its results that are not its arguments'."""
        before = {storage_of(tensor) for tensor in tensors_in((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for key in [key for key, (reference, _) in self._held.items() if reference.expired()]:
            del self._held[key]
        for tensor in tensors_in(result):
            key = storage_of(tensor)
            if key not in before and key not in self._held:
                storage = tensor.untyped_storage()
                self._held[key] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return result


def storage_of(tensor: torch.Tensor) -> int:
    """The identity of a tensor's storage."""
    return tensor.untyped_storage()._cdata


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The strided tensors in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return [value] if value.layout == torch.strided else []
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for entry in entries for tensor in tensors_in(entry)]
