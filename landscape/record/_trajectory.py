"""The recorded weights of a window of a training, one row in memory at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape.record._contents import Source
from landscape.record._schema import GroupSchema
from landscape.record._weights import TRAJECTORY, has_batchnorm, kept_rows, listed_steps, named_state, read_row

# Small rows are read some at once: opening the file costs more than they do.
_BLOCK_BYTES = 8 * 1024**2
_SCALARS = ("step", "epoch", "learning_rate", "train_loss", "train_error", "held_out_loss", "held_out_error", "status")


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Recorded weights from one step to another; iterating gives them in order as float64 vectors of shape (P,).

    Attributes:
        steps: Optimizer steps of the rows, shape (n,).
        scalars: The common columns (epoch, learning_rate, train_loss, ...) of these rows by name, each of shape (n,).
        whole: Whether the window holds every recorded row up to its end.
    """

    steps: np.ndarray
    scalars: dict[str, np.ndarray]
    whole: bool
    _source: Source
    _rows: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.vectors()

    @property
    def path(self) -> Path | str:
        """The file."""
        return self._source.path

    def vectors(self, dtype: Any = np.float64, last: int | None = None) -> Iterator[np.ndarray]:
        """Read the weights one after another.

        Args:
            dtype: numpy dtype of the vectors; None for the one that they read in.
            last: Only that many of them, from the end; all by default.

        Yields:
            Vectors of shape (P,), copies.
        """
        rows = self._rows if last is None else self._rows[max(0, len(self._rows) - last) :]
        at = 0
        while at < len(rows):
            block = read_row(self._source, int(rows[at]), "weights").rows["weights"]
            yield block[0].astype(dtype or block.dtype)
            at += 1
            together = max(0, _BLOCK_BYTES // max(1, block.nbytes))
            chosen = rows[at : at + together]
            if len(chosen) and chosen[-1] - chosen[0] < together:
                span = slice(int(chosen[0]), int(chosen[-1]) + 1)
                read = self._source.read([TRAJECTORY], lambda _: ["weights"], span)[TRAJECTORY].rows["weights"]
                for row in chosen:
                    yield read[row - chosen[0]].astype(dtype or read.dtype)
                at += len(chosen)

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
        return named_state(self._source, int(self._rows[-1]), vector, buffers)

    def buffers(self, index: int) -> dict[str, Any]:
        """Return the buffers recorded with a row (0 is the window's first) by name, as torch tensors."""
        return named_state(self._source, int(self._rows[index]), None, "buffers")

    def select(self, indices: Sequence[int]) -> Trajectory:
        """Return some of the rows (0 is the window's first), in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        scalars = {name: values[chosen] for name, values in self.scalars.items()}
        return Trajectory(self.steps[chosen], scalars, False, self._source, self._rows[chosen])

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
        return variable in self._schema.all_variables

    @cached_property
    def _schema(self) -> GroupSchema:
        return self._source.read([TRAJECTORY], lambda _: [], slice(0))[TRAJECTORY].schema


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
    contents, kept = kept_rows(source, _SCALARS)
    steps = contents.rows["step"]
    low = -np.inf if start is None else start
    high = np.inf if stop is None else stop
    until = kept[steps[kept] <= high]
    rows = until[steps[until] >= low][::every]
    if len(rows) == 0:
        window = f"from step {start if start is not None else 0} to {'the end' if stop is None else f'step {stop}'}"
        raise FileError(
            f"{source.path} has no weights to average {window}; it has them at steps {listed_steps(steps[kept])}."
        )
    scalars = {name: contents.rows[name][rows] for name in _SCALARS}
    return Trajectory(steps[rows], scalars, len(rows) == len(until), source, rows)
