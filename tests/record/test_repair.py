"""What a killed writer leaves: found, counted, and left out of a clean copy."""

import h5py
import numpy as np
import pytest
import xarray as xr
from landscape_test_killed_writer import scalars_at

from landscape import FileError
from landscape.record import Recorder, open_run
from landscape.record._repair import GroupState, clean_copy, inspect_file


@pytest.fixture
def killed(file_recorder, scalars, trajectory, weights_at):
    """A file with two groups: one whole, with a failed row, and one with a row of which only some was written."""
    file_recorder.declare(scalars)
    file_recorder.declare(trajectory())
    file_recorder.append("sharpness", {"step": 1, "sam": 2.0})
    file_recorder.append("sharpness", {"step": 4, "status": "failed", "reason": "no"})
    for step in (2, 3, 9):
        file_recorder.append("swa_trajectory", {"step": step, "weights": weights_at(step)})
    with h5py.File(file_recorder.path, "r+") as file:
        group = file["swa_trajectory"]
        group["weights"].resize(4, axis=0)
        group["weights"][3] = 7.0
        group["status"].resize(4, axis=0)
    return file_recorder.path


def lengths(path, group):
    with h5py.File(path, "r") as file:
        data = file[group]
        return {name: len(data[name]) for name in ("step", "status", "wall_seconds", "weights") if name in data}


def test_what_is_whole_is_told_from_what_is_not(killed):
    (killed.parent / ".landscape.h5.0123456789ab.tmp").touch()
    state = inspect_file(killed)
    assert state.groups == (
        GroupState("sharpness", 2, 1, 1, 4, 0),
        GroupState("swa_trajectory", 3, 0, 2, 9, 1),
    )
    assert state.unfinished == 1
    assert state.run_id == open_run(killed).attributes["run_id"]
    assert state.leftovers == (".landscape.h5.0123456789ab.tmp",)
    assert state.to_dict()["groups"][1]["unfinished"] == 1


def test_a_clean_copy_has_the_complete_rows_only(killed, tmp_path):
    before = killed.read_bytes()
    clean_copy(killed, tmp_path / "clean.h5")
    assert killed.read_bytes() == before
    assert set(lengths(killed, "swa_trajectory").values()) == {3, 4}
    assert set(lengths(tmp_path / "clean.h5", "swa_trajectory").values()) == {3}
    assert set(lengths(tmp_path / "clean.h5", "sharpness").values()) == {2}
    one, other = open_run(killed), open_run(tmp_path / "clean.h5")
    assert one.attributes == other.attributes
    assert one.layout == other.layout
    for group in one.groups:
        xr.testing.assert_identical(one.dataset(group), other.dataset(group))
    assert {item.name for item in tmp_path.iterdir()} == {"landscape.h5", "clean.h5"}


def test_a_copy_of_a_clean_file_is_equal_to_it(killed, tmp_path):
    first, second = tmp_path / "clean.h5", tmp_path / "again.h5"
    clean_copy(killed, first)
    whole = first.read_bytes()
    stamp = first.stat().st_mtime_ns
    assert clean_copy(killed, first).unfinished == 1  # the same copy once more: nothing happens
    assert first.stat().st_mtime_ns == stamp
    assert clean_copy(first, second).unfinished == 0
    assert second.read_bytes() == whole
    clean_copy(first, first)
    assert first.read_bytes() == whole


def test_a_training_goes_on_in_a_clean_copy(killed, tmp_path, weights_at):
    path = tmp_path / "clean.h5"
    clean_copy(killed, path)
    recorder = Recorder.resume(path, open_run(path).attributes["run_id"], 9)
    assert recorder.append("swa_trajectory", {"step": 10, "weights": weights_at(10)})
    np.testing.assert_array_equal(open_run(path).weights(10), weights_at(10))


def test_a_file_of_a_killed_process(killed_writer, tmp_path):
    path = tmp_path / "landscape.h5"
    told = killed_writer(path, rows=40)["scalars"]
    state = clean_copy(path, tmp_path / "clean.h5")
    data = open_run(tmp_path / "clean.h5").dataset("scalars")
    assert data["step"].values.tolist()[: len(told)] == told
    assert state.groups[0].rows == len(data["step"]) >= 20
    np.testing.assert_array_equal(data["a"], [scalars_at(step)["a"] for step in data["step"].values])


def test_what_exists_is_not_overwritten(killed, tmp_path):
    other = tmp_path / "other.h5"
    other.write_text("mine")
    with pytest.raises(FileError, match="exists already and is another file"):
        clean_copy(killed, other)
    with pytest.raises(FileError, match="landscape.h5 exists already and is another file"):
        clean_copy(killed, killed)
    assert other.read_text() == "mine"
    with pytest.raises(FileError, match="cannot be written: No such file"):
        clean_copy(killed, tmp_path / "nowhere" / "clean.h5")
    assert {item.name for item in tmp_path.iterdir()} == {"landscape.h5", "other.h5"}


def test_a_variable_without_its_rows_is_damage(killed, tmp_path):
    with h5py.File(killed, "r+") as file:
        file["sharpness/sam"].resize(1, axis=0)
    with pytest.raises(FileError, match=r"is damaged and cannot be read \(sharpness/sam has 1 of 2 rows\)"):
        clean_copy(killed, tmp_path / "clean.h5")
    assert not (tmp_path / "clean.h5").exists()
