from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape import FileError
from landscape._layout import ParameterLayout
from landscape.averaging import RunningMean, swa
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run

WEIGHTS = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
BUFFERS = np.arange(8.0).reshape(4, 2)
STEPS = [10, 20, 30, 40]


@pytest.fixture
def path(tmp_path):
    layout = ParameterLayout(("0.weight", "0.bias"), ((2, 3), (2,)))
    recorder = Recorder.create(tmp_path / "run.h5", {}, layout)
    variables = [
        Variable("weights", ("parameter",), "f4"),
        Variable("buffers", ("buffer",)),
        Variable("swa_buffers", ("buffer",)),
    ]
    settings = {
        "buffer_names": ["1.running_mean"],
        "buffer_shapes": [[2]],
        "buffer_dtypes": ["float32"],
        "constant_names": [],
        "constant_shapes": [],
    }
    axes = [Coordinate("parameter", 8), Coordinate("buffer", 2)]
    recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes, settings))
    for step, weights, buffers in zip(STEPS, WEIGHTS, BUFFERS, strict=True):
        row = {"step": step, "weights": weights, "buffers": -buffers, "swa_buffers": buffers, "status": 0}
        assert recorder.append("swa_trajectory", row)
    recorder.close()
    return tmp_path / "run.h5"


@pytest.mark.parametrize(
    ("start", "stop", "rows"),
    [(None, None, slice(0, 4)), (20, None, slice(1, 4)), (15, 30, slice(1, 3)), (None, 10, slice(0, 1))],
)
def test_averages_the_window(path, start, stop, rows):
    found = swa(path, start, stop)
    mean = RunningMean()
    for weights in WEIGHTS[rows]:
        mean.update(weights)
    assert torch.equal(found["0.weight"], mean.value[:6].reshape(2, 3).float())
    assert torch.equal(found["0.bias"], mean.value[6:].float())
    assert found["1.running_mean"].tolist() == BUFFERS[rows][-1].tolist()
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2, affine=False))
    assert model.load_state_dict(found, strict=False).unexpected_keys == []


def test_takes_a_run_as_well_as_a_path(path):
    first, second = swa(open_run(path), start=20), swa(str(path), start=20)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("window", [{"start": 50}, {"stop": 15}])
def test_an_empty_window_is_told(path, window):
    with pytest.raises(FileError, match="10, 20, 30, 40"):
        swa(path, **window)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileError, match="no file"):
        swa(tmp_path / "none.h5")
