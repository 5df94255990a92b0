"""What is a complete row, and how rows are dropped: after a kill, or to resume from a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from landscape.record._opening import group_names
from landscape.record._structure import EVENT, dims_of

_BLOCK = 64  # steps read at once, as many as stand in a chunk


def complete_steps(group: Any) -> np.ndarray:
    """Return the steps of the complete rows.

    The step is written last, so a row counts from the moment that its step stands; whatever the other variables hold
    beyond that belongs to a row that was never finished, and the next row overwrites it.
    """
    steps = group[EVENT][()]
    unfinished = np.flatnonzero(steps < 0)
    return steps[: unfinished[0]] if len(unfinished) else steps


@dataclasses.dataclass(frozen=True)
class End:
    """Where the complete rows of a group end.

    Attributes:
        count: How many there are.
        step: Step of the last of them, -1 where there is none.
    """

    count: int
    step: int


def end_of(group: Any) -> End:
    """Return where the complete rows of a group end, read from its end: unfinished rows stand nowhere else."""
    steps = group[EVENT]
    stop = len(steps)
    while stop:
        start = max(stop - _BLOCK, 0)
        found = steps[start:stop]
        complete = np.flatnonzero(found >= 0)
        if len(complete):
            return End(start + int(complete[-1]) + 1, int(found[complete[-1]]))
        stop = start
    return End(0, -1)


def event_variables(group: Any) -> list[str]:
    """Return the names of the variables with an event dimension, the step itself left out."""
    return [name for name in group if not group[name].is_scale and EVENT in dims_of(group[name])]


def has_rows_after(file: Any, last_step: int) -> bool:
    """Return whether a group holds rows past a step, or rests of an unfinished row."""
    return any(_is_longer(file[name], _kept(file[name], last_step)) for name in group_names(file))


def drop_rows_after(file: Any, last_step: int) -> None:
    """Drop the rows past a step from every group, and the rests of unfinished rows."""
    for name in group_names(file):
        group = file[name]
        count = _kept(group, last_step)
        for dataset in (group[EVENT], *(group[variable] for variable in event_variables(group))):
            if len(dataset) > count:
                dataset.resize(count, axis=0)


def _kept(group: Any, last_step: int) -> int:
    return int(np.searchsorted(complete_steps(group), last_step, side="right"))


def _is_longer(group: Any, count: int) -> bool:
    return len(group[EVENT]) > count or any(len(group[name]) > count for name in event_variables(group))
