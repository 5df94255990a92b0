"""The tests of a checkout test the package as it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PARTS = ("landscape/__init__.py", "landscape/callbacks/__init__.py")


def test_a_checkout_does_not_hide_the_installed_package(tmp_path):
    checkout, installed = tmp_path / "checkout", tmp_path / "installed"
    for part in (checkout / "landscape/__init__.py", *(installed / name for name in PARTS)):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    for package in ("support", "field"):
        (checkout / "tests" / package).mkdir(parents=True)
        (checkout / "tests" / package / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("conftest.py"), checkout / "tests")
    (checkout / "tests" / "test_import.py").write_text(
        "from landscape import callbacks\n\n\n"
        f"def test_it():\n    assert callbacks.__file__.startswith({str(installed)!r})\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests"]
    # Without the plugins of other packages, some of which import torch's compiler.
    quick = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = os.environ | {"PYTHONPATH": str(installed)} | quick
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
