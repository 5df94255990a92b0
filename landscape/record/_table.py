"""One table of a run: a row per measured step, a column per scalar measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from landscape._errors import FileError
from landscape.record._budget import Budget
from landscape.record._checksum import CHECKSUM
from landscape.record._contents import GroupContents, as_text
from landscape.record._schema import COMMON, GroupSchema, Variable
from landscape.record._structure import EVENT

_COMMON = tuple(variable.name for variable in COMMON if variable.name not in (EVENT, CHECKSUM))
# Along these a variable is a vector of its own, not a handful of settings of one measure.
_VECTORS = frozenset({"eigenvalue", "eigenvalue_bottom", "probe", "node", "t", "parameter", "buffer"})
_MOST_LABELS = 16
_MOST_COLUMNS = 20_000
# What depends on which weights were measured; the rest of the common columns says when.
_LOSSES = frozenset(
    f"{name}{end}"
    for name in ("train_loss", "train_error", "held_out_loss", "held_out_error")
    for end in ("", "_stderr_sample")
)
_CELL, _COLUMN = 8, 2048  # bytes of an entry, and of a column beside its entries
_SEVERITY = {text: rank for rank, text in enumerate(("ok", "partial", "surrogate", "failed"))}


def column_variables(schema: GroupSchema) -> list[str]:
    """Return the variables of a group that have a place in the table."""
    return [name for name, variable in schema.all_variables.items() if _labels(schema, variable) is not None]


def table(
    groups: Mapping[str, GroupContents], memory_limit: int | None = None, path: Path | str = "the file"
) -> pd.DataFrame:
    """Join the groups of a run on the step.

    The common columns stand once: each takes its value from the first group that has one, `wall_seconds` is the sum,
    `status` is the worst of any group (failed, surrogate, partial, ok), and `reason` joins the reasons. Losses and
    errors of groups that measured other weights than the training's, as their attribute `weights` says, stand under its
    name (`swa_train_loss`). A variable along one labelled dimension gives a column for each label
    (`bits[tolerance=0.01]`), one along two, the first of strings, a column for each pair
    (`barrier_train_loss[linear,interpolated]`, `bits[uniform-tensor,tolerance=0.01]`); longer vectors are left out. A
    name that several groups have is written `group/name`. A measure not taken at a step is NaN, an integer -1, a text
    empty.

    Args:
        groups: The groups by name.
        memory_limit: Bytes that the table takes at most; None for no limit. Groups with rows at different steps make
            it larger than what the file stores.
        path: The file, for the sentence.

    Returns:
        The table, ordered by step.

    Raises:
        FileError: The table would take more, or have more columns than anybody looks at.
    """
    every_step = [contents.rows[EVENT] for contents in groups.values()]
    steps = np.unique(np.concatenate(every_step)) if every_step else np.zeros(0, dtype=np.int64)
    width = len(_COMMON) + sum(_width(contents) for contents in groups.values())
    if width > _MOST_COLUMNS:
        raise FileError(
            f"{path} has {width} columns for one table, more than {_MOST_COLUMNS}; read its groups with Run.dataset."
        )
    Budget(path, memory_limit).take(width * (len(steps) * _CELL + _COLUMN))
    columns: dict[str, np.ndarray] = {EVENT: steps, **_common(groups, steps)}
    others = _losses_of_other_weights(groups, steps)
    measures = [(group, *column) for group, contents in groups.items() for column in _columns(contents, steps)]
    count = Counter(name for _, name, _ in measures)
    for group, name, values in measures:
        columns[name if count[name] == 1 else f"{group}/{name}"] = values
    return pd.DataFrame(others | columns)[[*columns, *(name for name in others if name not in columns)]]


def _width(contents: GroupContents) -> int:
    """Return how many columns a group gives; the losses of other weights have some of their own."""
    schema = contents.schema
    return len(_LOSSES) + sum(len(_labels(schema, variable) or ()) for variable in schema.variables)


def _columns(contents: GroupContents, steps: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for variable in contents.schema.variables:
        labels = _labels(contents.schema, variable)
        if labels is not None:
            values = as_text(variable.name, contents.rows[variable.name])
            for label, column in zip(labels, values.reshape(len(values), len(labels)).T, strict=True):
                yield f"{variable.name}{label}", _spread(column, contents.rows[EVENT], steps)


def _labels(schema: GroupSchema, variable: Variable) -> list[str] | None:
    """Return what each entry of a variable's row is called, or None where it gets no column."""
    if not variable.dims:
        return [""]
    axes = [schema.dimensions[dim] for dim in variable.dims]
    if any(not axis.labelled or axis.size > _MOST_LABELS or axis.name in _VECTORS for axis in axes):
        return None
    if len(axes) == 1:
        return [f"[{axes[0].name}={_label(value)}]" for value in axes[0].values]
    if len(axes) == 2 and axes[0].has_strings:
        name = "" if axes[1].has_strings else f"{axes[1].name}="
        return [f"[{first},{name}{_label(second)}]" for first in axes[0].values for second in axes[1].values]
    return None


def _label(value: np.generic) -> str:
    return f"{value:g}" if value.dtype.kind == "f" else str(value)


def _spread(values: np.ndarray, at: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the values of a group's rows at their places among all steps."""
    missing = {"f": np.nan, "i": -1}.get(values.dtype.kind, "")
    spread = np.full(len(steps), missing, dtype=object if values.dtype.kind in "UO" else values.dtype)
    spread[np.searchsorted(steps, at)] = values
    return spread


def _common(groups: Mapping[str, GroupContents], steps: np.ndarray) -> dict[str, np.ndarray]:
    columns = {}
    for name in _COMMON if groups else ():
        taken = [item for item in groups.values() if name not in _LOSSES or not _other_weights(item)]
        parts = [_spread(as_text(name, item.rows[name]), item.rows[EVENT], steps) for item in taken]
        if name == "status":
            ranks = np.array([[_SEVERITY.get(text, 0) for text in part] for part in parts], dtype=np.int64)
            columns[name] = np.array(list(_SEVERITY), dtype=object)[ranks.max(axis=0)]
        elif name == "reason":
            rows = ["; ".join(dict.fromkeys(filter(None, row))) for row in zip(*parts, strict=True)]
            columns[name] = np.array(rows, dtype=object)
        elif name == "wall_seconds":
            columns[name] = np.where(np.all(np.isnan(parts), axis=0), np.nan, np.nansum(parts, axis=0))
        else:
            columns[name] = _first(parts) if parts else np.full(len(steps), np.nan)
    return columns


def _other_weights(contents: GroupContents) -> str:
    """Return the name of the weights that a group measured, empty for those of the training itself."""
    measured = str(contents.schema.attributes.get("weights", "iterate"))
    return "" if measured == "iterate" else measured


def _losses_of_other_weights(groups: Mapping[str, GroupContents], steps: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for contents in groups.values():
        if prefix := _other_weights(contents):
            for name in sorted(_LOSSES):
                spread = _spread(contents.rows[name], contents.rows[EVENT], steps)
                found.setdefault(f"{prefix}_{name}", []).append(spread)
    return {name: _first(parts) for name, parts in found.items()}


def _first(parts: list[np.ndarray]) -> np.ndarray:
    result = parts[0].copy()
    for part in parts[1:]:
        absent = {"O": "", "i": -1}.get(result.dtype.kind)
        missing = np.isnan(result) if absent is None else result == absent
        result[missing] = part[missing]
    return result
