"""The contract of recorders, held by every implementation; then what concerns the file alone."""

import errno
import resource
import shutil

import h5py
import numpy as np
import pytest
import xarray as xr

from landscape import FileError
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Recorder, Variable, open_run
from landscape.record import _recorder as recorder_module

BARRIER = [[1.0, 2.0], [3.0, 4.0]]


def full_row(step):
    return {
        "step": step,
        "epoch": step // 10,
        "batch_index": 4,
        "learning_rate": 0.1,
        "train_loss": 0.5,
        "wall_seconds": 1.5,
        "sam": step / 7,
        "n_probes": 12,
        "bits": [100.0, 80.0],
        "barrier": np.array(BARRIER),
        "eigenvalues": np.array([3.0, 2.0, np.nan]),
    }


def test_rows_read_back_with_missing_values_filled(recorder, scalars, read):
    recorder.declare(scalars)
    assert recorder.append("sharpness", full_row(10)) is True
    assert recorder.append("sharpness", {"step": 20, "status": "failed", "reason": "the loss is NaN ⚠"}) is True
    recorder.close()
    data = read(recorder).dataset("sharpness")
    assert data["step"].values.tolist() == [10, 20]
    assert data["step"].dtype == np.int64
    np.testing.assert_array_equal(data["sam"], [10 / 7, np.nan])
    assert data["n_probes"].values.tolist() == [12, -1]
    assert data["epoch"].values.tolist() == [1, -1]
    np.testing.assert_array_equal(data["bits"].sel({"tolerance": 0.01}), [80.0, np.nan])
    np.testing.assert_array_equal(data["barrier"].sel(step=10, path="bezier"), [3.0, 4.0])
    np.testing.assert_array_equal(data["eigenvalues"][0], [3.0, 2.0, np.nan])
    np.testing.assert_array_equal(data["eigenvalues"][1], [np.nan] * 3)
    assert data["status"].values.tolist() == ["ok", "failed"]
    assert data["reason"].values.tolist() == ["", "the loss is NaN ⚠"]
    assert data["bits"].attrs == {"units": "bit", "long_name": ""}
    assert data["tolerance"].attrs == {"units": "nat", "long_name": "rise of the loss that is tolerated"}
    assert data.attrs["rho_sam"] == 0.05
    assert data.attrs["tolerances"] == [0.003, 0.01]
    assert data.attrs["adaptive"] is True
    assert data.attrs["other"] is None


def test_both_recorders_give_identical_datasets_and_tables(tmp_path, layout, scalars):
    file = Recorder.create(tmp_path / "a.h5", {}, layout)
    memory = MemoryRecorder({}, layout)
    for recorder in (file, memory):
        recorder.declare(scalars)
        recorder.declare(GroupSchema("empty", "no rows", [Variable("x"), Variable("name", dtype="S8")]))
        for step in (1, 5, 9):
            recorder.append("sharpness", full_row(step))
        recorder.write_static("sharpness", "constants", np.zeros((0, 2)), ("constant", "pair"), "m", "none")
        recorder.write_static("sharpness", "names", ["ä", "b"], ("n",))
        recorder.write_static("sharpness", "offset", 3.5)
    for name in ("sharpness", "empty"):
        xr.testing.assert_identical(open_run(file.path).dataset(name), memory.run().dataset(name))
    assert open_run(file.path).table().equals(memory.run().table())
    assert open_run(file.path).groups == memory.run().groups == ["empty", "sharpness"]
    assert open_run(file.path).layout == memory.run().layout == layout


def test_groups_are_independent(recorder, scalars, read):
    recorder.declare(scalars)
    recorder.append("sharpness", full_row(30))
    recorder.declare(GroupSchema("other", "another measure", [Variable("x")]))
    recorder.append("other", {"step": 10, "x": 1})
    assert read(recorder).dataset("other")["x"].values.tolist() == [1.0]
    assert read(recorder).dataset("sharpness").sizes["step"] == 1


