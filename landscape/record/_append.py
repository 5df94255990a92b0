"""Appending rows: each whole or not at all, whenever the process is killed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape.record import _bfloat16
from landscape.record._locks import locked
from landscape.record._ordered import ALIGNMENT, OrderedFile
from landscape.record._recovery import complete_steps
from landscape.record._replacement import replacing
from landscape.record._rows import Row, is_missing
from landscape.record._structure import EVENT

_LARGE = 1024**2  # bytes that are worth the shorter way into the file


def append_row(path: Path, group: str, row: Row, shared: bool = False) -> None:
    """Write a row behind the last complete one, in place.

    Args:
        path: The file.
        group: Name of the group.
        row: An array for every variable of the group.
        shared: Write although readers hold the file open. Rows are safe, but such a reader may meet metadata that
            contradicts what it has read before.

    Raises:
        BlockingIOError: Readers (or, with `shared`, another writer) hold the file; nothing was written.
        OSError: The system refused to write; the file is as whole as before.
    """
    with locked(path, shared) as file:
        ordered = OrderedFile(file)

        with h5py.File(ordered, "r+", **ALIGNMENT) as opened:

            def settle() -> None:
                opened.flush()
                ordered.commit()

            _write(opened[group], row, settle)
        ordered.commit()


def append_in_copy(path: Path, rows: Iterable[tuple[str, Row]]) -> None:
    """Write rows into a copy of the file that takes its place; readers that hold the old one are not disturbed.

    Args:
        path: The file.
        rows: Pairs of a group's name and a row.

    Raises:
        FileError: Another program is writing the file, or the copy cannot be written; nothing has changed.
    """
    with replacing(path) as file:
        for group, row in rows:
            _write(file[group], row, lambda: None)


def _write(group: Any, row: Row, settle: Callable[[], None]) -> None:
    """Write the variables, settle them, then write the step, which makes the row count, and settle that."""
    count = len(complete_steps(group))
    for name in (*(name for name in row if name != EVENT), EVENT):
        if name == EVENT:
            settle()
        dataset = group[name]
        # A chunk that was never written reads as the fill value and takes no space; rests of an unfinished row do not.
        absent = is_missing(row[name]) and dataset.chunks[0] == 1 and len(dataset) == count
        dataset.resize(count + 1, axis=0)
        if absent:
            continue
        _put(dataset, count, row[name])
    settle()


def _put(dataset: Any, index: int, values: np.ndarray) -> None:
    rounded = _bfloat16.is_bfloat16(dataset)
    if dataset.chunks == (1, *values.shape) and values.nbytes >= _LARGE and sys.byteorder == "little":
        # As the bytes of its chunk: otherwise HDF5 fills a chunk of its own first, and copies the row there.
        stored = _bfloat16.stored(values) if rounded else np.ascontiguousarray(values, dtype=dataset.dtype)
        dataset.id.write_direct_chunk((index, *(0 for _ in values.shape)), stored)
    elif rounded:
        _bfloat16.write_row(dataset, index, values)
    else:
        dataset[index] = values
