"""What a killed writer has left in a run file, and a copy that holds complete rows only."""

from __future__ import annotations

import dataclasses
import filecmp
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py

from landscape._errors import FileError
from landscape._results import Result
from landscape.record._append import put_rows
from landscape.record._attributes import read_attributes
from landscape.record._budget import Budget
from landscape.record._checksum import damaged_steps
from landscape.record._opening import group_names, reading
from landscape.record._recovery import complete_steps, drop_rows_after
from landscape.record._replacement import changing, copied, leftovers
from landscape.record._rows import FAILED, check_row
from landscape.record._schema import COMMON
from landscape.record._settings import checked_settings
from landscape.record._structure import EVENT, read_layout, read_schema, statics_of
from landscape.record._texts import texts
from landscape.record._validation import LARGE_ROW

_DAMAGED = "the row was damaged in the file: its checksum did not match its values"
_ALL = 2**62  # a step beyond every step: only the rests of unfinished rows are dropped
_PIECE = 32 * 1024**2  # bytes read at once: a row may be a network's weights


@dataclasses.dataclass(frozen=True)
class GroupState(Result):
    """What a group holds.

    Attributes:
        name: The group.
        rows: Complete rows.
        failed: Those of them whose measurement failed altogether.
        first_step: Step of the first of them, -1 where there are none.
        last_step: Step of the last of them, -1 where there are none.
        unfinished: Rows that were begun and never finished, which no reader shows.
        damaged: Steps of complete rows whose checksum is not that of their values.
    """

    name: str
    rows: int
    failed: int
    first_step: int
    last_step: int
    unfinished: int
    damaged: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class FileState(Result):
    """What a run file holds.

    Attributes:
        path: The file.
        run_id: Identifier of the run.
        groups: Its groups.
        leftovers: Names of temporary files beside it: of a writer that was killed, or of one at work.
    """

    path: str
    run_id: str
    groups: tuple[GroupState, ...]
    leftovers: tuple[str, ...]

    @property
    def unfinished(self) -> int:
        """Unfinished rows of all groups."""
        return sum(group.unfinished for group in self.groups)

    @property
    def damaged(self) -> int:
        """Damaged rows of all groups."""
        return sum(len(group.damaged) for group in self.groups)

    def damage(self) -> str:
        """Say which rows are damaged: `sharpness at step 4, 12`; "" where none is."""
        return "; ".join(f"{g.name} at step {', '.join(map(str, g.damaged))}" for g in self.groups if g.damaged)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, groups as dicts."""
        groups = [group.to_dict() for group in self.groups]
        return {"path": self.path, "run_id": self.run_id, "groups": groups, "leftovers": list(self.leftovers)}


def inspect_file(path: str | Path) -> FileState:
    """Say what a run file holds; every complete row is read once, so that damage is noticed.

    Args:
        path: The file.

    Returns:
        Its groups, with complete and unfinished rows, and temporary files beside it.

    Raises:
        FileError: The file is missing, no run, of a newer schema, or damaged.
    """
    path = Path(path).resolve()
    with reading(path) as file:
        return _state(path, file)


def clean_copy(path: str | Path, out: str | Path) -> FileState:
    """Write a copy of a run file without unfinished rows; the file itself is not changed.

    A row whose checksum does not match its values keeps its step in the copy. Its numbers may be wrong, so they are
    replaced by missing ones, and the row is a failed one whose reason says so.

    The copy appears under its name when it is whole and has been read. A copy of a clean file is equal to it, byte for
    byte; where the same copy is there already, nothing happens.

    Args:
        path: The file.
        out: Where to; a folder must exist.

    Returns:
        What the file holds.

    Raises:
        FileError: The file is no readable run, or `out` is another file already, or cannot be written.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    with reading(path) as source:  # which keeps writers out
        state = _state(path, source)
        with copied(path, out) as temporary:
            if state.unfinished or state.damaged:
                with changing(temporary, "r+") as file:
                    drop_rows_after(file, _ALL)
                    for group in state.groups:
                        _blank(file[group.name], group.damaged)
            with reading(temporary) as copy:
                groups = _state(temporary, copy).groups
            if [_kept(group) for group in groups] != [_kept(group) for group in state.groups] or any(
                group.unfinished or group.damaged for group in groups
            ):
                raise FileError(f"{path} could not be repaired: the copy does not hold the same rows.")
            if not out.exists():
                os.replace(temporary, out)
            elif not filecmp.cmp(temporary, out, shallow=False):
                raise FileError(f"{out} exists already and is another file: give another path, or move it away.")
    return state


def _blank(group: Any, steps: Sequence[int]) -> None:
    """Replace the values of damaged rows by missing ones."""
    if steps:
        schema, places = read_schema(group), complete_steps(group).tolist()
    for step in steps:
        row = check_row(schema, {"step": step, "status": FAILED, "reason": _DAMAGED}, None)
        put_rows(group, places.index(step), [row])


def _kept(group: GroupState) -> tuple[Any, ...]:
    """Return what a copy must have in common with the file."""
    return group.name, group.rows, group.first_step, group.last_step


def _state(path: Path, file: Any) -> FileState:
    attributes = checked_settings(read_attributes(file, Budget(path)))
    read_layout(file, Budget(path))
    groups = tuple(_group_state(path, name, file[name]) for name in group_names(file))
    return FileState(str(path), str(attributes.get("run_id", "")), groups, tuple(leftovers(path)))


def _group_state(path: Path, name: str, group: Any) -> GroupState:
    """Count a group's rows, and read all that is complete, so that damage raises what every reader meets."""
    schema = read_schema(group, Budget(path))
    checked_settings(schema.attributes)
    steps = complete_steps(group)
    longest = len(group[EVENT])
    own = {variable.name for variable in schema.variables}
    for variable in [*own, *(common.name for common in COMMON if common.name in group)]:
        longest = max(longest, len(group[variable]))
        _read_rows(group[variable], len(steps))
    for static in statics_of(group):
        if h5py.check_string_dtype(group[static].dtype):
            texts(group[static], Budget(path))
        else:
            _read_pieces(group[static], group[static].shape, ())
    failed = int((group["status"][: len(steps)] == FAILED).sum())
    first, last = (int(steps[0]), int(steps[-1])) if len(steps) else (-1, -1)
    damaged = tuple(damaged_steps(group))
    return GroupState(name, len(steps), failed, first, last, longest - len(steps), damaged)


def _read_rows(dataset: Any, count: int) -> None:
    """Read the complete rows of a variable, but for large ones that were never written."""
    row = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    chunks = dataset.chunks
    if chunks is None or chunks[0] > 1 or row < LARGE_ROW:
        at_once = max(1, _PIECE // max(1, row))
        for start in range(0, count, at_once):
            dataset[start : min(start + at_once, count)]
        return
    for number in range(count):
        if dataset.id.get_chunk_info_by_coord((number, *(0 for _ in chunks[1:]))).byte_offset is not None:
            _read_pieces(dataset, dataset.shape[1:], (number,))


def _read_pieces(dataset: Any, shape: tuple[int, ...], before: tuple[int, ...]) -> None:
    for piece in _pieces(shape, dataset.dtype.itemsize):
        dataset[(*before, *piece)]


def _pieces(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array along its longest axis into pieces of few bytes."""
    if not shape:
        yield ()
        return
    axis = shape.index(max(shape))
    one = math.prod(shape) // max(1, shape[axis]) * size
    at_once = max(1, _PIECE // max(1, one))
    for start in range(0, shape[axis], at_once):
        yield tuple(slice(start, start + at_once) if at == axis else slice(None) for at in range(len(shape)))
