"""How functions and methods of tensors carry units: elementwise, joining, cutting, reducing."""

from __future__ import annotations

import builtins
import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from landscape.connectivity.alignment import _units as units
from landscape.connectivity.alignment._reshaping import expand, flatten, item, permute, transpose, unsqueeze, view
from landscape.connectivity.alignment._values import NOTHING_MOVES, Value, pin_all, values_in


def meet(values: list[Value], why: str) -> Value:
    """Combine tensors entry by entry: units that meet are permuted alike.

    Args:
        values: The tensors, which broadcast against each other.
        why: What to say where units meet what cannot move.

    Returns:
        What comes out.
    """
    moving = [value for value in values if value.layout is not None]
    if not moving:
        return Value(rank=max((value.rank for value in values if value.rank is not None), default=None))
    first = max(moving, key=lambda value: (value.rank or 0, units.length(value.layout or ())))
    assert first.layout is not None
    for other in values:
        if other is first:
            continue
        if other.layout is None:
            pin_all(first, why)
            continue
        here, there = first.from_back(), other.from_back()
        if units.length(other.layout) == 1 and other.flattened is None:
            units.pin(other.layout, why)  # one number for all units
        elif (here == there and here is not None) or (first.axis == other.axis and first.rank == other.rank):
            if first.flattened != other.flattened:
                pin_all([first, other], why)
            units.unify(first.layout, other.layout, why)
        else:
            pin_all([first, other], why)
    return first


def _elementwise(node: str, args: Any, kwargs: Any) -> Value:
    values = list(values_in([args, kwargs]))
    if not all(isinstance(value, Value) for value in values):
        return pin_all([args, kwargs], f"{node} combines what is not followed")
    return meet([value for value in values if isinstance(value, Value)], f"meets what cannot move in {node}")


def _join(node: str, args: Any, kwargs: Any) -> Value:
    tensors = args[0] if args else kwargs["tensors"]
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if not isinstance(tensors, (tuple, list)):
        return pin_all([args, kwargs], f"{node} joins what is not followed")
    values = [value for value in tensors if isinstance(value, Value)]
    if len(values) != len(tensors) or not isinstance(axis, int) or not values:
        return pin_all([args, kwargs], f"{node} joins what is not followed")
    ranks = {value.rank for value in values if value.rank is not None}
    first = next((value for value in values if value.layout is not None), NOTHING_MOVES)
    axis = _from_front(axis, first.rank if first.rank is not None else next(iter(ranks), None))
    if first.layout is None or axis is None:
        return pin_all(values, f"{node} joins along an axis that is not known; give batches")
    here = first.from_front() if axis >= 0 else first.from_back()
    if here is None:
        return pin_all(values, f"{node} joins along an axis that is not known; give batches")
    if axis != here:
        return meet(values, f"meets what cannot move in {node}")
    places = {(value.from_front(), value.from_back()) for value in values}
    if any(value.layout is None or value.flattened for value in values) or len(places) > 1:
        return pin_all(values, f"{node} joins units with what cannot move")
    layout = tuple(stretch for value in values if value.layout is not None for stretch in value.layout)
    return dataclasses.replace(first, layout=layout)


def _pieces(node: str, args: Any, kwargs: Any, sizes: Callable[[int, Any], list[int] | None]) -> Any:
    x = args[0]
    how = (
        args[1]
        if len(args) > 1
        else next((kwargs[k] for k in ("chunks", "split_size", "split_size_or_sections") if k in kwargs), None)
    )
    axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if not isinstance(x, Value) or not isinstance(axis, int) or x.layout is None:
        return pin_all([args, kwargs], f"{node} cuts what is not followed")
    here = x.from_front() if axis >= 0 else x.from_back()
    counts = sizes(units.length(x.layout), how)
    if here is None or x.flattened or counts is None:
        return pin_all(x, f"{node} cuts along an axis that is not known; give batches")
    if here != axis:
        return pin_all(x, f"{node} cuts along another axis")
    pieces = units.cut(x.layout, counts)
    if pieces is None:
        return NOTHING_MOVES
    return [dataclasses.replace(x, layout=piece) for piece in pieces]


