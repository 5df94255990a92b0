"""The families of codes, by name: each is one knob, a quantiser, and how its parts stand in a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from landscape._layout import ParameterLayout
from landscape.compression._channel_grid import UniformChannel
from landscape.compression._codebook import Codebook
from landscape.compression._entropy import Decoder, Sink
from landscape.compression._grid import UniformTensor
from landscape.compression._low_rank_grid import LowRankGrid
from landscape.compression._per_tensor import PerTensor
from landscape.compression._pruned import Pruned
from landscape.compression._svd import TruncatedSVD
from landscape.compression._tensors import Array


class Family(Protocol):
    """What a family of codes has to say; its parts are its own affair.

    Attributes:
        name: The public name.
    """

    @property
    def name(self) -> str:
        """The public name."""

    def ladder(self, layout: ParameterLayout) -> npt.NDArray[np.float64]:
        """Return the knobs to search, coarsest first; at the coarsest one nothing of the weights is left."""

    def quantise(self, arrays: Mapping[str, Array], knob: float) -> Sequence[Any]:
        """Return the parts that stand for the arrays at a knob."""

    def restore(self, parts: Sequence[Any]) -> list[Array]:
        """Return the arrays that the parts stand for, one a tensor, always the same to the last bit."""

    def write(self, parts: Sequence[Any], sink: Sink) -> None:
        """Write the parts; names and shapes are known to the reader."""

    def read(self, layout: ParameterLayout, source: Decoder) -> Sequence[Any]:
        """Read what `write` wrote, and refuse what it could not have written."""


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (UniformTensor(), UniformChannel(), Codebook(), Pruned(), TruncatedSVD(), LowRankGrid())
}


def family_of(name: str) -> Family:
    """Look a family up by its public name.

    Args:
        name: The name.

    Returns:
        The family.

    Raises:
        ValueError: There is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"there is no family '{name}'; expected one of: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def quantised(codec: Family, arrays: Mapping[str, Array], knob: float) -> Iterator[tuple[Sequence[str], Sequence[Any]]]:
    """Quantise tensors one by one, where those of the family know nothing of each other, else all together.

    Args:
        codec: The family.
        arrays: The tensors by name.
        knob: The knob.

    Yields:
        Names of some tensors, and the parts that stand for them, in the order of the stream.
    """
    if not isinstance(codec, PerTensor):
        yield list(arrays), codec.quantise(arrays, knob)
        return
    codec.require(knob)
    for name, array in arrays.items():
        yield [name], [codec.quantise_tensor(name, array, knob)]


def restored(codec: Family, layout: ParameterLayout, source: Decoder) -> list[Array]:
    """Read a stream, and return the tensors that it stands for; parts are kept one at a time where that can be.

    Args:
        codec: The family.
        layout: Names and shapes of the tensors.
        source: The stream.

    Returns:
        The tensors, in order.
    """
    if not isinstance(codec, PerTensor):
        return codec.restore(codec.read(layout, source))
    named = zip(layout.names, layout.shapes, strict=True)
    return [codec.read_tensor(source, name, shape).restore() for name, shape in named]
