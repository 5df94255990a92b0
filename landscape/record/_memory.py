"""The recorder's contract in memory, for tests and notebooks."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._agreement import check_agreement
from landscape.record._attributes import check_root_attributes, normalise
from landscape.record._contents import Choice, GroupContents, Static, wanted, wanted_statics
from landscape.record._life import FINISHED, RUNNING, beginning, sign_of_life
from landscape.record._opening import unknown_group
from landscape.record._reader import Run
from landscape.record._rows import Row, check_row
from landscape.record._schema import SCHEMA_VERSION, GroupSchema
from landscape.record._statics import check_static
from landscape.record._structure import EVENT


class MemoryRecorder:
    """Does what `Recorder` does, without a file; `run()` reads what was recorded.

    Args:
        provenance: Root attributes.
        layout: Names and shapes of the tensors behind the flat parameter vector.
        run_id: Identifier of the run; a random one by default.
    """

    def __init__(
        self, provenance: Mapping[str, Any], layout: ParameterLayout | None = None, run_id: str | None = None
    ) -> None:
        self.path: Path | str = "<memory>"
        self.moves = 0
        self._end = FINISHED, ""
        self.run_id = uuid.uuid4().hex if run_id is None else run_id
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        kept = {"run_id": self.run_id, "schema_version": SCHEMA_VERSION}
        root = {"created": created, **provenance, **kept, **beginning(uuid.uuid4().hex)}
        self._source = _MemorySource(self.path, normalise(root), layout)

    def resume(self, run_id: str, last_step: int) -> MemoryRecorder:
        """Return the recorder itself, after dropping the rows past a step from every group.

        Raises:
            FileError: The rows belong to another run.
        """
        if run_id != self.run_id:
            raise FileError(f"{self.path} belongs to the run {self.run_id!r}, not to {run_id!r}.")
        for rows in self._source.rows.values():
            rows[:] = [row for row in rows if row[EVENT] <= last_step]
        return self

    def declare(self, schema: GroupSchema) -> None:
        """Add a group; if it is there already, check that it agrees."""
        if schema.name in self._source.schemas:
            check_agreement(self.path, self._source.schemas[schema.name], schema)
            return
        stored = dataclasses.replace(schema, attributes=normalise(schema.attributes))
        self._source.schemas[schema.name] = stored
        self._source.rows[schema.name], self._source.statics[schema.name] = [], {}

    def has(self, group: str) -> bool:
        """Return whether a group was declared."""
        return group in self._source.schemas

    def append(self, group: str, row: Mapping[str, Any]) -> bool:
        """Append a row and return True."""
        schema, rows = self._declared(group), self._source.rows[group]
        rows.append(check_row(schema, row, int(rows[-1][EVENT]) if rows else None))
        self._source.root |= {"state": RUNNING, "state_reason": ""} | sign_of_life()
        return True

    def write_static(
        self,
        group: str,
        name: str,
        array: Any,
        dims: Sequence[str] = (),
        units: str = "1",
        description: str = "",
    ) -> None:
        """Keep an array that does not depend on the event; one of the same name is replaced."""
        schema, statics = self._declared(group), self._source.statics[group]
        sizes = {dim: coordinate.size for dim, coordinate in schema.dimensions.items()}
        for static in statics.values():
            sizes |= dict(zip(static.dims, static.values.shape, strict=True))
        values = check_static(schema, name, array, dims, sizes)
        statics[name] = Static(tuple(dims), values.copy(), units, description)

    def attributes(self, values: Mapping[str, Any]) -> None:
        """Set root attributes."""
        check_root_attributes(values)
        self._source.root |= normalise(values)

    def group_attributes(self, group: str) -> dict[str, Any]:
        """Return the attributes of a group; none where it was not declared."""
        schema = self._source.schemas.get(group)
        return {} if schema is None else dict(schema.attributes)

    def describe_group(self, group: str, values: Mapping[str, Any]) -> None:
        """Set attributes of a group."""
        schema = self._declared(group)
        attributes = {**schema.attributes, **normalise(values)}
        self._source.schemas[group] = dataclasses.replace(schema, attributes=attributes)

    def beat(self) -> None:
        """Do nothing: nobody else waits for a sign of life."""

    def ends(self, state: str, reason: str = "") -> None:
        """Say how the run ends, for the next `close`."""
        self._end = state, reason

    def close(self, timeout: float = 10.0) -> None:
        """Note how the run ended, once; no row waits."""
        if self._source.root["state"] == RUNNING:
            self._source.root |= dict(zip(("state", "state_reason"), self._end, strict=True)) | sign_of_life()

    def run(self) -> Run:
        """Return what was recorded, as `open_run` returns it for a file."""
        return Run(self._source)

    def _declared(self, group: str) -> GroupSchema:
        if group not in self._source.schemas:
            raise FileError(unknown_group(self.path, group, self._source.groups()))
        return self._source.schemas[group]


@dataclasses.dataclass
class _MemorySource:
    path: Path | str
    root: dict[str, Any]
    parameters: ParameterLayout | None
    schemas: dict[str, GroupSchema] = dataclasses.field(default_factory=dict)
    rows: dict[str, list[Row]] = dataclasses.field(default_factory=dict)
    statics: dict[str, dict[str, Static]] = dataclasses.field(default_factory=dict)
    memory_limit: int | None = None

    def attributes(self) -> dict[str, Any]:
        return dict(self.root)

    def layout(self) -> ParameterLayout | None:
        return self.parameters

    def groups(self) -> list[str]:
        return sorted(self.schemas)

    def read(
        self, groups: Sequence[str] | None, choose: Choice | None = None, rows: slice = slice(None)
    ) -> dict[str, GroupContents]:
        contents = {}
        for name in self.groups() if groups is None else groups:
            if name not in self.schemas:
                raise FileError(unknown_group(self.path, name, self.groups()))
            schema, chosen = self.schemas[name], self.rows[name][rows]
            arrays = {variable: _stacked(schema, variable, chosen) for variable in wanted(schema, choose)}
            statics = {each: self.statics[name][each] for each in wanted_statics(schema, self.statics[name], choose)}
            contents[name] = GroupContents(schema, arrays, statics)
        return contents


def _stacked(schema: GroupSchema, name: str, rows: Sequence[Row]) -> np.ndarray:
    variable = schema.all_variables[name]
    stacked = np.empty((len(rows), *schema.shape(variable)), dtype=variable.dtype)
    for index, row in enumerate(rows):
        stacked[index] = row[name]
    return stacked
