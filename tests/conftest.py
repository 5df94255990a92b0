"""Fixtures that every test may use; the networks themselves stand in cases.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


def _load_cases() -> ModuleType:
    # pytest's importlib mode puts no folder on sys.path, so the module is registered under its own name here.
    if "landscape_test_cases" not in sys.modules:
        path = Path(__file__).with_name("cases.py")
        spec = importlib.util.spec_from_file_location("landscape_test_cases", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["landscape_test_cases"] = module
        spec.loader.exec_module(module)
    return sys.modules["landscape_test_cases"]


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    """The module tests/cases.py."""
    return _load_cases()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
