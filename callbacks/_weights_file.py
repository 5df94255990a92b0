"""Weights of another training, from its run file or from a checkpoint."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape._errors import FileError, MeasurementError
from landscape._layout import ParameterLayout, plain_name
from landscape.record import open_run

_RUN_SUFFIXES = (".h5", ".hdf5", ".nc")


def load_weights(path: str | Path, layout: ParameterLayout, module: nn.Module | None = None) -> torch.Tensor:
    """Load the flat parameter vector of a file: the last recorded weights of a run, or those of a checkpoint.

    Args:
        path: A run file with a recorded SWATrajectory (.h5), or a checkpoint that torch.load reads: Lightning's, or a
            plain state dict.
        layout: Names and shapes that the weights must have.
        module: The module that they are put into. Its other parameters must have the values that the file holds.

    Returns:
        The vector, shape (P,), float32 or float64.

    Raises:
        FileError: The file cannot be read.
        MeasurementError: It holds another architecture, or other values of frozen parameters.
    """
    path = Path(path)
    tensors = open_run(path).state_dict() if path.suffix in _RUN_SUFFIXES else load_checkpoint(path)[0]
    named = tensors_of(tensors, layout.names, path)
    if missing := [name for name in layout.names if name not in named]:
        raise MeasurementError(
            f"{path} holds no tensor {missing[0]!r}: it is of another architecture than this training"
        )
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if tuple(named[name].shape) != shape:
            raise MeasurementError(
                f"{path} holds {name!r} with shape {tuple(named[name].shape)}, this training has {shape}: the two "
                "are of different architectures"
            )
    if module is not None:
        _require_equal_frozen(named, module, layout, path)
    parts = [named[name].detach().cpu().reshape(-1) for name in layout.names]
    dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
    return torch.cat([part.to(dtype) for part in parts])


def _require_equal_frozen(saved: Mapping[str, Any], module: nn.Module, layout: ParameterLayout, path: Path) -> None:
    """Refuse a solution whose loss depends on frozen parameters that this module has with other values."""
    trained = set(layout.names)
    for name, parameter in module.named_parameters():
        other = saved.get(plain_name(name))
        if name in trained or not isinstance(other, torch.Tensor):
            continue
        own = parameter.detach().cpu()
        if own.shape != other.shape or not torch.equal(own.to(other.dtype), other.cpu()):
            raise MeasurementError(
                f"{path} holds other values of {name!r} than this training, where it is frozen, so a path through the "
                "trained parameters does not end in that solution; give a solution with the same frozen parameters"
            )


def tensors_of(tensors: Mapping[str, Any], names: Iterable[str], path: Path) -> dict[str, Any]:
    """Return saved tensors under the names that a module gives them.

    What wrappers add to names is not compared: `torch.compile` puts `_orig_mod.` before the names of what it wraps, and
    DistributedDataParallel `module.`. A plain module out of a LightningModule's checkpoint stands there under the name
    of its attribute.

    Args:
        tensors: The saved tensors by name.
        names: Names of the module's parameters.
        path: The file, for the sentence.

    Returns:
        The saved tensors by the module's plain names (`plain_name`), and under the given names where they differ.
        Tensors outside of the module keep their own.

    Raises:
        FileError: Several parts of the file fit the module, so which one is meant is not known.
    """
    names = list(names)
    wanted = [plain_name(name) for name in names]
    saved = {plain_name(name): tensor for name, tensor in tensors.items()}
    prefix = _prefix(saved, wanted, path)
    found = {name.removeprefix(prefix): tensor for name, tensor in saved.items() if name.startswith(prefix)}
    return found | {name: found[plain] for name, plain in zip(names, wanted, strict=True) if plain in found}


def _prefix(saved: Mapping[str, Any], wanted: list[str], path: Path) -> str:
    """Return what stands before the names of the wanted parameters in a file; nothing where they are not all there."""
    first = wanted[0] if wanted else ""
    before = sorted({name[: len(name) - len(first)] for name in saved if name.endswith(f".{first}")})
    fitting = [each for each in ("", *before) if all(each + name in saved for name in wanted)]
    if len(fitting) > 1 and fitting[0]:
        parts = ", ".join(each.removesuffix(".") for each in fitting)
        raise FileError(
            f"{path} holds several parts that fit the model ({parts}), and nothing says which one is meant; give the "
            "whole model, or save the state dict of the part"
        )
    return fitting[0] if fitting else ""


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load a checkpoint without running code that it may hold.

    Args:
        path: Lightning's, or a plain state dict.

    Returns:
        The tensors by name, and the hyper-parameters that Lightning stored (none in a plain state dict).

    Raises:
        FileError: The file holds no state dict, or cannot be read.
    """
    loaded = _read(path)
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(tensors, dict):
        raise FileError(f"{path} holds no state dict; give a run file, a Lightning checkpoint, or a saved state dict")
    settings = loaded.get("hyper_parameters") if tensors is not loaded else None
    return tensors, dict(settings or {})


def read_position(path: Path) -> tuple[int, int] | None:
    """Return where in its training a checkpoint was saved.

    Args:
        path: A file that `load_checkpoint` reads.

    Returns:
        Optimizer step and epoch; None in a plain state dict, which does not say.
    """
    loaded = _read(path)
    if not isinstance(loaded, dict) or "state_dict" not in loaded or "global_step" not in loaded:
        return None
    return int(loaded["global_step"]), int(loaded.get("epoch", -1))


def _read(path: Path) -> Any:
    if path.is_dir():
        raise FileError(
            f"{path} is a folder; of a distributed checkpoint make one file with `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} full.pt`, and give that file"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL (\S+)", str(error))
        if kind is None:
            raise FileError(f"{path} cannot be read as a checkpoint: {_reason(error)}") from None
        raise FileError(
            f"{path} cannot be read as a checkpoint: it holds a pickled object ({kind[1]}), whose code would run. Save "
            "model.state_dict() instead of the model; or allow the class with torch.serialization.add_safe_globals"
        ) from None
    except Exception as error:
        raise FileError(f"{path} cannot be read as a checkpoint: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return torch's reason without its advice to load with weights_only=False, which would run the file's code."""
    text = str(error).strip()
    if text and "weights_only" not in text and not isinstance(error, KeyError):
        return text
    return (
        "it was not written by torch.save, is damaged, or holds more than tensors and plain values. Nothing else is "
        "read, since loading other objects can run code. Save model.state_dict() again with torch.save"
    )
