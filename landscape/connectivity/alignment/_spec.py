"""Which axes of which tensors the permutation symmetries of a network permute together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of an axis whose entries belong to the units of one group, or stay.

    Attributes:
        group: Name of the group that permutes it, or None where nothing may move.
        length: Number of entries: units × repeat. None stands for the whole axis.
        repeat: Neighbouring entries that belong to one unit: the pixels of a channel after flattening, the dimensions
            of an attention head.
        inner: Name of a family of permutations of the entries within each unit, or None where they keep their order.
    """

    group: str | None
    length: int | None = None
    repeat: int = 1
    inner: str | None = None


Axis = str | Part | Sequence[Part] | None


@dataclasses.dataclass(frozen=True)
class Permutation:
    """How the units of a group are reordered.

    Attributes:
        units: Unit u of the result is unit units[u] of the original, shape (n,).
        inner: For each family, entry e of unit u of the result is entry inner[u, e] of unit units[u], shape (n, d).
    """

    units: np.ndarray
    inner: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def is_identity(self) -> bool:
        """Whether everything stays where it is."""
        still = bool((self.units == np.arange(len(self.units))).all())
        return still and all(bool((rows == np.arange(rows.shape[1])).all()) for rows in self.inner.values())


class PermutationSpec:
    """The permutation symmetries of a network: for each tensor, the group that each of its axes belongs to.

    `trace_permutations` finds it for most networks. Written by hand, for a network of two layers:

        PermutationSpec({
            "0.weight": ("hidden", None), "0.bias": ("hidden",),   # (rows, columns)
            "2.weight": (None, "hidden"), "2.bias": (None,),
        })

    A permutation of a group's units, done on all of its axes together, must leave the function as it is. An axis is
    None (nothing moves), the name of a group, a `Part`, or several parts one after another. Tensors that are left
    out stay.

    Args:
        axes: For each parameter or buffer by name, one entry an axis.
        pinned: Units that may not move, with the reason, for people to read.

    Attributes:
        axes: The same, as parts.
        pinned: Units that tracing found unable to move, with the reason.
        sizes: Number of units of each group.
        families: For each group, its families of inner permutations with the number of entries a unit.

    Source: Ainsworth et al. 2023, arXiv:2209.04836.
    """

    def __init__(self, axes: Mapping[str, Sequence[Axis]], pinned: Mapping[str, str] | None = None):
        self.pinned = dict(pinned or {})
        self.axes = {name: tuple(_parts(axis) for axis in entries) for name, entries in axes.items()}
        self.sizes: dict[str, int] = {}
        self.families: dict[str, dict[str, int]] = {}

    def __repr__(self) -> str:
        return f"PermutationSpec({len(self.axes)} tensors, groups {self.groups or tuple(self._names())})"

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, once the spec is fitted to a model."""
        return tuple(self.sizes)

    def _names(self) -> dict[str, None]:
        return {part.group: None for _, _, _, part in self.occurrences() if part.group is not None}

    def occurrences(self) -> Iterator[tuple[str, int, int, Part]]:
        """Yield (tensor, axis, offset of the part, part) of all parts that have a group."""
        for name, axes in self.axes.items():
            for axis, parts in enumerate(axes):
                offset = 0
                for part in parts:
                    if part.group is not None:
                        yield name, axis, offset, part
                    offset += part.length or 0

    def fitted(self, model: nn.Module) -> PermutationSpec:
        """Check the spec against a model and fill in what follows from its shapes.

        Args:
            model: The model that it describes.

        Returns:
            The spec with all lengths, and the sizes of the groups.

        Raises:
            ValueError: A tensor is unknown, or an axis does not fit.
        """
        tensors = named_tensors(model)
        filled: dict[str, list[tuple[Part, ...]]] = {}
        for name, axes in self.axes.items():
            if name not in tensors:
                raise ValueError(f"the spec names a tensor {name!r} that {type(model).__name__} has not")
            shape = tuple(tensors[name].shape)
            if len(axes) != len(shape):
                raise ValueError(f"the spec gives {name!r} {len(axes)} axes; it has shape {shape}")
            filled[name] = [_filled(name, parts, size) for parts, size in zip(axes, shape, strict=True)]
        other = PermutationSpec(filled, self.pinned)
        for name, axis, _, part in other.occurrences():
            assert part.length is not None
            assert part.group is not None
            units, rest = divmod(part.length, part.repeat)
            known = other.sizes.setdefault(part.group, units)
            if rest or units != known:
                raise ValueError(
                    f"axis {axis} of {name!r} has {part.length} entries for the group {part.group!r}, {part.repeat} a "
                    f"unit; elsewhere the group has {known} units"
                )
            inner = other.families.setdefault(part.group, {})
            if part.inner is not None and inner.setdefault(part.inner, part.repeat) != part.repeat:
                raise ValueError(
                    f"axis {axis} of {name!r} has {part.repeat} entries a unit for the inner family {part.inner!r} of "
                    f"{part.group!r}, elsewhere {inner[part.inner]}"
                )
        return other

    def identity(self) -> dict[str, Permutation]:
        """Return the permutations that move nothing, of a fitted spec."""
        return {
            group: Permutation(
                np.arange(size), {name: np.tile(np.arange(d), (size, 1)) for name, d in self.families[group].items()}
            )
            for group, size in self.sizes.items()
        }

    def random(self, seed: int = 0) -> dict[str, Permutation]:
        """Draw permutations of all groups of a fitted spec."""
        generator = np.random.default_rng(seed)
        return {
            group: Permutation(
                generator.permutation(size),
                {
                    name: generator.permuted(np.tile(np.arange(d), (size, 1)), axis=1)
                    for name, d in self.families[group].items()
                },
            )
            for group, size in self.sizes.items()
        }

    def permute(
        self, name: str, tensor: torch.Tensor, permutations: Mapping[str, Permutation], leave: int | None = None
    ) -> torch.Tensor:
        """Return a tensor with its axes permuted, a copy where anything moves.

        Args:
            name: Its name; one that the spec does not know stays.
            tensor: The tensor.
            permutations: A permutation for each group that moves.
            leave: An axis that stays.

        Returns:
            The tensor.
        """
        for axis, parts in enumerate(self.axes.get(name, ())):
            if axis != leave and any(part.group in permutations for part in parts):
                indices = torch.from_numpy(_indices(parts, permutations)).to(tensor.device)
                tensor = tensor.index_select(axis, indices)
        return tensor

    def apply(self, model: nn.Module, permutations: Mapping[str, Permutation]) -> None:
        """Permute the units of a model in place; its function stays as it is.

        Args:
            model: The model that the spec was fitted to.
            permutations: A permutation for each group that moves.
        """
        tensors = named_tensors(model)
        with torch.no_grad():
            for name in self.axes:
                tensors[name].copy_(self.permute(name, tensors[name], permutations))


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, tied ones once, under their first name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _parts(axis: Axis) -> tuple[Part, ...]:
    if axis is None or isinstance(axis, str):
        return (Part(axis),)
    return (axis,) if isinstance(axis, Part) else tuple(axis)


def _filled(name: str, parts: tuple[Part, ...], size: int) -> tuple[Part, ...]:
    if len(parts) == 1 and parts[0].length is None:
        return (dataclasses.replace(parts[0], length=size),)
    if sum(part.length or 0 for part in parts) != size or any(part.length is None for part in parts):
        lengths = [part.length for part in parts]
        raise ValueError(f"the parts of an axis of {name!r} have lengths {lengths}; they must add up to {size}")
    return parts


def _indices(parts: Sequence[Part], permutations: Mapping[str, Permutation]) -> np.ndarray:
    found, offset = [], 0
    for part in parts:
        assert part.length is not None
        here = np.arange(part.length)
        if part.group is not None and part.group in permutations:
            permutation = permutations[part.group]
            entries = np.arange(part.repeat)[None] if part.inner is None else permutation.inner[part.inner]
            here = (permutation.units[:, None] * part.repeat + entries).reshape(-1)
        found.append(offset + here)
        offset += part.length
    return np.concatenate(found)