def _chunks(size: int, count: Any) -> list[int] | None:
    if not isinstance(count, int):
        return None
    each = -(-size // count)
    return [min(each, size - start) for start in range(0, size, each)]


def _splits(size: int, how: Any) -> list[int] | None:
    if isinstance(how, int):
        return [min(how, size - start) for start in range(0, size, how)]
    if isinstance(how, (list, tuple)) and all(isinstance(part, int) for part in how) and sum(how) == size:
        return list(how)
    return None


def _chunk(node: str, args: Any, kwargs: Any) -> Any:
    return _pieces(node, args, kwargs, _chunks)


def _split(node: str, args: Any, kwargs: Any) -> Any:
    return _pieces(node, args, kwargs, _splits)


def _reduce(node: str, args: Any, kwargs: Any) -> Value:
    x = args[0]
    given = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(x, Value) or x.layout is None or given is None:
        return pin_all([args, kwargs], f"{node} takes units together")
    dims = [given] if isinstance(given, int) else list(given)
    kept = bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
    here = x.from_front()
    if x.rank is None or here is None or x.flattened:
        return pin_all(x, f"{node} reduces an unknown number of axes; give batches")
    gone = {dim % x.rank for dim in dims}
    if here in gone:
        return pin_all(x, f"{node} takes units together")
    if kept:
        return x
    return Value(x.layout, here - sum(dim < here for dim in gone), x.rank - len(gone))


def _attribute(node: str, args: Any, kwargs: Any) -> Any:
    return (
        None
        if args[1] in ("shape", "dtype", "device", "ndim", "requires_grad")
        else pin_all(args, f"{node} is not followed")
    )


def _count(node: str, args: Any, kwargs: Any) -> Any:
    return None


def _unchanged(node: str, args: Any, kwargs: Any) -> Any:
    return args[0]


def _from_front(axis: int, rank: int | None) -> int | None:
    return axis if axis >= 0 or rank is None else axis + rank


_NAMES = {
    _elementwise: (
        "add add_ sub sub_ mul mul_ div div_ truediv iadd isub imul itruediv neg pow rsub maximum minimum where lerp "
        "clamp clamp_ relu relu_ relu6 gelu silu mish elu elu_ selu celu leaky_relu leaky_relu_ hardtanh hardswish "
        "hardsigmoid sigmoid sigmoid_ tanh tanh_ softplus logsigmoid softsign tanhshrink threshold softmax log_softmax "
        "exp log sqrt rsqrt abs sign sin cos square erf dropout alpha_dropout dropout1d dropout2d dropout3d "
        "feature_dropout masked_fill masked_fill_ nan_to_num"
    ),
    _join: "cat concat concatenate",
    _chunk: "chunk",
    _split: "split",
    _reduce: "mean sum amax amin logsumexp",
    flatten: "flatten",
    transpose: "transpose swapaxes swapdims",
    permute: "permute",
    view: "view reshape",
    item: "getitem",
    expand: "expand",
    unsqueeze: "unsqueeze",
    _attribute: "getattr",
    _count: "size dim numel len",
    _unchanged: "contiguous clone detach float double half to type_as requires_grad_",
}
METHODS: dict[str, Callable[..., Any]] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
_HOMES = (torch, F, operator, builtins)
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    getattr(home, name): rule for name, rule in METHODS.items() for home in _HOMES if hasattr(home, name)
}
_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
_SPATIAL = ("interpolate", *(f"{pool}{n}d" for pool in _POOLS for n in (1, 2, 3)))


def _pool(node: str, args: Any, kwargs: Any) -> Value:
    x = args[0] if args else kwargs["input"]
    if isinstance(x, Value) and x.layout is not None and (x.axis != 1 or x.flattened):
        return pin_all(x, f"{node} works along the axis of the units")
    return x if isinstance(x, Value) else pin_all(x, f"{node} takes what is not followed")


FUNCTIONS |= {getattr(F, name): _pool for name in _SPATIAL}
FUNCTIONS |= {getattr(torch, name): _pool for name in _SPATIAL if hasattr(torch, name)}
