"""What is known of a tensor inside a network while its symmetries are traced: where its units lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from landscape.connectivity.alignment import _units as units
from landscape.connectivity.alignment._units import Layout


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor whose units lie along one axis; along all others nothing moves.

    Attributes:
        layout: The units along the axis, or None where nothing moves at all.
        axis: The axis, counted from the front, or from the back if negative.
        rank: Number of axes, where it is known.
        flattened: "inner" where the units' axis was flattened with those behind it, "outer" with those before it, by a
            number of entries that only the next layer tells.
    """

    layout: Layout | None = None
    axis: int = -1
    rank: int | None = None
    flattened: str | None = None

    def from_back(self) -> int | None:
        """Return the axis counted from the back (−1 is the last), where it is known."""
        if self.axis < 0:
            return self.axis
        return None if self.rank is None else self.axis - self.rank

    def from_front(self) -> int | None:
        """Return the axis counted from the front, where it is known."""
        if self.axis >= 0:
            return self.axis
        return None if self.rank is None else self.axis + self.rank

    def laid_out(self, size: int) -> Layout | None:
        """Return the layout along an axis of a size, as the layer that takes it knows it; None where nothing moves."""
        if self.layout is None:
            return None
        here = units.length(self.layout)
        count, odd = divmod(size, here)
        if odd or (count != 1 and self.flattened is None):
            units.pin(self.layout, f"{here} entries meet a layer of {size}")
            return None
        if count == 1:
            return self.layout
        return units.repeated(self.layout, count) if self.flattened == "inner" else self.layout * count


NOTHING_MOVES = Value()


@dataclasses.dataclass(frozen=True)
class Hidden:
    """Something that units went into in a way that is not followed: whoever uses it pins them."""

    layouts: tuple[Layout, ...]


def values_in(something: Any) -> Iterator[Value | Hidden]:
    """Yield the traced tensors of nested arguments."""
    if isinstance(something, (Value, Hidden)):
        yield something
    elif isinstance(something, (tuple, list)):
        for item in something:
            yield from values_in(item)
    elif isinstance(something, dict):
        yield from values_in(list(something.values()))
    elif isinstance(something, slice):
        yield from values_in([something.start, something.stop, something.step])


def pin_all(something: Any, why: str) -> Value:
    """Pin the units of all tensors among some arguments, and return the value of what comes out."""
    for value in values_in(something):
        layouts = value.layouts if isinstance(value, Hidden) else (value.layout,)
        for layout in layouts:
            if layout is not None:
                units.pin(layout, why)
    return NOTHING_MOVES
