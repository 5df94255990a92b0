"""The fast tests with the oldest, the pinned and the newest versions of what the package stands on.

    .venv/bin/nox --session newest -- tests/test_isolation.py

Each session has an environment of its own under .nox, which `--reuse-existing-virtualenvs` keeps from run to run.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.10.9"
# The standard library's venv comes with the machine's own pip and so with its settings.
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["pinned"]

# Two test processes share two cores; more threads in each would only fight.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@nox.session
def oldest(session: nox.Session) -> None:
    """Test the lower bounds of setup.cfg, which constraints-oldest.txt repeats."""
    _test(session, "--constraint", "constraints-oldest.txt")


@nox.session
def pinned(session: nox.Session) -> None:
    """Test the versions of constraints.txt, as `make test` does."""
    _test(session, "--constraint", "constraints.txt")


@nox.session
def newest(session: nox.Session) -> None:
    """Test whatever pip chooses where nothing is pinned; on Linux this includes a CUDA build of torch (5.5 GB)."""
    _test(session, "--upgrade")


def _test(session: nox.Session, *options: str) -> None:
    session.install(*options, "--editable", ".[test]")
    session.run("python", "-m", "pip", "list", "--format=freeze")
    chosen = session.posargs or ["-n", "2", "-m", "not slow and not field"]
    session.run("python", "-m", "pytest", *chosen, env=THREADS)
