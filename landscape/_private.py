"""Names that torch and Lightning keep private and this package relies on, each checked at its first use.

A private name can change in any release. So no other module uses one (`tests/test_private.py` holds this), and each
stands beside a check that it still does what we rely on. Where a check fails, a `MeasurementError` names the release
and the cure.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import batchnorm, conv, dropout, instancenorm
from torch.utils import _pytree as pytree
from torch.utils import checkpoint as checkpointing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from landscape._errors import MeasurementError

__all__ = [
    "COLLECTIVES",
    "MACHINE_CLASSES",
    "MACHINE_NAMES",
    "REGISTRIES",
    "BatchNorm",
    "ConvTranspose",
    "Dropout",
    "InstanceNorm",
    "Norm",
    "TorchDispatchMode",
    "attached_trainer",
    "before_transfer",
    "checkpointing_off",
    "dispatched_arguments",
    "eager",
    "has_plain_iterator",
    "persistent_buffers",
    "pytree",
    "reads_sequentially",
    "registries",
    "restart_batches",
    "saved_tensors",
    "validation_source",
    "weight_norm_function",
]

# The classes that torch's own layers of each kind derive from, and that layers of other packages may derive from.
BatchNorm = batchnorm._BatchNorm
Norm = batchnorm._NormBase
InstanceNorm = instancenorm._InstanceNorm
ConvTranspose = conv._ConvTransposeNd
Dropout = dropout._DropoutNd

# Namespaces of the operations by which processes communicate.
COLLECTIVES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")

REGISTRIES = ("_parameters", "_buffers", "_modules")

# Attributes and classes that lead from a measured object into the training machinery, which a measurement never runs.
MACHINE_NAMES = frozenset({"_trainer", "trainer", "_fabric", "_loggers"})
MACHINE_CLASSES = frozenset({"Trainer", "_BaseDataLoaderIter"})

# What `checkpoint` calls where use_reentrant is False: one generator up to torch 2.13, the other one from 2.14 on. Both
# enter the hook, which other modules of torch reach without them.
_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
_HOOK = "_checkpoint_hook"


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
    _require(replaced, "torch", torch.__version__, "lets a plain tensor stand for a parameter of a module")


@contextlib.contextmanager
def checkpointing_off() -> Iterator[None]:
    """Run functions under `torch.utils.checkpoint` once, with a graph, as if they were called directly.

    Covers `checkpoint`, reentrant or not, `checkpoint_sequential`, the decorator of torch 2.14 and the wrappers in
    `torch.distributed`. Models hold `checkpoint` by many names, so what it calls is replaced. At the first use the
    runs of a checkpointed function are counted. If torch runs it more than once, checkpointing is refused instead.

    Yields:
        Nothing.
    """
    replaced: dict[str, Any] = {name: _run_directly for name in _GENERATORS}
    replaced |= {_HOOK: _no_hook, "CheckpointFunction": _DirectCall}
    kept = {name: getattr(checkpointing, name) for name in replaced if hasattr(checkpointing, name)}
    try:
        for name in kept:
            setattr(checkpointing, name, replaced[name])
        with contextlib.nullcontext() if _checkpoints_run_once() else _checkpointing_refused():
            yield
    finally:
        for name, value in kept.items():
            setattr(checkpointing, name, value)


def _checkpointing_refused() -> contextlib.AbstractContextManager[None]:
    return torch.autograd.graph.disable_saved_tensors_hooks(
        "this model uses activation checkpointing (torch.utils.checkpoint), which landscape cannot switch off in "
        f"torch {torch.__version__}, and which makes derivatives wrong; switch it off in the model, or install an "
        "earlier torch"
    )


@functools.cache
def _checkpoints_run_once() -> bool:
    """Count how often a checkpointed function runs; call it where checkpointing has been replaced."""
    runs = []

    def function(x: torch.Tensor) -> torch.Tensor:
        runs.append(1)
        return x.sin().exp()

    with torch.inference_mode(False), torch.enable_grad():
        for reentrant in (False, True):
            x = torch.ones(1, requires_grad=True)
            out = checkpointing.checkpoint(function, x, use_reentrant=reentrant)
            out.sum().backward()
    return len(runs) == 2


def _run_directly(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _no_hook(frame: Any) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


class _DirectCall:
    """Runs the function, where the reentrant checkpoint would run it without a graph."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


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
    names = [name for name in dir(node) if name.startswith("_saved_") or name == "saved_tensors"]
    for name in names:
        value = getattr(node, name)
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, torch.Tensor) and item.layout is torch.strided:
                yield item


