"""The fast tests with the oldest, the pinned and the newest versions of what the package stands on.

    .venv/bin/nox --session newest -- tests/test_isolation.py

Each session has an environment of its own under .nox, which `--reuse-existing-virtualenvs` keeps from run to run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
# The standard library's venv comes with the machine's own pip and so with its settings.
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["pinned"]

# Two test processes share two cores; more threads in each would only fight.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# The installation compiles nothing. The tests compile what they import, a small part, and keep it.
KEEP_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}


def newest_python() -> str | None:
    """Return the newest Python that torch supports, of those on the PATH and in pyenv; None for nox's own."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for version in ("3.14", "3.13", "3.12"):
        found = (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True))
        for path in map(str, filter(None, found)):
            # A shim of pyenv stands on the PATH also where it runs nothing.
            if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
                return path
    return None


@nox.session
def oldest(session: nox.Session) -> None:
    """Test the lower bounds of setup.cfg, which constraints-oldest.txt repeats."""
    _test(session, "--constraint", "constraints-oldest.txt")


@nox.session
def pinned(session: nox.Session) -> None:
    """Test the versions of constraints.txt, as `make test` does."""
    _test(session, "--constraint", "constraints.txt")


@nox.session(python=newest_python())
def newest(session: nox.Session) -> None:
    """Test whatever pip chooses where nothing is pinned; on Linux this includes a CUDA build of torch (5.5 GB)."""
    _test(session, "--upgrade", "--upgrade-strategy=eager")


def _test(session: nox.Session, *options: str) -> None:
    session.install(*options, "--no-compile", "--editable", ".[test]")
    session.run("python", "-m", "pip", "list", "--format=freeze")
    chosen = session.posargs or ["-n", "2", "--dist", "worksteal", "-m", "not slow and not field"]
    session.run("python", "-m", "pytest", *chosen, env=THREADS | KEEP_COMPILED)
