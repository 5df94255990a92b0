"""Read weights out of a recorded trajectory: a flat vector, or a state dict for `model.load_state_dict`."""

from __future__ import annotations

from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._contents import Source
from landscape.record._layouts import TRAJECTORY, StateLayout, States
from landscape.record._schema import GroupSchema

_OK = 0


def read_weights(source: Source, step: int | None) -> np.ndarray:
    """Return the flat vector of the parameters that trained at a step (the last recorded one by default)."""
    states = weight_states(source)
    return states.read(_locate(states, step), "weights").rows["weights"][0]


def read_layout_at(source: Source, step: int | None) -> ParameterLayout:
    """Return names and shapes of the parameters that trained at a step (the last recorded one by default)."""
    states = weight_states(source)
    return states.layout(_locate(states, step)).parameters.plain()


def read_state_dict(source: Source, step: int | None, average: str | None, start: int | None) -> dict[str, Any]:
    """Return parameters, buffers and constants by name, as torch tensors of the model's dtypes.

    Raises:
        ValueError: An unknown average.
        FileError: The run has no weights at that step, or no layout.
    """
    if average not in (None, "swa"):
        raise ValueError(f"average is {average!r}; expected None (the weights at the step) or 'swa' (their mean)")
    if average is None and start is not None:
        raise ValueError("start is where an average begins; give average='swa' with it")
    states = weight_states(source)
    index = _locate(states, step)
    if average is None:
        return named_state(states, index)
    chosen = _averaged(states, index, start)
    schema = states.layout(chosen[-1]).schema
    if "swa_buffers" not in schema.all_variables and has_batchnorm(schema):
        raise FileError(
            f"{source.path} was recorded without measuring the mean, so it holds no batch-normalisation statistics of "
            "it; compute them with landscape.averaging.swa(run, objective=...)."
        )
    return named_state(states, chosen[-1], _mean(states, chosen), "swa_buffers")


def named_state(
    states: States, index: int, weights: np.ndarray | None = None, buffers: str = "buffers"
) -> dict[str, Any]:
    """Return all tensors of a row by name.

    Args:
        states: The trajectory.
        index: Index of the row.
        weights: Other values of the trainable parameters, shape (P,).
        buffers: The variable that holds the buffers.

    Returns:
        torch tensors in the model's dtypes, tied ones under each of their names.
    """
    layout = states.layout(index)
    return as_tensors(states.values(index, weights, buffers), layout)


def as_tensors(values: dict[str, np.ndarray], layout: StateLayout) -> dict[str, Any]:
    """Return arrays by name as torch tensors of the model's dtypes, tied ones under each of their names."""
    import torch  # the one place of the record that needs it: its result is for load_state_dict

    dtypes = layout.dtypes
    tensors = {
        name: torch.from_numpy(np.array(array)).to(getattr(torch, dtypes[name].removeprefix("torch.")))
        for name, array in values.items()
    }
    return tensors | {alias: tensors[name] for alias, name in layout.aliases.items() if name in tensors}


def _averaged(states: States, index: int, start: int | None) -> list[int]:
    """Return the rows in the running mean of a row: those whose loss was measured, since other parameters trained."""
    good = kept_rows(states)
    good = good[(good <= index) & (states.contents.rows["status"][good] == _OK)]
    other = good[states.contents.rows["trainable"][good] != states.contents.rows["trainable"][index]]
    since = int(other[-1]) + 1 if len(other) else 0
    if start is not None and len(other) and start <= states.steps[other[-1]]:
        raise FileError(
            f"{states.source.path} has rows from step {start} on in which other parameters trained, up to step "
            f"{int(states.steps[other[-1]])}; begin the mean after that, or average all of them by name with "
            "landscape.averaging.swa(run, start)."
        )
    chosen = [int(row) for row in good if row >= since and (start is None or states.steps[row] >= start)]
    if not chosen:
        raise FileError(
            f"{states.source.path} has no weights to average from step {start or 0} to step "
            f"{int(states.steps[index])}: its running mean counts rows whose loss could be measured. It has weights at "
            f"steps {listed_steps(states.steps[kept_rows(states)])}; landscape.averaging.swa(run) averages all of them."
        )
    return chosen


def _mean(states: States, rows: list[int]) -> np.ndarray:
    """Average rows of one set of parameters in float64, one row in memory at a time."""
    mean: Any = 0.0
    for count, row in enumerate(rows, start=1):
        mean = mean + (states.read(row, "weights").rows["weights"][0].astype(np.float64) - mean) / count
    return mean


def weight_states(source: Source, *variables: str) -> States:
    """Return the rows of the trajectory.

    Args:
        source: The run.
        *variables: Names of further variables to read of all rows.

    Returns:
        The rows, of which `kept_rows` have weights.

    Raises:
        FileError: There is no trajectory, or no row with weights in it.
    """
    if TRAJECTORY not in source.groups():
        raise FileError(f"{source.path} holds no weights: it has no group {TRAJECTORY!r}, which SWATrajectory records.")
    states = States(source, variables)
    if len(kept_rows(states)) == 0:
        raise FileError(f"{source.path} holds no weights yet: its group {TRAJECTORY!r} has no row that succeeded.")
    return states


def kept_rows(states: States) -> np.ndarray:
    """Return the indices of the rows with weights.

    A row whose loss could not be measured has weights all the same. Rows that only went into the principal components
    have none.
    """
    rows = states.contents.rows
    return np.flatnonzero(rows["kept"] == 1 if "kept" in rows else rows["status"] == _OK)


def has_weights(source: Source) -> bool:
    """Return whether a run holds weights."""
    return TRAJECTORY in source.groups() and len(kept_rows(States(source))) > 0


def _locate(states: States, step: int | None) -> int:
    """Find the row of a step; by default the last one that has weights."""
    good = kept_rows(states)
    if step is None:
        return int(good[-1])
    found = good[states.steps[good] == step]
    if len(found) == 0:
        failed = states.steps[states.contents.rows["status"] != _OK]
        why = " (the measurement at that step failed)" if step in failed else ""
        raise FileError(
            f"{states.source.path} has no weights at step {step}{why}; they were recorded at steps "
            f"{listed_steps(states.steps[good])}."
        )
    return int(found[0])


def has_batchnorm(schema: GroupSchema) -> bool:
    """Return whether the model of a trajectory has batch-normalisation statistics."""
    return any(name.rpartition(".")[2] == "running_var" for name in schema.attributes.get("buffer_names", []))


def listed_steps(steps: np.ndarray) -> str:
    """Return steps as text, those in the middle left out where there are many."""
    shown = [str(step) for step in steps]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "...", *shown[-5:]])
