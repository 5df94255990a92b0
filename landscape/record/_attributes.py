"""Attributes of the file and of its groups: plain values as they are, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from landscape.record._budget import Budget
from landscape.record._life import NAMES as LIFE
from landscape.record._texts import attribute, attributes_of

_JSON = "json_attributes"
_INT64 = range(-(2**63), 2**63)


def write_attributes(target: Any, values: Mapping[str, Any]) -> None:
    """Set attributes of an HDF5 file, group or dataset.

    Strings, integers and floats are stored as such. Anything else (dicts, lists, booleans, None) is stored as
    JSON text, and the attribute `json_attributes` lists the names of those, so that a reader can decode them.
    """
    encoded = set(_names(target))
    for name, value in values.items():
        stored, is_json = encode(value)
        target.attrs[name] = stored
        encoded = encoded | {name} if is_json else encoded - {name}
    if encoded:
        target.attrs.create(_JSON, sorted(encoded), dtype=h5py.string_dtype("utf-8"))
    elif _JSON in target.attrs:
        del target.attrs[_JSON]


def read_attributes(target: Any, budget: Budget | None = None) -> dict[str, Any]:
    """Return the attributes of an HDF5 file, group or dataset, JSON decoded.

    Args:
        target: The object.
        budget: What the call may still read.

    Returns:
        Plain values by name.

    Raises:
        ValueError: An attribute that is marked as JSON is none, or there are too many.
    """
    values = attributes_of(target, budget)
    encoded = {str(name) for name in values.pop(_JSON, ())}
    return {name: _decoded(name, value) if name in encoded else _plain(value) for name, value in values.items()}


def _decoded(name: str, value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the attribute {name!r} is no JSON: {str(error)[:80]}") from None


def encode(value: Any) -> tuple[str | int | float, bool]:
    """Return the value as HDF5 stores it, and whether that is JSON text."""
    value = _plain(value)
    if isinstance(value, str) and _is_storable(value):
        return value, False
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and value in _INT64):
        return value, False
    return json.dumps(value), True


def normalise(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they read after having been stored."""
    encoded = {str(name): encode(value) for name, value in values.items()}
    return {name: json.loads(stored) if is_json else stored for name, (stored, is_json) in encoded.items()}  # type: ignore[arg-type]


def check_root_attributes(values: Mapping[str, Any]) -> None:
    """Check that attributes are not among those that the recorder keeps itself.

    Raises:
        ValueError: One of them is.
    """
    if kept := [name for name in values if name in ("run_id", "schema_version", _JSON, *LIFE)]:
        raise ValueError(f"the root attribute {kept[0]!r} is kept by the recorder; choose another name")


def _names(target: Any) -> list[str]:
    return [str(name) for name in attribute(target, _JSON, ())]


def _plain(value: Any) -> Any:
    """Return the value as JSON knows it; what JSON does not know (classes, functions, paths) becomes text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)


def _is_storable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text
