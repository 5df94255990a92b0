"""Private names of Lightning: parts of the Trainer, of its loops and of its callbacks."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from landscape._private._require import require

_PACKAGES = ("pytorch_lightning", "lightning")
# The method by which each of Lightning's monitoring callbacks checks its value. The second one is public.
_MONITOR_CHECKS = {"EarlyStopping": "_run_early_stopping_check", "ModelCheckpoint": "check_monitor_top_k"}

# Attributes and classes that lead from a measured object into the training machinery, which a measurement never runs.
MACHINE_NAMES = frozenset({"_trainer", "trainer", "_fabric", "_loggers"})
MACHINE_CLASSES = frozenset({"Trainer", "_BaseDataLoaderIter"})

# The entry that LightningCLI adds to a module's hyper-parameters for itself.
CLI_ENTRY = "_instantiator"


def attached_trainer(module: Any) -> Any:
    """Return the Trainer that a LightningModule is attached to, None where there is none.

    Args:
        module: The LightningModule. Its public `trainer` raises where there is none.

    Returns:
        The Trainer or None.
    """
    known = hasattr(module, "_trainer") or not hasattr(type(module), "trainer")
    require(known, *_lightning(module), "tells which Trainer a module is attached to")
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
    require(known, *_lightning(trainer), "tells where the validation data come from before the first validation")
    return source


def reads_sequentially(trainer: Any) -> bool:
    """Tell whether a fit reads its training loaders one after the other.

    Args:
        trainer: The Trainer.

    Returns:
        True for `CombinedLoader(..., "sequential")`; False for loaders that are read side by side, and before they are
        set up.
    """
    loop = trainer.fit_loop
    combined = getattr(loop, "_combined_loader", None)
    known = hasattr(loop, "_combined_loader") if combined is None else hasattr(combined, "_mode")
    require(known, *_lightning(trainer), "tells how several training loaders are read")
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
    require(callable(apply), *_lightning(trainer), "prepares batches by a method of the module")
    return apply(batch, dataloader_idx=0)


def restart_batches(trainer: Any) -> None:
    """Begin the present epoch's batches again, with numbers drawn from the generators as they now are.

    Args:
        trainer: The Trainer, within its fit.
    """
    fetcher: Any = getattr(trainer.fit_loop, "_data_fetcher", None)
    require(hasattr(fetcher, "__iter__"), *_lightning(trainer), "lets the batches of an epoch begin again")
    iter(fetcher)


def monitor_checks(callback: Any) -> tuple[str, ...]:
    """Return the names of the methods by which a callback checks its monitored value.

    Args:
        callback: An EarlyStopping, a ModelCheckpoint, or any other callback.

    Returns:
        The names; none for a callback that has no such method.
    """
    for kind in type(callback).__mro__:
        check = _MONITOR_CHECKS.get(kind.__name__)
        if check and kind.__module__.partition(".")[0] in _PACKAGES:
            require(_calls(kind, check), *_lightning(callback), f"checks monitored values by {kind.__name__}.{check}")
    return tuple(check for check in _MONITOR_CHECKS.values() if hasattr(callback, check))


def _calls(kind: type, name: str) -> bool:
    """Tell whether a class defines a method, and calls it in another one."""
    methods = {own: inspect.unwrap(value) for own, value in vars(kind).items() if inspect.isfunction(value)}
    return name in methods and any(name in value.__code__.co_names for own, value in methods.items() if own != name)


def _lightning(part: Any) -> tuple[str, str]:
    """Return the name and the version of the Lightning package that a Trainer, module or callback derives from."""
    packages = [kind.__module__.partition(".")[0] for kind in type(part).__mro__]
    package = next((name for name in packages if name in _PACKAGES), packages[0])
    return package, getattr(sys.modules.get(package), "__version__", "")
