"""Kinds of the attributes that readers rely on: an attribute of another kind is refused where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OBJECTS = (
    "hyper_parameters",
    "optimizer",
    "trainer",
    "versions",
    "measured",
    "derivatives",
    "settings",
    "aliases",
)
_LISTS = ("variables", "measures")
_NUMBERS = ("n_parameters", "n_examples")
_TENSORS = ("parameter", "moving", "buffer", "constant")


def checked_settings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes of the root or of a group whose known ones are of the kinds that they are written in.

    Args:
        attributes: Plain values by name.

    Returns:
        The same.

    Raises:
        ValueError: One of them is of another kind.
    """
    for names, kind, expected in (
        (_OBJECTS, dict, "an object"),
        (("held_out",), (dict, str), "an object or the reason why there is none"),
        (_LISTS, list, "a list"),
        (_NUMBERS, (int, float), "a number"),
    ):
        for name in names:
            value = attributes.get(name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"the attribute {name!r} is {value!r:.60}, expected {expected}")
    for part in _TENSORS:
        _check_tensors(part, attributes)
    return dict(attributes)


def _check_tensors(part: str, attributes: Mapping[str, Any]) -> None:
    """Check the lists that cut a vector into tensors: a name, a shape and a type for each."""
    names = attributes.get(f"{part}_names")
    shapes = attributes.get(f"{part}_shapes")
    dtypes = attributes.get(f"{part}_dtypes")
    for what, value, right in (
        ("names", names, lambda one: isinstance(one, str)),
        ("shapes", shapes, _is_shape),
        ("dtypes", dtypes, lambda one: isinstance(one, str)),
    ):
        if value is not None and not (isinstance(value, list) and all(map(right, value))):
            raise ValueError(f"the attribute {part}_{what} is {value!r:.60}, expected a list of {what}")
    if names is not None and len(shapes or ()) != len(names):
        raise ValueError(f"the attribute {part}_shapes does not have a shape for each of {len(names)} names")
    if names is not None and dtypes and len(dtypes) != len(names):
        raise ValueError(f"the attribute {part}_dtypes does not have a type for each of {len(names)} names")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in value
    )
