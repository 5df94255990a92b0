"""Appending rows: each whole or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape._errors import OtherWriterError
from landscape.record import _bfloat16
from landscape.record._checksum import CHECKSUM, checksum
from landscape.record._life import sign_of_life, write_in_place, writes
from landscape.record._locks import locked
from landscape.record._ordered import ALIGNMENT, OrderedFile
from landscape.record._recovery import end_of
from landscape.record._replacement import replacing
from landscape.record._rows import Row, is_missing
from landscape.record._structure import EVENT

_LARGE = 1024**2  # bytes that are worth the shorter way into the file
# In a copy so many rows at most are written together, of variables that take so many bytes a row at most.
_AT_ONCE, _SMALL = 1024, 4096


@dataclasses.dataclass
class Mark:
    """What tells that a file is still the one that a recorder writes, and nobody else has written to.

    Attributes:
        writer: The mark of the writer at the root of the file.
        last: Step of the last row that it wrote or found, by group.
    """

    writer: str
    last: dict[str, int]


def append_row(path: Path, group: str, row: Row, shared: bool = False, mark: Mark | None = None) -> None:
    """Write a row behind the last complete one, in place, and the time as a sign of life.

    Args:
        path: The file.
        group: Name of the group.
        row: An array for every variable of the group.
        shared: Write although readers hold the file open. Rows are safe, but such a reader may meet metadata that
            contradicts what it has read before.
        mark: The mark that the file must bear; takes up the step of the row. Without one nothing is looked up.

    Raises:
        BlockingIOError: Readers (or, with `shared`, another writer) hold the file; nothing was written.
        OtherWriterError: The file is not there any more, or another writer has changed it; nothing was written.
        OSError: The system refused to write; the file is as whole as before.
    """
    with changing_in_place(path, shared) as (opened, settle):
        _write(opened, path, group, row, mark, settle)
        write_in_place(opened, sign_of_life())


def append_in_copy(path: Path, rows: Iterable[tuple[str, Row]], mark: Mark) -> None:
    """Write rows into a copy of the file that takes its place; readers that hold the old one are not disturbed.

    Nobody sees the copy before it is whole, so rows need no order among each other: those of a group are written
    together, and the time is linear in their number.

    Args:
        path: The file.
        rows: Pairs of a group's name and a row.
        mark: The mark that the file must bear; takes up the steps of the rows.

    Raises:
        FileError: Another program is writing the file, or the copy cannot be written; nothing has changed.
        OtherWriterError: The file is not there any more, or another writer has changed it.
    """
    by_group: dict[str, list[Row]] = {}
    for group, row in rows:
        by_group.setdefault(group, []).append(row)
    with replacing(path) as file:
        for group, waiting in by_group.items():
            count = _checked_count(file, path, group, mark)
            for start in range(0, len(waiting), _AT_ONCE):
                put_rows(file[group], count + start, waiting[start : start + _AT_ONCE], lambda: None)
    mark.last.update({group: int(waiting[-1][EVENT]) for group, waiting in by_group.items()})


@contextlib.contextmanager
def changing_in_place(path: Path, shared: bool = False) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Open a run file to change it in place; what is written takes effect in an order in which a kill does no harm.

    Args:
        path: The file.
        shared: Write although readers hold the file open.

    Yields:
        The open h5py.File, and a function that settles what has been written so far.

    Raises:
        BlockingIOError: Readers (or, with `shared`, another writer) hold the file; nothing was written.
        OtherWriterError: The file is not there any more.
        OSError: The system refused to write; the file is as whole as before.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(locked(path, shared))
        except FileNotFoundError:
            raise OtherWriterError(gone(path)) from None
        ordered = OrderedFile(file)
        with h5py.File(ordered, "r+", **ALIGNMENT) as opened:

            def settle() -> None:
                opened.flush()
                ordered.commit()

            yield opened, settle
        ordered.commit()


def gone(path: Path) -> str:
    """Return the sentence for a file that is not there any more."""
    return f"{path} was deleted or moved away, and the rows in it are lost if it was deleted."


def check_mark(file: Any, path: Path, mark: Mark) -> None:
    """Check that a file is still the one that a recorder writes.

    Raises:
        OtherWriterError: It bears another writer's mark, or none.
    """
    if not writes(file, mark.writer):
        raise OtherWriterError(f"{path} is written by another training now, or was exchanged for another file.")


def _write(file: Any, path: Path, name: str, row: Row, mark: Mark | None, settle: Callable[[], None]) -> None:
    """Write the variables, settle them, then write the step, which makes the row count, and settle that."""
    put_rows(file[name], _checked_count(file, path, name, mark), [row], settle)
    if mark is not None:
        mark.last[name] = int(row[EVENT])


def _checked_count(file: Any, path: Path, name: str, mark: Mark | None) -> int:
    """Return the number of complete rows of a group, which must be those that the mark tells of.

    Raises:
        OtherWriterError: They are not, or the file bears another mark.
    """
    end = end_of(file[name]) if name in file else None
    if mark is not None:
        check_mark(file, path, mark)
    if end is None or (mark is not None and mark.last.get(name) != end.step):
        raise OtherWriterError(f"the group {name!r} of {path} has rows of another writer, or has lost some.")
    return end.count


def put_rows(group: Any, index: int, rows: Sequence[Row], settle: Callable[[], None] = lambda: None) -> None:
    """Write rows, their steps last: into places behind the complete rows, or in the place of earlier ones.

    Args:
        group: The open HDF5 group.
        index: Index of the first row.
        rows: An array for every variable of the group, for each row.
        settle: Called before the steps are written, and at the end.
    """
    # A file of an older version lacks the common variables that came later.
    names = [variable for variable in rows[0] if variable != EVENT and variable in group]
    if CHECKSUM in names:
        dtype = rows[0][CHECKSUM].dtype
        rows = [row | {CHECKSUM: np.asarray(checksum(row, [*names, EVENT]), dtype=dtype)} for row in rows]
    for variable in (*names, EVENT):
        if variable == EVENT:
            settle()
        dataset = h5py.h5d.open(group.id, variable.encode())
        if len(rows) == 1 or rows[0][variable].nbytes > _SMALL:
            for number, row in enumerate(rows):
                _put(dataset, index + number, row[variable][None])
        else:
            _put(dataset, index, np.stack([row[variable] for row in rows]))
    settle()


def _put(dataset: Any, index: int, values: np.ndarray) -> None:
    """Write rows of a variable by HDF5's own calls: h5py's indexing takes several times as long for a number.

    Args:
        dataset: The variable, an h5py.h5d.DatasetID.
        index: Index of the first row.
        values: Their values, of the variable's type, the rows along the first axis.
    """
    length, count = dataset.shape[0], len(values)
    row = values.shape[1:]
    dataset.set_extent((max(length, index + count), *row))
    large = values.nbytes >= _LARGE
    missing = count == 1 and is_missing(values[0])
    chunks: tuple[int, ...] = dataset.get_create_plist().get_chunk() if large or missing else ()
    if missing and chunks[0] == 1 and length == index:
        return  # a chunk that was never written reads as the fill value, and takes no space
    rounded = bool(row) and values.dtype == np.float32 and _bfloat16.is_bfloat16(dataset)
    stored = _bfloat16.stored(values) if rounded else np.ascontiguousarray(values)
    at = (index, *(0 for _ in row))
    if large and chunks == (1, *row) == values.shape and (rounded or dataset.dtype == values.dtype):
        # As the bytes of its chunk: otherwise HDF5 fills a chunk of its own first, and copies the row there.
        dataset.write_direct_chunk(at, stored)
        return
    place = dataset.get_space()
    place.select_hyperslab(at, values.shape)
    memory = h5py.h5s.create_simple(values.shape)
    dataset.write(memory, place, stored, _bfloat16.storage_type() if rounded else None)
