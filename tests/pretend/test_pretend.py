"""Run the checks on the pretend accelerator in a process of their own.

Torch keeps a device until the process ends, and must know it before the first backward pass. So the rest of the suite
never meets it. One file alone: `pytest tests/pretend/check_measures.py`; LANDSCAPE_TEST_DEVICE=cuda lets it compare
the measures on a GPU with those on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ["accelerator", "counts", "callbacks", "measures"]


def test_checks_pass(tmp_path):
    options = [
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:nbmake",
        f"--basetemp={tmp_path / 'in'}",
    ]
    paths = [str(HERE / f"check_{name}.py") for name in NAMES]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(HERE.parents[1]), *paths]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_file_of_checks_is_run():
    assert {path.stem for path in HERE.glob("check_*.py")} == {f"check_{name}" for name in NAMES}
