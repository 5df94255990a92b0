from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from landscape import FileError, MeasurementError, Objective
from landscape._layout import ParameterLayout
from landscape.averaging import RunningMean, swa
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run

WEIGHTS = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
BUFFERS = np.arange(16.0).reshape(4, 4)
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
        "buffer_names": ["1.running_mean", "1.running_var"],
        "buffer_shapes": [[2], [2]],
        "buffer_dtypes": ["float32", "float32"],
        "constant_names": [],
        "constant_shapes": [],
    }
    axes = [Coordinate("parameter", 8), Coordinate("buffer", 4)]
    recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes, settings))
    for step, weights, buffers in zip(STEPS, WEIGHTS, BUFFERS, strict=True):
        row = {"step": step, "weights": weights, "buffers": -buffers, "swa_buffers": buffers, "status": 0}
        assert recorder.append("swa_trajectory", row)
    recorder.close()
    return tmp_path / "run.h5"


@pytest.mark.parametrize(
    ("start", "stop", "rows"),
    [(None, None, slice(0, 4)), (20, None, slice(1, 4)), (15, 30, slice(1, 3)), (None, 15, slice(0, 1))],
)
def test_averages_the_window(path, start, stop, rows):
    # The statistics in the file are those of the mean from the first row on; other windows have none of their own.
    other = rows.start > 0
    with pytest.warns(UserWarning, match="objective=") if other else contextlib.nullcontext():
        found = swa(path, start, stop)
    mean = RunningMean()
    for weights in WEIGHTS[rows]:
        mean.update(weights)
    assert torch.equal(found["0.weight"], mean.value[:6].reshape(2, 3).float())
    assert torch.equal(found["0.bias"], mean.value[6:].float())
    assert found["1.running_mean"].tolist() == (BUFFERS[rows][-1] * (-1 if other else 1))[:2].tolist()
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2, affine=False))
    assert model.load_state_dict(found, strict=False).unexpected_keys == []


def test_takes_every_nth_row(path):
    with pytest.warns(UserWarning, match="objective="):
        found = swa(path, every=2)
    mean = WEIGHTS[[0, 2]].astype(np.float64).mean(axis=0)
    np.testing.assert_array_equal(found["0.bias"], mean[6:].astype(np.float32))


def test_recomputes_the_statistics_of_an_objective(path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2, affine=False))
    x, y = torch.randn(20, 3), torch.randint(2, (20,))
    objective = Objective(model, torch.nn.CrossEntropyLoss(), [(x[:16], y[:16]), (x[16:], y[16:])])
    found = swa(path, start=20, objective=objective)
    hidden = x.double() @ found["0.weight"].double().T + found["0.bias"].double()
    torch.testing.assert_close(found["1.running_mean"].double(), hidden.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["1.running_var"].double(), hidden.var(0), rtol=1e-5, atol=1e-6)


def test_an_objective_of_another_model_is_told(path):
    model, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    objective = Objective(model, torch.nn.CrossEntropyLoss(), [(x, torch.zeros(4, dtype=torch.long))])
    with pytest.raises(MeasurementError, match="another model"):
        swa(path, objective=objective)


def test_takes_a_run_as_well_as_a_path(path):
    first, second = swa(open_run(path)), swa(str(path))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("window", [{"start": 50}, {"stop": 5}, {"start": 12, "stop": 18}])
def test_an_empty_window_is_told(path, window):
    with pytest.raises(FileError, match="10, 20, 30, 40"):
        swa(path, **window)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileError, match="no file"):
        swa(tmp_path / "none.h5")