@pytest.mark.parametrize(
    ("row", "error", "sentence"),
    [
        ({"step": 1, "sma": 1.0}, ValueError, "has no variable 'sma'; it has step, epoch"),
        ({"sam": 1.0}, ValueError, "has no 'step'"),
        ({"step": -1}, ValueError, "steps count from 0"),
        ({"step": 1.5}, TypeError, "'step' of group 'sharpness' holds integers; found float64"),
        ({"step": 1, "sam": [1.0]}, ValueError, r"has shape \(\) a row \(a scalar\); found \(1,\)"),
        ({"step": 1, "bits": [1.0]}, ValueError, r"has shape \(2,\) a row \(tolerance\); found \(1,\)"),
        ({"step": 1, "bits": [[1.0], [1.0, 2.0]]}, ValueError, "cannot be made an array"),
        ({"step": 1, "sam": "1.0"}, TypeError, "holds real numbers; found"),
        ({"step": 1, "sam": 1j}, TypeError, "holds real numbers; found complex128"),
        ({"step": 1, "sam": None}, TypeError, "holds real numbers; found object"),
        ({"step": 1, "reason": 3}, TypeError, "holds text; found int64"),
        ({"step": 1, "status": 4}, ValueError, r"expected one of 0 \(ok\), 1 \(failed\), 2 \(partial\), 3"),
        ({"step": 1, "status": 300}, ValueError, "does not fit into int8"),
    ],
)
def test_a_wrong_row_changes_nothing(recorder, scalars, read, row, error, sentence):
    recorder.declare(scalars)
    with pytest.raises(error, match=sentence):
        recorder.append("sharpness", row)
    assert read(recorder).dataset("sharpness").sizes["step"] == 0
    assert recorder.append("sharpness", full_row(1))


def test_steps_increase(recorder, scalars, read):
    recorder.declare(scalars)
    recorder.append("sharpness", full_row(5))
    for step in (5, 4):
        with pytest.raises(ValueError, match=f"already has a row at step 5, so a row at step {step} cannot"):
            recorder.append("sharpness", full_row(step))
    assert read(recorder).dataset("sharpness")["step"].values.tolist() == [5]


def test_a_row_is_a_copy(recorder, scalars, read):
    recorder.declare(scalars)
    row = full_row(1)
    recorder.append("sharpness", row)
    row["barrier"][:] = 0
    np.testing.assert_array_equal(read(recorder).dataset("sharpness")["barrier"][0], BARRIER)


def test_reason_is_cut_at_a_character(recorder, scalars, read):
    recorder.declare(scalars)
    recorder.append("sharpness", {"step": 1, "status": 1, "reason": "a" + "é" * 400})
    recorder.append("sharpness", {"step": 2, "status": 1, "reason": "a\0b"})
    assert read(recorder).dataset("sharpness")["reason"].values.tolist() == ["a" + "é" * 255, "a b"]


def test_float32_overflows_to_infinity_and_keeps_nan(recorder, read):
    recorder.declare(GroupSchema("g", "", [Variable("x", ("i",), "f4")], [Coordinate("i", 3)]))
    recorder.append("g", {"step": 0, "x": [1e300, np.nan, 1.5]})
    np.testing.assert_array_equal(read(recorder).dataset("g")["x"][0], np.array([np.inf, np.nan, 1.5], np.float32))


def test_undeclared_group_is_named(recorder, scalars, read):
    with pytest.raises(FileError, match=r"has no group 'sharpness'; it has none yet\."):
        recorder.append("sharpness", {"step": 1})
    recorder.declare(scalars)
    with pytest.raises(FileError, match=r"has no group 'sharp'; it has sharpness\."):
        recorder.append("sharp", {"step": 1})
    with pytest.raises(FileError, match=r"has no group 'sharp'; it has sharpness\."):
        read(recorder).dataset("sharp")


