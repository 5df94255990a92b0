"""Appending rows: each whole or not at all, whenever the process is killed."""

from __future__ import annotations

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
    # A file of an older version lacks the common variables that came later.
    for name in (*(name for name in row if name != EVENT and name in group), EVENT):
        if name == EVENT:
            settle()
        _put(h5py.h5d.open(group.id, name.encode()), count, row[name])
    settle()


def _put(dataset: Any, index: int, values: np.ndarray) -> None:
    """Write a row of a variable by HDF5's own calls: h5py's indexing takes several times as long for a number.

    Args:
        dataset: The variable, an h5py.h5d.DatasetID.
        index: Index of the row.
        values: Its value, of the variable's type.
    """
    length = dataset.shape[0]
    dataset.set_extent((index + 1, *values.shape))
    large = values.nbytes >= _LARGE
    chunks: tuple[int, ...] = dataset.get_create_plist().get_chunk() if large or is_missing(values) else ()
    if is_missing(values) and chunks[0] == 1 and length == index:
        return  # a chunk that was never written reads as the fill value, and takes no space
    rounded = bool(values.ndim) and values.dtype == np.float32 and _bfloat16.is_bfloat16(dataset)
    stored = _bfloat16.stored(values) if rounded else np.ascontiguousarray(values)
    if large and chunks == (1, *values.shape) and (rounded or dataset.dtype == values.dtype):
        # As the bytes of its chunk: otherwise HDF5 fills a chunk of its own first, and copies the row there.
        dataset.write_direct_chunk((index, *(0 for _ in values.shape)), stored)
        return
    place = dataset.get_space()
    place.select_hyperslab((index, *(0 for _ in values.shape)), (1, *values.shape))
    memory = h5py.h5s.create_simple((1, *values.shape))
    dataset.write(memory, place, stored.reshape(1, *values.shape), _bfloat16.storage_type() if rounded else None)
