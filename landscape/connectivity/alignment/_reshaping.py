"""How reshaping carries units: flattening, moving, adding and picking axes."""

from __future__ import annotations

from typing import Any

from landscape.connectivity.alignment import _units as units
from landscape.connectivity.alignment._values import Value, pin_all


def flatten(node: str, args: Any, kwargs: Any) -> Value:
    """Join axes: the units' with those behind it, or with those before it."""
    x = args[0]
    start = args[1] if len(args) > 1 else kwargs.get("start_dim", 0)
    end = args[2] if len(args) > 2 else kwargs.get("end_dim", -1)
    if not isinstance(x, Value) or x.layout is None:
        return pin_all([args, kwargs], f"{node} flattens what is not followed")
    if start == 1 and end == -1 and x.axis == 1:
        return Value(x.layout, -1, 2, "inner" if x.flattened is None else x.flattened)
    here = x.from_front()
    if x.rank is None or here is None or x.flattened:
        if start == 1 and end == -1 and x.axis == -1:
            return Value(x.layout, -1, 2, "outer") if x.flattened is None else x
        return pin_all(x, f"{node} flattens an unknown number of axes; give batches")
    start, end = start % x.rank, end % x.rank
    rank = x.rank - (end - start)
    if here < start:
        return Value(x.layout, here, rank)
    if here > end:
        return Value(x.layout, here - (end - start), rank)
    if start == end:
        return x
    if rank == 2 and here == start:
        return Value(x.layout, -1, rank, "inner")
    if rank == 2 and here == end == x.rank - 1:
        return Value(x.layout, -1, rank, "outer")
    return pin_all(x, f"{node} flattens units with axes on both sides")


def transpose(node: str, args: Any, kwargs: Any) -> Value:
    """Swap two axes."""
    x, dims = args[0], (*args[1:], *kwargs.values())
    if not isinstance(x, Value) or x.layout is None or x.rank is None or x.flattened or len(dims) != 2:
        return pin_all([args, kwargs], f"{node} moves axes that are not known; give batches")
    one, other = (dim % x.rank for dim in dims)
    swapped = {one: other, other: one}
    here = x.from_front()
    assert here is not None
    return Value(x.layout, swapped.get(here, here), x.rank)


def permute(node: str, args: Any, kwargs: Any) -> Value:
    """Reorder all axes."""
    x = args[0]
    dims = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:] or kwargs.get("dims", ())
    if not isinstance(x, Value) or x.layout is None or x.rank != len(dims) or x.flattened:
        return pin_all([args, kwargs], f"{node} moves axes that are not known; give batches")
    here = x.from_front()
    assert here is not None
    assert x.rank is not None
    return Value(x.layout, [dim % x.rank for dim in dims].index(here), x.rank)


def view(node: str, args: Any, kwargs: Any) -> Value:
    """Join all axes but the first, where that is what the sizes say."""
    x = args[0]
    sizes = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    # view(n, -1): whatever stands first is the number of examples, taken from the tensor itself.
    to_rows = len(sizes) == 2 and sizes[1] == -1 and not isinstance(sizes[0], int)
    if isinstance(x, Value) and x.layout is not None and to_rows:
        return flatten(node, (x, 1), {})
    return pin_all([args, kwargs], f"{node} reshapes what is not followed")


def item(node: str, args: Any, kwargs: Any) -> Any:
    """Pick from a tuple, or from a tensor along other axes than the units'."""
    x, index = args
    if isinstance(x, (tuple, list)) and isinstance(index, (int, slice)):
        return x[index]
    if not isinstance(x, Value) or x.layout is None:
        return pin_all([x, index], f"{node} picks what is not followed")
    picks = index if isinstance(index, tuple) else (index,)
    here = x.from_front()
    if x.rank is None or here is None or x.flattened or not all(_plain(pick) for pick in picks):
        return pin_all(x, f"{node} picks from an unknown number of axes; give batches")
    if Ellipsis in picks:
        at = picks.index(Ellipsis)
        missing = x.rank - sum(pick is not None and pick is not Ellipsis for pick in picks)
        picks = (*picks[:at], *[slice(None)] * missing, *picks[at + 1 :])
    axis, out = 0, 0
    place = None
    for pick in picks:
        if pick is None:
            out += 1
            continue
        if axis == here:
            if pick != slice(None):
                return pin_all(x, f"{node} picks single units")
            place = out
        out += not isinstance(pick, int)
        axis += 1
    place = out + (here - axis) if place is None else place
    return Value(x.layout, place, out + x.rank - axis)


def _plain(pick: Any) -> bool:
    return pick is None or pick is Ellipsis or isinstance(pick, (int, slice))


def expand(node: str, args: Any, kwargs: Any) -> Value:
    """Repeat along axes of size one; the units' own is not one of them."""
    x = args[0]
    sizes = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    if not isinstance(x, Value) or x.layout is None or x.flattened or units.length(x.layout) == 1:
        return pin_all([args, kwargs], f"{node} repeats what is not followed")
    here = x.from_back()
    if here is None or not sizes:
        return pin_all(x, f"{node} repeats along an unknown number of axes; give batches")
    return Value(x.layout, here, len(sizes))


def unsqueeze(node: str, args: Any, kwargs: Any) -> Value:
    """Put in an axis of size one."""
    x, axis = args[0], args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(x, Value) or x.layout is None or x.rank is None or x.flattened or not isinstance(axis, int):
        return pin_all([args, kwargs], f"{node} adds an axis to an unknown number of axes; give batches")
    here, place = x.from_front(), axis % (x.rank + 1)
    assert here is not None
    return Value(x.layout, here + (place <= here), x.rank + 1)
