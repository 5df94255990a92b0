"""The recorded weights of a window of a training, one row in memory at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._contents import Source
from landscape.record._layouts import StateLayout, States
from landscape.record._schema import GroupSchema
from landscape.record._weights import as_tensors, has_batchnorm, kept_rows, listed_steps, weight_states

# Small rows are read some at once: opening the file costs more than they do.
_BLOCK_BYTES = 8 * 1024**2
_SCALARS = ("step", "epoch", "learning_rate", "train_loss", "train_error", "held_out_loss", "held_out_error", "status")


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Recorded weights from one step to another; iterating gives them in order as float64 vectors of shape (P,).

    Where other parameters trained in some of the rows, the vectors hold all that trained in any of them: frozen values
    are recorded too, so that each row has a value for each name. `layout` names the entries.

    Attributes:
        steps: Optimizer steps of the rows, shape (n,).
        scalars: The common columns (epoch, learning_rate, train_loss, ...) of these rows by name, each of shape (n,).
        whole: Whether the window is that of the recorded running mean of its last row.
    """

    steps: np.ndarray
    scalars: dict[str, np.ndarray]
    whole: bool
    _states: States
    _rows: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.vectors()

    @property
    def path(self) -> Path | str:
        """The file."""
        return self._states.source.path

    @cached_property
    def layout(self) -> ParameterLayout:
        """Names and shapes behind the vectors: all parameters that trained in some row of the window.

        Raises:
            FileError: Some row does not have all of them, since parameters were renamed or reshaped.
        """
        last = self._layouts[-1].parameters
        shapes = dict(zip(last.names, last.shapes, strict=True))
        for each in self._layouts[::-1]:
            shapes = dict(zip(each.parameters.names, each.parameters.shapes, strict=True)) | shapes
        for each in self._layouts:
            known = dict(zip(each.parameters.names, each.parameters.shapes, strict=True)) | each.fixed
            if lost := [name for name in shapes if known.get(name) != shapes[name]]:
                raise FileError(
                    f"{self.path} has rows with and without a parameter {lost[0]!r} of shape {shapes[lost[0]]} in this "
                    f"window: parameters were renamed or replaced at step {self._change()}, as pruning does. Choose a "
                    "window that begins there, or ends before."
                )
        if all(name in shapes for name in last.names) and len(shapes) == len(last.names):
            return last
        return ParameterLayout(tuple(shapes), tuple(shapes.values()))

    @cached_property
    def _layouts(self) -> list[StateLayout]:
        """The different sets of tensors in the window, in order of their first rows."""
        firsts = sorted(np.unique(self._states.numbers[self._rows], return_index=True)[1])
        return [self._states.layout(int(self._rows[first])) for first in firsts]

    def _change(self) -> int:
        numbers = self._states.numbers[self._rows]
        return int(self.steps[np.flatnonzero(numbers != numbers[0])[0]])

    def vectors(self, dtype: Any = np.float64, last: int | None = None) -> Iterator[np.ndarray]:
        """Read the weights one after another.

        Args:
            dtype: numpy dtype of the vectors; None for the one that they read in.
            last: Only that many of them, from the end; all by default.

        Yields:
            Vectors of shape (P,), copies.
        """
        rows = self._rows if last is None else self._rows[max(0, len(self._rows) - last) :]
        if any(each.parameters != self.layout for each in self._layouts):
            for row in rows:
                values = self._states.values(int(row))
                joined = np.concatenate([values[name].reshape(-1) for name in self.layout.names])
                yield joined.astype(dtype or self.dtype)
            return
        places = [self._states.place(int(row)) for row in rows]
        at = 0
        while at < len(places):
            group, index = places[at]
            block = self._read(group, index, index + 1)
            yield block[0].astype(dtype or block.dtype)
            at += 1
            together = max(0, _BLOCK_BYTES // max(1, block.nbytes))
            near = places[at : at + together]
            end = next((number for number, (name, _) in enumerate(near) if name != group), len(near))
            chosen = [place for _, place in near[:end]]
            if len(chosen) and chosen[-1] - chosen[0] < together:
                read = self._read(group, chosen[0], chosen[-1] + 1)
                for place in chosen:
                    yield read[place - chosen[0]].astype(dtype or read.dtype)
                at += len(chosen)

    def _read(self, group: str, start: int, stop: int) -> np.ndarray:
        source: Source = self._states.source
        return source.read([group], lambda _: ["weights"], slice(start, stop))[group].rows["weights"]

    def matrix(self) -> np.ndarray:
        """Return all weights at once, shape (n, P), in the type that they were recorded in."""
        return np.stack([vector for vector in self.vectors(dtype=None)])

    def state_dict(self, vector: np.ndarray, buffers: str = "buffers") -> dict[str, Any]:
        """Return a vector by name, for `model.load_state_dict`, with the other state of the window's last row.

        Args:
            vector: Flat weights, shape (P,).
            buffers: "buffers" for those of the iterate, "swa_buffers" for those recomputed for the running mean.

        Returns:
            torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes.
        """
        index = int(self._rows[-1])
        layout = self._states.layout(index)
        named = self.layout.named(np.asarray(vector))
        if layout.parameters == self.layout:
            return as_tensors(self._states.values(index, np.asarray(vector), buffers), layout)
        return as_tensors(self._states.values(index, buffers=buffers) | named, layout)

    def buffers(self, index: int) -> dict[str, Any]:
        """Return the buffers recorded with a row (0 is the window's first) by name, as torch tensors."""
        row = int(self._rows[index])
        layout = self._states.layout(row)
        stored = self._states.read(row, "buffers").rows.get("buffers", np.zeros((1, 0)))[0]
        return as_tensors(layout.parts["buffer"].named(stored), layout)

    def select(self, indices: Sequence[int]) -> Trajectory:
        """Return some of the rows (0 is the window's first), in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        scalars = {name: values[chosen] for name, values in self.scalars.items()}
        return Trajectory(self.steps[chosen], scalars, False, self._states, self._rows[chosen])

    def training(self, layout: ParameterLayout) -> Trajectory | None:
        """Return the rows in which the parameters of a layout trained, and no others; None where there is none."""
        wanted = layout.plain()
        chosen = [i for i, row in enumerate(self._rows) if self._states.layout(int(row)).parameters.plain() == wanted]
        return self.select(chosen) if chosen else None

    @property
    def dtype(self) -> np.dtype:
        """The type that the weights read in."""
        return np.dtype(self._schema.all_variables["weights"].dtype)

    @property
    def has_batchnorm(self) -> bool:
        """Whether the model has batch-normalisation statistics, which belong to one vector of weights only."""
        return has_batchnorm(self._schema)

    def has(self, variable: str) -> bool:
        """Return whether the rows have a variable."""
        return variable in self._schema.all_variables or variable in self._states.contents.schema.all_variables

    @property
    def _schema(self) -> GroupSchema:
        return self._layouts[-1].schema


def read_trajectory(source: Source, start: int | None, stop: int | None, every: int) -> Trajectory:
    """Choose the recorded rows of a window.

    Returns:
        The trajectory.

    Raises:
        ValueError: `every` is below 1, or an end of the window is no whole number of steps.
        FileError: No weights were recorded in it.
    """
    if every < 1:
        raise ValueError(f"every is {every}; it must be at least 1, which takes every recorded row")
    for name, step in (("start", start), ("stop", stop)):
        if step is not None and step != int(step):
            raise ValueError(f"{name} is {step}; it is an optimizer step here, a whole number, not a share of the run")
    states = weight_states(source, *_SCALARS)
    columns, steps, kept = states.contents.rows, states.steps, kept_rows(states)
    low = -np.inf if start is None else start
    high = np.inf if stop is None else stop
    until = kept[steps[kept] <= high]
    rows = until[steps[until] >= low][::every]
    if len(rows) == 0:
        window = f"from step {start if start is not None else 0} to {'the end' if stop is None else f'step {stop}'}"
        raise FileError(
            f"{source.path} has no weights to average {window}; it has them at steps {listed_steps(steps[kept])}."
        )
    scalars = {name: columns[name][rows] for name in _SCALARS}
    # The running mean counts rows whose loss was measured, while the same parameters train.
    same = columns["trainable"][until] == columns["trainable"][rows[-1]]
    whole = len(rows) == len(until) and bool(same.all()) and not columns["status"][until].any()
    return Trajectory(steps[rows], scalars, whole, states, rows)
