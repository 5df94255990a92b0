"""The reader: a run file as named arrays, a table, and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._budget import MEMORY_LIMIT, check_limit
from landscape.record._contents import FileSource, Source
from landscape.record._repair import inspect_file
from landscape.record._table import column_variables, table
from landscape.record._trajectory import Trajectory, read_trajectory
from landscape.record._weights import has_weights, read_layout_at, read_state_dict, read_weights


def open_run(path: str | Path, *, verify: bool = False, memory_limit: int | None = MEMORY_LIMIT) -> Run:
    """Open a run file: a live one, a finished one, or one whose writer was killed.

    The file is held only while something is read, so a training that writes it is not disturbed, and each call sees
    the rows that are complete at that moment.

    Args:
        path: The HDF5 file of the run.
        verify: Read every row, and compare it with its checksum.
        memory_limit: Bytes that one call reads at most: 512 MB, as a file may claim anything. Give more for weights
            that are larger, or None for no limit, where you trust the file.

    Returns:
        The run.

    Raises:
        FileError: The file is missing, no HDF5, damaged, no run, of a newer schema, or held by a writer; or a row that
            is verified does not match its checksum.
    """
    run = Run(FileSource(Path(path), check_limit(memory_limit)))
    run.groups  # noqa: B018 - a file that cannot be read is told now, not at the first use
    if verify and (damage := inspect_file(path).damage()):
        raise FileError(
            f"{path} is damaged: the values of these rows do not match their checksums: {damage}. "
            "`landscape repair FILE --out COPY` writes a copy in which they are failed rows."
        )
    return run


class Run:
    """What was recorded in a training.

    Args:
        source: Where the rows are; `open_run` gives a file.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def path(self) -> Path | str:
        """The file."""
        return self._source.path

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance: the root attributes."""
        return self._source.attributes()

    @property
    def groups(self) -> list[str]:
        """Names of the groups, one for each measure."""
        return self._source.groups()

    @property
    def layout(self) -> ParameterLayout | None:
        """Names and shapes of the tensors behind the flat vector when the run began; None where the file has none."""
        return self._source.layout()

    def layout_at(self, step: int | None = None) -> ParameterLayout:
        """Return names and shapes of the tensors behind `weights(step)`: the parameters that trained then.

        Args:
            step: Optimizer step; the last recorded one by default.

        Returns:
            The layout; names as the uncompiled module has them.

        Raises:
            FileError: No weights were recorded at that step.
        """
        return read_layout_at(self._source, step)

    def dataset(self, group: str) -> xr.Dataset:
        """Return a group in memory: complete rows only, named dimensions, `step` as the index of the rows.

        Args:
            group: One of `groups`.

        Returns:
            The dataset; `status` is "ok" or "failed", `reason` a text, the settings are its attributes.

        Raises:
            FileError: The file is not readable, or has no such group.
        """
        return self._source.read([group])[group].to_dataset()

    def table(self) -> pd.DataFrame:
        """Return one table of all groups: a row per measured step, a column per scalar measure.

        Returns:
            Columns: `step`, the common ones (`wall_seconds` summed over the groups, `status` "failed" if any group
            failed, `reason` joined), the scalars of each group, and `name[dimension=label]` for variables along one
            short labelled dimension. A name that several groups have is written `group/name`.

        Raises:
            FileError: The file is not readable.
        """
        return table(self._source.read(None, column_variables), self._source.memory_limit, self.path)

    @property
    def has_weights(self) -> bool:
        """Whether weights were recorded (by `SWATrajectory`) and can be read."""
        return has_weights(self._source)

    def weights(self, step: int | None = None) -> np.ndarray:
        """Return the flat vector of the parameters that trained at a step; `layout_at(step)` names its entries.

        Args:
            step: Optimizer step; the last recorded one by default.

        Returns:
            The vector, shape (P,), in the dtype of the file.

        Raises:
            FileError: No weights were recorded at that step; the sentence names the steps that have some.
        """
        return read_weights(self._source, step)

    def state_dict(
        self, step: int | None = None, average: str | None = None, start: int | None = None
    ) -> dict[str, Any]:
        """Return everything that `model.state_dict()` held at a step by name, for `model.load_state_dict`.

        Weights are there too where the loss of the row could not be measured.

        Args:
            step: Optimizer step; the last recorded one by default.
            average: "swa" for the mean over the recorded steps up to `step`, taken in float64, with the buffers
                that were recomputed for the average at that step; None for the weights at the step themselves. The
                mean begins anew where other parameters train.
            start: Optimizer step from which the average counts; the first recorded one of the same parameters by
                default. The recomputed buffers belong to the start that the recording had.

        Returns:
            torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes. Rows whose loss
            could not be measured are not averaged.

        Raises:
            FileError: No weights were recorded at that step, or the file has no parameter layout.
            ValueError: An unknown average.
        """
        return read_state_dict(self._source, step, average, start)

    def trajectory(self, start: int | None = None, stop: int | None = None, every: int = 1) -> Trajectory:
        """Return the recorded weights of a window, to be read one after another.

        Args:
            start: Optimizer step from which rows count; the first recorded one by default.
            stop: Optimizer step up to which they count; the last by default.
            every: Take every n-th row of the window.

        Returns:
            The trajectory. Rows without weights are left out.

        Raises:
            FileError: No weights were recorded in the window; the sentence names the steps that have some.
        """
        return read_trajectory(self._source, start, stop, every)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, groups={self.groups})"
