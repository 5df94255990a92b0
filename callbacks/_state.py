"""A module's state dict in the parts that a file stores: trainable weights, other state, and what never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape._layout import ParameterLayout
from landscape._private import persistent_buffers
from landscape.averaging._batchnorm import batchnorm_layers

_BLOCK = 2**18
_WITHIN_FLOAT32 = (torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.bool)


class ModuleState:
    """Flat views of everything that `module.state_dict()` holds at present.

    Parameters without a shape yet (lazy ones) are left out: they are found when they have one.

    Args:
        module: The module.
        constants: Digests by name of the frozen parameters that the file holds already. A frozen parameter that is not
            among them, or has another digest now, counts as moving. By default all frozen parameters are constant.

    Attributes:
        layout: The trainable parameters, as an Objective orders them.
        weight_dtype: float64 where a trainable parameter is float64, else float32.
        frozen_dtype: The type in which frozen parameters are stored without loss: float32 or float64.
        moving_layout: Frozen parameters that changed since the beginning: averages of other weights, refrozen layers.
        buffer_layout: The buffers of the state dict.
        constant_layout: The other frozen parameters, stored once.
        aliases: Names of tied tensors, pointing to the name that holds the values.
    """

    def __init__(self, module: nn.Module, constants: Mapping[str, int] | None = None):
        self._module = module
        parameters = {n: p for n, p in module.named_parameters() if not nn.parameter.is_lazy(p)}
        buffers = {n: b for n, b in module.named_buffers() if not nn.parameter.is_lazy(b)}
        names = {id(tensor): name for name, tensor in (parameters | buffers).items()}
        frozen = [(name, p) for name, p in parameters.items() if not p.requires_grad]
        constant = [name for name, p in frozen if constants is None or constants.get(name) == digest(p)]
        saved = _saved(module)
        self.layout = ParameterLayout.of([(name, p) for name, p in parameters.items() if p.requires_grad])
        self.buffer_layout = ParameterLayout.of([(name, b) for name, b in buffers.items() if name in saved])
        self.moving_layout = ParameterLayout.of([(name, p) for name, p in frozen if name not in constant])
        self.constant_layout = ParameterLayout.of([(name, p) for name, p in frozen if name in constant])
        double = any(p.dtype == torch.float64 for p in parameters.values() if p.requires_grad)
        self.weight_dtype = torch.float64 if double else torch.float32
        self.frozen_dtype = torch.float32 if all(p.dtype in _WITHIN_FLOAT32 for _, p in frozen) else torch.float64
        self._dtypes = {
            name: str(tensor.dtype).removeprefix("torch.") for name, tensor in (parameters | buffers).items()
        }
        self.aliases = {
            name: names[id(tensor)] for name, tensor in saved.items() if names.get(id(tensor), name) != name
        }

    def attributes(self) -> dict[str, Any]:
        """Return names, shapes and types of all parts as plain values."""
        parts = {
            "parameter": self.layout,
            "buffer": self.buffer_layout,
            "moving": self.moving_layout,
            "constant": self.constant_layout,
        }
        described: dict[str, Any] = {"aliases": self.aliases}
        for part, layout in parts.items():
            described[f"{part}_names"] = list(layout.names)
            described[f"{part}_shapes"] = [list(shape) for shape in layout.shapes]
            described[f"{part}_dtypes"] = [self._dtypes[name] for name in layout.names]
        return described

    def vector(self) -> torch.Tensor:
        """Return the trainable parameters as one vector on their device, a copy, at least float32."""
        parameters = dict(self._module.named_parameters())
        parts = [parameters[name].detach().to_dense().reshape(-1).to(self.weight_dtype) for name in self.layout.names]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=self.weight_dtype)

    def buffers(self, replaced: Mapping[str, torch.Tensor] | None = None) -> np.ndarray:
        """Return all buffers as one float64 vector, some replaced by name."""
        present = dict(self._module.named_buffers()) | dict(replaced or {})
        return _flat([present[name] for name in self.buffer_layout.names], torch.float64)

    def statistics(self, stored: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the batch-normalisation statistics by name, out of a stored vector of all buffers."""
        named = zip(self.buffer_layout.names, self.buffer_layout.unflatten(torch.from_numpy(stored)), strict=True)
        ends = (".running_mean", ".running_var")
        owned = {f"{name}{end}".lstrip(".") for name in batchnorm_layers(self._module) for end in ends}
        return {name: values.clone() for name, values in named if name in owned}

    def moving(self) -> np.ndarray:
        """Return the frozen parameters that changed as one vector, in `frozen_dtype`."""
        return self._frozen(self.moving_layout)

    def moving_digests(self) -> dict[str, int]:
        """Return the digests of the frozen parameters that changed, by name."""
        return self._digests(self.moving_layout)

    def constants(self) -> np.ndarray:
        """Return the frozen parameters that did not change as one vector, in `frozen_dtype`."""
        return self._frozen(self.constant_layout)

    def constant_digests(self) -> dict[str, int]:
        """Return the digests of the frozen parameters that did not change, by name."""
        return self._digests(self.constant_layout)

    def _frozen(self, layout: ParameterLayout) -> np.ndarray:
        parameters = dict(self._module.named_parameters())
        return _flat([parameters[name] for name in layout.names], self.frozen_dtype)

    def _digests(self, layout: ParameterLayout) -> dict[str, int]:
        parameters = dict(self._module.named_parameters())
        return {name: digest(parameters[name]) for name in layout.names}