def test_declaring_again_checks_agreement(recorder, scalars, read):
    recorder.declare(scalars)
    recorder.append("sharpness", full_row(1))
    recorder.declare(scalars)
    assert read(recorder).dataset("sharpness").sizes["step"] == 1
    for change, sentence in [
        ({"variables": scalars.variables[:-1]}, "'eigenvalues' is declared in only one"),
        ({"variables": (Variable("sam", dtype="f4"), *scalars.variables[1:])}, "'sam' has dimensions"),
        ({"coordinates": (Coordinate("tolerance", [0.1, 0.2]), *scalars.coordinates[1:])}, "labels of .* 'tolerance'"),
        ({"attributes": {**scalars.attributes, "rho_sam": 0.1}}, "setting 'rho_sam' was 0.05 and is 0.1 now"),
    ]:
        fields = {"variables": scalars.variables, "coordinates": scalars.coordinates, "attributes": scalars.attributes}
        with pytest.raises(FileError, match=sentence):
            recorder.declare(GroupSchema("sharpness", "", **(fields | change)))


def test_root_attributes(recorder, read):
    values = {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "n": 3,
        "lr": 0.1,
        "big": 2**70,
        "on": False,
        "text": "é",
        "no": "",
    }
    recorder.attributes(values)
    recorder.attributes({"n": 4})
    attributes = read(recorder).attributes
    assert attributes | values | {"n": 4} == attributes
    assert attributes["model"] == "Net"
    assert attributes["schema_version"] == 1
    assert attributes["run_id"] == recorder.run_id == "abc"
    with pytest.raises(ValueError, match="'run_id' is kept by the recorder"):
        recorder.attributes({"run_id": "x"})


def test_attributes_of_a_group(recorder, scalars, read, go_on):
    recorder.declare(scalars)
    declared = {"rho_sam": 0.05, "tolerances": [0.003, 0.01], "adaptive": True, "other": None}
    assert recorder.group_attributes("sharpness") == declared
    assert recorder.group_attributes("unknown") == {}
    recorder.describe_group("sharpness", {"measured": {"n": 3}, "rho_sam": 0.1})
    wanted = declared | {"measured": {"n": 3}, "rho_sam": 0.1}
    assert recorder.group_attributes("sharpness") == wanted
    found = read(recorder).dataset("sharpness").attrs
    assert found | wanted == found
    assert go_on(recorder, "abc", 0).group_attributes("sharpness") == wanted
    with pytest.raises(FileError, match="nowhere"):
        recorder.describe_group("nowhere", {})


def test_static_arrays(recorder, scalars, read):
    recorder.declare(scalars)
    recorder.write_static("sharpness", "constants", np.arange(4.0), ("constant",), "m", "frozen tensors")
    recorder.write_static("sharpness", "constants", np.arange(4.0) + 1, ("constant",), "m", "frozen tensors")
    recorder.write_static("sharpness", "scales", [1.0, 2.0], ("tolerance",))
    data = read(recorder).dataset("sharpness")
    np.testing.assert_array_equal(data["constants"], [1.0, 2.0, 3.0, 4.0])
    assert data["constants"].dims == ("constant",)
    assert data["constants"].attrs == {"units": "m", "long_name": "frozen tensors"}
    assert data["scales"].sel({"tolerance": 0.01}) == 2.0
    for name, array, dims, error, sentence in [
        ("sam", 1.0, (), ValueError, "needs another name"),
        ("tolerance", [1.0], ("tolerance",), ValueError, "needs another name"),
        ("x", [1.0], (), ValueError, "expected a name for each dimension"),
        ("x", [1.0], ("step",), ValueError, "none of them 'step'"),
        ("x", [1.0], ("tolerance",), ValueError, "has 1 entries along 'tolerance'"),
        ("x", [1.0], ("constant",), ValueError, "has 1 entries along 'constant'"),
        ("x", [{}], ("n",), TypeError, "expected numbers or strings"),
    ]:
        with pytest.raises(error, match=sentence):
            recorder.write_static("sharpness", name, array, dims)


