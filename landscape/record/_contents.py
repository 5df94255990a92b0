"""The rows of a group as arrays, wherever they come from, and as an xarray.Dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record import _bfloat16
from landscape.record._attributes import read_attributes
from landscape.record._checksum import CHECKSUM
from landscape.record._opening import group_names, reading, unknown_group
from landscape.record._recovery import complete_steps
from landscape.record._rows import FAILED
from landscape.record._schema import STATUS, GroupSchema
from landscape.record._structure import EVENT, dims_of, read_layout, read_schema, statics_of

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

        `choose` names the variables that are wanted of a group, and `rows` selects among its rows.
        """


class FileSource:
    """Reads a run file, which is held open during each call only."""

    def __init__(self, path: Path) -> None:
        self.path: Path | str = path
        self._path = path

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        with reading(self._path) as file:
            return read_attributes(file)

    def layout(self) -> ParameterLayout | None:
        """Return the layout of the flat parameter vector."""
        with reading(self._path) as file:
            return read_layout(file)

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
            choose: Names the variables that are wanted of a group; all of them by default. The step is always read.
            rows: Which of the complete rows.

        Returns:
            The contents by group.

        Raises:
            FileError: The file is not readable, or has no group of that name.
        """
        with reading(self._path) as file:
            known = group_names(file)
            for name in groups or ():
                if name not in known:
                    raise FileError(unknown_group(self._path, name, known))
            return {name: _read_group(file[name], choose, rows) for name in (known if groups is None else groups)}


def _read_group(group: Any, choose: Choice | None, rows: slice) -> GroupContents:
    schema = read_schema(group)
    steps = complete_steps(group)
    start, stop, stride = rows.indices(len(steps))
    span = slice(start, stop, stride)
    arrays = {
        name: _read_rows(group[name], span) if name in group else _missing(schema, name, len(range(len(steps))[span]))
        for name in wanted(schema, choose)
    }
    statics = {name: _read_static(group[name]) for name in statics_of(group)}
    return GroupContents(schema, arrays, statics)


def _missing(schema: GroupSchema, name: str, count: int) -> np.ndarray:
    """Return the fill value for a common variable that a file of an older version lacks."""
    variable = schema.all_variables[name]
    return np.full(count, variable.fill, dtype=variable.dtype)


def _read_rows(dataset: Any, rows: slice) -> np.ndarray:
    if _bfloat16.is_bfloat16(dataset) and rows.step > 0:
        return _bfloat16.read_rows(dataset, rows)
    return np.asarray(dataset[rows])


def wanted(schema: GroupSchema, choose: Choice | None) -> list[str]:
    """Return the variables to read, in the schema's order; by default all but the checksum, which is no measurement."""
    chosen = {EVENT, *(schema.all_variables.keys() - {CHECKSUM} if choose is None else choose(schema))}
    return [name for name in schema.all_variables if name in chosen]


def _read_static(dataset: Any) -> Static:
    text = dataset.dtype.kind == "O"
    values = np.asarray(dataset.asstr()[()], dtype=str) if text else np.asarray(dataset[()])
    about = dataset.attrs
    return Static(dims_of(dataset), values, str(about.get("units", "1")), str(about.get("long_name", "")))


def as_text(name: str, values: np.ndarray) -> np.ndarray:
    """Return status and bytes as text, numbers as they are."""
    if name == "status":
        # A number that this version does not know, as of a newer or damaged file, counts as a failure.
        return np.array([STATUS[value if 0 <= value < len(STATUS) else FAILED] for value in values], dtype=str)
    if values.dtype.kind == "S":
        flat = [value.decode("utf-8", errors="replace") for value in values.ravel()]
        return np.array(flat, dtype=str).reshape(values.shape)
    return values
