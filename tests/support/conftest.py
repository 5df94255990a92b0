"""Writes docs/support.md after the tests, where that is asked for."""

from __future__ import annotations

import importlib
import os

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write docs/support.md where that was asked for, from what all test processes stored."""
    if os.environ.get("LANDSCAPE_WRITE_SUPPORT") and not hasattr(session.config, "workerinput"):
        importlib.import_module("landscape_test_support.page").write()
