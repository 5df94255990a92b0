"""Where a run's numbers come from: versions, seeds, hyper-parameters, optimizer and trainer, as plain values."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from landscape._private._lightning import CLI_ENTRY

_PACKAGES = ("landscape-geometry", "torch", "pytorch-lightning", "lightning", "numpy", "scipy", "h5py", "constriction")


def provenance(trainer: Any, module: Any) -> dict[str, Any]:
    """Collect the root attributes of a run file at the start of training."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return {
        "model": type(module).__name__,
        "n_parameters": sum(p.numel() for p in trainable if not is_lazy(p)),
        "parameter_dtype": str(trainable[0].dtype).removeprefix("torch.") if trainable else "",
        "hyper_parameters": plain(hyper_parameters(module)),
        "optimizer": optimizer(trainer),
        "trainer": {
            "max_epochs": trainer.max_epochs,
            "max_steps": trainer.max_steps,
            "precision": str(trainer.precision),
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "gradient_clip_val": trainer.gradient_clip_val,
            "world_size": trainer.world_size,
        },
        "seed_everything": os.environ.get("PL_GLOBAL_SEED", ""),
        "versions": versions(),
    }


def hyper_parameters(module: Any) -> dict[str, Any]:
    """Return what the module saved by save_hyperparameters, without the entry that LightningCLI adds for itself."""
    saved = dict(getattr(module, "hparams", {}) or {})
    saved.pop(CLI_ENTRY, None)
    return saved


def optimizer(trainer: Any) -> dict[str, Any]:
    """Describe the first optimizer and its first parameter group."""
    if not trainer.optimizers:
        return {}
    first = trainer.optimizers[0]
    first = getattr(first, "optimizer", first)  # Lightning wraps them
    options = {key: value for key, value in first.param_groups[0].items() if key not in ("params", "param_names")}
    return {"name": type(first).__name__, "count": len(trainer.optimizers)} | plain(options)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # The metadata of some builds leave out the local part (+cu130), which says what torch was built for.
    return found | {"torch": str(torch.__version__)}


def plain(value: Any) -> Any:
    """Reduce a value to what JSON can hold; whatever else it is becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return plain(value.item())
    return str(value)[:500]
