"""The recorder: one writer's side of a run file. Every method is for one process only (rank 0)."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._agreement import check_agreement
from landscape.record._append import append_in_copy, append_row
from landscape.record._attributes import check_root_attributes, normalise, read_attributes, write_attributes
from landscape.record._opening import group_names, reading, unknown_group, unwritable
from landscape.record._recovery import complete_steps, drop_rows_after, has_rows_after
from landscape.record._replacement import creating, held_by_writer, remove_leftovers, replacing
from landscape.record._rows import Row, check_row, owned
from landscape.record._schema import SCHEMA_VERSION, GroupSchema
from landscape.record._statics import check_static, same_array
from landscape.record._structure import read_schema, write_group, write_layout, write_static

# Rows that have waited this long for a reader to close the file are written all the same: a reader that never
# closes it must not leave them in memory, where a kill would lose them.
_PATIENCE = 10.0
_PAUSE = 0.02


class Recorder:
    """Appends rows to a run file, opening and closing it for each.

    A row that `append` acknowledges with True survives a kill at any later moment. A row that finds the file held
    by a reader waits in memory, in order, and is tried again at each append and at `close`.

    Attributes:
        path: The file.
        run_id: Identifier of the run, stored in the file.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self._schemas: dict[str, GroupSchema] = {}
        self._last: dict[str, int] = {}
        self._waiting: deque[tuple[str, Row]] = deque()
        self._waiting_since = 0.0

    @classmethod
    def create(
        cls,
        path: str | Path,
        provenance: Mapping[str, Any],
        layout: ParameterLayout | None = None,
        run_id: str | None = None,
    ) -> Recorder:
        """Create a run file, which appears under its name only when it is whole.

        Args:
            path: Where; missing folders are made.
            provenance: Root attributes: plain values; containers are stored as JSON.
            layout: Names and shapes of the tensors behind the flat parameter vector.
            run_id: Identifier of the run; a random one by default.

        Returns:
            The recorder.

        Raises:
            FileError: The file exists, or cannot be written.
        """
        path = Path(path).resolve()
        if path.exists():
            raise FileError(
                f"{path} exists already, and a new run does not overwrite it: give another path, or move it away."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(unwritable(path, error)) from None
        remove_leftovers(path)
        run_id = uuid.uuid4().hex if run_id is None else run_id
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        attributes = {"created": created, **provenance, "run_id": run_id, "schema_version": SCHEMA_VERSION}
        with creating(path) as file:
            write_attributes(file, attributes)
            if layout is not None:
                write_layout(file, layout)
        return cls(path, run_id)

    @classmethod
    def resume(cls, path: str | Path, run_id: str, last_step: int) -> Recorder:
        """Go on with a run file from a checkpoint: the rows past the checkpoint's step are dropped from every group.

        Args:
            path: The file.
            run_id: Identifier that the file must have.
            last_step: Optimizer step of the checkpoint.

        Returns:
            The recorder.

        Raises:
            FileError: The file is no readable run, belongs to another run, or cannot be written.
        """
        path = Path(path).resolve()
        remove_leftovers(path)
        with reading(path) as file:
            found = str(read_attributes(file).get("run_id"))
            drop = has_rows_after(file, last_step)
        if found != run_id:
            raise FileError(
                f"{path} belongs to the run {found!r}, not to {run_id!r}, so its rows are not continued: give another "
                "path, or the checkpoint of that run."
            )
        if drop:
            with replacing(path) as file:
                drop_rows_after(file, last_step)
        recorder = cls(path, run_id)
        with reading(path) as file:
            for name in group_names(file):
                recorder._schemas[name] = read_schema(file[name])
                steps = complete_steps(file[name])
                if len(steps):
                    recorder._last[name] = int(steps[-1])
        return recorder

    def declare(self, schema: GroupSchema) -> None:
        """Add a group to the file; if it is there already, check that it agrees.

        Raises:
            FileError: The file's group has other variables, dimensions, labels or settings, or cannot be written.
        """
        if schema.name in self._schemas:
            check_agreement(self.path, self._schemas[schema.name], schema)
            return
        with replacing(self.path) as file:
            write_group(file, schema)
        self._schemas[schema.name] = schema
        self._drain()

    def has(self, group: str) -> bool:
        """Return whether a group was declared."""
        return group in self._schemas

    def append(self, group: str, row: Mapping[str, Any]) -> bool:
        """Append a row.

        Args:
            group: Name of a declared group.
            row: Values by variable name; `step` is required, missing floats are NaN, missing integers -1.

        Returns:
            True when the row is on disk, False when it waits in memory because somebody holds the file.

        Raises:
            ValueError: An unknown variable, a wrong shape or a step that does not increase; nothing was recorded.
            TypeError: A value of the wrong kind; nothing was recorded.
            FileError: The group was not declared, or the file cannot be written: then the row waits in memory.
        """
        schema = self._declared(group)
        checked = check_row(schema, row, self._last.get(group), copy=False)
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append((group, checked))
        self._last[group] = int(checked["step"])
        try:
            if self._drain():
                return True
        finally:
            # A row that waits must not change with the caller's arrays; one that is written needs no copy.
            if self._waiting:
                self._waiting[-1] = (group, owned(checked))
        if time.monotonic() - self._waiting_since <= _PATIENCE:
            return False
        self._write_despite_readers()
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
        """Write an array that does not depend on the event; one of the same name is replaced.

        Args:
            group: Name of a declared group.
            name: Name of the array.
            array: Numbers or strings.
            dims: A name for each dimension; one that the group does not have is added without labels.
            units: Units as UDUNITS writes them.
            description: One line for the reader of the file.

        Raises:
            ValueError: The name is taken, or the dimensions do not fit.
            FileError: The group was not declared, or the file cannot be written.
        """
        schema = self._declared(group)
        with reading(self.path) as file:
            target = file[group]
            sizes = {dim: len(target[dim]) for dim in target if target[dim].is_scale}
        stored = check_static(schema, name, array, dims, sizes)
        with reading(self.path) as file:
            if name in file[group] and same_array(file[group][name], stored):
                return
        with replacing(self.path) as file:
            write_static(file[group], name, stored, dims, units, description)
        self._drain()

    def attributes(self, values: Mapping[str, Any]) -> None:
        """Set root attributes, in one step.

        Raises:
            ValueError: An attribute that the recorder keeps itself.
            FileError: The file cannot be written.
        """
        check_root_attributes(values)
        with replacing(self.path) as file:
            write_attributes(file, values)
        self._drain()

    def group_attributes(self, group: str) -> dict[str, Any]:
        """Return the attributes of a group as they were declared and set; none where it was not declared."""
        return normalise(self._schemas[group].attributes) if group in self._schemas else {}

    def describe_group(self, group: str, values: Mapping[str, Any]) -> None:
        """Set attributes of a group, in one step.

        Args:
            group: Name of a declared group.
            values: Plain values; containers are stored as JSON.

        Raises:
            FileError: The group was not declared, or the file cannot be written.
        """
        schema = self._declared(group)
        with replacing(self.path) as file:
            write_attributes(file[group], values)
        self._schemas[group] = dataclasses.replace(schema, attributes={**schema.attributes, **values})
        self._drain()

    def close(self, timeout: float = 10.0) -> None:
        """Write the rows that still wait in memory.

        Args:
            timeout: Seconds to wait for readers to close the file; after that the rows are written all the same.

        Raises:
            FileError: Another program is writing the file, or it cannot be written; the rows still wait, and `close`
                can be called again.
        """
        deadline = time.monotonic() + timeout
        while not self._drain():
            if time.monotonic() < deadline:
                time.sleep(_PAUSE)
            else:
                self._write_despite_readers()

    def _write_despite_readers(self) -> None:
        # Without room for a copy the rows go in place: a reader may stumble then, but no row is lost.
        with contextlib.suppress(FileError):
            append_in_copy(self.path, self._waiting)
            self._waiting.clear()
        if not self._drain(shared=True):
            raise FileError(held_by_writer(self.path))

    def _drain(self, shared: bool = False) -> bool:
        while self._waiting:
            try:
                append_row(self.path, *self._waiting[0], shared=shared)
            except BlockingIOError:
                return False
            except (OSError, RuntimeError, KeyError) as error:
                reason = getattr(error, "strerror", None) or error
                waiting = f"{len(self._waiting)} rows wait in memory and are tried again with the next one"
                raise FileError(f"{self.path} cannot be written: {reason}; {waiting}.") from None
            self._waiting.popleft()
        return True

    def _declared(self, group: str) -> GroupSchema:
        if group not in self._schemas:
            raise FileError(unknown_group(self.path, group, list(self._schemas)))
        return self._schemas[group]
