"""A run file for the command line, written through the recorder."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from click.testing import CliRunner

from landscape.record import Coordinate, GroupSchema, Recorder, Variable

mpl.use("Agg")


@pytest.fixture
def runner() -> CliRunner:
    """Calls the command in this process, and keeps its outputs apart."""
    # From click 8.2 on they always are, and the argument is gone.
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(env={"COLUMNS": "120"}, **apart)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a run file with sharpness and bits: make_run(sharpness, loss) -> path."""

    def make(sharpness: float = 0.1, loss: float = 0.1) -> Path:
        path = tmp_path_factory.mktemp("run") / "landscape.h5"
        recorder = Recorder.create(
            path, {"model": "Net", "n_examples": 1000, "hyper_parameters": {"batch_size": 32, "note": math.nan}}
        )
        recorder.declare(
            GroupSchema("sharpness", "how sharp", [Variable("average_case"), Variable("average_case_stderr")])
        )
        bits = GroupSchema(
            "compressibility", "how long", [Variable("bits", ("tolerance",))], [Coordinate("tolerance", [0.03])]
        )
        recorder.declare(bits)
        for step in (0, 5, 10):
            common = {"step": step, "train_loss": loss, "train_error": 0.05, "wall_seconds": 0.5}
            failed = {"status": 1, "reason": "the loss is NaN [1, 2]"}
            measured = {"average_case": sharpness, "average_case_stderr": 0.01}
            recorder.append("sharpness", common | (failed if step == 5 else measured))
            recorder.append("compressibility", common | {"bits": [1000 * sharpness]})
        recorder.close()
        return path

    return make


@pytest.fixture(scope="session")
def run_file(make_run: Callable[..., Path]) -> Path:
    """One such file."""
    return make_run()
