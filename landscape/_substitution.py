"""Other tensors in the places of a module's own, for the time of one evaluation.

`torch.func.functional_call` does this too; it looks up every name, and which tensors are tied, at every call, which
takes longer than the forward pass of a small network. Here the places are found once, and looked up again only when
the module has changed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._private import registries


class Places:
    """Where a module holds its parameters and buffers: tables of submodules, and keys in them.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._find()

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
        by_name, places = self._by_name, self._places
        if gone := tensors.keys() - by_name.keys():
            raise MeasurementError(
                f"{type(self._module).__name__} no longer holds a tensor named {min(gone)!r}, which it had when the "
                "objective was made; make a new objective of the changed module"
            )
        try:
            for name, tensor in tensors.items():
                for table, key in by_name[name]:
                    table[key] = tensor
            yield
        finally:
            for table, key, own in places:
                table[key] = own

    def _refresh(self) -> None:
        """Look again if the module was given other tensors or submodules than it had."""
        if self._size != sum(map(len, self._tables)):
            self._find()
            return
        for table, key, own in self._watched:
            if key not in table or table[key] is not own:
                self._find()
                return

    def _find(self) -> None:
        parts = list(self._module.modules())
        self._tables: list[Any] = [table for part in parts for table in registries(part)]
        self._size = sum(map(len, self._tables))
        self._watched = [(table, key, own) for table in self._tables for key, own in table.items()]
        self._places = [entry for entry in self._watched if isinstance(entry[2], torch.Tensor)]
        tied: dict[int, list[tuple[Any, str]]] = {}
        for table, key, own in self._places:
            tied.setdefault(id(own), []).append((table, key))
        self._buffers = dict(self._module.named_buffers())
        named = itertools.chain(
            self._module.named_parameters(remove_duplicate=False), self._module.named_buffers(remove_duplicate=False)
        )
        self._by_name = {name: tied[id(own)] for name, own in named}
