"""Put other tensors in the places of a module's own, for the time of one evaluation.

`torch.func.functional_call` does this too; it looks up every name, and which tensors are tied, at every call, which
takes longer than the forward pass of a small network, and it fills registered places only. Here the places are found
once, those outside the module's tables too (`_references`), and looked up again when the module has changed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._private import registries
from landscape._references import Entry, find_references, replaced


class Places:
    """Where a module holds its parameters and buffers: entries of tables, lists, attributes and closures.

    Args:
        module: The module.
        others: Further objects that its loss uses and that may hold its tensors, such as a loss function.

    Attributes:
        searches: How often the places were searched; a change means that the module has changed.
    """

    def __init__(self, module: nn.Module, others: Iterable[Any] = ()):
        self._module = module
        self._others = tuple(others)
        self.searches = 0
        self.search()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the present parameters and buffers by name, tied ones under each of their names."""
        self._refresh()
        return self._tensors

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the present buffers by name, tied ones once."""
        self._refresh()
        return self._buffers

    @contextlib.contextmanager
    def filled(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Put named tensors in the places of the module's own, and on leaving its own ones back.

        A tensor that is tied stands in all its places under any of its names.

        Args:
            tensors: Tensors by the names of `named_parameters()` and `named_buffers()`.

        Yields:
            Nothing.

        Raises:
            MeasurementError: The module no longer has a tensor of such a name.
        """
        self._refresh()
        by_name, places, outside, fixed = self._by_name, self._places, self._outside, self._fixed
        if gone := tensors.keys() - by_name.keys():
            raise MeasurementError(
                f"{type(self._module).__name__} no longer holds a tensor named {min(gone)!r}, which it had when the "
                "objective was made; make a new objective of the changed module"
            )
        try:
            for name, tensor in tensors.items():
                for table, key in by_name[name]:
                    table[key] = tensor
            if fixed:
                substitutes = {id(self._tensors[name]): tensor for name, tensor in tensors.items()}
                for entry in fixed:
                    entry.table[entry.key] = replaced(entry.own, substitutes)
            yield
        finally:
            for table, key, own in places:
                table[key] = own
            for entry in outside:
                entry.restore()

    def search(self) -> None:
        """Find the places anew, also those that came after the last search."""
        self.searches += 1
        parts = list(self._module.modules())
        self._tables: list[Any] = [table for part in parts for table in registries(part)]
        self._size = sum(map(len, self._tables))
        self._watched = [(table, key, own) for table in self._tables for key, own in table.items()]
        self._places = [entry for entry in self._watched if isinstance(entry[2], torch.Tensor)]
        held = {id(own): own for _, _, own in self._places}
        tensors, self._fixed = find_references(self._module, self._others, held)
        self._outside = [*tensors, *self._fixed]
        # Lists are often replaced by new ones: the entries that lead to a place are watched with it.
        self._leading: list[Entry] = list(
            {id(entry): entry for place in self._outside for entry in place.chain()}.values()
        )
        tied: dict[int, list[tuple[Any, Any]]] = {}
        for table, key, own in (*self._places, *((entry.table, entry.key, entry.own) for entry in tensors)):
            tied.setdefault(id(own), []).append((table, key))
        self._buffers = dict(self._module.named_buffers())
        named = itertools.chain(
            self._module.named_parameters(remove_duplicate=False), self._module.named_buffers(remove_duplicate=False)
        )
        self._tensors = dict(named)
        self._by_name = {name: tied[id(own)] for name, own in self._tensors.items()}

    def _refresh(self) -> None:
        """Look again if the module was given other tensors, submodules or holders of tensors than it had."""
        if self._size != sum(map(len, self._tables)):
            self.search()
            return
        for table, key, own in self._watched:
            if key not in table or table[key] is not own:
                self.search()
                return
        for entry in self._leading:
            if not entry.unchanged():
                self.search()
                return
