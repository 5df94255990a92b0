"""The rows of a group as arrays, wherever they come from, and as an xarray.Dataset."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import xarray as xr

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record import _bfloat16
from landscape.record._attributes import read_attributes
from landscape.record._budget import MEMORY_LIMIT, Budget
from landscape.record._checksum import CHECKSUM
from landscape.record._opening import group_names, reading, unknown_group
from landscape.record._recovery import complete_steps
from landscape.record._rows import FAILED
from landscape.record._schema import STATUS, GroupSchema
from landscape.record._settings import checked_settings
from landscape.record._structure import EVENT, dims_of, read_layout, read_schema, statics_of
from landscape.record._texts import text_attribute, texts
from landscape.record._validation import stored_bytes

# Memory by stored bytes: fixed texts become Python's, and bfloat16 becomes float32 by way of integers.
_TEXT, _BFLOAT16 = 2, 3
_WIDE = 64 * 1024**2

Choice = Callable[[GroupSchema], Iterable[str]]


@dataclasses.dataclass(frozen=True)
class Static:
    """An array of a group without event dimension."""

    dims: tuple[str, ...]
    values: np.ndarray
    units: str
    description: str


@dataclasses.dataclass(frozen=True)
class GroupContents:
    """The complete rows of a group.

    Attributes:
        schema: What the group declares.
        rows: An array for each variable, the event dimension first.
        statics: The arrays without event dimension.
    """

    schema: GroupSchema
    rows: Mapping[str, np.ndarray]
    statics: Mapping[str, Static]

    def to_dataset(self) -> xr.Dataset:
        """Return an xarray.Dataset: labels as coordinates, status and reason as text, settings as attributes."""
        data: dict[str, Any] = {}
        for name, values in self.rows.items():
            variable = self.schema.all_variables[name]
            about = {"units": variable.units, "long_name": variable.description}
            data[name] = ((EVENT, *variable.dims), as_text(name, values), about)
        for name, static in self.statics.items():
            about = {"units": static.units, "long_name": static.description}
            data[name] = (static.dims, static.values, about)
        labels = {
            name: (name, item.values, {"units": item.units, "long_name": item.description})
            for name, item in self.schema.dimensions.items()
            if item.labelled
        }
        attributes = {"description": self.schema.description, **self.schema.attributes}
        return xr.Dataset(
            {name: data[name] for name in data if name != EVENT}, {EVENT: data[EVENT], **labels}, attributes
        )


class Source(Protocol):
    """Where a Run reads from."""

    path: Path | str
    memory_limit: int | None

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""

    def layout(self) -> ParameterLayout | None:
        """Return the layout of the flat parameter vector."""

    def groups(self) -> list[str]:
        """Return the names of the groups with rows."""

    def read(
        self, groups: Sequence[str] | None, choose: Choice | None = None, rows: slice = slice(None)
    ) -> dict[str, GroupContents]:
        """Return the complete rows of groups (all of them for None), at one moment.

        `choose` names the variables and static arrays that are wanted of a group, and `rows` selects among its rows.
        """


class FileSource:
    """Reads a run file, which is held open during each call only.

    Args:
        path: The file.
        memory_limit: Bytes that one call reads at most; None for no limit.
    """

    def __init__(self, path: Path, memory_limit: int | None = MEMORY_LIMIT) -> None:
        self.path: Path | str = path
        self.memory_limit = memory_limit
        self._path = path

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        with reading(self._path) as file:
            return checked_settings(read_attributes(file, self._budget()))

    def layout(self) -> ParameterLayout | None:
        """Return the layout of the flat parameter vector."""
        with reading(self._path) as file:
            return read_layout(file, self._budget())

    def groups(self) -> list[str]:
        """Return the names of the groups with rows."""
        with reading(self._path) as file:
            return group_names(file)

    def read(
        self, groups: Sequence[str] | None, choose: Choice | None = None, rows: slice = slice(None)
    ) -> dict[str, GroupContents]:
        """Return the complete rows of groups (all of them for None), at one moment.

        Args:
            groups: Their names.
            choose: Names the variables and static arrays that are wanted of a group; all of them by default. The step
                is always read.
            rows: Which of the complete rows.

        Returns:
            The contents by group.

        Raises:
            FileError: The file is not readable, has no group of that name, or claims more than the memory limit.
        """
        with reading(self._path) as file:
            known = group_names(file)
            for name in groups or ():
                if name not in known:
                    raise FileError(unknown_group(self._path, name, known))
            budget = self._budget()
            parts = [_Part(file[name], choose, rows, budget) for name in (known if groups is None else groups)]
            for part in parts:  # all is counted before any of it is read
                part.claim(budget)
            return {part.name: part.read(budget) for part in parts}

    def _budget(self) -> Budget:
        return Budget(self.path, self.memory_limit)


class _Part:
    """The wanted rows of a group."""

    def __init__(self, group: Any, choose: Choice | None, rows: slice, budget: Budget) -> None:
        self.name = group.name.strip("/")
        self._group = group
        self._schema = read_schema(group, budget)
        checked_settings(self._schema.attributes)
        start, stop, stride = rows.indices(len(complete_steps(group)))
        self._span = slice(start, stop, stride)
        self._count = len(range(start, stop, stride))
        self._wanted = wanted(self._schema, choose)
        self._statics = wanted_statics(self._schema, statics_of(group), choose)

    def claim(self, budget: Budget) -> None:
        for name in self._wanted:
            if name in self._group:
                data = self._group[name]
                row = math.prod(data.shape[1:]) * data.id.get_type().get_size()
                memory = _TEXT if data.dtype.kind == "S" else _BFLOAT16 if _bfloat16.is_bfloat16(data) else 1
                budget.take(memory * row * self._count, memory * min(row * self._count, stored_bytes(data.id)))
        for name in self._statics:
            data = self._group[name]
            budget.take(data.nbytes, stored_bytes(data.id))

    def read(self, budget: Budget) -> GroupContents:
        arrays = {
            name: _read_rows(self._group[name], self._span)
            if name in self._group
            else _missing(self._schema, name, self._count)
            for name in self._wanted
        }
        statics = {name: _read_static(self._group[name], budget) for name in self._statics}
        return GroupContents(self._schema, arrays, statics)


def _missing(schema: GroupSchema, name: str, count: int) -> np.ndarray:
    """Return the fill value for a common variable that a file of an older version lacks."""
    variable = schema.all_variables[name]
    return np.full(count, variable.fill, dtype=variable.dtype)


def _read_rows(dataset: Any, rows: slice) -> np.ndarray:
    if _bfloat16.is_bfloat16(dataset) and rows.step > 0:
        return _bfloat16.read_rows(dataset, rows)
    return _native(np.asarray(dataset[rows]))


def _native(values: np.ndarray) -> np.ndarray:
    """Return numbers in the byte order of this machine, which pandas needs."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def wanted(schema: GroupSchema, choose: Choice | None) -> list[str]:
    """Return the variables to read, in the schema's order; by default all but the checksum, which is no measurement."""
    chosen = {EVENT, *(schema.all_variables.keys() - {CHECKSUM} if choose is None else choose(schema))}
    return [name for name in schema.all_variables if name in chosen]


def wanted_statics(schema: GroupSchema, names: Iterable[str], choose: Choice | None) -> list[str]:
    """Return the static arrays to read."""
    chosen = None if choose is None else set(choose(schema))
    return [name for name in names if chosen is None or name in chosen]


def _read_static(dataset: Any, budget: Budget) -> Static:
    text = h5py.check_string_dtype(dataset.dtype)
    values = texts(dataset, budget) if text else _native(np.asarray(dataset[()]))
    return Static(dims_of(dataset), values, text_attribute(dataset, "units", "1"), text_attribute(dataset, "long_name"))


def as_text(name: str, values: np.ndarray) -> np.ndarray:
    """Return status and bytes as text, numbers as they are."""
    if name == "status":
        # A number that this version does not know, as of a newer or damaged file, counts as a failure.
        return np.array([STATUS[value if 0 <= value < len(STATUS) else FAILED] for value in values], dtype=str)
    if values.dtype.kind == "S":
        flat = [value.decode("utf-8", errors="replace") for value in values.ravel()]
        # numpy gives every text the room of the longest one.
        wide = 4 * max(map(len, flat), default=0) * len(flat) > _WIDE
        return np.array(flat, dtype=object if wide else str).reshape(values.shape)
    return values
