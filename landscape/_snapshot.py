"""Remember the plain Python state behind objects and put it back: counters, lists, metric states, own generators."""

from __future__ import annotations

import functools
import operator
import random
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._kinds import LONGEST_WALK, container_kind, is_passed_by, slots_of
from landscape._private import MACHINE_NAMES, REGISTRIES
from landscape._sharded_models import is_freed, is_wrapper
from landscape._tensor_state import TensorState

_UNSET = object()
# Of the modules whose tables somebody else restores, these attributes are not followed.
_OUTSIDE = MACHINE_NAMES.union(REGISTRIES)
# Larger arrays are the data itself, which reading does not change; metric states and counters are far below.
_LARGEST_COPY = 1_000_000


class Snapshot:
    """The state reachable from some roots through attributes and plain containers.

    Walks attributes of objects, dicts, lists, sets, deques, and what functions close over. Tensors and arrays up to a
    million elements are copied and written back in place, so that their identity is kept; random generators are
    rewound. Containers, attributes and slots are written to where they differ from what they were, so objects that
    cannot be changed are left alone. What runs on its own is not followed: the Trainer, worker processes, queues, log
    handlers. State that Python does not show (iterators, generators, C extensions) stays as the measurement leaves it.

    Args:
        roots: Where to start.
        kept: Modules whose parameters, buffers and submodules somebody else restores; of other modules that are met
            (in a plain list, or in `roots`) they are followed too.
        tensors: Tensors that somebody else restores.
    """

    def __init__(
        self, roots: Iterable[Any], kept: Iterable[torch.nn.Module] = (), tensors: Iterable[torch.Tensor] = ()
    ):
        self._undo: list[Callable[[], None]] = []
        self._kept = {id(module) for module in kept}
        self._seen: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
        for root in roots:
            self._walk(root)

    def restore(self) -> None:
        """Put everything back; later changes first, so that nested state lands in restored containers.

        Raises:
            MeasurementError: Something has changed and cannot be put back. All else has been.
        """
        refused = []
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:
                refused.append(error)
        if refused:
            raise MeasurementError(
                f"the measurement changed an object that does not let its state be put back ({refused[0]}); keep such "
                "an object out of the module and its data, or let evaluation leave it alone"
            ) from refused[0]

    def _walk(self, root: Any) -> None:
        # An explicit stack: module trees and linked user objects may be deeper than Python's recursion limit.
        stack = [root]
        while stack:
            value = stack.pop()
            kind: Any = type(value)
            if id(value) in self._seen or is_passed_by(kind):
                continue
            self._seen[id(value)] = value  # the reference keeps the id from being reused
            stack.extend(_way(kind)(self, value))

    # Each of these remembers one object, and returns the objects that it leads to.

    def _tensor(self, tensor: torch.Tensor) -> Iterable[Any]:
        # Freed memory has no values, and reading it would end the process.
        if not torch.nn.parameter.is_lazy(tensor) and tensor.numel() <= _LARGEST_COPY and not is_freed(tensor):
            self._undo.append(TensorState(tensor).restore)
        return ()

    def _array(self, array: np.ndarray) -> Iterable[Any]:
        if array.size > _LARGEST_COPY or not array.flags.writeable:
            return ()
        kept = array.copy()
        self._undo.append(lambda: np.copyto(array, kept))
        return list(array.flat) if array.dtype == object and array.size <= LONGEST_WALK else ()

    def _torch_generator(self, generator: torch.Generator) -> Iterable[Any]:
        state = generator.get_state()
        self._undo.append(lambda: _void(generator.set_state(state)))
        return ()

    def _bit_generator(self, generator: np.random.BitGenerator) -> Iterable[Any]:
        state = generator.state
        self._undo.append(lambda: setattr(generator, "state", state))
        return ()

    def _legacy_generator(self, generator: np.random.RandomState) -> Iterable[Any]:
        state = generator.get_state()
        self._undo.append(lambda: generator.set_state(state))
        return ()

    def _python_generator(self, generator: random.Random) -> Iterable[Any]:
        state = generator.getstate()
        self._undo.append(lambda: generator.setstate(state))
        return ()

    def _function(self, function: types.FunctionType) -> Iterable[Any]:
        # The variables of its closure that are bound already, and its defaults.
        cells = [cell.cell_contents for cell in function.__closure__ or () if _bound(cell)]
        return [*cells, function.__defaults__, function.__kwdefaults__]

    def _object(self, value: Any) -> Iterable[Any]:
        return [*self._container(value), *self._attributes(value), *self._slots(value)]

    def _container(self, value: Any) -> Iterable[Any]:
        own: Any = type(value)
        kind = container_kind(own)
        if kind is None:
            return ()
        items = list(kind.items(value)) if issubclass(kind, dict) else list(kind.__iter__(value))
        if kind is not tuple:
            self._undo.append(functools.partial(_refill, value, kind, items))
        held = [item for _, item in items] if issubclass(kind, dict) else items
        return held if len(held) <= LONGEST_WALK else ()

    def _attributes(self, value: Any) -> list[Any]:
        table = getattr(value, "__dict__", None)
        if not isinstance(table, dict):
            return []
        entries = dict(table)
        self._undo.append(functools.partial(_reset, table, entries))
        outside = _OUTSIDE if id(value) in self._kept else MACHINE_NAMES
        return [entry for name, entry in entries.items() if name not in outside] + self._children(value)

    @staticmethod
    def _children(value: Any) -> list[Any]:
        if not isinstance(value, torch.nn.Module):
            return []
        # The measured module itself has been looked through: this one hangs in a list, a closure or an object.
        if is_wrapper(value):
            raise MeasurementError(
                f"a {type(value).__name__} that the measured module leads to is sharded over processes by FSDP, and "
                "its state cannot be put back after a measurement; give it whole parameters, such as a copy of the "
                "full state dict"
            )
        # Submodules hang in a table of their own; their tensors do not need a second copy here.
        return list(value.children())

    def _slots(self, value: Any) -> list[Any]:
        kind: Any = type(value)
        held = [(slot, _content(slot, value)) for slot in slots_of(kind)]
        for slot, entry in held:
            self._undo.append(functools.partial(_put_back, slot, value, entry))
        return [entry for _, entry in held if entry is not _UNSET]


