"""Run files with a known trajectory, written through the recorder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, Recorder, Variable


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """Writes rows of weights at steps 10, 20, ...: make_run(weights, name="run", dtype="f4") -> path."""

    def make(weights: np.ndarray, name: str = "run", dtype: str = "f4", storage: str | None = None) -> Path:
        path = tmp_path / f"{name}.h5"
        size = weights.shape[1]
        recorder = Recorder.create(path, {}, ParameterLayout(("weight",), ((size,),)))
        variables = [Variable("weights", ("parameter",), dtype, storage=storage), Variable("buffers", ("buffer",))]
        axes = [Coordinate("parameter", size), Coordinate("buffer", 0)]
        recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes))
        for index, row in enumerate(weights):
            loss = float(index)
            values = {"step": 10 * (index + 1), "weights": row, "buffers": np.zeros(0), "train_loss": loss}
            assert recorder.append("swa_trajectory", values)
        recorder.close()
        return path

    return make
