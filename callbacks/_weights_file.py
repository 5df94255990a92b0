"""Weights of another training, from its run file or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from landscape._errors import FileError, MeasurementError
from landscape._layout import ParameterLayout
from landscape.record import open_run

_RUN_SUFFIXES = (".h5", ".hdf5", ".nc")


def load_weights(path: str | Path, layout: ParameterLayout) -> torch.Tensor:
    """Load the flat parameter vector of a file: the last recorded weights of a run, or those of a checkpoint.

    Args:
        path: A run file with a recorded SWATrajectory (.h5), or a checkpoint that torch.load reads: Lightning's, or a
            plain state dict.
        layout: Names and shapes that the weights must have.

    Returns:
        The vector, shape (P,), float32 or float64.

    Raises:
        FileError: The file cannot be read.
        MeasurementError: It holds another architecture.
    """
    path = Path(path)
    tensors = open_run(path).state_dict() if path.suffix in _RUN_SUFFIXES else load_checkpoint(path)[0]
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name not in tensors:
            raise MeasurementError(f"{path} holds no tensor {name!r}: it is of another architecture than this training")
        if tuple(tensors[name].shape) != shape:
            raise MeasurementError(
                f"{path} holds {name!r} with shape {tuple(tensors[name].shape)}, this training has {shape}: the two "
                "are of different architectures"
            )
    parts = [tensors[name].detach().cpu().reshape(-1) for name in layout.names]
    dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
    return torch.cat([part.to(dtype) for part in parts])


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
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except Exception as error:
        raise FileError(f"{path} cannot be read as a checkpoint: {error}") from None
