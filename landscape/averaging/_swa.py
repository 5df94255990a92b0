"""Stochastic weight averaging after the fact, from a recorded trajectory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from landscape.record import Run, open_run


def swa(run: Run | str | os.PathLike[str], start: int | None = None, stop: int | None = None) -> dict[str, Any]:
    """Average the recorded weights of a run from one step to another, w_SWA = (1/n) Σ w_i, for `load_state_dict`.

    The same as `run.state_dict(stop, average="swa", start=start)`. The mean is taken in float64, row by row. Running
    statistics of batch normalisations are those that were recomputed for the average during the training; for a window
    that starts elsewhere than the recorded average did, compute them anew with `recompute_batchnorm`.

    Args:
        run: The run, or the path of its file.
        start: Optimizer step from which the weights count; the first recorded one by default.
        stop: Optimizer step up to which they count, a recorded one; the last by default.

    Returns:
        torch tensors by name: parameters, buffers and frozen tensors, in the model's dtypes.

    Raises:
        FileError: The file cannot be read, or holds no weights between these steps.

    Source: Izmailov et al. 2018, arXiv:1803.05407.
    """  # noqa: DOC502 - the reader raises it
    opened = open_run(Path(run)) if isinstance(run, (str, os.PathLike)) else run
    return opened.state_dict(stop, average="swa", start=start)
