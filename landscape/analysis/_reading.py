"""What the plots and summaries read of a run: its table group by group, never the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from landscape.record import Run, open_run
from landscape.record._table import column_variables, table

RunLike: TypeAlias = "str | Path | Run"


def as_run(run: RunLike) -> Run:
    """Return the run behind a path, or the run itself."""
    if isinstance(run, Run):
        return run
    if isinstance(run, (str, Path)):
        return open_run(run)
    raise TypeError(f"expected the path of a run file or an open run, found {type(run).__name__}")


def group_tables(run: Run, groups: Iterable[str] | None = None) -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """Return the scalar columns of each group with the group's settings.

    `Run.dataset` would read the recorded weights as well, which may be gigabytes.

    Args:
        run: The run.
        groups: Their names; all of them by default.

    Returns:
        Table and settings by group; an absent group is the reader's FileError.
    """
    contents = run._source.read(None if groups is None else list(groups), column_variables)
    return {
        name: (
            table({name: part}, run._source.memory_limit, run.path),
            {"description": part.schema.description, **part.schema.attributes},
        )
        for name, part in contents.items()
    }


def setting(attributes: Mapping[str, Any], name: str) -> Any:
    """Return a run's attribute or hyper-parameter by name, `outer.inner` for nested ones; None where it has none."""
    places: list[Any] = [attributes, attributes.get("hyper_parameters"), attributes.get("optimizer")]
    for place in places:
        value = place
        for key in (name,) if isinstance(place, Mapping) and name in place else name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None
