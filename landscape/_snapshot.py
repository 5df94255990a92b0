"""Remember the plain Python state behind objects and put it back: counters, lists, metric states, own generators."""

from __future__ import annotations

import functools
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._private import MACHINE_CLASSES, MACHINE_NAMES, REGISTRIES
from landscape._tensor_state import TensorState

_ATOMS: tuple[Any, ...] = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    type,
    types.BuiltinFunctionType,
    types.ModuleType,
    torch.dtype,
    torch.device,
    torch.Size,
    np.dtype,
    np.generic,
)
# Queues, threads and workers go on while a measurement runs: putting their state back would lose or repeat their work.
_MACHINERY = frozenset(
    {"_thread", "asyncio", "concurrent", "ctypes", "_io", "logging", "multiprocessing", "queue", "socket", "subprocess"}
    | {"threading", "weakref"}
    | {"aim", "clearml", "comet_ml", "mlflow", "neptune", "tensorboard", "wandb"}
)
# Containers whose items are put back by the methods of their builtin kind: subclasses may refuse or watch changes.
_KINDS: tuple[Any, ...] = (OrderedDict, dict, list, set, deque)
_UNSET = object()
# Longer containers (file lists of a dataset) are kept as they are, without a look at every item.
_LONGEST_WALK = 10_000
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
            if isinstance(value, _ATOMS) or id(value) in self._seen or _runs_on_its_own(value):
                continue
            self._seen[id(value)] = value  # the reference keeps the id from being reused
            stack.extend(self._remember(value))

    def _remember(self, value: Any) -> Iterable[Any]:
        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray):
            return self._array(value)
        elif isinstance(value, torch.Generator):
            state = value.get_state()
            self._undo.append(lambda: _void(value.set_state(state)))
        elif isinstance(value, np.random.Generator):
            return (value.bit_generator,)
        elif isinstance(value, np.random.BitGenerator):
            bits = value.state
            self._undo.append(lambda: setattr(value, "state", bits))
        elif isinstance(value, np.random.RandomState):
            legacy = value.get_state()
            self._undo.append(lambda: value.set_state(legacy))
        elif isinstance(value, random.Random):
            twister = value.getstate()
            self._undo.append(lambda: value.setstate(twister))
        elif isinstance(value, types.FunctionType):
            return _closed_over(value)
        elif isinstance(value, types.MethodType):
            return (value.__self__, value.__func__)
        elif isinstance(value, functools.partial):
            return (value.func, value.args, value.keywords)
        else:
            held = isinstance(value, (dict, list, set, deque, tuple))
            return [*(self._container(value) if held else ()), *self._attributes(value), *self._slots(value)]
        return ()

    def _tensor(self, tensor: torch.Tensor) -> None:
        if not torch.nn.parameter.is_lazy(tensor) and tensor.numel() <= _LARGEST_COPY:
            self._undo.append(TensorState(tensor).restore)

    def _array(self, array: np.ndarray) -> Iterable[Any]:
        if array.size > _LARGEST_COPY or not array.flags.writeable:
            return ()
        kept = array.copy()
        self._undo.append(lambda: np.copyto(array, kept))
        return list(array.flat) if array.dtype == object and array.size <= _LONGEST_WALK else ()

    def _container(self, value: Any) -> Iterable[Any]:
        kind: Any = next((kind for kind in type(value).__mro__ if kind in _KINDS), tuple)
        items = list(kind.items(value)) if issubclass(kind, dict) else list(kind.__iter__(value))
        if kind is not tuple:
            self._undo.append(functools.partial(_refill, value, kind, items))
        held = [item for _, item in items] if issubclass(kind, dict) else items
        return held if len(held) <= _LONGEST_WALK else ()

    def _attributes(self, value: Any) -> list[Any]:
        table = getattr(value, "__dict__", None)
        if not isinstance(table, dict):
            return []
        entries = dict(table)

        def undo() -> None:
            for name in [name for name in table if name not in entries]:
                del table[name]
            table.update({name: entry for name, entry in entries.items() if table.get(name, _UNSET) is not entry})

        self._undo.append(undo)
        outside = MACHINE_NAMES.union(REGISTRIES) if id(value) in self._kept else MACHINE_NAMES
        return [entry for name, entry in entries.items() if name not in outside] + self._children(value)

    @staticmethod
    def _children(value: Any) -> list[Any]:
        # Submodules hang in a table of their own; their tensors do not need a second copy here.
        return list(value.children()) if isinstance(value, torch.nn.Module) else []

    def _slots(self, value: Any) -> list[Any]:
        slots = [slot for kind in type(value).__mro__ for slot in vars(kind).values() if _is_slot(kind, slot)]
        held = [(slot, _content(slot, value)) for slot in slots]
        for slot, entry in held:
            self._undo.append(functools.partial(_put_back, slot, value, entry))
        return [entry for _, entry in held if entry is not _UNSET]


def _closed_over(function: types.FunctionType) -> list[Any]:
    """What a function carries along: the variables of its closure that are bound already, and its defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _bound(cell)]
    return [*cells, function.__defaults__, function.__kwdefaults__]


def _bound(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _runs_on_its_own(value: Any) -> bool:
    kinds = type(value).__mro__
    return any(kind.__module__.partition(".")[0] in _MACHINERY or kind.__name__ in MACHINE_CLASSES for kind in kinds)


def _is_slot(kind: type, attribute: Any) -> bool:
    """Tell a slot that a Python class declares from the members of a C class, most of which are read-only."""
    return isinstance(attribute, types.MemberDescriptorType) and "__slots__" in vars(kind)


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


def _refill(container: Any, kind: Any, items: list[Any]) -> None:
    """Give a container its former items, in their order, unless it has them."""
    if issubclass(kind, dict):
        present = list(kind.items(container))
        if not _same([part for pair in present for part in pair], [part for pair in items for part in pair]):
            kind.clear(container)
            for key, item in items:
                kind.__setitem__(container, key, item)
    elif not _same(list(kind.__iter__(container)), items):
        kind.clear(container)
        (kind.update if kind is set else kind.extend)(container, items)


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _void(_: Any) -> None:
    """Drop a return value."""
