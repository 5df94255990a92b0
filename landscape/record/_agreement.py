"""Whether a group that stands in a file is the one that a callback wants to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landscape._errors import FileError
from landscape.record._attributes import normalise
from landscape.record._schema import GroupSchema


def check_agreement(path: Path | str, found: GroupSchema, wanted: GroupSchema) -> None:
    """Check that rows of one schema can follow rows of the other.

    Raises:
        FileError: Variables, dimensions, labels or settings differ.
    """
    difference = found.difference(wanted) or _changed_setting(found, wanted)
    if difference:
        raise FileError(
            f"{path} holds the group {found.name!r} in another form: {difference}. Rows of two forms are not mixed: "
            "go on with the settings that the run began with, or give a new path."
        )


def _changed_setting(found: GroupSchema, wanted: GroupSchema) -> str | None:
    then, now = (_comparable(normalise(schema.attributes)) for schema in (found, wanted))
    for name in _DATA:
        # Older versions described the data in fewer words.
        if isinstance(then.get(name), dict) and isinstance(now.get(name), dict):
            shared = then[name].keys() & now[name].keys()
            then[name], now[name] = ({key: each[key] for key in sorted(shared)} for each in (then[name], now[name]))
    for name in [*now, *(then.keys() - now.keys())]:
        if repr(then.get(name)) != repr(now.get(name)):  # their text, as NaN equals NaN then
            return f"the setting {name!r} was {then.get(name)!r} and is {now.get(name)!r} now"
    return None


def _comparable(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may differ: the allowed overhead, and the evidence of checks, whose digits depend on weights."""
    kept = {name: value for name, value in attributes.items() if name not in _EVIDENCE}
    for name in _DATA:
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key not in _EVIDENCE}
    return kept


_DATA = ("measured", "held_out")
_EVIDENCE = frozenset({"weighting_evidence", "derivatives", "overhead"})
