from __future__ import annotations

import numpy as np
import pytest

from landscape import FileError
from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run


def write(folder, weights: np.ndarray, failed: int = 2, absent: int = 4):
    """Rows at steps 0, 5, 10, ...; one failed, one without weights."""
    size = weights.shape[1]
    recorder = Recorder.create(folder / "run.h5", {}, ParameterLayout(("w",), ((size,),)))
    variables = [
        Variable("weights", ("parameter",), "f4"),
        Variable("buffers", ("buffer",)),
        Variable("kept", (), "i1"),
    ]
    axes = [Coordinate("parameter", size), Coordinate("buffer", 0)]
    recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes))
    for index, row in enumerate(weights):
        values = {"step": 5 * index, "train_loss": index / 2, "buffers": np.zeros(0), "kept": 1, "weights": row}
        if index == failed:
            values = {"step": 5 * index, "status": 1, "train_loss": index / 2}
        if index == absent:
            values = {"step": 5 * index, "kept": 0, "train_loss": index / 2}
        assert recorder.append("swa_trajectory", values)
    recorder.close()
    return open_run(folder / "run.h5")


@pytest.mark.parametrize("size", [3, 20_000])
def test_reads_the_rows_that_hold_weights(tmp_path, size, monkeypatch):
    weights = np.random.default_rng(0).normal(size=(9, size)).astype(np.float32)
    monkeypatch.setattr("landscape.record._trajectory._BLOCK_BYTES", 150_000)  # a block of one or of many rows
    run = write(tmp_path, weights)
    found = run.trajectory()
    good = [0, 1, 3, 5, 6, 7, 8]
    assert found.steps.tolist() == [5 * index for index in good]
    assert found.scalars["train_loss"].tolist() == [index / 2 for index in good]
    assert found.whole
    np.testing.assert_array_equal(np.stack(list(found)), weights[good].astype(np.float64))
    np.testing.assert_array_equal(found.matrix(), weights[good])
    assert found.matrix().dtype == found.dtype == np.float32
    window = run.trajectory(start=4, stop=36, every=2)
    np.testing.assert_array_equal(window.matrix(), weights[[1, 5, 7]])
    assert not window.whole
    np.testing.assert_array_equal(window.select([2, 0]).matrix(), weights[[7, 1]])
    np.testing.assert_array_equal(np.stack(list(found.vectors(last=2))), weights[[7, 8]])
    assert run.weights().tolist() == weights[8].tolist()


def test_the_mean_is_of_the_rows_that_hold_weights(tmp_path):
    weights = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    run = write(tmp_path, weights)
    np.testing.assert_array_equal(
        run.state_dict(average="swa")["w"], weights[[0, 1, 3, 5]].astype(np.float64).mean(0).astype(np.float32)
    )
    with pytest.raises(FileError, match="no weights at step 20; they were recorded at steps 0, 5, 15, 25"):
        run.weights(20)
    with pytest.raises(FileError, match="the measurement at that step failed"):
        run.weights(10)


def test_an_empty_window_and_a_bad_stride_are_told(tmp_path):
    run = write(tmp_path, np.ones((6, 4), np.float32))
    with pytest.raises(FileError, match=r"from step 26 to the end; it has them at steps 0, 5, 15, 25"):
        run.trajectory(start=26)
    with pytest.raises(ValueError, match="at least 1"):
        run.trajectory(every=0)


def test_a_share_of_the_run_is_no_step(tmp_path):
    run = write(tmp_path, np.zeros((3, 2), np.float32))
    for window in ({"start": 0.75}, {"stop": 2.5}):
        with pytest.raises(ValueError, match="an optimizer step here, a whole number"):
            run.trajectory(**window)
