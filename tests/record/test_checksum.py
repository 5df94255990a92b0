"""A changed byte of a row is found."""

import h5py
import numpy as np
import pytest

from landscape._errors import FileError
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run
from landscape.record._repair import clean_copy, inspect_file

SCHEMA = GroupSchema(
    "g",
    "numbers of all kinds",
    [
        Variable("x"),
        Variable("n", dtype="i8"),
        Variable("text", dtype="S9"),
        Variable("weights", ("parameter",), "f4"),
        Variable("rounded", ("parameter",), "f4", storage="bfloat16"),
    ],
    [Coordinate("parameter", 3000)],
)


@pytest.fixture
def path(tmp_path):
    recorder = Recorder.create(tmp_path / "run.h5", {})
    recorder.declare(SCHEMA)
    for step in range(4):
        weights = np.arange(3000, dtype=np.float32) * step
        recorder.append("g", {"step": step, "x": step / 3, "n": step, "text": "ab", "weights": weights})
    recorder.append("g", {"step": 4, "rounded": np.full(3000, np.nan), "text": "nine char"})
    recorder.close()
    return tmp_path / "run.h5"


def test_what_was_written_matches(path):
    assert inspect_file(path).damaged == 0
    assert open_run(path, verify=True).dataset("g").sizes["step"] == 5


@pytest.mark.parametrize("name", ["x", "n", "text", "weights", "train_loss", "wall_seconds", "reason", "checksum"])
def test_a_changed_value_is_found(path, name):
    with h5py.File(path, "r+") as file:
        data = file["g"][name]
        row = np.array(data[2:3])
        row.view(np.uint8).reshape(-1)[0] ^= 1
        data[2:3] = row
    open_run(path)
    with pytest.raises(FileError, match=r"do not match their checksums: g at step 2\."):
        open_run(path, verify=True)
    out = path.with_name("clean.h5")
    assert clean_copy(path, out).damage() == "g at step 2"
    data = open_run(out, verify=True).dataset("g")
    assert data["status"].values.tolist() == ["ok", "ok", "failed", "ok", "ok"]
    assert "checksum" in str(data["reason"].values[2])
    assert np.isnan(data["weights"].values[2]).all()
    assert np.isnan(data["x"].values[2])
    assert data["weights"].values[3].tolist() == [3.0 * index for index in range(3000)]
