"""Weights out of a recorded trajectory: a flat vector, or a state dict for `model.load_state_dict`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._contents import GroupContents, Source
from landscape.record._schema import GroupSchema

TRAJECTORY = "swa_trajectory"
_FAILED = 1


def read_weights(source: Source, step: int | None) -> np.ndarray:
    """Return the flat parameter vector that was recorded at a step (the last one by default)."""
    index, _ = _locate(source, step)
    return read_row(source, index, "weights").rows["weights"][0]


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
    _layout(source)
    index, _ = _locate(source, step)
    schema = read_row(source, index).schema
    if average is not None and "swa_buffers" not in schema.all_variables and has_batchnorm(schema):
        raise FileError(
            f"{source.path} was recorded without measuring the mean, so it holds no batch-normalisation statistics of "
            "it; compute them with landscape.averaging.swa(run, objective=...)."
        )
    mean = None if average is None else _mean(source, index, start)
    weights = read_row(source, index, "weights").rows["weights"][0] if mean is None else mean
    return named_state(source, index, weights, "buffers" if average is None else "swa_buffers")


def named_state(source: Source, index: int, weights: np.ndarray | None, buffers_name: str) -> dict[str, Any]:
    """Name the entries of a flat vector, and the buffers and constants of a row.

    Args:
        source: The run.
        index: Index of the row.
        weights: Flat parameters; None for the buffers alone.
        buffers_name: The variable that holds the buffers.

    Returns:
        torch tensors by name, in the model's dtypes.

    Raises:
        FileError: The row has no such buffers, or the run no layout.
    """
    contents = read_row(source, index, "buffers", buffers_name)
    buffers_name = buffers_name if buffers_name in contents.rows else "buffers"
    buffers = contents.rows.get(buffers_name, np.zeros((1, 0)))[0]
    settings = contents.schema.attributes
    if np.isnan(buffers).any() and (weights is None or not np.isnan(weights).any()):
        step = int(contents.rows["step"][0])
        raise FileError(f"{source.path} has no {buffers_name} at step {step}; choose another step.")

    def part(kind: str, vector: np.ndarray) -> dict[str, Any]:
        names, shapes = settings.get(f"{kind}_names", []), settings.get(f"{kind}_shapes", [])
        return dict(_tensors(names, shapes, settings.get(f"{kind}_dtypes") or ["float64"] * len(names), vector))

    if weights is None:
        return part("buffer", buffers)
    layout = _layout(source)
    recorded = np.dtype(contents.schema.all_variables["weights"].dtype).name
    parameter_dtypes = settings.get("parameter_dtypes") or [recorded] * len(layout.names)
    constants = contents.statics["constants"].values if "constants" in contents.statics else np.zeros(0)
    tensors = dict(_tensors(layout.names, layout.shapes, parameter_dtypes, weights))
    tensors |= part("buffer", buffers) | part("constant", constants)
    # A tied tensor stands once among the parameters and under each of its names in a state dict.
    return tensors | {alias: tensors[name] for alias, name in settings.get("aliases", {}).items()}


def _layout(source: Source) -> ParameterLayout:
    layout = source.layout()
    if layout is None:
        raise FileError(
            f"{source.path} has no group 'parameters', so its weights have no names; read them as one "
            "vector with run.weights()."
        )
    return layout


def _tensors(
    names: Sequence[str], shapes: Sequence[Sequence[int]], dtypes: Sequence[str], vector: np.ndarray
) -> Iterator[tuple[str, Any]]:
    import torch  # the one place of the record that needs it: its result is for load_state_dict

    offset = 0
    for name, shape, dtype in zip(names, shapes, dtypes, strict=True):
        size = math.prod(shape)
        values = torch.from_numpy(np.array(vector[offset : offset + size])).reshape(tuple(shape))
        yield name, values.to(getattr(torch, dtype.removeprefix("torch.")))
        offset += size


def _mean(source: Source, index: int, start: int | None) -> np.ndarray:
    """Average the rows up to an index in float64, one row in memory at a time; failed rows do not count."""
    contents, kept = kept_rows(source)
    steps = contents.rows["step"]
    chosen = [row for row in kept if row <= index and (start is None or steps[row] >= start)]
    if not chosen:
        raise FileError(
            f"{source.path} has no weights to average from step {start} to step {steps[index]}; it has rows at "
            f"steps {listed_steps(steps)}."
        )
    mean: Any = 0.0
    for count, row in enumerate(chosen, start=1):
        mean = mean + (read_row(source, row, "weights").rows["weights"][0].astype(np.float64) - mean) / count
    return mean


def kept_rows(source: Source, variables: Sequence[str] = ()) -> tuple[GroupContents, np.ndarray]:
    """Return the rows of the trajectory without their weights, and the indices of those that have some.

    Args:
        source: The run.
        variables: Names of further variables to read.

    Returns:
        The contents, and the indices: neither failed rows nor those that only went into the principal components.

    Raises:
        FileError: There is no trajectory, or no row with weights in it.
    """
    if TRAJECTORY not in source.groups():
        raise FileError(f"{source.path} holds no weights: it has no group {TRAJECTORY!r}, which SWATrajectory records.")
    contents, kept = _rows_with_weights(source, variables)
    if len(kept) == 0:
        raise FileError(f"{source.path} holds no weights yet: its group {TRAJECTORY!r} has no row that succeeded.")
    return contents, kept


def has_weights(source: Source) -> bool:
    """Return whether a run holds weights."""
    return TRAJECTORY in source.groups() and len(_rows_with_weights(source)[1]) > 0


def _rows_with_weights(source: Source, variables: Sequence[str] = ()) -> tuple[GroupContents, np.ndarray]:
    contents = source.read([TRAJECTORY], lambda _: ["status", "kept", *variables])[TRAJECTORY]
    good = contents.rows["status"] != _FAILED
    if "kept" in contents.rows:
        good &= contents.rows["kept"] != 0
    return contents, np.flatnonzero(good)


def _locate(source: Source, step: int | None) -> tuple[int, int]:
    """Find the row of a step; by default the last one that has weights."""
    contents, good = kept_rows(source)
    steps, status = contents.rows["step"], contents.rows["status"]
    if step is None:
        return int(good[-1]), int(steps[good[-1]])
    found = np.flatnonzero(steps[good] == step)
    if len(found) == 0:
        failed = " (the measurement at that step failed)" if step in steps[status == _FAILED] else ""
        raise FileError(
            f"{source.path} has no weights at step {step}{failed}; they were recorded at steps "
            f"{listed_steps(steps[good])}."
        )
    return int(good[found[0]]), int(step)


def read_row(source: Source, index: int, *variables: str) -> GroupContents:
    """Return one row of the trajectory, some variables of it."""
    return source.read([TRAJECTORY], lambda _: variables, slice(index, index + 1))[TRAJECTORY]


def has_batchnorm(schema: GroupSchema) -> bool:
    """Return whether the model of a trajectory has batch-normalisation statistics."""
    return any(name.rpartition(".")[2] == "running_var" for name in schema.attributes.get("buffer_names", []))


def listed_steps(steps: np.ndarray) -> str:
    """Return steps as text, those in the middle left out where there are many."""
    shown = [str(step) for step in steps]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "...", *shown[-5:]])
