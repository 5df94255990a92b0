"""Texts and attributes of an HDF5 file, read so that a small file cannot fill the memory.

The type of a text does not say how long it is, and many places of a file may refer to one long text. So texts are read
few at once, and counted.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5i, h5s, h5t

from landscape.record._budget import Budget

_MOST_ATTRIBUTES = 4096
_MOST_ATTRIBUTE_BYTES = 16 * 1024**2  # all attributes of one object; names of 100,000 tensors take half of it
_FEW = 64  # texts that one attribute may hold in a file of any size
_BLOCK = 4096


def attributes_of(target: Any, budget: Budget | None = None) -> dict[str, Any]:
    """Return the attributes of an HDF5 file, group or dataset as they are stored.

    Args:
        target: The object.
        budget: What the call may still read.

    Returns:
        Values by name.

    Raises:
        ValueError: There are too many, or one is of a kind that no run file has.
    """
    if h5a.get_num_attrs(target.id) > _MOST_ATTRIBUTES:
        raise ValueError(f"{_where(target)} has more than {_MOST_ATTRIBUTES} attributes")
    budget, found, total = budget or Budget(), {}, 0
    for name in target.attrs:
        found[name] = attribute(target, name, budget=budget)
        total += _size(found[name])
        if total > _MOST_ATTRIBUTE_BYTES:
            raise ValueError(f"the attributes of {_where(target)} take more than {_MOST_ATTRIBUTE_BYTES // 2**20} MB")
    budget.take(total)
    return found


def attribute(target: Any, name: str, default: Any = None, budget: Budget | None = None) -> Any:
    """Return an attribute of an HDF5 object.

    Args:
        target: The object.
        name: Name of the attribute.
        default: What to return where there is none.
        budget: What the call may still read.

    Returns:
        The value.

    Raises:
        ValueError: It is no text and no number, or claims too many of them.
    """
    if name not in target.attrs:
        return default
    found = h5a.open(target.id, name.encode("utf-8", errors="surrogateescape"))
    kind, space = found.get_type(), found.get_space()
    count = space.get_simple_extent_npoints() if space.get_simple_extent_type() != h5s.NULL else 0
    if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
        most = max(_FEW, (budget or Budget()).most(h5i.get_file_id(target.id).get_filesize()))
    elif isinstance(kind, (h5t.TypeStringID, h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeEnumID)):
        most = _MOST_ATTRIBUTE_BYTES // max(1, kind.get_size())
    else:
        raise ValueError(f"the attribute {name!r} of {_where(target)} is neither text nor number")
    if count > most:
        raise ValueError(f"the attribute {name!r} of {_where(target)} claims {count} values")
    return target.attrs[name]


def text_attribute(target: Any, name: str, default: str = "") -> str:
    """Return an attribute as text."""
    return str(attribute(target, name, default))


def texts(dataset: Any, budget: Budget | None = None) -> np.ndarray:
    """Return a dataset of texts.

    Args:
        dataset: Of variable-length or fixed texts.
        budget: What the call may still read.

    Returns:
        An array of str.
    """
    budget = budget or Budget()
    at_once = min(_BLOCK, budget.most(h5i.get_file_id(dataset.id).get_filesize()))
    reader, shape = dataset.asstr(), dataset.shape
    found: list[str] = []
    for index in np.ndindex(shape[:-1]):
        for start in range(0, shape[-1] if shape else 1, at_once):
            part = np.atleast_1d(reader[(*index, slice(start, start + at_once))] if shape else reader[()])
            budget.take(sum(map(len, part)))
            found += part.tolist()
    budget.take(4 * max(map(len, found), default=0) * len(found))  # numpy gives all of them the longest one's room
    return np.array(found, dtype=str).reshape(shape)


def _where(target: Any) -> str:
    return "the file" if isinstance(target, h5py.File) or target.name == "/" else repr(target.name)


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    array = np.asarray(value)
    return sum(len(str(item)) for item in array.flat) if array.dtype.kind == "O" else array.nbytes
