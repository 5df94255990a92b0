"""Open batches of any structure: find the tensors in nested containers and objects, and rebuild the same structure."""

from __future__ import annotations

import copy
import dataclasses
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch.nn.utils.rnn import PackedSequence

_ATOMS: tuple[Any, ...] = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.ModuleType,
    torch.Tensor,
    torch.Size,
    torch.Generator,
    torch.nn.Module,
    PackedSequence,
)
# Objects are opened as far as batches of libraries are nested (a graph batch holds a store that holds a dict).
_DEEPEST = 4


@dataclasses.dataclass(frozen=True)
class Opened:
    """A container that was opened.

    Attributes:
        children: What it holds, in order.
        rebuild: Makes a container of the same kind with other children.
        sequence: Whether it is a list or a tuple without names, which may hold one entry an example.
    """

    children: list[Any]
    rebuild: Callable[[Sequence[Any]], Any]
    sequence: bool = False


def opened(value: Any) -> Opened | None:
    """Open one level of a container.

    Lists, tuples, named tuples, deques and mappings (also `UserDict`, which Hugging Face's collators return) are
    containers. Dataclasses and other objects are containers if tensors can be reached through their attributes.

    Args:
        value: Anything.

    Returns:
        The container's children; None for a leaf.
    """
    if isinstance(value, _ATOMS):
        return None
    if isinstance(value, Mapping):
        keys = list(value)
        return Opened([value[key] for key in keys], lambda children: _mapping(value, keys, children))
    if isinstance(value, tuple):
        make = type(value) if hasattr(value, "_fields") else None
        rebuild = (lambda children: make(*children)) if make else type(value)
        return Opened(list(value), rebuild, sequence=make is None)
    if isinstance(value, (list, deque)):
        return Opened(list(value), type(value), sequence=isinstance(value, list))
    if not holds_tensors(value):
        return None
    names = _attributes(value)
    return Opened([getattr(value, name) for name in names], lambda children: _object(value, names, children))


def holds_tensors(value: Any, depth: int = _DEEPEST) -> bool:
    """Whether a tensor can be reached from a value through containers and attributes, `depth` levels at most."""
    if isinstance(value, (torch.Tensor, PackedSequence)):
        return True
    if isinstance(value, _ATOMS) or not depth:
        return False
    if isinstance(value, Mapping):
        inner: Any = value.values()
    elif isinstance(value, (list, tuple, deque)):
        inner = value
    else:
        inner = [getattr(value, name, None) for name in _attributes(value)]
    return any(holds_tensors(entry, depth - 1) for entry in inner)


def leaves(value: Any) -> list[Any]:
    """Return the leaves in order: tensors, and whatever cannot be opened. A packed sequence gives its four parts."""
    if is_packed(value):
        return [value.data, value.batch_sizes, value.sorted_indices, value.unsorted_indices]
    inside = opened(value)
    return [value] if inside is None else [leaf for child in inside.children for leaf in leaves(child)]


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to every leaf and rebuild the structure; of a packed sequence, to its tensors.

    Args:
        function: Takes a leaf and returns another one.
        value: The structure.

    Returns:
        New containers of the same kinds with the new leaves.
    """
    if is_packed(value):
        orders = (value.sorted_indices, value.unsorted_indices)
        moved = [None if order is None else function(order) for order in orders]
        return PackedSequence(function(value.data), value.batch_sizes, *moved)  # the sizes stay on the CPU
    inside = opened(value)
    return function(value) if inside is None else inside.rebuild([mapped(function, child) for child in inside.children])


def is_packed(value: Any) -> TypeGuard[PackedSequence]:
    """Whether a value is a packed sequence of recurrent networks."""
    return isinstance(value, PackedSequence)


def _attributes(value: Any) -> list[str]:
    slots = [name for kind in type(value).__mro__ for name in _listed(kind.__dict__.get("__slots__", ()))]
    named = [name for name in slots if name not in ("__dict__", "__weakref__") and hasattr(value, name)]
    return [*getattr(value, "__dict__", ()), *named]


def _listed(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _mapping(value: Mapping[Any, Any], keys: Sequence[Any], children: Sequence[Any]) -> Any:
    entries = dict(zip(keys, children, strict=True))
    if type(value) is dict:
        return entries
    try:
        other: Any = copy.copy(value)
        for key, child in entries.items():
            other[key] = child
    except TypeError:  # a mapping that cannot be written to
        return type(value)(entries)  # type: ignore[call-arg]
    return other


def _object(value: Any, names: Sequence[str], children: Sequence[Any]) -> Any:
    other = copy.copy(value)
    table = getattr(other, "__dict__", {})
    for name, child in zip(names, children, strict=True):
        if name in table:
            table[name] = child
        else:
            object.__setattr__(other, name, child)  # a slot; past a frozen dataclass's own __setattr__
    return other
