"""A module's state dict in the parts that a file stores: trainable weights, buffers, and what never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape._layout import ParameterLayout
from landscape.averaging._batchnorm import batchnorm_layers


class ModuleState:
    """Flat views of everything that `module.state_dict()` holds.

    Attributes:
        layout: The trainable parameters, as an Objective orders them.
        weight_dtype: float64 where a trainable parameter is float64, else float32.
        buffer_layout: The buffers of the state dict.
        constant_layout: The frozen parameters, stored once.
        aliases: Names of tied tensors, pointing to the name that holds the values.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        parameters = dict(module.named_parameters())
        buffers = dict(module.named_buffers())
        names = {id(tensor): name for name, tensor in (parameters | buffers).items()}
        trainable = [(name, p) for name, p in parameters.items() if p.requires_grad]
        frozen = [(name, p) for name, p in parameters.items() if not p.requires_grad]
        saved = module.state_dict(keep_vars=True)
        self.layout = ParameterLayout.of(trainable)
        self.buffer_layout = ParameterLayout.of([(name, b) for name, b in buffers.items() if name in saved])
        self.constant_layout = ParameterLayout.of(frozen)
        self.weight_dtype = torch.float64 if any(p.dtype == torch.float64 for _, p in trainable) else torch.float32
        self._dtypes = {
            name: str(tensor.dtype).removeprefix("torch.") for name, tensor in (parameters | buffers).items()
        }
        self.aliases = {
            name: names[id(tensor)] for name, tensor in saved.items() if names.get(id(tensor), name) != name
        }

    def attributes(self) -> dict[str, Any]:
        """Return names, shapes and types of all parts as plain values."""
        parts = {"buffer": self.buffer_layout, "constant": self.constant_layout}
        described: dict[str, Any] = {
            "aliases": self.aliases,
            "parameter_dtypes": [self._dtypes[name] for name in self.layout.names],
        }
        for part, layout in parts.items():
            described[f"{part}_names"] = list(layout.names)
            described[f"{part}_shapes"] = [list(shape) for shape in layout.shapes]
            described[f"{part}_dtypes"] = [self._dtypes[name] for name in layout.names]
        return described

    def vector(self) -> torch.Tensor:
        """Return the trainable parameters as one vector on their device, a copy, at least float32."""
        parameters = dict(self._module.named_parameters())
        parts = [parameters[name].detach().to_dense().reshape(-1).to(self.weight_dtype) for name in self.layout.names]
        return torch.cat(parts)

    def buffers(self, replaced: Mapping[str, torch.Tensor] | None = None) -> np.ndarray:
        """Return all buffers as one float64 vector, some replaced by name."""
        present = dict(self._module.named_buffers()) | dict(replaced or {})
        return _flat([present[name] for name in self.buffer_layout.names])

    def statistics(self, stored: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the batch-normalisation statistics by name, out of a stored vector of all buffers."""
        named = zip(self.buffer_layout.names, self.buffer_layout.unflatten(torch.from_numpy(stored)), strict=True)
        ends = (".running_mean", ".running_var")
        owned = {f"{name}{end}".lstrip(".") for name in batchnorm_layers(self._module) for end in ends}
        return {name: values.clone() for name, values in named if name in owned}

    def constants(self) -> np.ndarray:
        """Return the frozen parameters as one float64 vector."""
        parameters = dict(self._module.named_parameters())
        return _flat([parameters[name] for name in self.constant_layout.names])


def _flat(tensors: list[torch.Tensor]) -> np.ndarray:
    parts = [tensor.detach().cpu().to(torch.float64).reshape(-1).numpy() for tensor in tensors]
    return np.concatenate(parts) if parts else np.zeros(0)
