import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, MemoryRecorder, Recorder, Variable, open_run


def _load_writer():
    # pytest's importlib mode puts no folder on sys.path, so the module is registered under its own name here.
    path = Path(__file__).with_name("killed_writer.py")
    spec = importlib.util.spec_from_file_location("landscape_test_killed_writer", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["landscape_test_killed_writer"] = module
    spec.loader.exec_module(module)


if "landscape_test_killed_writer" not in sys.modules:
    _load_writer()

LAYOUT = ParameterLayout(("layer.weight", "layer.bias", "scale"), ((2, 3), (2,), ()))


@pytest.fixture
def layout():
    return LAYOUT


@pytest.fixture
def scalars():
    """A group of scalars, short labelled vectors and a longer one."""
    return GroupSchema(
        "sharpness",
        "sharpness of the loss",
        [
            Variable("sam", units="1", description="first-order SAM sharpness"),
            Variable("n_probes", dtype="i8"),
            Variable("bits", ("tolerance",), units="bit"),
            Variable("barrier", ("path", "definition")),
            Variable("eigenvalues", ("eigenvalue",)),
        ],
        [
            Coordinate("tolerance", [0.003, 0.01], "nat", "rise of the loss that is tolerated"),
            Coordinate("path", ["linear", "bezier"]),
            Coordinate("definition", ["interpolated", "worse_end"]),
            Coordinate("eigenvalue", range(3)),
        ],
        {"rho_sam": 0.05, "tolerances": (0.003, 0.01), "adaptive": True, "other": None},
    )


@pytest.fixture
def file_recorder(tmp_path, layout):
    return Recorder.create(tmp_path / "landscape.h5", {"model": "Net", "seed": 3}, layout)


@pytest.fixture(params=["file", "memory"])
def recorder(request, tmp_path, layout):
    """Every implementation of the contract."""
    if request.param == "file":
        return Recorder.create(tmp_path / "landscape.h5", {"model": "Net", "seed": 3}, layout, run_id="abc")
    return MemoryRecorder({"model": "Net", "seed": 3}, layout, run_id="abc")


@pytest.fixture
def read():
    """Read what a recorder of either kind has recorded."""
    return lambda recorder: recorder.run() if isinstance(recorder, MemoryRecorder) else open_run(recorder.path)


@pytest.fixture
def go_on():
    """Resume a recording of either kind."""

    def resume(recorder, run_id, last_step):
        if isinstance(recorder, MemoryRecorder):
            return recorder.resume(run_id, last_step)
        return Recorder.resume(recorder.path, run_id, last_step)

    return resume


@pytest.fixture
def trajectory():
    """The group of weights, as SWATrajectory declares it, for LAYOUT and a model with buffers and a frozen tensor."""

    def schema(dtype="f4", **more):
        names = {
            "buffer_names": ["norm.mean", "norm.count"],
            "buffer_shapes": [[2], []],
            "buffer_dtypes": ["torch.float32", "torch.int64"],
            "constant_names": ["frozen"],
            "constant_shapes": [[2, 1]],
            "constant_dtypes": ["torch.float16"],
            **more,
        }
        variables = [
            Variable("weights", ("parameter",), dtype),
            Variable("buffers", ("buffer",)),
            Variable("swa_buffers", ("buffer",)),
        ]
        sizes = [Coordinate("parameter", LAYOUT.total), Coordinate("buffer", 3)]
        return GroupSchema("swa_trajectory", "weights over training", variables, sizes, names)

    return schema


@pytest.fixture
def weights_at():
    return lambda step: np.arange(LAYOUT.total, dtype=np.float32) + np.float32(step)


@pytest.fixture(scope="session")
def killed_writer(forked):
    """killed_writer(path, rows=, delay=) -> steps by group: write, kill after so much, return what was acknowledged."""

    def run(path, rows=0, delay=0.0):
        read, write = os.pipe()
        child = forked(sys.modules["landscape_test_killed_writer"].main, path, write)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            assert said.readline() == b"created\n"
            lines = [said.readline() for _ in range(rows)]
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            lines += said.read().splitlines()
        assert os.WIFSIGNALED(status), "the writer ended before it was killed"
        acknowledged = {"scalars": [], "weights": []}
        for line in lines:
            group, step = line.decode().split()
            acknowledged[group].append(int(step))
        return acknowledged

    return run