def stored_digests(attributes: Mapping[str, Any], constants: np.ndarray) -> dict[str, int]:
    """Return the digests of frozen parameters that a file holds.

    Args:
        attributes: Their names, shapes and types, as `ModuleState.attributes` gives them.
        constants: Their values end to end.

    Returns:
        Digests by name.
    """
    shapes = tuple(tuple(shape) for shape in attributes["constant_shapes"])
    layout = ParameterLayout(tuple(attributes["constant_names"]), shapes)
    values = layout.unflatten(torch.from_numpy(np.array(constants)))
    return {
        name: digest(value.to(getattr(torch, dtype)))
        for name, value, dtype in zip(layout.names, values, attributes["constant_dtypes"], strict=True)
    }


def digest(tensor: torch.Tensor) -> int:
    """Return a number that tells values of a tensor apart at the cost of reading them once.

    Σ m_i b_i modulo 2^64 over the bits b_i of the elements, with odd multipliers m_i. Two tensors that differ in one
    element always differ in it; others share it by chance, once in about 2^64.

    Memory: a few blocks of 2^18 int64 numbers.

    Args:
        tensor: Values of a floating-point or integer type.

    Returns:
        An integer of 64 bits.
    """
    flat = tensor.detach().to_dense().reshape(-1)
    flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
    bits = flat.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
    total = 0
    for number, block in enumerate(bits.split(_BLOCK)):
        place = torch.arange(len(block), device=bits.device) + number * _BLOCK
        mixed = (place * 0x9E3779B97F4A7C1 + 0x5851F42D4C957F2) ^ (place << 29)
        total += int(((mixed | 1) * block.to(torch.int64)).sum())
    return total % 2**64


def _saved(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and persistent buffers under each of their names, without running hooks of `state_dict`."""
    found: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    for prefix, part in module.named_modules(remove_duplicate=False):
        for name, buffer in persistent_buffers(part).items():
            found[f"{prefix}.{name}".lstrip(".")] = buffer
    return found


def _flat(tensors: list[torch.Tensor], dtype: torch.dtype) -> np.ndarray:
    parts = [tensor.detach().to_dense().cpu().to(dtype).reshape(-1).numpy() for tensor in tensors]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=torch.zeros(0, dtype=dtype).numpy().dtype)
