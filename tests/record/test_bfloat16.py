"""bfloat16 rows: rounded to nearest, half the space, and float32 to every reader."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from landscape import FileError
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run
from landscape.record._bfloat16 import is_bfloat16, rounded

SIZE = 5000
VALUES = np.random.default_rng(0).normal(size=(3, SIZE)).astype(np.float32)
VALUES[0, :6] = [np.inf, -np.inf, 1e-40, 1 + 2**-8, 1 + 3 * 2**-8, 3e38]


def schema(**settings) -> GroupSchema:
    weights = Variable("weights", ("parameter",), **({"dtype": "f4", "storage": "bfloat16"} | settings))
    return GroupSchema("swa_trajectory", "weights", [weights], [Coordinate("parameter", SIZE)])


@pytest.fixture
def path(tmp_path):
    recorder = Recorder.create(tmp_path / "run.h5", {})
    recorder.declare(schema())
    for step, row in enumerate(VALUES):
        assert recorder.append("swa_trajectory", {"step": step, "weights": row})
    return tmp_path / "run.h5"


def expected() -> np.ndarray:
    return torch.from_numpy(VALUES).bfloat16().float().numpy()


def test_rounds_as_torch_does():
    np.testing.assert_array_equal(rounded(VALUES), expected())
    special = np.array([np.nan, -np.nan, np.inf, -0.0, 3.4e38], np.float32)
    np.testing.assert_array_equal(rounded(special), torch.from_numpy(special).bfloat16().float().numpy())
    assert rounded(np.float32(1.00390625)).shape == ()


def test_every_reader_sees_float32(path):
    np.testing.assert_array_equal(open_run(path).dataset("swa_trajectory")["weights"], expected())
    np.testing.assert_array_equal(open_run(path).weights(1), expected()[1])
    with h5py.File(path) as file:
        stored = file["swa_trajectory/weights"]
        assert is_bfloat16(stored)
        assert stored.dtype == np.float32
        assert stored.chunks == (1, SIZE)
        assert stored.id.get_storage_size() == 3 * SIZE * 2
        np.testing.assert_array_equal(stored[()], expected())
    with xr.open_dataset(path, group="swa_trajectory", engine="h5netcdf") as data:
        np.testing.assert_array_equal(data["weights"], expected())


def test_a_row_without_weights_takes_no_space(path):
    recorder = Recorder.resume(path, open_run(path).attributes["run_id"], 2)
    assert recorder.append("swa_trajectory", {"step": 3})
    assert recorder.append("swa_trajectory", {"step": 4, "weights": VALUES[0]})
    with h5py.File(path) as file:
        assert file["swa_trajectory/weights"].id.get_storage_size() == 4 * SIZE * 2
    rows = open_run(path).dataset("swa_trajectory")["weights"].values
    assert np.isnan(rows[3]).all()
    np.testing.assert_array_equal(rows[4], expected()[0])


def test_a_missing_row_does_not_show_what_an_unfinished_one_left(path):
    run_id = open_run(path).attributes["run_id"]
    recorder = Recorder.resume(path, run_id, 2)
    with h5py.File(path, "r+") as file:  # the rest of an append that was killed before its step was written
        file["swa_trajectory/weights"].resize(4, axis=0)
        file["swa_trajectory/weights"][3] = 7.0
    assert recorder.append("swa_trajectory", {"step": 3})
    assert np.isnan(open_run(path).dataset("swa_trajectory")["weights"].values[3]).all()


def test_a_resumed_recording_keeps_its_storage(path):
    recorder = Recorder.resume(path, open_run(path).attributes["run_id"], 0)
    recorder.declare(schema())
    assert recorder.append("swa_trajectory", {"step": 1, "weights": VALUES[2]})
    np.testing.assert_array_equal(open_run(path).weights(), expected()[2])
    with pytest.raises(FileError, match="bfloat16 in the file and dimensions"):
        recorder.declare(schema(storage=None))


@pytest.mark.parametrize("settings", [{"storage": "float8"}, {"dtype": "f8"}])
def test_other_storages_are_refused(settings):
    with pytest.raises(ValueError, match="bfloat16"):
        schema(**settings)
