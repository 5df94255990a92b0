"""Registers tests/support as the package landscape_test_support: pytest's importlib mode puts no folder on the path."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest


def _register(name: str, folder: Path) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_register("landscape_test_support", Path(__file__).parent)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write docs/support.md where that was asked for, from what all test processes stored."""
    if os.environ.get("LANDSCAPE_WRITE_SUPPORT") and not hasattr(session.config, "workerinput"):
        importlib.import_module("landscape_test_support.page").write()
