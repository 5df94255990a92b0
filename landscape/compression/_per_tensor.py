"""What families share that code one tensor after another."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from landscape._layout import ParameterLayout
from landscape.compression._entropy import Decoder, Sink
from landscape.compression._scales import positive_knob
from landscape.compression._tensors import Array


class Part(Protocol):
    """What stands for one tensor."""

    def restore(self) -> Array:
        """Return the quantised tensor."""


P = TypeVar("P", bound=Part)


class PerTensor(abc.ABC, Generic[P]):
    """A family whose tensors know nothing of each other; a subclass says how one of them is coded.

    Attributes:
        name: The public name.
        knob_is: What the knob is, in words.
    """

    name: str
    knob_is: str

    @abc.abstractmethod
    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs to search, coarsest first; at the coarsest one nothing of the weights is left."""

    @abc.abstractmethod
    def quantise_tensor(self, name: str, array: Array, knob: float) -> P:
        """Return what stands for a tensor at a knob; a ValueError says that integers would pass 2^52."""

    @abc.abstractmethod
    def write_tensor(self, part: P, sink: Sink) -> None:
        """Write a tensor, whose name and shape are known to the reader."""

    @abc.abstractmethod
    def read_tensor(self, source: Decoder, name: str, shape: tuple[int, ...]) -> P:
        """Read a tensor; a MeasurementError says that no message has such a stream."""

    def require(self, knob: float) -> None:
        """Refuse what is no knob of this family with a ValueError."""
        positive_knob(knob, self.knob_is)

    def quantise(self, arrays: Mapping[str, Array], knob: float) -> list[P]:
        """Return what stands for each tensor.

        Args:
            arrays: The tensors by name.
            knob: The knob.

        Returns:
            One part a tensor.
        """
        self.require(knob)
        return [self.quantise_tensor(name, array, knob) for name, array in arrays.items()]

    def restore(self, parts: Sequence[P]) -> list[Array]:
        """Return the quantised tensors."""
        return [part.restore() for part in parts]

    def write(self, parts: Sequence[P], sink: Sink) -> None:
        """Write the tensors to a stream."""
        for part in parts:
            self.write_tensor(part, sink)

    def read(self, layout: ParameterLayout, source: Decoder) -> list[P]:
        """Read the tensors of a layout from a stream.

        Args:
            layout: Names and shapes.
            source: The stream.

        Returns:
            One part a tensor.
        """
        return [self.read_tensor(source, name, shape) for name, shape in zip(layout.names, layout.shapes, strict=True)]
