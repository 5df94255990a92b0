"""Weights out of a recorded trajectory: a flat vector, or a state dict for `model.load_state_dict`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape.record._contents import GroupContents, Source

TRAJECTORY = "swa_trajectory"
_FAILED = 1


def read_weights(source: Source, step: int | None) -> np.ndarray:
    """Return the flat parameter vector that was recorded at a step (the last one by default)."""
    index, _ = _locate(source, step)
    return _row(source, index, "weights").rows["weights"][0]


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
    layout = source.layout()
    if layout is None:
        raise FileError(
            f"{source.path} has no group 'parameters', so its weights have no names; read them as one "
            "vector with run.weights()."
        )
    index, step = _locate(source, step)
    contents = _row(source, index, "weights", "buffers", "swa_buffers")
    weights = contents.rows["weights"][0]
    buffers_name = "buffers" if average is None else "swa_buffers"
    buffers = contents.rows.get(buffers_name, np.zeros((1, 0)))[0]
    if np.isnan(buffers).any() and not np.isnan(weights).any():
        raise FileError(f"{source.path} has no {buffers_name} at step {step}; choose another step.")
    mean = weights if average is None else _mean(source, index, start)
    settings = contents.schema.attributes
    parameter_dtypes = settings.get("parameter_dtypes") or [str(weights.dtype)] * len(layout.names)
    constants = contents.statics["constants"].values if "constants" in contents.statics else np.zeros(0)
    tensors = dict(_tensors(layout.names, layout.shapes, parameter_dtypes, mean))
    for kind, vector in (("buffer", buffers), ("constant", constants)):
        names, shapes = settings.get(f"{kind}_names", []), settings.get(f"{kind}_shapes", [])
        tensors |= _tensors(names, shapes, settings.get(f"{kind}_dtypes") or ["float64"] * len(names), vector)
    # A tied tensor stands once among the parameters and under each of its names in a state dict.
    return tensors | {alias: tensors[name] for alias, name in settings.get("aliases", {}).items()}


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
    contents = source.read([TRAJECTORY], lambda _: ["status"])[TRAJECTORY]
    steps, status = contents.rows["step"], contents.rows["status"]
    chosen = [row for row in range(index + 1) if status[row] != _FAILED and (start is None or steps[row] >= start)]
    if not chosen:
        raise FileError(
            f"{source.path} has no weights to average from step {start} to step {steps[index]}; it has rows at "
            f"steps {_listed(steps)}."
        )
    mean: Any = 0.0
    for count, row in enumerate(chosen, start=1):
        mean = mean + (_row(source, row, "weights").rows["weights"][0].astype(np.float64) - mean) / count
    return mean


def _locate(source: Source, step: int | None) -> tuple[int, int]:
    """Find the row of a step; by default the last one that did not fail."""
    if TRAJECTORY not in source.groups():
        raise FileError(f"{source.path} holds no weights: it has no group {TRAJECTORY!r}, which SWATrajectory records.")
    contents = source.read([TRAJECTORY], lambda _: ["status"])[TRAJECTORY]
    steps, status = contents.rows["step"], contents.rows["status"]
    good = np.flatnonzero(status != _FAILED)
    if len(good) == 0:
        raise FileError(f"{source.path} holds no weights yet: its group {TRAJECTORY!r} has no row that succeeded.")
    if step is None:
        return int(good[-1]), int(steps[good[-1]])
    found = np.flatnonzero(steps[good] == step)
    if len(found) == 0:
        failed = " (the measurement at that step failed)" if step in steps else ""
        raise FileError(
            f"{source.path} has no weights at step {step}{failed}; they were recorded at steps {_listed(steps[good])}."
        )
    return int(good[found[0]]), int(step)


def _row(source: Source, index: int, *variables: str) -> GroupContents:
    return source.read([TRAJECTORY], lambda _: variables, slice(index, index + 1))[TRAJECTORY]


def _listed(steps: np.ndarray) -> str:
    shown = [str(step) for step in steps]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "...", *shown[-5:]])
