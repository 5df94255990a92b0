"""Fixtures that every test may use; the networks themselves stand in cases.py."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

# `python -m pytest` puts the checkout first on the path. Its folder `landscape` has no `callbacks`, which are mapped
# into the package when it is installed; so where an install stands beside the checkout, the install is tested.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).parents[1]]


# The thousands of tests and what they import stay until the end: the collector need not look through them.
gc.disable()


def pytest_collection_finish() -> None:
    """Switch the garbage collector on for what the tests make."""
    gc.enable()
    gc.collect()
    gc.freeze()


def _load(name: str) -> ModuleType:
    # pytest's importlib mode puts no folder on sys.path, so the module is registered under its own name here.
    full = f"landscape_test_{name}"
    if full not in sys.modules:
        path = Path(__file__).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


def _register(name: str) -> None:
    """Make the folder tests/<name> importable as the package landscape_test_<name>."""
    folder, full = Path(__file__).with_name(name), f"landscape_test_{name}"
    if full not in sys.modules:
        places = [str(folder)]
        spec = importlib.util.spec_from_file_location(full, folder / "__init__.py", submodule_search_locations=places)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])


_register("support")
_register("field")


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    """The module tests/cases.py."""
    return _load("cases")


@pytest.fixture(scope="session")
def processes() -> ModuleType:
    """The module tests/processes.py."""
    return _load("processes")


@pytest.fixture(scope="session")
def live() -> ModuleType:
    """The module tests/live.py."""
    return _load("live")


@pytest.fixture(scope="session")
def zoo(cases) -> dict[str, Any]:
    """The networks of tests/zoo.py by name."""
    module = _load("zoo")
    return {name: module.make(name, cases) for name in module.NAMES}


def _forked(work: Callable[..., None], *args: Any) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forks of processes with threads, which the child leaves
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.fixture(scope="session")
def forked() -> Callable[..., int]:
    """forked(work, *args) -> process id: run in a forked child, which starts warm and leaves without pytest's exit."""
    return _forked


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
