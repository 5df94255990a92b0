"""Private names of torch: layers' tables and bases, autograd nodes, data loaders, compiled code."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import batchnorm, conv, dropout, instancenorm
from torch.utils.data import DataLoader

from landscape._private._require import refusal, require

try:
    from torch.utils import _python_dispatch, _pytree

    pytree = _pytree
    TorchDispatchMode = _python_dispatch.TorchDispatchMode
    # The classes that torch's own layers of each kind derive from, and that layers of other packages may derive from.
    BatchNorm = batchnorm._BatchNorm
    Norm = batchnorm._NormBase
    InstanceNorm = instancenorm._InstanceNorm
    ConvTranspose = conv._ConvTransposeNd
    Dropout = dropout._DropoutNd
except (ImportError, AttributeError) as error:
    raise refusal("torch", torch.__version__, f"has the classes of earlier releases ({error})") from error

# Namespaces of the operations by which processes communicate.
COLLECTIVES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")

REGISTRIES = ("_parameters", "_buffers", "_modules")


def registries(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the tables in which a module holds its parameters, its buffers and its submodules, to be written to.

    Args:
        module: The module; its submodules have tables of their own.

    Returns:
        The parameters, buffers and submodules by name, None where one is registered as missing.
    """
    _check_registries()
    return module._parameters, module._buffers, module._modules


@functools.cache
def _check_registries() -> None:
    module, other = nn.Module(), torch.zeros(1)
    module.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    try:
        module._parameters["weight"] = other  # type: ignore[assignment]
        replaced = module.weight is other and isinstance(module._buffers, dict) and isinstance(module._modules, dict)
    except (AttributeError, TypeError):
        replaced = False
    require(replaced, "torch", torch.__version__, "lets a plain tensor stand for a parameter of a module")


def has_plain_iterator(kind: type) -> bool:
    """Tell whether a class of data loaders iterates as torch's own does.

    Args:
        kind: The class, derived from `torch.utils.data.DataLoader`.

    Returns:
        False where it makes an iterator of its own.
    """
    own = getattr(DataLoader, "_get_iterator", None)
    require(callable(own), "torch", torch.__version__, "makes the iterators of data loaders by one method")
    return kind.__iter__ is DataLoader.__iter__ and kind._get_iterator is own  # type: ignore[attr-defined]


def persistent_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers of one module, without its submodules', that its state dict holds, by name."""
    _check_registries()
    outside: Any = getattr(module, "_non_persistent_buffers_set", None)
    require(outside is not None, "torch", torch.__version__, "tells which buffers a state dict leaves out")
    return {name: b for name, b in module._buffers.items() if b is not None and name not in outside}


def is_flattened(tensor: torch.Tensor) -> bool:
    """Tell whether a parameter keeps its name while FSDP's first version holds its values in a flat parameter.

    Args:
        tensor: The parameter.

    Returns:
        True where torch marked it so. Where a release leaves the mark out, the wrapped module still shows.
    """
    return bool(getattr(tensor, "_fsdp_flattened", False))


def weight_norm_function() -> Any:
    """Return the function behind both kinds of `weight_norm`, whose second derivative torch has wrong."""
    function = getattr(torch, "_weight_norm", None)
    require(callable(function), "torch", torch.__version__, "has one function behind weight_norm")
    return function


def saved_tensors(node: Any) -> Iterator[torch.Tensor]:
    """Yield the strided tensors that a node of the autograd graph keeps for the backward pass.

    Args:
        node: A `grad_fn`, or a node that it leads to.

    Yields:
        Each of them, inputs of the operation included.
    """
    _check_saved_tensors()
    yield from _saved(node)


def _saved(node: Any) -> Iterator[torch.Tensor]:
    kind: Any = type(node)
    for name in _names_of_saved(kind):
        value = getattr(node, name)
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, torch.Tensor) and item.layout is torch.strided:
                yield item


@functools.lru_cache(maxsize=1024)
def _names_of_saved(kind: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors")


@functools.cache
def _check_saved_tensors() -> None:
    with torch.inference_mode(False), torch.enable_grad():
        result = torch.ones(1, requires_grad=True).exp()
    found = any(saved.data_ptr() == result.data_ptr() for saved in _saved(result.grad_fn))
    require(found, "torch", torch.__version__, "shows the tensors that an autograd graph keeps")


def dispatched_arguments(depth: int) -> tuple[Any, ...]:
    """Return the tensors that torch's dispatcher looked at before it called a torch function mode.

    Args:
        depth: Frames between the caller of this function and the dispatcher.

    Returns:
        The arguments; none where torch calls modes in another way. `tests/test_losses.py` holds that `l1_loss` shows
        its weight here.
    """
    found: tuple[Any, ...] = sys._getframe(depth + 1).f_locals.get("relevant_args", ())
    return found


def eager() -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules and functions as they were written, for as long as the context is open.

    Compiled code donates the buffers that a second derivative needs.

    Returns:
        A context manager.
    """
    # Nothing can have been compiled before this import, which is too slow to be made for nothing.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
