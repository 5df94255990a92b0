"""The tensors of a network during tracing: what permutes each of their axes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from landscape.connectivity.alignment import _units as units
from landscape.connectivity.alignment._spec import Part, PermutationSpec, named_tensors
from landscape.connectivity.alignment._units import Layout


class TensorAxes:
    """Collects, for each parameter and buffer, the layout of each axis; two layouts of one axis are the same.

    Args:
        model: The traced model.
    """

    def __init__(self, model: nn.Module):
        self._names = {id(tensor): name for name, tensor in named_tensors(model).items()}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
        self._axes: dict[str, dict[int, Layout]] = {}

    def knows(self, tensor: torch.Tensor | None) -> bool:
        """Whether a tensor is a parameter or buffer of the model itself, not computed from some."""
        return id(tensor) in self._names

    def name(self, tensor: torch.Tensor) -> str:
        """Return the name of a tensor of the model."""
        return self._names[id(tensor)]

    def bind(
        self, tensor: torch.Tensor, axis: int, layout: Layout | None, why: str = "meets what cannot move"
    ) -> Layout:
        """Say what permutes an axis of a tensor.

        Args:
            tensor: A parameter or buffer of the model.
            axis: One of its axes, from the front.
            layout: What permutes it; None where nothing may.
            why: What to say of units that are found to be unable to move.

        Returns:
            The layout of the axis, with what was known of it before.
        """
        name = self.name(tensor)
        size = self._shapes[name][axis]
        layout = units.fixed(size, why) if layout is None else layout
        known = self._axes.setdefault(name, {}).setdefault(axis, layout)
        if known is not layout:
            units.unify(known, layout, f"{name} is used in two ways")
        return known

    def bound(self, tensor: torch.Tensor, axis: int) -> Layout | None:
        """Return what permutes an axis of a tensor, as far as is known."""
        return self._axes.get(self.name(tensor), {}).get(axis)

    def pin(self, tensor: torch.Tensor, why: str) -> None:
        """Forbid all axes of a tensor to move."""
        for axis in range(tensor.ndim):
            self.bind(tensor, axis, None, why)

    def spec(self) -> PermutationSpec:
        """Return what was found: the spec, without groups of one unit, with the reasons of those that may not move."""
        pinned: dict[str, str] = {}
        axes: dict[str, list[tuple[Part, ...]]] = {}
        for name, shape in self._shapes.items():
            if name not in self._axes:
                continue
            entries: list[tuple[Part, ...]] = []
            for axis, size in enumerate(shape):
                layout = self._axes[name].get(axis)
                entries.append((Part(None, size),) if layout is None else tuple(self._parts(layout, pinned)))
            if any(part.group for parts in entries for part in parts):
                axes[name] = entries
        return PermutationSpec(axes, pinned)

    def parts(self, layout: Layout) -> tuple[Part, ...]:
        """Return a layout as parts of the spec that `spec` returns."""
        return tuple(self._parts(layout, {}))

    @staticmethod
    def _parts(layout: Layout, pinned: dict[str, str]) -> Iterator[Part]:
        for stretch in units.current(layout):
            if stretch.units.pinned is not None:
                if stretch.units.name:
                    pinned[stretch.units.name] = stretch.units.pinned
                yield Part(None, stretch.length)
            elif stretch.units.size == 1 and stretch.inner is None:
                yield Part(None, stretch.length)
            else:
                yield Part(stretch.units.name, stretch.length, stretch.repeat, stretch.inner)
