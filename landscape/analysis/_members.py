"""The runs of a comparison, wherever they come from: paths, open runs, or one table with a column `run`."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from landscape._errors import FileError
from landscape.analysis._reading import as_run, setting
from landscape.record import Run

Group = str | Callable[[Any], Any]
# Several families of codes were recorded: the default one is meant where a column names none.
_DEFAULT_FAMILY = re.compile(r"(.+)\[uniform-tensor,(tolerance=.+)\]")


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One run of a comparison.

    Attributes:
        name: What messages call it.
        table: A row per measured step, ordered by step; `bits[tolerance=0.1]` is there also where several families of
            codes were recorded, and is that of the default one.
        attributes: Provenance; empty for a run that came as rows of a table.
        source: What a `group` callable is given: the run, or the rows.
    """

    name: str
    table: pd.DataFrame
    attributes: dict[str, Any]
    source: Any

    def column(self, name: str) -> np.ndarray:
        """Return a column as floats; NaN everywhere where the run lacks it or it is not numeric."""
        if name not in self.table:
            return np.full(len(self.table), np.nan)
        return pd.to_numeric(self.table[name], errors="coerce").to_numpy(dtype=np.float64)

    def value(self, group: Group) -> Any:
        """Return an attribute, hyper-parameter or column of the run by name, or what a callable says of it.

        Returns:
            The value; None where the run does not know it.
        """
        if callable(group):
            return group(self.source)
        found = setting(self.attributes, group)
        if found is None and group in self.table:
            known = self.table[group].dropna()
            found = known.iloc[-1] if len(known) else None
        return found.item() if isinstance(found, np.generic) else found


def members(runs: Any) -> list[Member]:
    """Read the runs of a comparison.

    Args:
        runs: A path, a Run, several of them, or a DataFrame with a column `run`.

    Returns:
        The runs in the order given.

    Raises:
        ValueError: There are none, or the table has no column `run`.
    """
    if isinstance(runs, pd.DataFrame):
        found = _from_table(runs)
    else:
        several: Iterable[Any] = [runs] if isinstance(runs, (str, Path, Run)) else runs
        opened = [as_run(run) for run in several]
        found = [Member(str(run.path), _with_default_family(run.table()), run.attributes, run) for run in opened]
    if not found:
        raise ValueError("there are no runs to plot; give at least one run file")
    return found


def require_column(runs: Sequence[Member], name: str) -> None:
    """Check that at least one run has a column.

    Raises:
        FileError: None has; the sentence names what there is.
    """
    known = list(dict.fromkeys(str(column) for run in runs for column in run.table.columns))
    if name not in known:
        raise FileError(_unknown(runs, "column", name, known))


def require_setting(runs: Sequence[Member], name: str) -> None:
    """Check that at least one run knows an attribute, hyper-parameter or column.

    Raises:
        FileError: None does; the sentence names what there is.
    """
    places = [place for run in runs for place in (run.attributes.get("hyper_parameters"), run.attributes)]
    known = list(dict.fromkeys(str(key) for place in places if isinstance(place, Mapping) for key in place))
    columns = {str(column) for run in runs for column in run.table.columns}
    if name not in columns and all(run.value(name) is None for run in runs):
        raise FileError(_unknown(runs, "attribute or hyper-parameter", name, known))


def require_number(runs: Sequence[Member], name: str) -> None:
    """Check that at least one run has a column of numbers, or an attribute or hyper-parameter that is one.

    Raises:
        FileError: None has.
    """
    values = [run.value(name) for run in runs if name not in run.table]
    if any(name in run.table and pd.api.types.is_numeric_dtype(run.table[name]) for run in runs):
        return
    if any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return
    found = [value for value in values if value is not None]
    if found or any(name in run.table for run in runs):
        example = f" (found {found[0]!r})" if found else ""
        raise FileError(
            f"{name!r} is no number{example}, so it cannot colour the points; give it as the group instead."
        )
    require_column(runs, name)


def _unknown(runs: Sequence[Member], what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(close)}?" if close else f"choose among {', '.join(known)}."
    who = f"{runs[0].name} has no" if len(runs) == 1 else f"None of the {len(runs)} runs has a"
    article = "n" if who.endswith(" a") and what.startswith("a") else ""
    return f"{who}{article} {what} {name!r}; {advice}"


def _with_default_family(table: pd.DataFrame) -> pd.DataFrame:
    found = {str(name): match for name in table if (match := _DEFAULT_FAMILY.fullmatch(str(name)))}
    columns = {f"{match[1]}[{match[2]}]": table[name] for name, match in found.items()}
    return table.assign(**{name: column for name, column in columns.items() if name not in table})


def _from_table(frame: pd.DataFrame) -> list[Member]:
    if "run" not in frame:
        raise ValueError(
            f"the table has no column 'run', which tells the runs apart; it has {', '.join(frame.columns)}"
        )
    parts = frame.groupby("run", sort=False)
    ordered = {str(name): rows.sort_values("step") if "step" in rows else rows for name, rows in parts}
    return [Member(name, _with_default_family(rows), {}, rows) for name, rows in ordered.items()]
