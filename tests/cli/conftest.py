"""A run file for the command line, written through the recorder."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from click.testing import CliRunner, Result

from landscape.record import Coordinate, GroupSchema, Recorder, Variable

mpl.use("Agg")


class Both(Result):
    """Keeps stdout and stderr apart and has both in `output`."""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class OldRunner(CliRunner):
    """Gives what that of click 8.2 does, by that of click 8.1."""

    def __init__(self, **options: Any):
        super().__init__(mix_stderr=False, **options)

    def invoke(self, *args: Any, **kwargs: Any) -> Result:
        result = super().invoke(*args, **kwargs)
        result.__class__ = Both
        return result


@pytest.fixture
def runner() -> CliRunner:
    """Calls the command in this process."""
    kind = OldRunner if "mix_stderr" in inspect.signature(CliRunner).parameters else CliRunner
    return kind(env={"COLUMNS": "120"})


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
