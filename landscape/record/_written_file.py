"""A run file and its one writer, who goes on in a new file where the former is not his any more."""

from __future__ import annotations

import contextlib
import datetime
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from landscape._errors import FileError, OtherWriterError
from landscape._interrupts import interrupts_waiting
from landscape._layout import ParameterLayout
from landscape.record._append import Mark, append_in_copy, append_row, changing_in_place, check_mark, gone
from landscape.record._attributes import write_attributes
from landscape.record._lease import Lease
from landscape.record._life import NAMES, beginning, sign_of_life, write_in_place
from landscape.record._numbering import claim
from landscape.record._opening import group_names, reading
from landscape.record._recovery import drop_rows_after, end_of, has_rows_after
from landscape.record._replacement import creating, held_by_writer, replacing
from landscape.record._rows import Row
from landscape.record._schema import SCHEMA_VERSION, GroupSchema
from landscape.record._structure import read_schema, write_group, write_layout
from landscape.record._waiting import in_words

_T = TypeVar("_T")
_PAUSE = 0.02
_BEAT = 20.0  # seconds between signs of life where no row comes
_REFUSED = (OSError, RuntimeError, KeyError, FileError)


class WrittenFile:
    """The file of a run, for its one writer.

    Every change first looks whether the file still bears the mark of this writer. Where it was deleted, exchanged, or
    taken over by another training, the writer goes on in a new file and warns.

    Args:
        lease: The right to write the path.
        run_id: Identifier of the run.
        provenance: Root attributes, which a new file gets too.
        layout: Names and shapes of the tensors behind the flat parameter vector.

    Attributes:
        schemas: The groups of the file.
        moves: How often the writer went on in a new file.
    """

    def __init__(self, lease: Lease, run_id: str, provenance: Mapping[str, Any], layout: ParameterLayout | None):
        self.run_id = run_id
        self.provenance = dict(provenance)
        self.schemas: dict[str, GroupSchema] = {}
        self.moves = 0
        self._layout = layout
        self._lease = lease
        self._mark = Mark(lease.mark, {})
        self._written: Counter[str] = Counter()
        self._running = True
        self._signed = time.monotonic()

    @property
    def path(self) -> Path:
        """The file."""
        return self._lease.path

    @property
    def steps(self) -> dict[str, int]:
        """Step of the last row, by group; groups without rows are left out."""
        return {name: step for name, step in self._mark.last.items() if step >= 0}

    # ------------------------------------------------------------------ beginning

    def create(self, **more: Any) -> None:
        """Write the file with the groups known so far, without rows.

        Args:
            **more: Further root attributes.

        Raises:
            FileError: It cannot be written.
        """
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        own = {"run_id": self.run_id, "schema_version": SCHEMA_VERSION}
        with creating(self.path) as file:
            write_attributes(file, {"created": created, **self.provenance, **more, **own})
            write_in_place(file, beginning(self._mark.writer))
            if self._layout is not None:
                write_layout(file, self._layout)
            for schema in self.schemas.values():
                write_group(file, schema)
        self._mark.last = dict.fromkeys(self.schemas, -1)

    def take_over(self, last_step: int) -> None:
        """Drop the rows past a step, and put the mark of this writer on the file.

        Raises:
            FileError: The file cannot be read, or not be written.
        """
        with reading(self.path) as file:
            copy = has_rows_after(file, last_step) or not all(name in file.attrs for name in NAMES)
        mark = beginning(self._mark.writer)
        if copy:
            with replacing(self.path) as file:
                drop_rows_after(file, last_step)
                write_in_place(file, mark)
        else:
            with changing_in_place(self.path, shared=True) as (file, _):
                write_in_place(file, mark)
        with reading(self.path) as file:
            for name in group_names(file):
                self.schemas[name] = read_schema(file[name])
                self._mark.last[name] = end_of(file[name]).step

    # ------------------------------------------------------------------ changing

    def append(self, group: str, row: Row, shared: bool = False) -> None:
        """Append a row in place; `append_row` says what is raised."""
        self._own(lambda: append_row(self.path, group, row, shared, self._mark))
        self._signed = time.monotonic()
        self._written[group] += 1

    def append_in_copy(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Append rows in a copy, which takes the file's place; `append_in_copy` says what is raised."""
        rows = list(rows)
        self._own(lambda: append_in_copy(self.path, rows, self._mark))
        self._written.update(group for group, _ in rows)

    def change(self, change: Callable[[Any], None]) -> None:
        """Change the structure of the file, in one step.

        Args:
            change: Is given a copy as an open h5py.File.

        Raises:
            FileError: The file cannot be written.
        """

        def in_copy() -> None:
            if not self.path.exists():
                raise OtherWriterError(gone(self.path))
            with replacing(self.path) as file:
                check_mark(file, self.path, self._mark)
                change(file)
                self._mark.last |= {name: -1 for name in group_names(file) if name not in self._mark.last}

        try:
            self._own(in_copy)
        except BlockingIOError:
            raise FileError(held_by_writer(self.path)) from None

    def beat(self) -> None:
        """Give a sign of life where it is time for one."""
        if self._running and time.monotonic() - self._signed >= _BEAT:
            self._signed = time.monotonic()
            with contextlib.suppress(*_REFUSED):  # the next row tells of any trouble
                self._write_life(sign_of_life())

    def end(self, state: str, reason: str, deadline: float) -> None:
        """Write how the run ended, and let go of the path; what cannot be written is left as it was.

        Args:
            state: "finished", "interrupted" or "failed".
            reason: Why.
            deadline: Until when readers are waited for, by time.monotonic.
        """
        ended = {"state": state, "state_reason": reason} | sign_of_life()
        with contextlib.suppress(*_REFUSED):
            while self._running and time.monotonic() < deadline:
                try:
                    self._write_life(ended)
                    self._running = False
                except BlockingIOError:
                    time.sleep(_PAUSE)
            if self._running:
                self._write_life(ended, shared=True)
        self._lease.release()

    # ------------------------------------------------------------------ whose file it is

    def _own(self, work: Callable[[], _T]) -> _T:
        """Do something with the file; where it is not this writer's any more, with a new one."""
        with interrupts_waiting():
            try:
                self._hold()
                return work()
            except OtherWriterError as error:
                self._move(str(error))
            return work()

    def _hold(self) -> None:
        """Take the path again after `end`, as where a Trainer fits a second time."""
        if self._lease.held:
            return
        ended, self._lease = self._mark, Lease.take(self.path)
        with changing_in_place(self.path) as (file, _):
            check_mark(file, self.path, ended)
            write_in_place(file, beginning(self._lease.mark))
        self._mark, self._running = Mark(self._lease.mark, ended.last), True

    def _move(self, why: str) -> None:
        before, former = self.path, self.run_id
        self._lease.release()
        self._lease = claim(before)
        self.run_id, self._mark = uuid.uuid4().hex, Mark(self._lease.mark, {})
        self.create(continues={"run_id": former, "file": before.name})
        held = f" It held {in_words(self._written)} of this training." if self._written else ""
        self._written.clear()
        self._running, self.moves = True, self.moves + 1
        warnings.warn(f"landscape: {why}{held} Later rows are recorded in {self.path}.", stacklevel=2)

    def _write_life(self, values: Mapping[str, str], shared: bool = False) -> None:
        with interrupts_waiting(), self._changed(shared) as file:
            check_mark(file, self.path, self._mark)
            write_in_place(file, values)
        self._signed = time.monotonic()

    @contextlib.contextmanager
    def _changed(self, shared: bool = False) -> Iterator[Any]:
        with changing_in_place(self.path, shared) as (file, _):
            yield file
