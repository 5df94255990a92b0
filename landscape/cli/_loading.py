"""Load saved tensors into a model that a user named, and say why they do not fit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape._errors import FileError
from landscape._layout import plain_name
from landscape.callbacks._weights_file import tensors_of
from landscape.cli._output import say


def load_into(model: nn.Module, tensors: Mapping[str, Any], path: Path) -> None:
    """Load tensors by name, also those of a LightningModule that holds the model as an attribute.

    Names are compared without what wrappers add (`tensors_of`). Everything that the model's own state dict holds must
    be there, but for counters. Tensors of parts that the model does not have are left out, with a warning.

    Args:
        model: The model.
        tensors: The saved tensors.
        path: Their file, for the sentences.

    Raises:
        FileError: They are of another architecture.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    found = tensors_of(tensors, [name for name, _ in model.named_parameters()], path)
    for name, tensor in own.items():
        plain = plain_name(name)
        if plain in found:
            _copy(tensor, found[plain], plain, path)
        elif tensor.is_floating_point():
            raise FileError(f"{path} holds no tensor {plain!r}: {_why_missing(plain, found)}")
    _tell_others(model, found, path)


def _copy(tensor: torch.Tensor, saved: Any, name: str, path: Path) -> None:
    given = torch.as_tensor(saved)
    if given.shape != tensor.shape:
        raise FileError(
            f"{path} holds {name!r} with shape {tuple(given.shape)}, --model has {tuple(tensor.shape)}: "
            "they are of different architectures"
        )
    with torch.no_grad():
        tensor.copy_(given)


def _why_missing(name: str, found: Mapping[str, Any]) -> str:
    if f"{name}_orig" in found and f"{name}_mask" in found:
        return (
            "the weights are pruned (it has the same name with _orig and _mask); prune --model the same way before it "
            "is returned, or save a model whose pruning was made permanent (torch.nn.utils.prune.remove)"
        )
    return "it is of another architecture than --model"


def _tell_others(model: nn.Module, found: Mapping[str, Any], path: Path) -> None:
    """Refuse tensors of layers that the model lacks, and tell of parts beside it, such as a loss with weights."""
    own = itertools.chain(model.state_dict(), dict(model.named_parameters()), dict(model.named_buffers()))
    known = {plain_name(name) for name in own}
    others = [
        name for name, value in found.items() if plain_name(name) not in known and isinstance(value, torch.Tensor)
    ]
    parts = tuple(
        plain_name(f"{name}.") for name, _ in model.named_modules() if plain_name(f"{name}.") not in ("", ".")
    )
    if inside := [name for name in others if name.startswith(parts)]:
        raise FileError(f"{path} holds {inside[0]!r}, which --model lacks: it is of another architecture than --model")
    if others:
        more = " and more" if len(others) > 3 else ""
        say(f"{path} also holds {', '.join(others[:3])}{more}, which --model lacks; left out.", err=True)
