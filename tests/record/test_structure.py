"""The file as other tools see it: h5py and xarray."""

import h5py
import numpy as np
import pytest
import xarray as xr

from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run
from landscape.record._structure import _chunks


@pytest.fixture
def path(file_recorder, scalars):
    file_recorder.declare(scalars)
    for step in (1, 2):
        bits = {"bits": [step, 2.0 * step]}
        file_recorder.append("sharpness", {"step": step, "sam": step / 2, "reason": "none", **bits})
    return file_recorder.path


def test_every_array_has_named_dimensions_units_and_a_description(path):
    with h5py.File(path, "r") as file:
        bits = file["sharpness/bits"]
        assert [axis.keys() for axis in bits.dims] == [["step"], ["tolerance"]]
        assert bits.dims[1]["tolerance"][:].tolist() == [0.003, 0.01]
        assert file["sharpness/path"][:].tolist() == [b"linear", b"bezier"]
        for dataset in file["sharpness"].values():
            assert isinstance(dataset.attrs["units"], str)
            assert isinstance(dataset.attrs["long_name"], str)
        status = file["sharpness/status"]
        assert status.attrs["flag_values"].tolist() == [0, 1, 2, 3]
        assert status.attrs["flag_values"].dtype == status.dtype
        assert status.attrs["flag_meanings"] == "ok failed partial surrogate"


def test_parameters_describe_the_flat_vector(path):
    with h5py.File(path, "r") as file:
        group = file["parameters"]
        assert group["name"].asstr()[:].tolist() == ["layer.weight", "layer.bias", "scale"]
        assert group["offset"][:].tolist() == [0, 6, 8]
        assert group["numel"][:].tolist() == [6, 2, 1]
        assert group["shape"][:].tolist() == [[2, 3], [2, -1], [-1, -1]]


@pytest.mark.parametrize("layout", [ParameterLayout((), ()), ParameterLayout(("a",), ((),)), None])
def test_layouts_at_the_edge(tmp_path, layout):
    path = Recorder.create(tmp_path / "a.h5", {}, layout).path
    assert open_run(path).layout == layout
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        tree.load()


def test_xarray_opens_the_tree_and_a_group(path):
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree.attrs["model"] == "Net"
        data = tree["sharpness"].to_dataset().load()
        assert tree["parameters"]["offset"].sel(name="scale") == 8
    with xr.open_dataset(path, group="sharpness", engine="h5netcdf") as group:
        xr.testing.assert_identical(group.load(), data)
    assert data["bits"].dims == ("step", "tolerance")
    assert data["bits"].sel({"step": 2, "tolerance": 0.01}) == 4.0
    assert data["barrier"].sel(path="linear", definition="worse_end").isnull().all()
    assert data["wall_seconds"].dtype == np.float64
    mine = open_run(path).dataset("sharpness")
    numeric = [name for name in mine.data_vars if mine[name].dtype.kind in "if"]
    xr.testing.assert_equal(mine[numeric], data[numeric])


def test_xarray_opens_a_file_whose_last_row_is_incomplete(path):
    with h5py.File(path, "r+") as file:
        for name in ("sam", "bits", "reason"):
            file["sharpness"][name].resize(3, axis=0)
        file["sharpness/sam"][2] = 7.0
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        data = tree["sharpness"].to_dataset().load()
    assert data["step"].values.tolist() == [1, 2, -1]
    assert data["sam"][data["step"] >= 0].values.tolist() == [0.5, 1.0]
    with xr.open_dataset(path, group="sharpness", engine="h5netcdf") as group:
        xr.testing.assert_identical(group.load(), data)


def test_dimensions_without_labels_or_entries_take_no_space(file_recorder):
    sizes = [Coordinate("parameter", 10**9), Coordinate("buffer", 0), Coordinate("none", [])]
    variables = [Variable("buffers", ("buffer",)), Variable("labels", ("none",)), Variable("x")]
    file_recorder.declare(GroupSchema("g", "", variables, sizes))
    file_recorder.append("g", {"step": 1, "buffers": [], "x": 1.0})
    file_recorder.append("g", {"step": 2, "x": 2.0})
    assert file_recorder.path.stat().st_size < 200_000
    assert open_run(file_recorder.path).dataset("g")["buffers"].shape == (2, 0)
    with xr.open_datatree(file_recorder.path, engine="h5netcdf") as tree:
        data = tree["g"].to_dataset().load()
    assert data["buffers"].shape == (2, 0)
    assert "parameter" not in data.coords


def test_no_pickles_and_no_filters(path):
    def look(name, item):
        if isinstance(item, h5py.Dataset):
            assert item.dtype.kind in "ifS" or h5py.check_string_dtype(item.dtype), name
            assert item.compression is None

    with h5py.File(path, "r") as file:
        file.visititems(look)


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunks"),
    [
        ((), 8, (64,)),
        ((), 512, (32,)),
        ((10,), 8, (64, 10)),
        ((100,), 8, (20, 100)),
        ((20_000,), 4, (1, 20_000)),
        ((0,), 8, (64, 1)),
        ((2**30,), 4, (1, 2**26)),
        ((3, 2**30), 1, (1, 3, 2**26)),
    ],
)
def test_chunks(shape, itemsize, chunks):
    assert _chunks(shape, itemsize) == chunks


def test_a_file_that_knows_two_statuses_goes_on(path):
    with h5py.File(path, "r+") as file:  # as it was written before a row could hold a part of its values
        file["sharpness/status"].attrs["flag_values"] = np.array([0, 1], dtype=np.int8)
        file["sharpness/status"].attrs["flag_meanings"] = "ok failed"
        run_id = file.attrs["run_id"]
    recorder = Recorder.resume(path, run_id, last_step=10**9)
    recorder.append("sharpness", {"step": 10**6, "status": "partial", "reason": "sam: no"})
    assert open_run(path).dataset("sharpness")["status"].values[-1] == "partial"