def test_resume_drops_rows_past_the_checkpoint(recorder, scalars, read, go_on):
    recorder.declare(scalars)
    recorder.declare(GroupSchema("other", "", [Variable("x")]))
    for step in (1, 5, 9):
        recorder.append("sharpness", full_row(step))
    recorder.append("other", {"step": 9, "x": 1.0})
    with pytest.raises(FileError, match="belongs to the run 'abc', not to 'xyz'"):
        go_on(recorder, "xyz", 5)
    resumed = go_on(recorder, "abc", 5)
    resumed.declare(scalars)
    assert read(resumed).dataset("sharpness")["step"].values.tolist() == [1, 5]
    assert read(resumed).dataset("other")["step"].values.tolist() == []
    with pytest.raises(ValueError, match="already has a row at step 5"):
        resumed.append("sharpness", full_row(5))
    resumed.append("sharpness", full_row(9) | {"sam": -1.0})
    resumed.append("other", {"step": 7})
    data = read(resumed).dataset("sharpness")
    assert data["step"].values.tolist() == [1, 5, 9]
    assert data["sam"].values.tolist() == [1 / 7, 5 / 7, -1.0]
    np.testing.assert_array_equal(read(resumed).dataset("other")["x"], [np.nan])


# The file alone


def test_create_makes_folders_and_refuses_to_overwrite(tmp_path):
    path = tmp_path / "new" / "logs" / "landscape.h5"
    recorder = Recorder.create(path, {})
    assert recorder.path == path
    before = path.read_bytes()
    with pytest.raises(FileError, match="exists already"):
        Recorder.create(path, {})
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["landscape.h5"]


def test_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file/landscape.h5 cannot be written: (Not a directory|File exists)"):
        Recorder.create(tmp_path / "file" / "landscape.h5", {})


def test_leftovers_of_a_killed_writer_are_removed(file_recorder):
    left = file_recorder.path.with_name(".landscape.h5.0123456789ab.tmp")
    other = file_recorder.path.with_name(".other.h5.0123456789ab.tmp")
    left.write_text("half")
    other.write_text("half")
    Recorder.resume(file_recorder.path, file_recorder.run_id, 0)
    assert not left.exists()
    assert other.exists()


def test_rows_wait_in_order_while_a_reader_holds_the_file(file_recorder, scalars):
    file_recorder.declare(scalars)
    assert file_recorder.append("sharpness", full_row(1)) is True
    with h5py.File(file_recorder.path, "r") as held:
        for step in (2, 3):
            assert file_recorder.append("sharpness", full_row(step)) is False
        assert held["sharpness/step"][:].tolist() == [1]
    assert file_recorder.append("sharpness", full_row(4)) is True
    file_recorder.close()
    data = open_run(file_recorder.path).dataset("sharpness")
    assert data["step"].values.tolist() == [1, 2, 3, 4]
    assert data["sam"].values.tolist() == [step / 7 for step in (1, 2, 3, 4)]


def test_close_writes_all_rows_under_a_reader_that_never_closes(file_recorder, scalars):
    file_recorder.declare(scalars)
    file_recorder.append("sharpness", full_row(1))
    with h5py.File(file_recorder.path, "r") as held:
        for step in range(2, 90):
            assert file_recorder.append("sharpness", full_row(step)) is False
        file_recorder.close(timeout=0.2)
        assert held["sharpness/sam"][:].tolist() == [1 / 7]
        assert file_recorder.append("sharpness", full_row(90)) is True
        assert open_run(file_recorder.path).dataset("sharpness")["step"].values.tolist() == list(range(1, 91))


