"""What an append reads does not grow with the file; rows written together are those that were appended."""

from __future__ import annotations

import contextlib
import io

import h5py
import numpy as np
import pytest
import xarray as xr

from landscape._errors import OtherWriterError
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run
from landscape.record import _append as append_module
from landscape.record._ordered import ALIGNMENT
from landscape.record._rows import check_row

SMALL = GroupSchema("small", "", [Variable("x"), Variable("n", ("i",), "i8")], [Coordinate("i", range(3))])
MIXED = GroupSchema(
    "mixed",
    "rows that share a chunk, rows with a chunk each, and rounded ones",
    [
        Variable("text", dtype="S9"),
        Variable("some", ("i",)),
        Variable("wide", ("j",), "f4"),
        Variable("rounded", ("i",), "f4", storage="bfloat16"),
    ],
    [Coordinate("i", 100), Coordinate("j", 3000)],
)


def small_row(step):
    return {"step": step, "x": step / 3, "n": [step, -step, 7]}


def mixed_row(step):
    if step % 5 == 3:
        return {"step": step, "status": "failed", "reason": "no"}
    wide = {} if step % 7 == 2 else {"wide": np.arange(3000) * step}
    return {"step": step, "text": f"at {step}", "some": np.arange(100.0) - step, "rounded": np.full(100, step)} | wide


def touched(recorder, step, monkeypatch):
    """Append a row, and return how many bytes were read and written for it."""
    tally = {"read": 0, "written": 0}

    class Counts(io.FileIO):
        def read(self, size=-1):
            found = super().read(size)
            tally["read"] += len(found)
            return found

        def write(self, data):
            tally["written"] += len(data)
            return super().write(data)

    @contextlib.contextmanager
    def counting(path, shared):
        with Counts(path, "r+") as file:
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(append_module, "locked", counting)
        assert recorder.append("small", small_row(step))
    return tally["read"], tally["written"]


def filled(path, count):
    """Return a recorder of a file with many rows."""
    recorder = Recorder.create(path, {})
    recorder.declare(SMALL)
    recorder.close()
    row = check_row(SMALL, small_row(0), None)
    with h5py.File(path, "r+", **ALIGNMENT) as file:
        for name, value in row.items():
            file["small"][name].resize(count, axis=0)
            file["small"][name][:] = np.arange(count) if name == "step" else np.stack([value] * count)
    return Recorder.resume(path, recorder.run_id, count)


def test_an_append_touches_as_much_of_a_long_file_as_of_a_short_one(tmp_path, monkeypatch):
    few, many = (filled(tmp_path / f"{count}.h5", count) for count in (10, 10_010))
    # The rows stand at the same places of their chunks, so that only the indices differ.
    short, long = touched(few, 10, monkeypatch), touched(many, 10_010, monkeypatch)
    variables = len(SMALL.all_variables)
    # An index node of 64 entries takes 2 KiB in one dimension, 2.6 KiB in two: one more is on the way to a row.
    assert short[0] < long[0] <= short[0] + variables * 2700
    assert long[1] <= short[1] + 1000
    assert open_run(many.path).dataset("small")["n"].values[-1].tolist() == [10_010, -10_010, 7]


def test_rows_that_are_written_together_are_those_that_were_appended(tmp_path):
    one, together = (Recorder.create(tmp_path / name, {}) for name in ("one.h5", "together.h5"))
    rows = [row for step in range(40) for row in (("mixed", mixed_row(step)), ("small", small_row(2 * step)))]
    for recorder in (one, together):
        recorder.declare(SMALL)
        recorder.declare(MIXED)
        recorder.append("small", {"step": 0, "x": 5.0})
    rows = rows[:1] + rows[2:]
    for group, row in rows:
        assert one.append(group, row)
    with h5py.File(together.path, "r"):
        assert not any(together.append(group, row) for group, row in rows)
        together.close(timeout=0)
    for group in ("small", "mixed"):
        xr.testing.assert_identical(
            open_run(one.path).dataset(group), open_run(together.path, verify=True).dataset(group)
        )
    # A row that was not given takes no space in either of them.
    for recorder in (one, together):
        with h5py.File(recorder.path) as file:
            assert file["mixed/wide"].id.get_storage_size() == 12_000 * sum("wide" in row for _, row in rows)
    assert together.append("mixed", mixed_row(40))


def test_rows_of_another_writer_are_found_in_a_copy_too(tmp_path):
    recorder = Recorder.create(tmp_path / "run.h5", {})
    recorder.declare(SMALL)
    with h5py.File(recorder.path, "r+") as file:
        other = check_row(SMALL, small_row(4), None)
        append_module.put_rows(file["small"], 0, [other])
    before = recorder.path.read_bytes()
    with pytest.raises(OtherWriterError, match="has rows of another writer, or has lost some"):
        append_module.append_in_copy(
            recorder.path, [("small", check_row(SMALL, small_row(5), None))], recorder._file._mark
        )
    assert recorder.path.read_bytes() == before
