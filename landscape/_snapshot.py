"""Remember the plain Python state behind objects and put it back: counters, lists, metric states, own generators."""

from __future__ import annotations

import functools
import random
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

# Attributes that lead out of the measured object into the training machinery, which a measurement never runs.
_MACHINE_NAMES = frozenset({"_trainer", "trainer", "_fabric", "_loggers"})
_TABLES = frozenset({"_parameters", "_buffers", "_modules"})
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
_MACHINES = frozenset({"Trainer", "_BaseDataLoaderIter"})
# Longer containers (file lists of a dataset) are kept as they are, without a look at every item.
_LONGEST_WALK = 10_000
# Larger arrays are the data itself, which reading does not change; metric states and counters are far below.
_LARGEST_COPY = 1_000_000


class Snapshot:
    """The state reachable from some roots through attributes and plain containers.

    Walks attributes of objects, dicts, lists, sets, deques, and what functions close over. Tensors and arrays up to a
    million elements are copied and written back in place, so that their identity is kept; random generators are
    rewound; containers get their former items back. What runs on its own is not followed: the Trainer, worker
    processes, queues, log handlers.
    State that Python does not show (iterators, generators, C extensions) stays as the measurement leaves it.

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
        """Put everything back; later changes first, so that nested state lands in restored containers."""
        for undo in reversed(self._undo):
            undo()

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
            self._array(value)
        elif isinstance(value, torch.Generator):
            state = value.get_state()
            self._undo.append(lambda: _void(value.set_state(state)))
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator.state
            self._undo.append(lambda: setattr(value.bit_generator, "state", bits))
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

    def _array(self, array: np.ndarray) -> None:
        if array.dtype == object or array.size > _LARGEST_COPY or not array.flags.writeable:
            return
        kept = array.copy()
        self._undo.append(lambda: np.copyto(array, kept))

    def _container(self, value: Any) -> Iterable[Any]:
        items: Any
        if isinstance(value, dict):
            entries = dict(value)
            self._undo.append(lambda: _refill(value, value.update, entries))
            items = entries.values()
        elif isinstance(value, list):
            listed = list(value)
            self._undo.append(lambda: value.__setitem__(slice(None), listed))
            items = listed
        elif isinstance(value, (set, deque)):
            gathered = list(value)
            add = value.update if isinstance(value, set) else value.extend
            self._undo.append(lambda: _refill(value, add, gathered))
            items = gathered
        else:
            items = value
        return items if len(items) <= _LONGEST_WALK else ()

    def _attributes(self, value: Any) -> list[Any]:
        table = getattr(value, "__dict__", None)
        if not isinstance(table, dict):
            return []
        entries = dict(table)

        def undo() -> None:
            for name in [name for name in table if name not in entries]:
                del table[name]
            table.update(entries)

        self._undo.append(undo)
        outside = _MACHINE_NAMES | _TABLES if id(value) in self._kept else _MACHINE_NAMES
        return [entry for name, entry in entries.items() if name not in outside] + self._children(value)

    @staticmethod
    def _children(value: Any) -> list[Any]:
        # Submodules hang in a table of their own; their tensors do not need a second copy here.
        return list(value.children()) if isinstance(value, torch.nn.Module) else []

    def _slots(self, value: Any) -> list[Any]:
        names = {name for kind in type(value).__mro__ for name in _slot_names(kind)}
        held = {name: getattr(value, name) for name in names if hasattr(value, name)}
        for name, entry in held.items():
            # Past a frozen dataclass's own __setattr__, which would refuse.
            self._undo.append(functools.partial(object.__setattr__, value, name, entry))
        return list(held.values())


class TensorState:
    """A tensor's storage, values, type and `requires_grad`, restored into the same object."""

    def __init__(self, tensor: torch.Tensor):
        self._tensor = tensor
        self._data = tensor.data
        self._values = tensor.detach().clone()

    def restore(self) -> None:
        """Put the values back in place; where the tensor was given other storage or another type, its own one too."""
        # An inference tensor may be written to in inference mode only.
        with torch.no_grad(), torch.inference_mode(self._tensor.is_inference() or torch.is_inference_mode_enabled()):
            if self._moved():
                self._tensor.data = self._data
            # `.data` leaves the version counter alone: graphs that the training still holds stay valid.
            if self._tensor.layout != torch.strided:
                self._tensor.copy_(self._values)  # of a sparse tensor, `.data` is a copy
            elif self._data.shape == self._values.shape:
                self._tensor.data.copy_(self._values)
            else:
                self._tensor.data = self._values

    def _moved(self) -> bool:
        now, then = self._tensor, self._data
        if now.layout != torch.strided or then.layout != torch.strided:
            return False
        described = (now.dtype, now.device, now.shape, now.stride())
        return described != (then.dtype, then.device, then.shape, then.stride()) or now.data_ptr() != then.data_ptr()


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
    return any(kind.__module__.partition(".")[0] in _MACHINERY or kind.__name__ in _MACHINES for kind in kinds)


def _slot_names(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    mangled = [f"_{kind.__name__.lstrip('_')}{n}" if n.startswith("__") else n for n in names]
    return [name for name in mangled if isinstance(kind.__dict__.get(name), types.MemberDescriptorType)]


def _refill(container: Any, add: Callable[[Any], Any], items: Any) -> None:
    """Put items back into a container that has changed; one that has not may be under iteration right now."""
    if len(container) == len(items):
        now, then = (held.items() if isinstance(held, dict) else held for held in (container, items))
        if all(_same(one, other) for one, other in zip(now, then, strict=True)):
            return
    container.clear()
    add(items)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other) == 2:
        return all(a is b for a, b in zip(one, other, strict=True))  # a dict's item
    return one is other


def _void(_: Any) -> None:
    """Drop a return value."""
