"""The recorder: one writer's side of a run file. Every method is for one process only (rank 0)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape._errors import FileError
from landscape._interrupts import interrupts_waiting
from landscape._layout import ParameterLayout
from landscape.record._agreement import check_agreement
from landscape.record._attributes import check_root_attributes, normalise, read_attributes, write_attributes
from landscape.record._lease import Lease
from landscape.record._life import FINISHED, NAMES
from landscape.record._opening import reading, unknown_group, unwritable
from landscape.record._replacement import held_by_writer, remove_leftovers
from landscape.record._rows import check_row
from landscape.record._schema import GroupSchema
from landscape.record._statics import check_static, same_array
from landscape.record._structure import read_layout, write_group, write_static
from landscape.record._waiting import WaitingRows, in_words
from landscape.record._written_file import WrittenFile

# Rows that have waited this long for a reader to close the file are written all the same: a reader that never
# closes it must not leave them in memory, where a kill would lose them.
_PATIENCE = 10.0
_PAUSE = 0.02
_OWN = ("created", "run_id", "schema_version", *NAMES)  # root attributes that belong to one file


class Recorder:
    """Appends rows to a run file, opening and closing it for each.

    A row that `append` acknowledges with True survives a kill at any later moment. A row that finds the file held
    by a reader waits in memory, in order, and is tried again at each append and at `close`. Waiting rows take up to
    256 MiB; further ones are lost, and `close` says how many.

    A run file has one writer. Where the file was deleted, or another training writes it now, the recorder warns and
    goes on in a new file: the same path where it is free, else a numbered one.

    Args:
        file: The file and the right to write it; `create` and `resume` make it.
    """

    def __init__(self, file: WrittenFile) -> None:
        self._file = file
        self._schemas = file.schemas
        self._last = dict(file.steps)
        self._waiting = WaitingRows()
        self._waiting_since = 0.0
        self._end = FINISHED, ""

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def run_id(self) -> str:
        """Identifier of the run, stored in the file."""
        return self._file.run_id

    @property
    def moves(self) -> int:
        """How often the recorder went on in a new file. Earlier rows and static arrays are not in it."""
        return self._file.moves

    @classmethod
    def create(
        cls,
        path: str | Path,
        provenance: Mapping[str, Any],
        layout: ParameterLayout | None = None,
        run_id: str | None = None,
        lease: Lease | None = None,
    ) -> Recorder:
        """Create a run file, which appears under its name only when it is whole.

        Args:
            path: Where; missing folders are made.
            provenance: Root attributes: plain values; containers are stored as JSON.
            layout: Names and shapes of the tensors behind the flat parameter vector.
            run_id: Identifier of the run; a random one by default.
            lease: The right to write the path, where the caller has taken it.

        Returns:
            The recorder.

        Raises:
            FileError: The file exists, or cannot be written.
            OtherWriterError: Another training writes it.
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
        file = WrittenFile(lease or Lease.take(path), run_id or uuid.uuid4().hex, provenance, layout)
        file.create()
        return cls(file)

    @classmethod
    def resume(cls, path: str | Path, run_id: str, last_step: int) -> Recorder:
        """Go on with a run file from a checkpoint: the rows past the checkpoint's step are dropped from every group.

        A recorder of the same process that was not closed gives the file up, and warns where it is used again.

        Args:
            path: The file.
            run_id: Identifier that the file must have.
            last_step: Optimizer step of the checkpoint.

        Returns:
            The recorder.

        Raises:
            FileError: The file is no readable run, belongs to another run, or cannot be written.
            OtherWriterError: Another training writes it.
        """
        path = Path(path).resolve()
        with reading(path) as opened:
            attributes, layout = read_attributes(opened), read_layout(opened)
        if (found := str(attributes.get("run_id"))) != run_id:
            raise FileError(
                f"{path} belongs to the run {found!r}, not to {run_id!r}, so its rows are not continued: give another "
                "path, or the checkpoint of that run."
            )
        provenance = {name: value for name, value in attributes.items() if name not in _OWN}
        file = WrittenFile(Lease.take(path, succeeds=True), run_id, provenance, layout)
        remove_leftovers(path)
        file.take_over(last_step)
        return cls(file)

    def declare(self, schema: GroupSchema) -> None:
        """Add a group to the file; if it is there already, check that it agrees.

        Raises:
            FileError: The file's group has other variables, dimensions, labels or settings, or cannot be written.
        """
        if schema.name in self._schemas:
            check_agreement(self.path, self._schemas[schema.name], schema)
            return
        with interrupts_waiting():
            self._file.change(lambda file: write_group(file, schema))
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
            FileError: The group was not declared, or the file cannot be written: then the row waits in memory, or is
                lost where too much waits there already.
        """
        schema = self._declared(group)
        self._end = FINISHED, ""
        checked = check_row(schema, row, self._last.get(group), copy=False)
        if not self._waiting:
            self._waiting_since = time.monotonic()
        kept = self._waiting.add(group, checked)
        self._last[group] = int(checked["step"])
        try:
            if self._drain():
                return kept
        finally:
            self._waiting.keep()
        if time.monotonic() - self._waiting_since <= _PATIENCE:
            return False
        self._write_despite_readers()
        return kept

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
        self._file.change(lambda file: write_static(file[group], name, stored, dims, units, description))
        self._drain()

    def attributes(self, values: Mapping[str, Any]) -> None:
        """Set root attributes, in one step.

        Raises:
            ValueError: An attribute that the recorder keeps itself.
            FileError: The file cannot be written.
        """
        check_root_attributes(values)
        self._file.change(lambda file: write_attributes(file, values))
        self._file.provenance |= values
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
        self._file.change(lambda file: write_attributes(file[group], values))
        self._schemas[group] = dataclasses.replace(schema, attributes={**schema.attributes, **values})
        self._drain()

    def beat(self) -> None:
        """Give a sign of life: every 5 s beside the file, and every minute in it where no row comes; else return."""
        self._file.beat()

    def ends(self, state: str, reason: str = "") -> None:
        """Say how the run ends, for the next `close`; it is finished where nothing was said.

        Args:
            state: "finished", "interrupted" or "failed".
            reason: Why, for the reader of the file.
        """
        self._end = state, reason

    def close(self, timeout: float = 10.0) -> None:
        """Write the rows that still wait in memory, and how the run ended; another training may then have the path.

        Args:
            timeout: Seconds to wait for readers to close the file; after that the rows are written all the same.

        Raises:
            FileError: Rows could not be written; the sentence says how many. Those that still wait are tried again
                where `close` is called again.
        """
        deadline = time.monotonic() + timeout
        try:
            while not self._drain():
                if time.monotonic() < deadline:
                    time.sleep(_PAUSE)
                else:
                    self._write_despite_readers()
        except FileError as error:
            rows = self._waiting.lost + self._waiting.by_group()
            raise FileError(f"{str(error).partition(';')[0].rstrip('.')}; {in_words(rows)} are lost so.") from None
        finally:
            self._file.end(*self._end, deadline)
        if lost := self._waiting.lost:
            self._waiting.lost = Counter()
            raise FileError(
                f"{in_words(lost)} of {self.path} are lost: the file could not be written for so long that memory had "
                "no more room for them."
            )

    def _write_despite_readers(self) -> None:
        # Without room for a copy the rows go in place: a reader may stumble then, but no row is lost.
        with contextlib.suppress(FileError), interrupts_waiting():
            self._file.append_in_copy(self._waiting)
            self._waiting.clear()
        if not self._drain(shared=True):
            raise FileError(held_by_writer(self.path))

    def _drain(self, shared: bool = False) -> bool:
        while self._waiting:
            try:
                with interrupts_waiting():  # between the two the row would be written twice
                    self._file.append(*self._waiting.first(), shared=shared)
                    self._waiting.drop_first()
            except BlockingIOError:
                return False
            except (OSError, RuntimeError, KeyError, FileError) as error:
                raise FileError(self._unwritten(str(getattr(error, "strerror", None) or error))) from None
        return True

    def _unwritten(self, reason: str) -> str:
        lost = f", and {in_words(self._waiting.lost)} are lost" if self._waiting.lost else ""
        waiting = f"{len(self._waiting)} rows wait in memory and are tried again with the next one"
        return f"{self.path} cannot be written: {reason.rstrip('.')}; {waiting}{lost}."

    def _declared(self, group: str) -> GroupSchema:
        if group not in self._schemas:
            raise FileError(unknown_group(self.path, group, list(self._schemas)))
        return self._schemas[group]
