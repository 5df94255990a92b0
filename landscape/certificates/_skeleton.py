"""What the architecture gives without any payload: the network as constructed under a seed, and its fingerprint."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._parameters import trainable
from landscape._private import REGISTRIES, BatchNorm, Norm, pytree
from landscape.isolation import isolated

Architecture = Callable[[], nn.Module]

# Counts steps of training; in eval mode nothing depends on it (but for a momentum of None, in train mode alone).
_COUNTER = "num_batches_tracked"


class Skeleton:
    """A network's tensors sorted by how a payload may treat them.

    Attributes:
        module: The network.
        layout: Names and shapes of the trainable parameters.
        others: Frozen parameters and buffers of floating-point type, by name: coded where they are not as constructed.
        whole: Buffers of whole numbers, by name: always as constructed.

    Args:
        module: The network.

    Raises:
        MeasurementError: It holds what cannot be certified.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        named = trainable(module)
        _refuse(module)
        self.layout = ParameterLayout.of(named)
        self.parameters = dict(named)
        named_rest = itertools.chain(module.named_parameters(), module.named_buffers())
        counters = {f"{name}.{_COUNTER}".lstrip(".") for name, part in module.named_modules() if isinstance(part, Norm)}
        rest = [pair for pair in named_rest if pair[0] not in self.parameters and pair[0] not in counters]
        self.others = {name: tensor for name, tensor in rest if tensor.is_floating_point()}
        self.whole = {name: tensor for name, tensor in rest if not tensor.is_floating_point()}

    def start(self, kind: str) -> npt.NDArray[np.float64]:
        """Return w0 as a flat vector: the parameters as constructed ("initial"), or zeros ("zero")."""
        if kind == "zero":
            return np.zeros(self.layout.total)
        return np.concatenate([array_of(tensor).ravel() for tensor in self.parameters.values()])

    def load(self, tensors: Mapping[str, npt.NDArray[Any]]) -> nn.Module:
        """Put values in the places of tensors, cast to their types.

        Args:
            tensors: Values by name.

        Returns:
            The module, with them.
        """
        own = self.parameters | self.others
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(torch.from_numpy(np.asarray(value)).reshape(own[name].shape))
        return self.module

    def describe(self) -> dict[str, Any]:
        """Return the tensors (name, kind, type, shape) and the modules (name, type, settings) of the architecture."""
        kinds = (("trainable", self.parameters), ("other", self.others), ("whole", self.whole))
        tensors = [
            [name, kind, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            for kind, group in kinds
            for name, tensor in group.items()
        ]
        modules = [
            f"{name or 'the network'}: {type(part).__qualname__}({part.extra_repr()})"
            for name, part in self.module.named_modules()
        ]
        return {"class": type(self.module).__qualname__, "tensors": tensors, "modules": modules}

    def checksum(self, coded: Iterable[str]) -> str:
        """SHA-256 of the constructed tensors that decoding uses.

        Args:
            coded: Names of the tensors whose constructed values are not used.

        Returns:
            Hexadecimal digits.
        """
        digest, left_out = hashlib.sha256(), set(coded)
        for name, tensor in (self.parameters | self.others | self.whole).items():
            if name not in left_out:
                values = tensor.detach().cpu()
                values = values.double() if values.is_floating_point() else values.to(torch.int64)
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(values.contiguous().numpy().astype(values.numpy().dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def construct(architecture: Architecture, seed: int) -> Skeleton:
    """Build the network with all global generators seeded, and put these back.

    Args:
        architecture: What builds it when called without arguments: a class or a function.
        seed: The seed.

    Returns:
        The network as constructed, in eval mode.

    Raises:
        MeasurementError: It is no module, or holds what cannot be certified.
    """
    with isolated(nn.Identity()):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        module = architecture()
    if not isinstance(module, nn.Module):
        raise MeasurementError(
            f"the architecture gave {type(module).__name__} when called, expected a module; name a class or a function "
            "that builds the network without arguments"
        )
    for part in module.modules():
        part.training = False
    return Skeleton(module.cpu())


def difference(claimed: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Say in what an architecture differs from the certificate's; nothing where it does not.

    Args:
        claimed: As `Skeleton.describe` gave it when the certificate was made.
        found: As it gives it now.

    Returns:
        The first difference in words.
    """
    for key, what in (("tensors", "tensor"), ("modules", "module")):
        mine, theirs = claimed[key], found[key]
        for one, other in zip(mine, theirs, strict=False):
            if one != other:
                return f"the certificate has the {what} {_words(one)} where this one has {_words(other)}"
        if len(mine) != len(theirs):
            return f"the certificate has {len(mine)} {what}s, this one {len(theirs)}"
    return ""


def require_nothing_beside(skeleton: Skeleton) -> None:
    """Refuse a network without an architecture that holds what no stream could, and no constructor gives.

    Args:
        skeleton: The trained network, which stands for its own architecture.

    Raises:
        MeasurementError: It has buffers of whole numbers, or tensors that are neither parameters nor buffers.
    """
    held = {id(tensor) for tensor in itertools.chain(skeleton.module.parameters(), skeleton.module.buffers())}
    beside = [
        f"{name}.{key}".lstrip(".")
        for name, part in skeleton.module.named_modules()
        for key, value in vars(part).items()
        for leaf in pytree.tree_leaves(value if key not in REGISTRIES else None)
        if isinstance(leaf, (torch.Tensor, np.ndarray)) and id(leaf) not in held
    ]
    for name in [*skeleton.whole, *beside]:
        raise MeasurementError(
            f"{name!r} holds whole numbers, or values that are neither parameters nor buffers, which no stream here "
            "has; whether they were learnt cannot be seen without knowing what builds the network. Give architecture="
        )


def array_of(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return a tensor's values as a float64 array."""
    return tensor.detach().cpu().double().numpy()


def _words(entry: Any) -> str:
    return entry if isinstance(entry, str) else f"{entry[0]} ({entry[1]}, {entry[2]}, shape {entry[3]})"


def _refuse(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, BatchNorm) and part.running_mean is None:
            raise MeasurementError(
                f"the batch normalisation {name!r} keeps no running statistics, so that the answer to one example "
                "depends on the others of its batch; this is no function of one example, and no bound is for it"
            )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_complex():
            raise MeasurementError(f"the tensor {name!r} is complex, and there is no code for it; keep it as two")
