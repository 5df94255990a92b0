"""Groups of units while a network is traced: found equal, split, or pinned as more of the network is seen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable


@dataclasses.dataclass(eq=False)
class Units:
    """A set of interchangeable units, as far as is known.

    Attributes:
        size: Number of units.
        name: For people.
        pinned: Why none of them may move, or None.
        parent: The set it was found to be the same as.
        children: The sets that it was found to consist of.
        age: Order in which sets were met: what is found to be the same goes by the oldest name.
    """

    size: int
    name: str
    pinned: str | None = None
    parent: Units | None = None
    children: tuple[Units, ...] = ()
    age: int = dataclasses.field(default_factory=itertools.count().__next__)

    def root(self) -> Units:
        """Return the set that stands for all that are the same."""
        here = self
        while here.parent is not None:
            here = here.parent
        return here


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Neighbouring entries of an axis that belong to some units, `repeat` entries each, in the units' order."""

    units: Units
    repeat: int = 1
    inner: str | None = None

    @property
    def length(self) -> int:
        """Number of entries."""
        return self.units.size * self.repeat


Layout = tuple[Stretch, ...]


def fresh(size: int, name: str) -> Layout:
    """Return a layout of new units that nothing is known of."""
    return (Stretch(Units(size, name)),)


def fixed(size: int, why: str) -> Layout:
    """Return a layout of entries that cannot move."""
    return (Stretch(Units(size, "", pinned=why)),)


def length(layout: Layout) -> int:
    """Return the number of entries."""
    return sum(stretch.length for stretch in layout)


def current(layout: Layout) -> Layout:
    """Return the layout in terms of the sets as they are known now."""
    found: list[Stretch] = []
    for stretch in layout:
        root = stretch.units.root()
        if root.children:
            found += current(tuple(Stretch(child, stretch.repeat, stretch.inner) for child in root.children))
        else:
            found.append(Stretch(root, stretch.repeat, stretch.inner))
    return tuple(found)


def pin(layout: Layout, why: str) -> None:
    """Forbid the units of a layout to move."""
    for stretch in current(layout):
        if stretch.units.pinned is None:
            stretch.units.pinned = why


def repeated(layout: Layout, count: int) -> Layout:
    """Return the layout with every entry repeated in place, as flattening trailing axes does."""
    if any(stretch.inner for stretch in layout) and count > 1:
        pin(layout, "flattened within attention heads")
    return tuple(Stretch(stretch.units, stretch.repeat * count, stretch.inner) for stretch in layout)


def cut(layout: Layout, sizes: Iterable[int]) -> list[Layout] | None:
    """Cut a layout into pieces, splitting sets of units where a cut goes through them.

    Args:
        layout: The layout.
        sizes: Entries of each piece; they add up to its length.

    Returns:
        The pieces, or None where a cut would go through a unit (the layout is pinned then).
    """
    pieces, rest = [], list(current(layout))
    for size in sizes:
        piece: list[Stretch] = []
        while size:
            head = rest.pop(0)
            if head.length > size:
                count, odd = divmod(size, head.repeat)
                if odd or head.inner or not count:
                    pin(layout, "cut through a unit")
                    return None
                _split(head.units, count)
                rest[:0] = current((head,))
                continue
            piece.append(head)
            size -= head.length
        pieces.append(tuple(piece))
    return pieces


def unify(one: Layout, other: Layout, why: str) -> None:
    """Note that two layouts are permuted alike, because their entries meet one by one.

    Args:
        one: A layout.
        other: Another. Where the two do not fit, neither may move.
        why: What to say then.
    """
    if length(one) != length(other):
        pin(one, why)
        pin(other, why)
        return
    left, right = list(current(one)), list(current(other))
    while left:
        a, b = left[0], right[0]
        if a.units is b.units and (a.repeat, a.inner) == (b.repeat, b.inner):
            left.pop(0), right.pop(0)
        elif a.repeat != b.repeat or a.inner or b.inner:
            pin(one, why)
            pin(other, why)
            return
        elif a.length == b.length:
            _merge(a.units, b.units)
            left, right = list(current(tuple(left[1:]))), list(current(tuple(right[1:])))
        else:
            longer, shorter = (a, b) if a.length > b.length else (b, a)
            _split(longer.units, shorter.units.size)
            left, right = list(current(tuple(left))), list(current(tuple(right)))


def _merge(one: Units, other: Units) -> None:
    if one is not other:
        old, new = sorted((one, other), key=lambda units: units.age)
        new.parent = old
        old.pinned = old.pinned or new.pinned


def _split(units: Units, count: int) -> None:
    sizes = (count, units.size - count)
    units.children = tuple(
        Units(size, f"{units.name}[{which}]", pinned=units.pinned) for which, size in enumerate(sizes)
    )
