"""Find references to a module's tensors outside its tables: attributes, containers, closures, arguments.

A module that keeps `self.decay = [self.net.weight]`, or whose step closes over a parameter, uses that tensor without
looking it up in the table of parameters. The walk follows attributes, lists, dicts, tuples, sets, closures, defaults
and bound arguments, as `_snapshot` does, and the global names that user functions read. It cannot see views of a
tensor, iterators, and what C extensions hold.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from landscape._kinds import LONGEST_WALK, is_passed_by
from landscape._private import MACHINE_NAMES, REGISTRIES

_FIXED = (tuple, set, frozenset)
_CONTAINERS = (dict, list, collections.deque, *_FIXED)
_PLAIN = frozenset({*_CONTAINERS, collections.OrderedDict})
# Functions of these packages never name a user's parameter, so their closures and globals are not searched.
_LIBRARIES = frozenset({"torch", "lightning", "pytorch_lightning", "torchmetrics", "numpy", "builtins", "functools"})


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One entry of a mutable holder: `table[key]` was `own` when it was found.

    Attributes:
        table: A dict, list or deque, or an adapter with the same item access.
        key: Key, index or attribute name.
        own: The object that the entry holds.
        parent: The entry that leads to the table; None where the walk began there.
    """

    table: Any
    key: Any
    own: Any
    parent: Entry | None

    def unchanged(self) -> bool:
        """Return whether the entry still holds the same object."""
        try:
            return self.table[self.key] is self.own
        except (LookupError, AttributeError, ValueError):  # ValueError: an empty cell
            return False

    def restore(self) -> None:
        """Put the own object back, where the holder still has such an entry."""
        try:
            if self.table[self.key] is not self.own:
                self.table[self.key] = self.own
        except (LookupError, AttributeError, ValueError):
            return  # the step emptied the holder; the isolation of the measurement restores it

    def chain(self) -> Iterator[Entry]:
        """Yield this entry and those that lead to it."""
        entry: Entry | None = self
        while entry is not None:
            yield entry
            entry = entry.parent


def find_references(
    module: nn.Module, others: Iterable[Any], targets: Mapping[int, torch.Tensor]
) -> tuple[list[Entry], list[Entry]]:
    """Find the entries outside a module's tables that hold its tensors.

    Args:
        module: The module; its submodules are searched too.
        others: Further objects that its loss uses, such as the loss function.
        targets: The tensors to find, by their id.

    Returns:
        Entries that hold such a tensor, and entries that hold a tuple or set with such a tensor inside.
    """
    walk = _Walk(module, targets)
    for part in module.modules():
        walk.visit(part, None)
    for other in others:
        walk.visit(other, None)
    return walk.tensors, walk.fixed


def replaced(value: Any, substitutes: Mapping[int, Any]) -> Any:
    """Return a tuple or set with other tensors in it, or the value itself where nothing in it is replaced."""
    items = [
        replaced(item, substitutes) if isinstance(item, _FIXED) else substitutes.get(id(item), item) for item in value
    ]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    return type(value)._make(items) if hasattr(type(value), "_make") else type(value)(items)