@functools.cache
def _check_saved_tensors() -> None:
    with torch.inference_mode(False), torch.enable_grad():
        result = torch.ones(1, requires_grad=True).exp()
    found = any(saved.data_ptr() == result.data_ptr() for saved in _saved(result.grad_fn))
    _require(found, "torch", torch.__version__, "shows the tensors that an autograd graph keeps")


def attached_trainer(module: Any) -> Any:
    """Return the Trainer that a LightningModule is attached to, None where there is none.

    Args:
        module: The LightningModule. Its public `trainer` raises where there is none.

    Returns:
        The Trainer or None.
    """
    known = hasattr(module, "_trainer") or not hasattr(type(module), "trainer")
    _require(known, *_lightning(module), "tells which Trainer a module is attached to")
    return getattr(module, "_trainer", None)


def validation_source(trainer: Any) -> Any:
    """Return where a fit takes its validation loaders from.

    Args:
        trainer: The Trainer.

    Returns:
        An object with `is_defined()`, whether there are such loaders, and `dataloader()`, which makes them.
    """
    source = getattr(trainer.fit_loop.epoch_loop.val_loop, "_data_source", None)
    known = all(callable(getattr(source, name, None)) for name in ("is_defined", "dataloader"))
    _require(known, *_lightning(trainer), "tells where the validation data come from before the first validation")
    return source


def reads_sequentially(trainer: Any) -> bool:
    """Tell whether a fit reads its training loaders one after the other.

    Args:
        trainer: The Trainer.

    Returns:
        True for `CombinedLoader(..., "sequential")`; False for loaders that are read side by side, and before they are
        set up.
    """
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    known = combined is None or hasattr(combined, "_mode")
    _require(known, *_lightning(trainer), "tells how several training loaders are read")
    return getattr(combined, "_mode", "") == "sequential"


def before_transfer(trainer: Any, batch: Any) -> Any:
    """Apply the module's `on_before_batch_transfer` to a batch, as the training loop does.

    Args:
        trainer: The Trainer, with its module.
        batch: The batch.

    Returns:
        The batch that is moved to the device next.
    """
    apply: Any = getattr(trainer.lightning_module, "_on_before_batch_transfer", None)
    _require(callable(apply), *_lightning(trainer), "prepares batches by a method of the module")
    return apply(batch, dataloader_idx=0)


def has_plain_iterator(kind: type) -> bool:
    """Tell whether a class of data loaders iterates as torch's own does.

    Args:
        kind: The class, derived from `torch.utils.data.DataLoader`.

    Returns:
        False where it makes an iterator of its own.
    """
    own = getattr(DataLoader, "_get_iterator", None)
    _require(callable(own), "torch", torch.__version__, "makes the iterators of data loaders by one method")
    return kind.__iter__ is DataLoader.__iter__ and kind._get_iterator is own  # type: ignore[attr-defined]


def persistent_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers of one module, without its submodules', that its state dict holds, by name."""
    _check_registries()
    outside = module._non_persistent_buffers_set
    return {name: b for name, b in module._buffers.items() if b is not None and name not in outside}


def weight_norm_function() -> Any:
    """Return the function behind both kinds of `weight_norm`, whose second derivative torch has wrong."""
    function = getattr(torch, "_weight_norm", None)
    _require(callable(function), "torch", torch.__version__, "has one function behind weight_norm")
    return function


def restart_batches(trainer: Any) -> None:
    """Begin the present epoch's batches again, with numbers drawn from the generators as they now are.

    Args:
        trainer: The Trainer, within its fit.
    """
    fetcher: Any = getattr(trainer.fit_loop, "_data_fetcher", None)
    _require(hasattr(fetcher, "__iter__"), *_lightning(trainer), "lets the batches of an epoch begin again")
    iter(fetcher)


def _lightning(part: Any) -> tuple[str, str]:
    """Return the name and the version of the Lightning package that a Trainer or module derives from."""
    packages = [kind.__module__.partition(".")[0] for kind in type(part).__mro__]
    package = next((name for name in packages if name in ("pytorch_lightning", "lightning")), packages[0])
    return package, getattr(sys.modules.get(package), "__version__", "")


def _require(holds: bool, package: str, version: Any, does: str) -> None:
    if not holds:
        raise MeasurementError(
            f"{package} {version} no longer {does}, which landscape relies on; install an earlier {package}, or a "
            "newer landscape"
        )
