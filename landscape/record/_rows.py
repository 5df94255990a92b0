"""A row before it is written: names, types and shapes are checked, missing values are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.record import _bfloat16
from landscape.record._schema import STATUS, GroupSchema, Variable

Row = dict[str, np.ndarray]

FAILED = STATUS.index("failed")
_ACCEPTED = {"f": "biuf", "i": "biu", "S": "SU"}
_EXPECTED = {"f": "real numbers", "i": "integers", "S": "text"}


def check_row(schema: GroupSchema, values: Mapping[str, Any], last_step: int | None, copy: bool = True) -> Row:
    """Return the row as arrays of the declared dtypes, with every missing variable filled.

    Args:
        schema: The group that the row belongs to.
        values: Values by variable name; `step` is required, `status` defaults to 0 (measured)
            and may be given as text.
        last_step: Step of the group's previous row.
        copy: Whether the arrays must be the row's own; else they may be the caller's.

    Returns:
        An array for each variable of the schema, common ones included.

    Raises:
        ValueError: An unknown name, a wrong shape, a number out of range, or a step that does not increase.
        TypeError: A value of the wrong kind.
    """
    if unknown := [name for name in values if name not in schema.all_variables]:
        raise ValueError(
            f"group {schema.name!r} has no variable {unknown[0]!r}; it has {', '.join(schema.all_variables)}"
        )
    if "step" not in values:
        raise ValueError(f"a row of group {schema.name!r} has no 'step'; every row needs one")
    given = {"status": 0, **values}
    if isinstance(given["status"], str) and given["status"] in STATUS:
        given["status"] = STATUS.index(given["status"])
    row = {}
    for name, variable in schema.all_variables.items():
        if name in given:
            row[name] = _checked(schema, variable, given[name], copy)
        else:
            # One number in memory however large: what is missing is not written either where it would fill a chunk.
            row[name] = np.broadcast_to(np.asarray(variable.fill, dtype=variable.dtype), schema.shape(variable))
    _check_step(schema.name, int(row["step"]), last_step)
    if int(row["status"]) not in range(len(STATUS)):
        known = ", ".join(f"{number} ({text})" for number, text in enumerate(STATUS))
        raise ValueError(f"group {schema.name!r}: status is {row['status']}; expected one of {known}")
    return row


def owned(row: Row) -> Row:
    """Return a row whose arrays are its own, for one that is kept."""
    return {name: array if is_missing(array) else array.copy() for name, array in row.items()}


def is_missing(array: np.ndarray) -> bool:
    """Return whether a checked row's array stands for a value that was not given."""
    return array.size > 1 and not any(array.strides)


def _check_step(group: str, step: int, last_step: int | None) -> None:
    if step < 0:
        raise ValueError(f"group {group!r}: step is {step}; steps count from 0")
    if last_step is not None and step <= last_step:
        raise ValueError(
            f"group {group!r} already has a row at step {last_step}, so a row at step {step} cannot be "
            "appended: steps increase from row to row; resume the file from the checkpoint's step to measure again"
        )


def _checked(schema: GroupSchema, variable: Variable, value: Any, copy: bool) -> np.ndarray:
    where = f"variable {variable.name!r} of group {schema.name!r}"
    dtype = np.dtype(variable.dtype)
    if dtype.kind == "S" and np.ndim(value) == 0:
        value = _cut(value, dtype.itemsize)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{where} cannot be made an array: {error}") from None
    if array.dtype.kind not in _ACCEPTED[dtype.kind]:
        raise TypeError(f"{where} holds {_EXPECTED[dtype.kind]}; found {array.dtype} ({value!r:.60})")
    if array.shape != (shape := schema.shape(variable)):
        names = ", ".join(variable.dims) or "a scalar"
        raise ValueError(f"{where} has shape {shape} a row ({names}); found {array.shape}")
    if dtype.kind == "i" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(f"{where} does not fit into {dtype}: found {array.min()} to {array.max()}")
    # A float64 beyond float32's range becomes infinite, which is what the training's own float32 would hold.
    with np.errstate(over="ignore"):
        stored = array.astype(dtype, copy=copy)
    return _bfloat16.rounded(stored) if variable.storage else stored


def _cut(value: Any, size: int) -> Any:
    """Return text as UTF-8 of at most `size` bytes: whole characters, without the NULs that would end it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        return value
    encoded = value.replace("\0", " ").encode("utf-8", errors="replace")[:size]
    return encoded.decode("utf-8", errors="ignore").encode("utf-8")
