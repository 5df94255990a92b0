"""Rows that wait have a bound, and those that did not fit are counted."""

import resource

import numpy as np
import pytest

from landscape._errors import FileError
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, _waiting, open_run
from landscape.record._waiting import WaitingRows, in_words

WIDE = GroupSchema("wide", "", [Variable("w", ("i",))], [Coordinate("i", 5000)])


def test_large_rows_are_lost_and_small_ones_kept(monkeypatch):
    monkeypatch.setattr(_waiting, "_MOST", 1000)
    rows = WaitingRows()
    large, small = {"w": np.zeros(200)}, {"w": np.zeros(2)}
    assert rows.add("large", large)  # the first always fits
    assert not rows.add("large", large)
    assert not rows.add("small", small)
    rows.drop_first()
    assert rows.add("small", small)
    assert (len(rows), in_words(rows.lost)) == (1, "2 rows (1 of large, 1 of small)")
    assert in_words(rows.by_group()) == "1 row of small"


def test_the_loss_is_told_with_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(_waiting, "_MOST", 100_000)
    recorder = Recorder.create(tmp_path / "run.h5", {})
    recorder.declare(WIDE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (recorder.path.stat().st_size + 1000, hard))  # as a full disk
    try:
        for step in range(5):
            with pytest.raises(FileError, match="cannot be written: File too large"):
                recorder.append("wide", {"step": step, "w": np.ones(5000)})
        with pytest.raises(FileError, match="5 rows of wide are lost"):
            recorder.close(timeout=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(FileError, match="3 rows of wide of .* are lost"):
        recorder.close()
    assert open_run(recorder.path).dataset("wide")["step"].values.tolist() == [0, 1]