class _Walk:
    def __init__(self, module: nn.Module, targets: Mapping[int, torch.Tensor]):
        self.tensors: list[Entry] = []
        self.fixed: list[Entry] = []
        self._targets = targets
        self._registered = {id(part) for part in module.modules()}
        self._seen: dict[int, Any] = {}
        self._stack: list[tuple[Any, Entry | None]] = []

    def visit(self, root: Any, parent: Entry | None) -> None:
        self._stack.append((root, parent))
        while self._stack:
            value, entry = self._stack.pop()
            if not self._ends(value):
                self._seen[id(value)] = value  # the reference keeps the id from being reused
                self._follow(value, entry)

    def _ends(self, value: Any) -> bool:
        kind: Any = type(value)
        return id(value) in self._seen or _is_leaf(kind)

    def _follow(self, value: Any, entry: Entry | None) -> None:
        if isinstance(value, types.FunctionType):
            self._function(value, entry)
        elif isinstance(value, types.MethodType):
            self._stack += [(value.__self__, entry), (value.__func__, entry)]
        elif isinstance(value, functools.partial):
            self._stack.append((value.func, entry))
            self._entries(_Arguments(value), ["args"], entry)
            self._entries(value.keywords, list(value.keywords), entry)
        elif isinstance(value, _FIXED):
            self._stack += [(item, entry) for item in value] if len(value) <= LONGEST_WALK else []
        else:
            if isinstance(value, _CONTAINERS) and 0 < len(value) <= LONGEST_WALK:
                self._entries(value, list(value) if isinstance(value, dict) else range(len(value)), entry)
            self._object(value, entry)

    def _object(self, value: Any, entry: Entry | None) -> None:
        table = getattr(value, "__dict__", None)
        if isinstance(table, dict):
            outside = MACHINE_NAMES.union(REGISTRIES) if id(value) in self._registered else MACHINE_NAMES
            self._entries(table, [name for name in table if name not in outside], entry)
        kind: Any = type(value)
        if slots := _slots(kind):
            self._entries(_Attributes(value), slots, entry)
        if isinstance(value, nn.Module):
            self._class(type(value), entry)

    def _class(self, kind: type, entry: Entry | None) -> None:
        """Search what the methods of a user's class close over."""
        for base in kind.__mro__:
            if id(base) in self._seen or _package(base.__module__) in _LIBRARIES:
                continue
            self._seen[id(base)] = base
            found = [getattr(m, "__func__", None) or getattr(m, "fget", None) or m for m in vars(base).values()]
            self._stack += [(method, entry) for method in found if isinstance(method, types.FunctionType)]

    def _function(self, function: types.FunctionType, entry: Entry | None) -> None:
        if _package(function.__module__) in _LIBRARIES and function.__closure__ is None:
            return
        for cell in function.__closure__ or ():
            self._entries(_Cell(cell), ["cell_contents"], entry)
        self._entries(_Attributes(function), ["__defaults__"], entry)
        for table in (function.__kwdefaults__ or {}, function.__dict__):
            self._entries(table, list(table), entry)
        if _package(function.__module__) in _LIBRARIES:
            return
        names = [name for name in _names(function.__code__) if self._is_followed(function, name)]
        self._entries(function.__globals__, names, entry)

    def _is_followed(self, function: types.FunctionType, name: str) -> bool:
        value = function.__globals__.get(name)
        helper = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
        return helper or isinstance(value, (torch.Tensor, *_CONTAINERS))

    def _entries(self, table: Any, keys: Iterable[Any], parent: Entry | None) -> None:
        for key in keys:
            try:
                value = table[key]
            except (LookupError, AttributeError, ValueError):
                continue
            if id(value) in self._targets:
                self.tensors.append(Entry(table, key, value, parent))
                continue
            kind: Any = type(value)
            if _is_leaf(kind) or (kind in _PLAIN and not value):
                continue
            entry = Entry(table, key, value, parent)
            self._stack.append((value, entry))
            if isinstance(value, _FIXED) and self._holds(value):
                self.fixed.append(entry)

    def _holds(self, value: Any) -> bool:
        """Whether a tuple or set holds a wanted tensor, and can be made anew with another one."""
        if len(value) > LONGEST_WALK:
            return False
        try:
            held = {own: torch.empty(0) for own in _ids(value) if own in self._targets}
            return replaced(value, held) is not value
        except (TypeError, ValueError):
            return False


class _Attributes:
    """Item access to attributes, past a frozen dataclass's own `__setattr__`."""

    def __init__(self, owner: Any):
        self._owner = owner

    def __getitem__(self, name: str) -> Any:
        return getattr(self._owner, name)

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._owner, name, value)


class _Cell(_Attributes):
    def __setitem__(self, name: str, value: Any) -> None:
        self._owner.cell_contents = value


class _Arguments(_Attributes):
    """Item access to the positional arguments of a `functools.partial`."""

    def __setitem__(self, name: str, value: Any) -> None:
        bound = self._owner
        bound.__setstate__((bound.func, value, bound.keywords, bound.__dict__))


@functools.lru_cache(maxsize=1024)
def _is_leaf(kind: Any) -> bool:
    """Whether objects of a type lead nowhere."""
    # Objects of this toolkit remember places themselves, and must go on naming the module's own tensors.
    return issubclass(kind, torch.Tensor) or is_passed_by(kind) or _package(kind.__module__) == "landscape"


@functools.lru_cache(maxsize=1024)
def _slots(kind: Any) -> tuple[str, ...]:
    return tuple(name for base in kind.__mro__ for name in _slot_names(base))


def _ids(value: Any) -> set[int]:
    found: set[int] = set()
    for item in value:
        found |= _ids(item) if isinstance(item, _FIXED) else {id(item)}
    return found


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function and the functions inside it look up."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def _package(name: Any) -> str:
    return str(name).partition(".")[0]


def _slot_names(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    mangled = [f"_{kind.__name__.lstrip('_')}{n}" if n.startswith("__") else n for n in names]
    return [name for name in mangled if isinstance(kind.__dict__.get(name), types.MemberDescriptorType)]
