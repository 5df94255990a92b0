"""How the flat parameter vector is laid out: names, shapes and offsets. Torch-free, shared by measures and files."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any


@dataclasses.dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of the tensors behind a flat vector, in order.

    Attributes:
        names: Qualified names, as `module.named_parameters()` gives them (a tied tensor stands once).
        shapes: The shape of each tensor.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each tensor in the flat vector, with the total length as the last entry."""
        return (0, *itertools.accumulate(self.sizes))

    @property
    def total(self) -> int:
        """Length of the flat vector."""
        return self.offsets[-1]

    def slices(self) -> list[slice]:
        """Return the part of the flat vector that belongs to each tensor."""
        return [slice(start, stop) for start, stop in itertools.pairwise(self.offsets)]

    def unflatten(self, vector: Any) -> list[Any]:
        """Cut a flat vector (numpy or torch, shape (P,)) into views of the tensors' shapes.

        Returns:
            One view a tensor, in order.

        Raises:
            ValueError: The vector has another length.
        """
        if tuple(vector.shape) != (self.total,):
            raise ValueError(f"expected a vector of shape ({self.total},), found {tuple(vector.shape)}")
        # One call of torch's instead of one for each tensor; numpy's arrays have no such method.
        parts = vector.split(self.sizes) if hasattr(vector, "split") else [vector[part] for part in self.slices()]
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def named(self, vector: Any) -> dict[str, Any]:
        """Cut a flat vector into a dict of tensors by name."""
        return dict(zip(self.names, self.unflatten(vector), strict=True))

    def plain(self) -> ParameterLayout:
        """Return the layout with the names of the uncompiled module; see `plain_name`."""
        return ParameterLayout(tuple(map(plain_name, self.names)), self.shapes)

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the SHA-256 of plain names and shapes: equal for equal sets of parameters."""
        text = repr([(plain_name(name), shape) for name, shape in zip(self.names, self.shapes, strict=True)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def of(cls, named_tensors: Sequence[tuple[str, Any]]) -> ParameterLayout:
        """Take names and shapes from (name, tensor) pairs."""
        return cls(
            tuple(name for name, _ in named_tensors),
            tuple(tuple(int(size) for size in tensor.shape) for _, tensor in named_tensors),
        )


def plain_name(name: str) -> str:
    """Return the name of a tensor as the uncompiled module has it.

    `torch.compile` wraps a module and puts `_orig_mod.` into the names of its tensors.

    Args:
        name: Qualified name, as `module.named_parameters()` or a state dict gives it.

    Returns:
        The name without that part.

    Example:
        >>> plain_name("net._orig_mod.0.weight")
        'net.0.weight'
    """
    return name.replace("_orig_mod.", "")
