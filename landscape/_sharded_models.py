"""Find modules whose parameters are spread over processes (FSDP, tensor parallel, DeepSpeed), and refuse them.

Such a strategy frees and replaces tensors by itself. To copy one that it has freed ends the process, and to evaluate
the module at another time than the strategy expects leaves it in a state of its own.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._private import is_flattened

# Classes of wrapped modules and of tensors, by the module of torch that defines them: where it was not imported, there
# are no such objects, and its import takes too long to be made for nothing.
_WRAPPERS = {"torch.distributed.fsdp": ("FSDPModule", "FullyShardedDataParallel")}
_TENSORS = {"torch.distributed.tensor": ("DTensor",), "torch.distributed.fsdp": ("FlatParameter",)}
_WITH_STORAGE = ("cpu", "cuda", "xpu")


def require_unsharded(*modules: nn.Module) -> None:
    """Refuse modules whose parameters are spread over processes, before any of their tensors is touched.

    Args:
        *modules: The modules, with their submodules.

    Raises:
        MeasurementError: One is; the sentence says what was found.
    """
    for module in modules:
        found = sharded(module)
        if found is not None:
            raise MeasurementError(
                f"{found}, and sharded parameters are not measured yet; measure a checkpoint of the full state dict "
                "with `landscape measure`, or train with strategy='ddp' where the model fits one device"
            )


def sharded(module: nn.Module) -> str | None:
    """Say what shows that a module's parameters are spread over processes.

    Args:
        module: The module.

    Returns:
        A clause that names what was found; None where all tensors are whole.
    """
    kinds = _known(_WRAPPERS)
    wrapped = next((part for part in module.modules() if isinstance(part, kinds)), None) if kinds else None
    if wrapped is not None:
        name = next(name for name, part in module.named_modules() if part is wrapped)
        return f"{_named(name, module)} is sharded over processes by {_wrapper(wrapped)}"
    parted = _known(_TENSORS)
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        how = _how(tensor, parted)
        if how is not None:
            named = itertools.chain(module.named_parameters(), module.named_buffers())
            name = next(name for name, each in named if each is tensor)
            return f"{name} of {type(module).__name__} {how}"
    return None


def is_wrapper(value: Any) -> bool:
    """Whether an object is a module that FSDP has wrapped or changed."""
    return isinstance(value, _known(_WRAPPERS))


def is_freed(tensor: torch.Tensor) -> bool:
    """Whether a tensor has elements and no memory: reading it would end the process."""
    kind: Any = type(tensor)
    if kind not in (torch.Tensor, nn.Parameter) or tensor.layout != torch.strided:
        return False
    return tensor.device.type in _WITH_STORAGE and not tensor.untyped_storage().nbytes() and tensor.numel() > 0


def _how(tensor: torch.Tensor, parted: tuple[type, ...]) -> str | None:
    if nn.parameter.is_lazy(tensor):
        return None
    if isinstance(tensor, parted):
        what = "DTensor" if type(tensor).__name__ == "DTensor" else "flat parameter of FSDP"
        return f"is a {what}, of which each process holds a part"
    if is_flattened(tensor):
        return "is a piece of a flat parameter that FSDP spreads over processes"
    if hasattr(tensor, "ds_id"):
        return "is spread over processes by DeepSpeed"
    return "has no memory at present: a strategy has freed it" if is_freed(tensor) else None


def _known(classes: Mapping[str, tuple[str, ...]]) -> tuple[type, ...]:
    """Return those of some classes that this process has imported."""
    found = [getattr(sys.modules.get(home), name, None) for home, names in classes.items() for name in names]
    return tuple(kind for kind in found if isinstance(kind, type))


def _wrapper(part: nn.Module) -> str:
    return "FSDP" if type(part).__name__ == "FullyShardedDataParallel" else "fully_shard (FSDP2)"


def _named(name: str, module: nn.Module) -> str:
    return f"{name} of {type(module).__name__}" if name else type(module).__name__
