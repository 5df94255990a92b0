"""Files that cannot be read: one sentence each."""

import h5py
import numpy as np
import pytest

from landscape import FileError
from landscape.record import Recorder, open_run


def test_missing_file(tmp_path):
    with pytest.raises(FileError, match="There is no file .*nothing.h5; check the path"):
        open_run(tmp_path / "nothing.h5")


def test_folder(tmp_path):
    with pytest.raises(FileError, match="is a folder; give the path of the run's HDF5 file"):
        open_run(tmp_path)


def test_path_through_a_file(file_recorder):
    with pytest.raises(FileError, match="cannot be read: Not a directory"):
        open_run(file_recorder.path / "landscape.h5")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.h5"
    path.touch()
    with pytest.raises(FileError, match="is not an HDF5 file: it is empty"):
        open_run(path)


def test_other_format(tmp_path):
    path = tmp_path / "text.h5"
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(FileError, match="is not an HDF5 file: its 14 bytes do not start with the HDF5 signature"):
        open_run(path)


@pytest.mark.parametrize("attributes", [{}, {"schema_version": "first"}, {"schema_version": np.arange(3)}])
def test_hdf5_that_is_no_run(tmp_path, attributes):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(3)
        file.attrs.update(attributes)
    with pytest.raises(FileError, match="is an HDF5 file, but no landscape run"):
        open_run(path)
    with pytest.raises(FileError, match="is an HDF5 file, but no landscape run"):
        Recorder.resume(path, "a", 0)


def test_newer_schema(file_recorder):
    with h5py.File(file_recorder.path, "r+") as file:
        file.attrs["schema_version"] = 2
    with pytest.raises(FileError, match="has schema version 2, and this version of the toolkit reads up to 1; install"):
        open_run(file_recorder.path)
    with pytest.raises(FileError, match="has schema version 2"):
        Recorder.resume(file_recorder.path, file_recorder.run_id, 0)


def test_truncated_file_gives_a_sentence_at_any_length(file_recorder, scalars):
    file_recorder.declare(scalars)
    file_recorder.append("sharpness", {"step": 1, "sam": 2.0})
    whole = file_recorder.path.read_bytes()
    for length in range(8, len(whole), 997):
        file_recorder.path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="is damaged and cannot be read .*; restore it from a copy") as caught:
            open_run(file_recorder.path)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("signature", [b"TREE", b"SNOD", b"HEAP", b"GCOL"])
def test_overwritten_metadata_gives_a_sentence(file_recorder, scalars, signature):
    file_recorder.declare(scalars)
    file_recorder.append("sharpness", {"step": 1, "sam": 2.0})
    whole = file_recorder.path.read_bytes()
    file_recorder.path.write_bytes(whole.replace(signature, b"????"))
    with pytest.raises(FileError, match="is damaged and cannot be read"):  # noqa: PT012 - some of it may be readable
        run = open_run(file_recorder.path)
        run.dataset("sharpness")


def test_lost_attributes_give_a_sentence(file_recorder, scalars):
    file_recorder.declare(scalars)
    with h5py.File(file_recorder.path, "r+") as file:
        del file["sharpness/bits"].attrs["DIMENSION_LIST"]
        file["sharpness"].attrs["variables"] = "no JSON"
    with pytest.raises(FileError, match="is damaged and cannot be read"):
        open_run(file_recorder.path).dataset("sharpness")