_Way: TypeAlias = Callable[[Snapshot, Any], Iterable[Any]]
# How objects of a type and of its subclasses are remembered; all others are remembered by `_object`.
_WAYS: tuple[tuple[type, _Way], ...] = (
    (torch.Tensor, Snapshot._tensor),
    (np.ndarray, Snapshot._array),
    (torch.Generator, Snapshot._torch_generator),
    (np.random.Generator, lambda _, generator: (generator.bit_generator,)),
    (np.random.BitGenerator, Snapshot._bit_generator),
    (np.random.RandomState, Snapshot._legacy_generator),
    (random.Random, Snapshot._python_generator),
    (types.FunctionType, Snapshot._function),
    (types.MethodType, lambda _, method: (method.__self__, method.__func__)),
    (functools.partial, lambda _, partial: (partial.func, partial.args, partial.keywords)),
)


@functools.lru_cache(maxsize=1024)
def _way(kind: Any) -> _Way:
    """Return what remembers objects of a type."""
    return next((way for base, way in _WAYS if issubclass(kind, base)), Snapshot._object)


def _bound(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _content(slot: Any, value: Any) -> Any:
    try:
        return slot.__get__(value, type(value))
    except AttributeError:
        return _UNSET


def _put_back(slot: Any, value: Any, entry: Any) -> None:
    # By the slot itself: a frozen dataclass's `__setattr__` would refuse, and a property may hide the slot's name.
    if _content(slot, value) is entry:
        return
    if entry is _UNSET:
        slot.__delete__(value)
    else:
        slot.__set__(value, entry)


def _reset(table: dict[str, Any], entries: dict[str, Any]) -> None:
    """Give a table of attributes its former entries."""
    for name in [name for name in table if name not in entries]:
        del table[name]
    changed = {name: entry for name, entry in entries.items() if table.get(name, _UNSET) is not entry}
    if changed:
        table.update(changed)


def _refill(container: Any, kind: Any, items: list[Any]) -> None:
    """Give a container its former items, in their order, unless it has them."""
    if not items and not kind.__len__(container):
        return
    if issubclass(kind, dict):
        keys, values = list(kind.keys(container)), list(kind.values(container))
        if not (_same(keys, [key for key, _ in items]) and _same(values, [value for _, value in items])):
            kind.clear(container)
            for key, item in items:
                kind.__setitem__(container, key, item)
    elif not _same(list(kind.__iter__(container)), items):
        kind.clear(container)
        (kind.update if kind is set else kind.extend)(container, items)


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _void(_: Any) -> None:
    """Drop a return value."""
