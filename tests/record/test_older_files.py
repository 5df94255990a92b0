"""Files of older versions, without the columns that say which parameters train, open and go on."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run

LATER = ("n_parameters", "trainable")


@pytest.fixture
def older(tmp_path):
    """A run as an older version wrote it: weights whose names stand in the group `parameters` alone."""
    path = tmp_path / "run.h5"
    recorder = Recorder.create(path, {}, ParameterLayout(("w",), ((2,),)), run_id="run")
    variables = [Variable("weights", ("parameter",), "f4"), Variable("buffers", ("buffer",))]
    axes = [Coordinate("parameter", 2), Coordinate("buffer", 0)]
    recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes))
    for step in (1, 2):
        recorder.append("swa_trajectory", {"step": step, "weights": [step, 3.0], "buffers": np.zeros(0)})
    recorder.close()
    with h5py.File(path, "r+") as file:
        for name in LATER:
            del file["swa_trajectory"][name]
    return path


def test_they_open(older):
    run = open_run(older)
    table = run.table()
    assert table["n_parameters"].tolist() == [-1, -1]
    assert table["trainable"].tolist() == ["", ""]
    assert run.weights(2).tolist() == [2.0, 3.0]
    assert run.layout_at(1).names == ("w",)
    assert run.state_dict(average="swa")["w"].tolist() == [1.5, 3.0]
    assert [vector.tolist() for vector in run.trajectory()] == [[1.0, 3.0], [2.0, 3.0]]
    assert run.dataset("swa_trajectory")["trainable"].values.tolist() == ["", ""]


def test_rows_go_on_without_the_new_columns(older):
    recorder = Recorder.resume(older, "run", 2)
    row = {"step": 3, "weights": [5.0, 3.0], "buffers": np.zeros(0), "n_parameters": 2, "trainable": "abc"}
    assert recorder.append("swa_trajectory", row)
    recorder.close()
    assert open_run(older).weights().tolist() == [5.0, 3.0]
    assert open_run(older).table()["n_parameters"].tolist() == [-1, -1, -1]
    with xr.open_dataset(older, group="swa_trajectory", engine="h5netcdf") as data:
        assert data["weights"].values[:, 0].tolist() == [1.0, 2.0, 5.0]
