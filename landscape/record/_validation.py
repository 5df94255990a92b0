"""Validate a run file when it is opened, before anything in it is read.

A run file may come from anybody. So its structure is checked against the schema first: it holds groups with data sets
and nothing else, refers to no other file, and stores the bytes that its shapes claim. docs/security.md lists what is
refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from landscape.record._schema import COMMON, EVENT, LAYOUT, is_name

_MOST_GROUPS, _MOST_SETS, _MOST_SETS_IN_ALL = 1024, 1024, 16384
_MOST_RANK = 8
_MOST_TEXT = 65536  # bytes of a fixed text
_SLACK = 1024**2  # bytes of a file that may be claimed without being stored
LARGE_ROW = 8 * 1024  # bytes: rows of at least that have a chunk each, which is not written where the row is missing
_INFLATED = 1032  # what deflate makes of a byte at most
_MOST_INFLATED = 128 * 1024**2
_SHOWN = 8  # steps in a sentence
_KINDS = {"f": h5t.FLOAT, "i": h5t.INTEGER, "S": h5t.STRING}
_COMMON = {variable.name: _KINDS[np.dtype(variable.dtype).kind] for variable in COMMON}
_FILTERS = {h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_DEFLATE}


class Refusal(ValueError):
    """What a run file may not hold, as a clause."""


def validate(file: Any, size: int) -> None:
    """Check the structure of an open file.

    Args:
        file: The open h5py.File.
        size: Its length in bytes.

    Raises:
        Refusal: It is not the structure of a run file.
    """
    root = h5g.open(file.id, b"/")
    names = _names(root, _MOST_GROUPS, "the file")
    tally = _Tally(size)
    for name in names:
        _require_hard(root, name, "")
        if h5o.get_info(root, name).type != h5o.TYPE_GROUP:
            continue
        group = h5g.open(root, name)
        where = _text(name)
        # A group that this version does not know is not entered.
        if where == LAYOUT or EVENT.encode() in set(group):
            _check_group(group, where, tally)


def measure_groups(file: Any) -> list[str]:
    """Return the names of the groups that have rows, following no link out of the file."""
    root = h5g.open(file.id, b"/")
    return [_text(name) for name in root if is_measure(root, name)]


def is_measure(root: Any, name: bytes) -> bool:
    """Return whether a child of the root is a group with rows."""
    if not _is_hard(root, name) or h5o.get_info(root, name).type != h5o.TYPE_GROUP:
        return False
    group = h5g.open(root, name)
    return EVENT.encode() in set(group) and _is_hard(group, EVENT.encode())


def data_sets(group: Any) -> list[str]:
    """Return the names of the data sets of a group; groups in it are of a newer version, and ignored."""
    return [
        _text(name)
        for name in group.id
        if _is_hard(group.id, name) and h5o.get_info(group.id, name).type == h5o.TYPE_DATASET
    ]


def stored_bytes(data: Any) -> int:
    """Return the bytes that a validated data set (an h5py.h5d.DatasetID) stores, counted as they are when read."""
    stored: int = data.get_storage_size()
    return stored * _INFLATED if data.get_create_plist().get_nfilters() else stored


class _Tally:
    """What all data sets of a file claim and store."""

    def __init__(self, size: int) -> None:
        self.size, self.stored, self.unbacked, self.sets = size, 0, 0, 0
        self.places: set[int] = set()

    def store(self, where: str, size: int) -> None:
        self.stored += size
        if self.stored > self.size:
            raise Refusal(f"its data sets up to {where!r} store {self.stored} bytes in a file of {self.size}")

    def claim(self, where: str, size: int, stored: int) -> None:
        self.unbacked += max(0, size - stored)
        if self.unbacked > _SLACK:
            raise Refusal(f"{where!r} claims {size} bytes and stores {stored}")

    def place(self, where: str, address: int) -> None:
        self.sets += 1
        if self.sets > _MOST_SETS_IN_ALL:
            raise Refusal(f"it has more than {_MOST_SETS_IN_ALL} data sets")
        if address in self.places:
            raise Refusal(f"{where!r} is another data set under a second name")
        self.places.add(address)


def _check_group(group: Any, where: str, tally: _Tally) -> None:
    if not is_name(where):
        raise Refusal(f"it has a group named {where!r}, which is no name of a group")
    shapes: dict[str, tuple[int, ...]] = {}
    for name in _names(group, _MOST_SETS, repr(where)):
        path = f"{where}/{_text(name)}"
        _require_hard(group, name, f"{where}/")
        about = h5o.get_info(group, name)
        if about.type == h5o.TYPE_DATASET:
            tally.place(path, about.addr)
            if not is_name(_text(name)):
                raise Refusal(f"it has a data set {path!r}, which is no name of a variable")
            shapes[_text(name)] = _check_data(h5d.open(group, name), path, _text(name), tally)
        elif _text(name) == EVENT:
            raise Refusal(f"{path!r} is no data set")
    if EVENT in shapes:
        common = sorted(shapes.keys() & _COMMON.keys())
        if "status" not in common:
            raise Refusal(f"the group {where!r} has no variable 'status'")
        for each in common:
            if len(shapes[each]) != 1:
                raise Refusal(f"{where}/{each} has {len(shapes[each])} dimensions, and a common variable has one")
        rows = _check_steps(group, where)
        for each in common:
            if shapes[each][0] < rows:
                raise Refusal(f"{where}/{each} has {shapes[each][0]} of {rows} rows")


def _check_data(data: Any, path: str, name: str, tally: _Tally) -> tuple[int, ...]:
    """Check a data set, and return its shape."""
    created = data.get_create_plist()
    layout = created.get_layout()
    # Before the shape is asked for: a virtual data set opens its sources to know it.
    if layout == h5d.VIRTUAL:
        raise Refusal(f"{path!r} is a virtual data set, which shows the content of other files")
    if layout == h5d.CONTIGUOUS and created.get_external_count():
        raise Refusal(f"{path!r} keeps its data in another file")
    kind = data.get_type()
    _check_type(kind, path, name)
    space = data.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise Refusal(f"{path!r} has no shape")
    shape: tuple[int, ...] = space.shape
    if len(shape) > _MOST_RANK:
        raise Refusal(f"{path!r} has {len(shape)} dimensions; expected {_MOST_RANK} at most")
    claimed, stored = math.prod(shape) * kind.get_size(), data.get_storage_size()
    tally.store(path, stored)
    if created.get_nfilters():
        stored = _inflated(created, path, stored)
    if claimed > stored and (name in _COMMON or not _may_be_missing(data, created, layout, shape, kind, stored)):
        tally.claim(path, claimed, stored)
    return shape


def _check_type(kind: Any, path: str, name: str) -> None:
    found = kind.get_class()
    size = kind.get_size()
    known = (found == h5t.FLOAT and size in (2, 4, 8)) or (found == h5t.INTEGER and size in (1, 2, 4, 8))
    text = found == h5t.STRING and (kind.is_variable_str() or size <= _MOST_TEXT)
    if not known and not text:
        raise Refusal(f"{path!r} holds neither numbers of up to 64 bits nor texts")
    if name in _COMMON and (found != _COMMON[name] or (text and kind.is_variable_str())):
        expected = {h5t.FLOAT: "floats", h5t.INTEGER: "integers", h5t.STRING: "bytes of fixed length"}
        raise Refusal(f"{path!r} holds other values than {expected[_COMMON[name]]}")


def _inflated(created: Any, path: str, stored: int) -> int:
    """Return how many bytes filtered data may become. No run file has filters as it is written; some tools add them."""
    codes = [created.get_filter(number)[0] for number in range(created.get_nfilters())]
    inflated = stored * _INFLATED if h5z.FILTER_DEFLATE in codes else stored
    chunk = math.prod(created.get_chunk())
    if not set(codes) <= _FILTERS or codes.count(h5z.FILTER_DEFLATE) > 1:
        reason = "is filtered in a way that is not read"
    elif inflated > _MOST_INFLATED or chunk > max(inflated, _SLACK):
        reason = f"is compressed to {stored} bytes, which may become more than is read"
    else:
        return inflated
    raise Refusal(f"{path!r} {reason}; `h5repack -f NONE` writes a copy without filters")


def _may_be_missing(data: Any, created: Any, layout: int, shape: tuple[int, ...], kind: Any, stored: int) -> bool:
    """Return whether a claim without stored bytes is one that the recorder makes: an axis, or large missing rows."""
    if layout == h5d.CHUNKED and shape:
        row = math.prod(shape[1:]) * kind.get_size()
        return created.get_chunk()[0] == 1 and row >= LARGE_ROW
    return stored == 0 and len(shape) == 1 and h5a.exists(data, b"CLASS")


def steps_of(group: Any) -> np.ndarray:
    """Return the steps of the complete rows of a group (an h5py.h5g.GroupID)."""
    data = h5d.open(group, EVENT.encode())
    steps = np.empty(data.shape, dtype=np.int64)
    if steps.size:
        data.read(h5s.ALL, h5s.ALL, steps)
    unfinished = np.flatnonzero(steps < 0)
    return steps[: unfinished[0]] if len(unfinished) else steps


def _check_steps(group: Any, where: str) -> int:
    """Check that the steps of the complete rows increase, and return how many these are."""
    complete = steps_of(group)
    if (fallen := np.flatnonzero(np.diff(complete) <= 0)).size:
        at = int(fallen[0]) + 1
        near = ", ".join(str(step) for step in complete[max(0, at - _SHOWN // 2) : at + 1])
        raise Refusal(
            f"the steps of the group {where!r} do not increase (..., {near}), as where two programs have written it"
        )
    return len(complete)


def _names(group: Any, most: int, where: str) -> list[bytes]:
    if group.get_num_objs() > most:
        raise Refusal(f"{where} has {group.get_num_objs()} entries; expected {most} at most")
    return list(group)


def _require_hard(group: Any, name: bytes, where: str) -> None:
    kind = group.links.get_info(name).type
    if kind != h5l.TYPE_HARD:
        named = {h5l.TYPE_EXTERNAL: "a link to another file", h5l.TYPE_SOFT: "a symbolic link"}
        what = named.get(kind, "a link of an unknown kind")
        raise Refusal(f"{where + _text(name)!r} is {what}, which is not followed")


def _is_hard(group: Any, name: bytes) -> bool:
    return bool(group.links.get_info(name).type == h5l.TYPE_HARD)


def _text(name: bytes) -> str:
    return name.decode("utf-8", errors="surrogateescape")
