"""Copy samplers and streams so that iterating the copy leaves the original where it is."""

from __future__ import annotations

import copy
import functools
import itertools
import random
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from landscape._errors import words_of

# Iterators, files, locks and connections hold a position that no copy has for itself.
_LIVE_MODULES = frozenset({"_io", "_thread", "multiprocessing", "queue", "socket", "sqlite3", "threading"})
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
# Code of these packages keeps no position of the user's.
_KNOWN_PACKAGES = sys.stdlib_module_names | {"numpy", "torch", "tqdm"}
_REPORTING = frozenset({"logging", "tqdm"})  # holds open files, which are written to
_ATOMS = (str, bytes, int, float, complex, bool, type(None))
_CONTAINERS = (dict, list, tuple, set, frozenset)
_LARGEST_COPY = 2**28  # bytes
_LONGEST_WALK = 10_000
_GLANCE = 100


class NotCopied(Exception):  # noqa: N818 - an outcome that the caller acts on, never shown to users
    """Says why an object has no copy that could be iterated beside it."""


def independent_copy(value: Any, shared: Iterable[Any] = ()) -> Any:
    """Deep-copy an object, or refuse where the copy would share a position with the original.

    A deep copy shares functions, classes and modules. An iterator, an open file or a random generator that is reached
    through a closure, a global name or a class attribute would therefore be moved by the copy too: such objects are
    refused. So is what holds more than 256 MiB, or more than 10,000 objects in a container, or leads to the Trainer.

    Args:
        value: The object, such as a sampler or an iterable dataset.
        shared: Objects that original and copy may share, such as the dataset of a sampler.

    Returns:
        The copy.

    Raises:
        NotCopied: There is no such copy.
    """
    _look(value, list(shared))
    try:
        return copy.deepcopy(value, {id(part): part for part in shared})
    except Exception as error:
        raise NotCopied(f"{type(value).__name__} cannot be copied ({words_of(error)})") from None


def _look(root: Any, shared: list[Any]) -> None:
    """Walk through everything that a deep copy would copy or share, and refuse what it must not."""
    size = 0
    # What a copy has for itself may be reached a second time through something that it shares.
    seen: dict[tuple[int, bool], Any] = {(id(part), way): part for part in shared for way in (False, True)}
    stack: list[tuple[Any, bool]] = [(root, False)]  # and whether a copy would share it
    while stack:
        value, is_shared = stack.pop()
        if isinstance(value, _ATOMS) or (id(value), is_shared) in seen:
            continue
        seen[id(value), is_shared] = value
        if is_shared and _is_live(value):
            raise NotCopied(
                f"{type(root).__name__} reads from a {type(value).__name__} that a copy would share with the training"
            )
        if not is_shared:
            _refuse(root, value)
            size += _bytes(value)
        if size > _LARGEST_COPY:
            raise NotCopied(f"{type(root).__name__} holds more than {_LARGEST_COPY // 2**20} MiB")
        stack.extend(_inside(value, is_shared))


def _refuse(root: Any, value: Any) -> None:
    """Refuse what is too much to look at, and the machinery of the training."""
    if type(value).__name__ == "Trainer":
        raise NotCopied(f"{type(root).__name__} leads to the Trainer")
    if _is_long(value) and not all(_is_plain(entry) for entry in _glance(value)):
        raise NotCopied(f"{type(root).__name__} holds a {type(value).__name__} of {len(value)} objects")


def _is_long(value: Any) -> bool:
    return isinstance(value, _CONTAINERS) and len(value) > _LONGEST_WALK


def _is_plain(entry: Any) -> bool:
    """Whether an entry of a long container is an index, a name, or a few of them."""
    parts = entry if isinstance(entry, (list, tuple)) else (entry,)
    return all(isinstance(part, _ATOMS) for part in parts)


def _glance(value: Any) -> list[Any]:
    return list(itertools.islice(_entries(value), _GLANCE))


def _entries(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def _inside(value: Any, is_shared: bool) -> Iterator[tuple[Any, bool]]:
    if isinstance(value, (types.ModuleType, type, torch.Tensor, np.ndarray)):
        return
    if isinstance(value, types.FunctionType):
        yield from ((part, True) for part in _reached_by(value))
    elif isinstance(value, types.MethodType):
        yield from ((value.__self__, is_shared), (value.__func__, True))
    elif isinstance(value, _CONTAINERS):
        yield from ((entry, is_shared) for entry in (_glance(value) if _is_long(value) else _entries(value)))
    else:
        yield from ((entry, is_shared) for entry in _attributes(value))
        for kind in type(value).__mro__:
            if _package(kind) not in _KNOWN_PACKAGES:
                yield from ((entry, True) for entry in vars(kind).values())


def _attributes(value: Any) -> list[Any]:
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget]
    table = getattr(value, "__dict__", None)
    return list(table.values()) if isinstance(table, dict) and _package(type(value)) not in _REPORTING else []


def _reached_by(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function closes over, its defaults, and the globals that its code names."""
    if _package(function) in _KNOWN_PACKAGES:
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # not bound yet
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)


def _is_live(value: Any) -> bool:
    """Whether an object has a position that reading moves."""
    if isinstance(value, (type, types.ModuleType)):
        return False
    modules = {_package(kind) for kind in type(value).__mro__}
    return isinstance(value, _GENERATORS) or hasattr(type(value), "__next__") or bool(modules & _LIVE_MODULES)


def _package(named: Any) -> str:
    return (getattr(named, "__module__", None) or "builtins").partition(".")[0]


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return int(value.untyped_storage().nbytes()) if value.layout == torch.strided else 0
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if not isinstance(value, _CONTAINERS):
        return 0
    inner = [len(entry) for entry in _glance(value) if isinstance(entry, (list, tuple))] if _is_long(value) else []
    return 64 * len(value) * (1 + sum(inner) // _GLANCE)