def test_rows_go_in_place_under_a_reader_where_there_is_no_room_for_a_copy(file_recorder, scalars, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file_recorder.declare(scalars)
    monkeypatch.setattr(shutil, "copyfile", no_room)
    inode = file_recorder.path.stat().st_ino
    with h5py.File(file_recorder.path, "r"):
        assert file_recorder.append("sharpness", full_row(1)) is False
        file_recorder.close(timeout=0.0)
    assert file_recorder.path.stat().st_ino == inode
    assert open_run(file_recorder.path).dataset("sharpness")["step"].values.tolist() == [1]


def test_rows_that_waited_long_are_written_under_the_reader(file_recorder, scalars, monkeypatch):
    file_recorder.declare(scalars)
    monkeypatch.setattr(recorder_module, "_PATIENCE", 0.0)
    with h5py.File(file_recorder.path, "r"):
        assert file_recorder.append("sharpness", full_row(1)) is True


def test_a_reader_does_not_hinder_a_change_of_structure(file_recorder, scalars):
    file_recorder.declare(scalars)
    file_recorder.append("sharpness", full_row(1))
    with h5py.File(file_recorder.path, "r") as held:
        assert file_recorder.append("sharpness", full_row(2)) is False
        file_recorder.declare(GroupSchema("other", "", [Variable("x")]))
        file_recorder.attributes({"finished": True})
        assert held["sharpness/sam"][:].tolist() == [1 / 7]
        assert list(held) == ["parameters", "sharpness"]
    run = open_run(file_recorder.path)
    assert run.groups == ["other", "sharpness"]
    assert run.attributes["finished"] is True
    assert run.dataset("sharpness")["step"].values.tolist() == [1, 2]


def test_a_second_writer_is_named_and_no_row_is_lost(file_recorder, scalars):
    file_recorder.declare(scalars)
    with h5py.File(file_recorder.path, "r+"):
        assert file_recorder.append("sharpness", full_row(1)) is False
        with pytest.raises(FileError, match="is being written by another program"):
            file_recorder.close(timeout=0.05)
        with pytest.raises(FileError, match="is being written by another program"):
            file_recorder.attributes({"a": 1})
    file_recorder.close()
    assert open_run(file_recorder.path).dataset("sharpness")["step"].values.tolist() == [1]


def test_a_full_disk_costs_no_row(file_recorder, trajectory, weights_at):
    """A limit on the size of files refuses writes as a full disk does."""
    wide = GroupSchema("wide", "", [Variable("w", ("i",))], [Coordinate("i", 5000)])
    file_recorder.declare(wide)
    file_recorder.append("wide", {"step": 1, "w": np.full(5000, 1.0)})
    before = file_recorder.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10_000, hard))
    try:
        with pytest.raises(FileError, match="cannot be written: File too large; 1 rows wait in memory"):
            file_recorder.append("wide", {"step": 2, "w": np.full(5000, 2.0)})
        assert file_recorder.path.read_bytes() == before
        with pytest.raises(FileError, match="cannot be written: "):
            file_recorder.declare(GroupSchema("other", "", [Variable("x", ("i",))], [Coordinate("i", range(9000))]))
        assert file_recorder.path.read_bytes() == before
        assert [item.name for item in file_recorder.path.parent.iterdir()] == ["landscape.h5"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file_recorder.append("wide", {"step": 3, "w": np.full(5000, 3.0)}) is True
    data = open_run(file_recorder.path).dataset("wide")
    np.testing.assert_array_equal(data["w"][:, -1], [1.0, 2.0, 3.0])


def test_file_that_vanished(file_recorder, scalars):
    file_recorder.declare(scalars)
    file_recorder.append("sharpness", full_row(1))
    run_id = file_recorder.run_id
    file_recorder.path.unlink()
    with pytest.warns(UserWarning, match="was deleted or moved away, .* It held 1 row of sharpness of this training"):
        assert file_recorder.append("sharpness", full_row(2))
    run = open_run(file_recorder.path)
    assert run.dataset("sharpness")["step"].values.tolist() == [2]
    assert run.attributes["continues"] == {"run_id": run_id, "file": "landscape.h5"}
    assert (file_recorder.moves, file_recorder.path.name) == (1, "landscape.h5")
